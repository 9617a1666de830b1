package webtransport_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// A server that echoes one stream of each session, and a client.
func Example() {
	serverTLS, clientTLS := testcert.New()

	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		s, err := webtransport.Accept(w, r, &webtransport.AcceptOptions{Origins: []string{"app.example.com"}})
		if err != nil {
			return // the client was told
		}
		stream, err := s.AcceptStream(s.Context())
		if err != nil {
			return
		}
		io.Copy(stream, stream)
		stream.Close()
	})
	srv := &http3.Server{TLS: serverTLS, Handler: mux}
	webtransport.ConfigureServer(srv, nil)
	cfg, err := srv.TransportConfig()
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := transport.ListenAddr(engine.Default(), "127.0.0.1:0", cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	go srv.Serve(ln) // until Close
	defer srv.Close()

	ctx := context.Background()
	tr := &http3.Transport{Engine: engine.Default(), TLS: clientTLS}
	s, err := webtransport.Dial(ctx, tr, "https://"+ln.Addr().String()+"/echo", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	stream, err := s.OpenStream(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := stream.WriteLast([]byte("hello")); err != nil {
		fmt.Println(err)
		return
	}
	echo, err := io.ReadAll(stream)
	fmt.Println(string(echo), err)
	s.CloseWithError(0, "thanks")
	<-s.Finished()
	// Output: hello <nil>
}

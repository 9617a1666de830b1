package http3_test

import (
	"fmt"
	"io"
	"net/http"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// A server for any handler, and a client for any http.Client.
func Example() {
	serverTLS, clientTLS := testcert.New()

	srv := &http3.Server{
		TLS: serverTLS,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello over %s", r.Proto)
		}),
	}
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

	tr := &http3.Transport{Engine: engine.Default(), TLS: clientTLS}
	defer tr.Close()
	client := &http.Client{Transport: tr}
	resp, err := client.Get("https://" + ln.Addr().String() + "/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err)
	// Output: hello over HTTP/3.0 <nil>
}

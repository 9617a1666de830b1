package allhttp_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/transport/engine"
)

// A server answers on one port, and a client finds its HTTP/3.
func Example() {
	certificate, err := allhttp.SelfSigned() // or CertFile and KeyFile of the Server
	if err != nil {
		log.Fatal(err)
	}
	server := &allhttp.Server{
		Engine:  engine.Default(),
		Addr:    "127.0.0.1:0",
		TLS:     certificate,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello over", r.Proto) }),
	}
	sockets, err := server.Listen()
	if err != nil {
		log.Fatal(err)
	}
	addr := sockets.Addrs()[0]
	served := make(chan error)
	go func() { served <- server.Serve(sockets) }()

	transport := &allhttp.Transport{Engine: engine.Default(), Base: &http.Transport{TLSClientConfig: trust(certificate)}}
	client := &http.Client{Transport: transport}
	fetch := func() string {
		resp, err := client.Get("https://" + addr.String())
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			log.Fatal(err)
		}
		return string(body)
	}
	first := fetch()
	next := fetch()
	for next == first { // until HTTP/3, of which the first response has told, is connected
		next = fetch()
	}
	fmt.Print(first, next)

	transport.Close()
	server.Shutdown(context.Background())
	fmt.Println(<-served)
	// Output:
	// hello over HTTP/2.0
	// hello over HTTP/3.0
	// http: Server closed
}

// The trace of a request says how it went.
func ExampleWithTrace() {
	ctx := allhttp.WithTrace(context.Background(), &allhttp.Trace{
		Chosen: func(c allhttp.Choice) { fmt.Println(c.Proto, c.Reason) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://example.com/", nil)
	if err != nil {
		log.Fatal(err)
	}
	_ = req // resp, err := client.Do(req)
}

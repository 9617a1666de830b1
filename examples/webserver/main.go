// Command webserver answers HTTP/1.1, HTTP/2 and HTTP/3 on one port.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/transport/engine"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello over %s\n", r.Proto)
	})
	// In place of http.ListenAndServeTLS("localhost:8443", "cert.pem", "key.pem", nil).
	log.Fatal(allhttp.ListenAndServeTLS(engine.Default(), "localhost:8443", "cert.pem", "key.pem", nil))
}

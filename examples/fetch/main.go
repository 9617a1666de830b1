// Command fetch asks the server of the other example over HTTP/3, or what is there.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/transport/engine"
)

func main() {
	trusted, err := os.ReadFile("cert.pem")
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trusted)

	tr := &allhttp.Transport{
		Engine: engine.Default(),
		Base:   &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
		Race:   true, // tries QUIC and TCP beside each other, also before the server has said that it has HTTP/3
	}
	defer tr.Close()
	resp, err := (&http.Client{Transport: tr}).Get("https://localhost:8443/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		log.Fatal(err)
	}
}

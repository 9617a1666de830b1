package main

import (
	"net/http"
	"strings"
)

// forwardingHeaders are what proxies add to requests, beside X-Forwarded-For and
// others that begin so.
var forwardingHeaders = []string{
	"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Original-Forwarded-For", "X-Original-Host",
	"X-Envoy-External-Address", "True-Client-Ip", "Cf-Connecting-Ip", "Cf-Ray", "Cdn-Loop", "Fastly-Client-Ip",
}

// forwarded reports whether a request has come through a proxy that lets it be seen.
// HTTP/1.0 is what nginx speaks to those behind it unless it is told otherwise, and
// nothing else does any more. A proxy that hides itself cannot be told from a
// program on this machine.
func forwarded(r *http.Request) bool {
	if !r.ProtoAtLeast(1, 1) {
		return true
	}
	for _, name := range forwardingHeaders {
		if _, ok := r.Header[name]; ok { // also an empty one
			return true
		}
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// refuseForwarded answers 403 to what a proxy forwards: who listens on loopback
// because nobody has to prove anything must not be opened to the network by it.
func refuseForwarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if forwarded(r) {
			http.Error(w, "this broker asks nobody who he is and is for this machine only, not for a proxy's clients: "+
				"start it with --users, --jwks, --client-ca or --auth-http, or with --allow-anonymous", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

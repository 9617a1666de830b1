// Package http2connect lets servers of net/http accept WebSocket over HTTP/2, by
// being imported:
//
//	import _ "github.com/anyquic/anyquic/http3/websocket/http2connect"
//
// It does what GODEBUG=http2xconnect=1 in the environment of the program does: the
// servers announce extended CONNECT (RFC 8441, Section 3). net/http reads that
// variable once, when the program starts, and knows no other way. Browsers then use
// HTTP/2 for WebSocket, with all handlers of the program, of which those that
// only know the Upgrade of HTTP/1.1 must be no part:
// https://go.dev/issue/71128. A program that has set http2xconnect itself is left
// alone.
package http2connect

import (
	"os"
	"strings"
)

// A package is initialized as soon as those it imports are, the first by import
// path first. This one imports none of the network, and its path sorts before
// net/http.
//
// https://go.dev/ref/spec#Program_initialization
func init() {
	const name = "GODEBUG"
	v := os.Getenv(name)
	if strings.Contains(v, "http2xconnect=") {
		return
	}
	if v != "" {
		v += ","
	}
	_ = os.Setenv(name, v+"http2xconnect=1") // without it, clients stay with HTTP/1.1
}

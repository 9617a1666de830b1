// Package allhttp serves and fetches over HTTP/1.1, HTTP/2 and HTTP/3: one port,
// one handler, one client.
//
//	Server:    TCP -> net/http ----\
//	           UDP -> package http3 -> http.Handler
//	Transport: http.Client -> the first of QUIC and TCP that connects
//
// A program that calls
//
//	http.ListenAndServeTLS(addr, certFile, keyFile, handler)
//
// serves HTTP/3 as well when it calls
//
//	allhttp.ListenAndServeTLS(engine, addr, certFile, keyFile, handler)
//
// and one with a http.Client fetches over HTTP/3, where that is offered, when
// the Client's Transport is an [*Transport]. The engine is what runs QUIC; the
// program chooses one of those that are compiled in.
//
// # How clients find HTTP/3
//
// A server says in its responses over HTTP/1.1 and HTTP/2 where its HTTP/3 is
// (Alt-Svc, RFC 7838). A Transport remembers that and, when it next needs a
// connection, starts with QUIC and adds TCP a moment later. Connections are
// raced, not requests: a request is sent on the one that was first.
//
// # WebSocket over HTTP/2
//
// A Transport sends extended CONNECT (RFC 8441) over HTTP/2. A Server, whose
// HTTP/2 is that of net/http, accepts it only in a process that starts with
// http2xconnect=1 in GODEBUG, in its environment: up to Go 1.26 net/http reads
// the variable itself, and a //go:debug line does not reach it. Importing
// package http3/websocket/http2connect has the same effect. Over HTTP/3 (RFC
// 9220) a Server always accepts it.
package allhttp

import (
	"fmt"
	"net/http"
	"strings"
)

// Versions are versions of HTTP. The zero value means all of them.
type Versions uint8

// The versions, to be combined with |.
const (
	HTTP1 Versions = 1 << iota // HTTP/1.1, which includes HTTP/1.0
	HTTP2
	HTTP3

	all = HTTP1 | HTTP2 | HTTP3
)

var versionNames = []struct {
	v    Versions
	name string
}{{HTTP1, "1.1"}, {HTTP2, "2"}, {HTTP3, "3"}}

// Has reports whether all of w are among v.
func (v Versions) Has(w Versions) bool { return v.orAll()&w == w }

// String returns what ParseVersions understands: "auto", "3", "1.1,2".
func (v Versions) String() string {
	if v.orAll() == all {
		return "auto"
	}
	var names []string
	for _, n := range versionNames {
		if v.Has(n.v) {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ",")
}

// ParseVersions understands "auto" and "", which mean all versions, and lists
// of "1.1", "2" and "3" with commas.
func ParseVersions(s string) (Versions, error) {
	if s == "" || strings.EqualFold(s, "auto") {
		return all, nil
	}
	var v Versions
next:
	for part := range strings.SplitSeq(s, ",") {
		for _, n := range versionNames {
			if strings.TrimSpace(part) == n.name {
				v |= n.v
				continue next
			}
		}
		return 0, fmt.Errorf("allhttp: unknown version of HTTP %q: have auto, 1.1, 2, 3", part)
	}
	return v, nil
}

func (v Versions) orAll() Versions {
	if v == 0 {
		return all
	}
	return v
}

// tcp reports whether there is a version that net/http speaks.
func (v Versions) tcp() bool { return v.orAll()&(HTTP1|HTTP2) != 0 }

func (v Versions) check() error {
	if v&^all != 0 {
		return fmt.Errorf("allhttp: unknown Versions %#x", uint8(v))
	}
	return nil
}

// protocols returns what net/http is to speak.
func (v Versions) protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(v.Has(HTTP1))
	p.SetHTTP2(v.Has(HTTP2))
	return p
}

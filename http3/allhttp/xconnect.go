package allhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/net/http2"
)

// extendedConnect reports whether a request is an extended CONNECT.
//
// https://www.rfc-editor.org/rfc/rfc8441#section-4
func extendedConnect(req *http.Request) bool {
	return req.Method == http.MethodConnect && len(req.Header[":protocol"]) > 0
}

type closingRoundTripper interface {
	http.RoundTripper
	CloseIdleConnections()
}

// newHTTP2 returns what sends extended CONNECT over HTTP/2, which a
// http.Transport refuses to. It has connections of its own.
func (t *Transport) newHTTP2() closingRoundTripper {
	return &http2.Transport{ //nolint:staticcheck // its successor is the http.Transport
		DialTLSContext:  t.dialHTTP2,            //nolint:staticcheck // as above
		IdleConnTimeout: t.base.IdleConnTimeout, //nolint:staticcheck // as above
	}
}

// dialHTTP2 makes a connection for HTTP/2, or returns the one that has won a
// race.
func (t *Transport) dialHTTP2(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
	if call, _ := ctx.Value(tcpCallKey{}).(*tcpCall); call != nil && call.race != nil {
		if c := call.race.take(); c != nil {
			if tc, ok := c.(*tls.Conn); ok && tc.ConnectionState().NegotiatedProtocol == "h2" {
				return c, nil
			}
			c.Close()
			return nil, errNotHTTP2
		}
	}
	c, err := t.dialReady(ctx, network, addr, "")
	if err != nil {
		return nil, err
	}
	if tc, ok := c.(*tls.Conn); !ok || tc.ConnectionState().NegotiatedProtocol != "h2" {
		c.Close()
		return nil, errNotHTTP2
	}
	return c, nil
}

var errNotHTTP2 = errors.New("allhttp: the server does not speak HTTP/2")

// roundTripConnect sends an extended CONNECT over HTTP/2.
func (t *Transport) roundTripConnect(req *http.Request, reason Reason) (*http.Response, error) {
	var err error
	switch {
	case !t.Versions.Has(HTTP2):
		err = fmt.Errorf("allhttp: extended CONNECT needs HTTP/2 or HTTP/3, of which there is neither among %q for the server", t.Versions)
	case reason == ReasonProxy, reason == ReasonScheme:
		err = fmt.Errorf("allhttp: extended CONNECT is not sent this way: %s", reason)
	default:
		return t.http2.RoundTrip(req)
	}
	closeBody(req)
	return nil, err
}

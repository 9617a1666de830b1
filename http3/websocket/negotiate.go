package websocket

import (
	"crypto/sha1" //nolint:gosec // what RFC 6455 asks for: it protects nothing
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws/wsflate"
)

const (
	headerExtensions = "Sec-Websocket-Extensions"
	headerProtocol   = "Sec-Websocket-Protocol"
	headerVersion    = "Sec-Websocket-Version"
	headerKey        = "Sec-Websocket-Key"
	headerAccept     = "Sec-Websocket-Accept"

	version = "13"

	// connectProtocol is the name of an extended CONNECT's protocol in a
	// http.Header.
	connectProtocol = ":protocol"
	protocolName    = "websocket"
)

// acceptKey answers a Sec-WebSocket-Key.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-4.2.2
func acceptKey(key string) string {
	h := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(h[:])
}

// tokens returns the elements of a list.
func tokens(h http.Header, key string) []string {
	var list []string
	for _, v := range h[key] {
		for t := range strings.SplitSeq(v, ",") {
			if t = strings.TrimSpace(t); t != "" {
				list = append(list, t)
			}
		}
	}
	return list
}

func hasToken(h http.Header, key, token string) bool {
	return slices.ContainsFunc(tokens(h, key), func(t string) bool { return strings.EqualFold(t, token) })
}

// chooseSubprotocol returns the first of the server's that the client offers.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-4.2.2
func chooseSubprotocol(h http.Header, ours []string) string {
	offered := tokens(h, headerProtocol)
	for _, p := range ours {
		if slices.Contains(offered, p) {
			return p
		}
	}
	return ""
}

// agreed are the parameters of permessage-deflate that this side keeps to:
// each message for itself. See inflater.
func agreed() wsflate.Parameters {
	return wsflate.Parameters{ServerNoContextTakeover: true, ClientNoContextTakeover: true}
}

// chooseDeflate returns the answer to the first offer of permessage-deflate that
// this side can honour, or "". A smaller window for what it sends it cannot.
//
// https://www.rfc-editor.org/rfc/rfc7692#section-7.1
func chooseDeflate(h http.Header) string {
	for _, v := range h[headerExtensions] {
		options, ok := httphead.ParseOptions([]byte(v), nil)
		if !ok {
			continue
		}
		for _, o := range options {
			var p wsflate.Parameters
			if string(o.Name) != wsflate.ExtensionName || p.Parse(o) != nil {
				continue
			}
			if p.ServerMaxWindowBits != 0 && p.ServerMaxWindowBits != maxWindowBits {
				continue
			}
			answer := agreed()
			answer.ServerMaxWindowBits = p.ServerMaxWindowBits
			return formatDeflate(answer)
		}
	}
	return ""
}

// maxWindowBits is the window of compress/flate.
const maxWindowBits = 15

func formatDeflate(p wsflate.Parameters) string {
	var b strings.Builder
	_, _ = httphead.WriteOptions(&b, []httphead.Option{p.Option()}) // a Builder takes everything
	return b.String()
}

// checkDeflate reads the server's answer to our offer.
func checkDeflate(h http.Header, offered bool) (agreed bool, err error) {
	values := h[headerExtensions]
	if len(values) == 0 {
		return false, nil
	}
	options, ok := httphead.ParseOptions([]byte(strings.Join(values, ",")), nil)
	var p wsflate.Parameters
	switch {
	case !ok || !offered || len(options) != 1 || string(options[0].Name) != wsflate.ExtensionName:
		return false, fmt.Errorf("extensions %q", values)
	case p.Parse(options[0]) != nil, !p.ServerNoContextTakeover, p.ClientMaxWindowBits != 0:
		// It was asked for the first and not offered the last.
		return false, fmt.Errorf("extension %q", values)
	}
	return true, nil
}

// checkOrigin reports whether a page from the request's Origin may connect.
// Clients that are no browsers send none.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-10.2
func checkOrigin(r *http.Request, patterns []string) error {
	origins := r.Header.Values("Origin")
	origin := strings.Join(origins, ", ")
	if origin == "" {
		return nil // no browser
	}
	u, err := url.Parse(origin)
	if err != nil || len(origins) > 1 || u.Host == "" {
		return fmt.Errorf("origin %q", origin)
	}
	// Without TLS here, there may be some at a proxy in front.
	if strings.EqualFold(u.Host, r.Host) && (u.Scheme == "https" || r.TLS == nil) {
		return nil
	}
	for _, p := range patterns {
		target := u.Host
		if strings.Contains(p, "://") {
			target = u.Scheme + "://" + u.Host
		}
		if ok, err := path.Match(strings.ToLower(p), strings.ToLower(target)); ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("origin %q is not allowed", origin)
}

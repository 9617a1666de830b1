package webtransport

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// originAllowed reports whether a page of the request's Origin may start a
// session. A request without that field is not from a browser.
//
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-3.2
func originAllowed(r *http.Request, allowed []string) bool {
	values := r.Header["Origin"]
	if len(values) == 0 {
		return true
	}
	if len(values) > 1 {
		return false
	}
	for _, pattern := range allowed {
		if pattern == "*" {
			return true
		}
	}
	scheme, host, port, ok := splitOrigin(values[0])
	if !ok {
		return false // also "null", which anybody can be
	}
	if _, ownHost, ownPort, ok := splitOrigin("https://" + r.Host); ok && scheme == "https" && host == ownHost && port == ownPort {
		return true
	}
	for _, pattern := range allowed {
		if matchOrigin(pattern, scheme, host, port) {
			return true
		}
	}
	return false
}

// splitOrigin takes an origin apart.
//
// https://www.rfc-editor.org/rfc/rfc6454#section-6.1
func splitOrigin(origin string) (scheme, host, port string, ok bool) {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", "", "", false
	}
	scheme, host, port = strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		port = defaultPort(scheme)
	}
	return scheme, host, port, host != ""
}

func defaultPort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	}
	return ""
}

// matchOrigin reports whether an origin is one of those that pattern stands for.
func matchOrigin(pattern, scheme, host, port string) bool {
	pattern = strings.ToLower(pattern)
	if s, rest, ok := strings.Cut(pattern, "://"); ok {
		if s != scheme {
			return false
		}
		pattern = rest
	} else if scheme != "https" {
		return false
	}
	wantHost, wantPort, err := net.SplitHostPort(pattern)
	if err != nil {
		wantHost, wantPort = strings.Trim(pattern, "[]"), defaultPort(scheme)
	}
	if wantPort != "*" && wantPort != port {
		return false
	}
	if suffix, ok := strings.CutPrefix(wantHost, "*"); ok && strings.HasPrefix(suffix, ".") {
		return len(host) > len(suffix) && strings.HasSuffix(host, suffix)
	}
	return wantHost == host
}

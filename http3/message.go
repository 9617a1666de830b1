package http3

import (
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// malformed is the error of a message that breaks a rule.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2
func malformed(format string, args ...any) error {
	return streamError(ErrMessage, format, args...)
}

// A requestHead is what the fields of a request say.
type requestHead struct {
	method, scheme, authority, path string
	protocol                        string // of an extended CONNECT
	header                          http.Header
	contentLength                   int64 // -1: not said
}

// A responseHead is what the fields of a response say.
type responseHead struct {
	status        int
	header        http.Header
	contentLength int64 // -1: not said
}

// A sectionReader checks the fields of a section in their order.
type sectionReader struct {
	header        http.Header
	values        []string // those of header are cut from it
	regular       bool     // a regular field was seen
	contentLength int64
	cookies       []string // after the first
}

func newSectionReader(n int) sectionReader {
	return sectionReader{header: make(http.Header, n), values: make([]string, 0, n), contentLength: -1}
}

// pseudo sets *to, which is empty unless the field is repeated.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.3
func (r *sectionReader) pseudo(to *string, seen *bool, f field) error {
	switch {
	case r.regular:
		return malformed("%s after a regular field", f.name)
	case *seen:
		return malformed("%s twice", f.name)
	case !validFieldText(f.value):
		return malformed("%s with a forbidden character", f.name)
	}
	*to, *seen = f.value, true
	return nil
}

// field adds a regular field.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.2
func (r *sectionReader) field(f field) error {
	r.regular = true
	if !validFieldName(f.name) {
		return malformed("field name %q", f.name)
	}
	if !validFieldValue(f.value) {
		return malformed("value of field %s", f.name)
	}
	switch f.name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return malformed("connection-specific field %s", f.name)
	case "te":
		if f.value != "trailers" {
			return malformed("te: %q", f.value)
		}
	case "content-length":
		n, ok := parseContentLength(f.value)
		if !ok || r.contentLength >= 0 && n != r.contentLength {
			return malformed("content-length %q", f.value)
		}
		if r.contentLength >= 0 {
			return nil // said again
		}
		r.contentLength = n
	case "cookie":
		// https://www.rfc-editor.org/rfc/rfc9114#section-4.2.1
		if r.header["Cookie"] != nil {
			r.cookies = append(r.cookies, f.value) // end joins them: there may be thousands
			return nil
		}
	}
	r.add(http.CanonicalHeaderKey(f.name), f.value)
	return nil
}

// end returns the header of the section.
func (r *sectionReader) end() http.Header {
	if len(r.cookies) > 0 {
		v := r.header["Cookie"]
		v[0] += "; " + strings.Join(r.cookies, "; ")
	}
	return r.header
}

// add does what Header.Add does, with one allocation for the values of all
// fields that occur once.
func (r *sectionReader) add(key, value string) {
	if vv := r.header[key]; vv != nil {
		r.header[key] = append(vv, value)
		return
	}
	if len(r.values) == cap(r.values) {
		r.header[key] = []string{value}
		return
	}
	r.values = append(r.values, value)
	n := len(r.values)
	r.header[key] = r.values[n-1 : n : n]
}

// parseContentLength accepts digits only, and repetitions of one value, as
// RFC 9110, Section 8.6 allows.
func parseContentLength(s string) (n int64, ok bool) {
	for first := true; ; first = false {
		value, rest, more := strings.Cut(s, ",")
		value = textproto.TrimString(value)
		if value == "" || value[0] == '+' || value[0] == '-' {
			return 0, false
		}
		m, err := strconv.ParseInt(value, 10, 64)
		if err != nil || !first && m != n {
			return 0, false
		}
		if !more {
			return m, true
		}
		n, s = m, rest
	}
}

// parseRequest checks the head of a request. extended: this side allows
// extended CONNECT.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
func parseRequest(fields []field, extended bool) (*requestHead, error) {
	h := new(requestHead)
	r := newSectionReader(len(fields))
	var method, scheme, authority, path, protocol bool // seen
	for _, f := range fields {
		var err error
		switch f.name {
		case ":method":
			err = r.pseudo(&h.method, &method, f)
		case ":scheme":
			err = r.pseudo(&h.scheme, &scheme, f)
		case ":authority":
			err = r.pseudo(&h.authority, &authority, f)
		case ":path":
			err = r.pseudo(&h.path, &path, f)
		case ":protocol":
			err = r.pseudo(&h.protocol, &protocol, f)
		default:
			if strings.HasPrefix(f.name, ":") {
				return nil, malformed("pseudo-header %q in a request", f.name)
			}
			err = r.field(f)
		}
		if err != nil {
			return nil, err
		}
	}
	h.header, h.contentLength = r.end(), r.contentLength
	switch {
	case !validToken(h.method):
		return nil, malformed(":method %q", h.method)
	case protocol && (h.method != http.MethodConnect || !extended || h.protocol == ""):
		// https://www.rfc-editor.org/rfc/rfc9220#section-3
		return nil, malformed(":protocol %q with %s", h.protocol, h.method)
	case h.method == http.MethodConnect && !protocol:
		// https://www.rfc-editor.org/rfc/rfc9114#section-4.4
		if scheme || path || !validAuthority(h.authority) || r.contentLength >= 0 {
			return nil, malformed("CONNECT with :scheme, :path or content-length, or without :authority")
		}
	default:
		if err := h.checkTarget(); err != nil {
			return nil, err
		}
	}
	// https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
	host, said := h.header["Host"]
	switch {
	case !said:
	case len(host) > 1 || authority && host[0] != h.authority:
		return nil, malformed(":authority %q with host %q", h.authority, host)
	default:
		h.authority = host[0]
	}
	if !validAuthority(h.authority) {
		return nil, malformed(":authority %q", h.authority)
	}
	delete(h.header, "Host")
	return h, nil
}

// checkTarget checks :scheme and :path.
func (h *requestHead) checkTarget() error {
	switch {
	case !validScheme(h.scheme):
		return malformed(":scheme %q", h.scheme)
	case h.path == "*" && h.method == http.MethodOptions:
		return nil
	case !strings.HasPrefix(h.path, "/"):
		return malformed(":path %q", h.path)
	}
	return nil
}

// parseResponse checks the head of a response.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.3.2
func parseResponse(fields []field) (*responseHead, error) {
	h := new(responseHead)
	r := newSectionReader(len(fields))
	var status string
	var seen bool
	for _, f := range fields {
		var err error
		switch {
		case f.name == ":status":
			err = r.pseudo(&status, &seen, f)
		case strings.HasPrefix(f.name, ":"):
			return nil, malformed("pseudo-header %q in a response", f.name)
		default:
			err = r.field(f)
		}
		if err != nil {
			return nil, err
		}
	}
	h.header, h.contentLength = r.end(), r.contentLength
	var err error
	h.status, err = strconv.Atoi(status)
	// https://www.rfc-editor.org/rfc/rfc9114#section-4.5: no 101.
	if err != nil || len(status) != 3 || h.status < 100 || h.status == http.StatusSwitchingProtocols {
		return nil, malformed(":status %q", status)
	}
	return h, nil
}

// parseTrailers checks a trailer section.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.3
func parseTrailers(fields []field) (http.Header, error) {
	r := newSectionReader(len(fields))
	for _, f := range fields {
		if strings.HasPrefix(f.name, ":") {
			return nil, malformed("pseudo-header %q in trailers", f.name)
		}
		if validFieldName(f.name) && forbiddenTrailer(http.CanonicalHeaderKey(f.name)) {
			continue // https://www.rfc-editor.org/rfc/rfc9110#section-6.5.1
		}
		if err := r.field(f); err != nil {
			return nil, err
		}
	}
	return r.end(), nil
}

// A contentCounter checks that content-length tells the truth.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2
type contentCounter struct {
	declared int64 // -1: not
	seen     int64
}

func (c *contentCounter) add(n int) error {
	c.seen += int64(n)
	if c.declared >= 0 && c.seen > c.declared {
		return malformed("content exceeds content-length %d", c.declared)
	}
	return nil
}

func (c *contentCounter) end() error {
	if c.declared >= 0 && c.seen != c.declared {
		return &Error{Code: ErrMessage, Err: io.ErrUnexpectedEOF,
			Reason: fmt.Sprintf("content of %d bytes with content-length %d", c.seen, c.declared)}
	}
	return nil
}

// url returns what net/http's server puts into Request.URL, and RequestURI.
func (h *requestHead) url() (u *url.URL, uri string, err error) {
	if h.method == http.MethodConnect && h.protocol == "" {
		return &url.URL{Host: h.authority}, h.authority, nil
	}
	u, err = url.ParseRequestURI(h.path)
	if err != nil {
		return nil, "", malformed(":path %q", h.path)
	}
	return u, h.path, nil
}

// skipField reports whether a field of a http.Header must not be sent.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.2
func skipField(key string) bool {
	switch key {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Host":
		return true
	}
	return false
}

// appendHeader appends the fields of h that may be sent and that drop, if it is
// not nil, does not refuse. What cannot be sent as it is is left out, as
// net/http does.
func appendHeader(dst []field, h http.Header, drop func(key string) bool) []field {
	for k, vv := range h {
		if skipField(k) || drop != nil && drop(k) {
			continue
		}
		name := lowerField(k)
		if !validFieldName(name) {
			continue
		}
		for _, v := range vv {
			if v = textproto.TrimString(v); !validFieldText(v) {
				continue
			}
			if name == "te" && v != "trailers" {
				continue
			}
			dst = append(dst, field{name, v})
		}
	}
	return dst
}

// lowerField lowers a canonical field name. Common ones cost no allocation.
func lowerField(k string) string {
	if l, ok := lowered[k]; ok {
		return l
	}
	return strings.ToLower(k)
}

var lowered = func() map[string]string {
	m := make(map[string]string)
	for _, n := range []string{
		"accept", "accept-encoding", "accept-language", "accept-ranges", "access-control-allow-origin", "age", "alt-svc",
		"authorization", "cache-control", "content-disposition", "content-encoding", "content-language", "content-length",
		"content-range", "content-security-policy", "content-type", "cookie", "date", "etag", "expires", "if-modified-since",
		"if-none-match", "last-modified", "link", "location", "origin", "priority", "range", "referer", "retry-after", "server",
		"set-cookie", "strict-transport-security", "trailer", "user-agent", "vary", "www-authenticate", "x-content-type-options",
		"x-forwarded-for", "x-frame-options", "x-powered-by", "x-request-id",
	} {
		m[http.CanonicalHeaderKey(n)] = n
	}
	return m
}()

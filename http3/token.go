package http3

import "strings"

// tokenChar says which bytes are allowed in a token.
//
// https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
var tokenChar = charTable("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

// hostChar says which bytes are allowed in a host with a port.
//
// https://www.rfc-editor.org/rfc/rfc3986#section-3.2.2
var hostChar = charTable("!$%&'()*+,-.:;=[]_~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

func charTable(s string) (t [256]bool) {
	for i := range len(s) {
		t[s[i]] = true
	}
	return t
}

func all(s string, t *[256]bool) bool {
	for i := range len(s) {
		if !t[s[i]] {
			return false
		}
	}
	return s != ""
}

func validToken(s string) bool { return all(s, &tokenChar) }

// validFieldName reports whether name is a token without upper-case letters.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.2
func validFieldName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' {
			return false
		}
	}
	return validToken(name)
}

// validFieldText reports whether v has no control characters but tabs.
func validFieldText(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// validFieldValue reports whether v is a field-value: text without white space
// at its ends.
//
// https://www.rfc-editor.org/rfc/rfc9110#section-5.5
// https://www.rfc-editor.org/rfc/rfc9114#section-10.3
func validFieldValue(v string) bool {
	return validFieldText(v) && strings.Trim(v, " \t") == v
}

// validAuthority reports whether s is a host with or without port. User
// information is forbidden (RFC 9114, Section 4.3.1).
func validAuthority(s string) bool { return all(s, &hostChar) }

// https://www.rfc-editor.org/rfc/rfc3986#section-3.1
func validScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(s[i]))) {
			return false
		}
	}
	return s != ""
}

// forbiddenTrailer are the fields that control framing, routing,
// authentication, or that must be known before the content.
//
// https://www.rfc-editor.org/rfc/rfc9110#section-6.5.1
func forbiddenTrailer(key string) bool {
	switch key {
	case "Authorization", "Cache-Control", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type",
		"Expect", "Host", "Max-Forwards", "Pragma", "Proxy-Authenticate", "Proxy-Authorization", "Range", "Realm",
		"Te", "Trailer", "Www-Authenticate":
		return true
	}
	return strings.HasPrefix(key, "If-")
}

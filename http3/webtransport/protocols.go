package webtransport

import (
	"net/http"
	"slices"
	"strings"
)

// Header fields of the negotiation of an application protocol.
//
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-3.3
const (
	headerAvailable = "Wt-Available-Protocols"
	headerProtocol  = "Wt-Protocol"
)

// maxProtocols bounds what a client may offer; a longer list is ignored.
const maxProtocols = 128

// validProtocol reports whether a name can be a String of structured fields.
//
// https://www.rfc-editor.org/rfc/rfc9651#section-3.3.3
func validProtocol(name string) bool {
	for _, c := range []byte(name) {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return name != ""
}

// formatStrings returns a List of Strings.
//
// https://www.rfc-editor.org/rfc/rfc9651#section-4.1.6
func formatStrings(names ...string) string {
	var b strings.Builder
	for i, n := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('"')
		for _, c := range []byte(n) {
			if c == '"' || c == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
		b.WriteByte('"')
	}
	return b.String()
}

// parseStrings parses the lines of a field as a List of Strings. Parameters mean
// nothing. It reports false if the field must be ignored: it is something else.
//
// https://www.rfc-editor.org/rfc/rfc9651#section-4.2.1
func parseStrings(lines []string) (names []string, ok bool) {
	p := &fieldParser{strings.Join(lines, ",")}
	p.skip(" ")
	for p.rest != "" {
		name, ok := p.string()
		if !ok || !p.parameters() || len(names) == maxProtocols {
			return nil, false
		}
		names = append(names, name)
		p.skip(" \t")
		if p.rest == "" {
			break
		}
		if !p.take(',') {
			return nil, false
		}
		if p.skip(" \t"); p.rest == "" {
			return nil, false // a comma at the end
		}
	}
	return names, len(names) > 0
}

// A fieldParser is what is left of a structured field.
type fieldParser struct{ rest string }

func (p *fieldParser) skip(set string) { p.rest = strings.TrimLeft(p.rest, set) }

func (p *fieldParser) take(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// string takes a String.
//
// https://www.rfc-editor.org/rfc/rfc9651#section-4.2.5
func (p *fieldParser) string() (string, bool) {
	if !p.take('"') {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c == '\\':
			i++
			if i == len(p.rest) || p.rest[i] != '"' && p.rest[i] != '\\' {
				return "", false
			}
			b.WriteByte(p.rest[i])
		case c < 0x20 || c > 0x7e:
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// parameters skips the parameters of an Item. Of their values only the end
// matters.
//
// https://www.rfc-editor.org/rfc/rfc9651#section-4.2.3.2
func (p *fieldParser) parameters() bool {
	for p.take(';') {
		p.skip(" ")
		if p.rest == "" || !strings.ContainsRune("*abcdefghijklmnopqrstuvwxyz", rune(p.rest[0])) {
			return false
		}
		p.skip("*_-.abcdefghijklmnopqrstuvwxyz0123456789")
		if !p.take('=') {
			continue
		}
		if strings.HasPrefix(p.rest, `"`) {
			if _, ok := p.string(); !ok {
				return false
			}
			continue
		}
		before := len(p.rest)
		p.skip("!#$%&'*+-.^_`|~:/@?0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ=")
		if len(p.rest) == before {
			return false
		}
	}
	return true
}

// offered returns the protocols that a client offers.
func offered(h http.Header) []string {
	names, _ := parseStrings(h.Values(headerAvailable))
	return names
}

// choose returns the first of own that the client offers, or "".
func choose(own, offers []string) string {
	for _, name := range own {
		if slices.Contains(offers, name) {
			return name
		}
	}
	return ""
}

// chosen returns the protocol of a response, or "". It reports false if that was
// not offered.
func chosen(h http.Header, offers []string) (string, bool) {
	names, ok := parseStrings(h.Values(headerProtocol))
	if !ok || len(names) != 1 {
		return "", true // the field is ignored
	}
	return names[0], slices.Contains(offers, names[0])
}

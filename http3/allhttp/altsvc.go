package allhttp

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	// maxAltSvc bounds the field's value, and maxAlternatives what is kept of
	// it.
	maxAltSvc       = 8 << 10 // bytes
	maxAlternatives = 8

	// maxAltSvcAge bounds how long an origin's word counts.
	maxAltSvcAge = 365 * 24 * time.Hour
)

// An alternative is where an origin says that its HTTP/3 is.
type alternative struct {
	host    string // lower case, without brackets; empty: the origin's
	port    uint16
	maxAge  time.Duration
	persist bool // also in another network
}

// authority returns the alternative of the origin as "host:port".
func (a alternative) authority(originHost string) string {
	host := a.host
	if host == "" {
		host = originHost
	}
	return net.JoinHostPort(host, strconv.Itoa(int(a.port)))
}

// parseAltSvc returns the alternatives with HTTP/3 in the value of an Alt-Svc
// field, or that the origin wants all that were said before to be forgotten. It
// reports false for a value that is malformed.
//
// https://www.rfc-editor.org/rfc/rfc7838#section-3
func parseAltSvc(value string) (alts []alternative, clear, ok bool) {
	if len(value) > maxAltSvc {
		return nil, false, false
	}
	p := fieldParser(value)
	members := 0
	for {
		p.space()
		switch {
		case p == "":
			return alts, clear, members > 0
		case p.take(","): // empty members are allowed: RFC 9110, Section 5.6.1
			continue
		}
		id := p.token()
		if id == "" {
			return nil, false, false
		}
		members++
		if id == "clear" && !p.has("=") {
			// Among alternatives, it is still meant.
			clear = true
		} else {
			a, ok := p.alternative()
			if !ok {
				return nil, false, false
			}
			if id == "h3" && a.port != 0 && len(alts) < maxAlternatives {
				alts = append(alts, a)
			}
		}
		p.space()
		if p != "" && !p.take(",") {
			return nil, false, false
		}
	}
}

// alternative parses what follows the protocol's name. A port of 0 means that
// it is none that a client could use.
func (p *fieldParser) alternative() (a alternative, ok bool) {
	if !p.take("=") {
		return a, false
	}
	authority, ok := p.quoted()
	if !ok {
		return a, false
	}
	a.host, a.port = splitAltAuthority(authority)
	a.maxAge = defaultAltSvcMaxAge
	for {
		p.space()
		if !p.take(";") {
			return a, true
		}
		p.space()
		name := p.token()
		if name == "" || !p.take("=") {
			return a, false
		}
		value := p.token()
		if value == "" {
			if value, ok = p.quoted(); !ok {
				return a, false
			}
		}
		switch strings.ToLower(name) {
		case "ma":
			if a.maxAge, ok = deltaSeconds(value); !ok {
				return a, false
			}
		case "persist":
			// https://www.rfc-editor.org/rfc/rfc7838#section-3.1: other values
			// are to be ignored.
			a.persist = value == "1"
		}
	}
}

// deltaSeconds parses a number of seconds of any size.
//
// https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2
func deltaSeconds(s string) (time.Duration, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || time.Duration(n)*time.Second > maxAltSvcAge {
		return maxAltSvcAge, true
	}
	return time.Duration(n) * time.Second, true
}

// splitAltAuthority returns the parts of [host]:port, or port 0.
func splitAltAuthority(s string) (host string, port uint16) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil || !validAltHost(host) {
		return "", 0
	}
	if strings.Trim(digits, "0123456789") != "" {
		return "", 0
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return "", 0
	}
	return strings.ToLower(host), uint16(n)
}

// validAltHost reports whether an address or a name could be found.
func validAltHost(host string) bool {
	if strings.Contains(host, ":") {
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.Zone() == ""
	}
	for _, c := range []byte(host) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return len(host) <= 253
}

// A fieldParser is what is left of a field's value.
type fieldParser string

func (p *fieldParser) space() { *p = fieldParser(strings.TrimLeft(string(*p), " \t")) }

func (p fieldParser) has(prefix string) bool { return strings.HasPrefix(string(p), prefix) }

func (p *fieldParser) take(prefix string) bool {
	rest, ok := strings.CutPrefix(string(*p), prefix)
	if ok {
		*p = fieldParser(rest)
	}
	return ok
}

// token takes a token (RFC 9110, Section 5.6.2), or nothing.
func (p *fieldParser) token() string {
	i := 0
	for i < len(*p) && tokenChar((*p)[i]) {
		i++
	}
	t := string((*p)[:i])
	*p = (*p)[i:]
	return t
}

func tokenChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// quoted takes a quoted string (RFC 9110, Section 5.6.4).
func (p *fieldParser) quoted() (string, bool) {
	if !p.take(`"`) {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(*p); i++ {
		switch c := (*p)[i]; c {
		case '"':
			*p = (*p)[i+1:]
			return b.String(), true
		case '\\':
			if i++; i == len(*p) {
				return "", false
			}
			b.WriteByte((*p)[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

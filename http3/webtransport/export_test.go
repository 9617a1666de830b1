package webtransport

import "github.com/anyquic/anyquic/http3"

// Held returns how many sessions, reservations and early streams a connection has.
func Held(c *http3.Conn) int {
	r := registryOf(c)
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions) + r.starting + r.waiting + len(r.early)
}

// Tracked returns how many of its streams a session keeps.
func Tracked(s *Session) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// For tests of what no peer can be made to say.
var (
	ToHTTP        = toHTTP
	FromHTTP      = fromHTTP
	ParseStrings  = parseStrings
	FormatStrings = formatStrings
	OriginAllowed = originAllowed
)

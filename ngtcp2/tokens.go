//go:build ngtcp2 && cgo

package ngtcp2

import (
	"container/list"
	"sync"
)

// Address validation tokens are kept in memory for this many server names.
const (
	tokenServers    = 64
	tokensForServer = 4
	maxToken        = 1200 // bytes; a longer one would not fit into a first packet
)

// Tokens are the address validation tokens that servers gave to clients of an
// endpoint in NEW_TOKEN frames (RFC 9000, Section 8.1.3). Those of the server
// that was used least recently are forgotten first.
type tokens struct {
	mu     sync.Mutex
	byName map[string]*list.Element
	recent list.List // of *serverTokens, the most recently used first
}

type serverTokens struct {
	server string
	tokens [][]byte // the oldest first
}

// take removes and returns the newest token of a server, or nil: a token is
// used once, so that it cannot link connections.
func (t *tokens) take(server string) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	el := t.byName[server]
	if el == nil {
		return nil
	}
	s := el.Value.(*serverTokens)
	last := len(s.tokens) - 1
	token := s.tokens[last]
	s.tokens[last] = nil
	s.tokens = s.tokens[:last]
	if last == 0 {
		t.recent.Remove(el)
		delete(t.byName, server)
	} else {
		t.recent.MoveToFront(el)
	}
	return token
}

// tokensOf is under which name the tokens of c's server are kept: what somebody
// said whose certificate was not verified does not count for who has that name.
func (c *conn) tokensOf(ts *tlsState) string {
	if ts.serverName != "" && ts.tls.InsecureSkipVerify {
		return "\x00" + ts.serverName
	}
	return ts.serverName
}

// drop forgets the tokens of a server that has refused one: it would refuse the
// others too.
func (t *tokens) drop(server string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if el := t.byName[server]; el != nil {
		t.recent.Remove(el)
		delete(t.byName, server)
	}
}

// put keeps a copy of token.
func (t *tokens) put(server string, token []byte) {
	if server == "" || len(token) == 0 || len(token) > maxToken {
		return
	}
	token = append([]byte(nil), token...)
	t.mu.Lock()
	defer t.mu.Unlock()
	el := t.byName[server]
	if el == nil {
		if t.byName == nil {
			t.byName = make(map[string]*list.Element)
		}
		if t.recent.Len() == tokenServers {
			oldest := t.recent.Back()
			delete(t.byName, oldest.Value.(*serverTokens).server)
			t.recent.Remove(oldest)
		}
		el = t.recent.PushFront(&serverTokens{server: server})
		t.byName[server] = el
	} else {
		t.recent.MoveToFront(el)
	}
	s := el.Value.(*serverTokens)
	if len(s.tokens) == tokensForServer {
		copy(s.tokens, s.tokens[1:])
		s.tokens[tokensForServer-1] = token
		return
	}
	s.tokens = append(s.tokens, token)
}

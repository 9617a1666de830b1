package http3

import "sync"

// A decoding counts the messages of a connection that may still have to be decoded.
// The peer can have ended the connection behind its last response, which is read
// after that: the codec lives as long as both.
type decoding struct {
	mu       sync.Mutex
	messages int  // guarded by mu
	over     bool // guarded by mu; the connection has ended
}

// holdCodec keeps the codec until the end of s.
func (s *Stream) holdCodec() {
	d := &s.conn.decoding
	d.mu.Lock()
	defer d.mu.Unlock()
	s.holds = true
	d.messages++
}

// releaseCodec is called when s has ended, at most once.
func (s *Stream) releaseCodec() {
	if s.holds {
		s.conn.doneDecoding(1, false)
	}
}

// endCodec is called when the connection has ended.
func (c *Conn) endCodec() { c.doneDecoding(0, true) }

func (c *Conn) doneDecoding(messages int, over bool) {
	d := &c.decoding
	d.mu.Lock()
	defer d.mu.Unlock()
	d.messages -= messages
	d.over = d.over || over
	if d.over && d.messages == 0 {
		c.codec.end()
	}
}

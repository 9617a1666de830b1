package webtransport

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

// maxGone is how many sessions that have ended a connection remembers, so that
// their last streams are rejected at once and for the right reason.
const maxGone = 64

// A registry are the sessions of a connection, and the streams that came before
// theirs.
type registry struct {
	conn *http3.Conn
	cfg  *Config

	mu       sync.Mutex
	sessions map[transport.StreamID]*Session // guarded by mu
	starting int                             // sessions reserved and not yet in sessions; guarded by mu
	early    map[transport.StreamID][]*earlyStream
	waiting  int                  // in early; guarded by mu
	gone     []transport.StreamID // the last that ended; guarded by mu
}

type registryKey struct{}

// registryOf returns nil if the connection was not configured for sessions.
func registryOf(c *http3.Conn) *registry {
	r, _ := c.Value(registryKey{}).(*registry)
	return r
}

func newRegistry(c *http3.Conn, cfg *Config) *registry {
	return &registry{
		conn: c, cfg: cfg,
		sessions: make(map[transport.StreamID]*Session),
		early:    make(map[transport.StreamID][]*earlyStream),
	}
}

// An incoming is a stream of the peer: one of bidi and uni is set.
type incoming struct {
	bidi transport.Stream
	uni  transport.ReceiveStream
}

func (in incoming) reject(code transport.ErrorCode) {
	if in.bidi != nil {
		in.bidi.CancelRead(code)
		in.bidi.CancelWrite(code)
		return
	}
	in.uni.CancelRead(code)
}

// An earlyStream waits for its session.
type earlyStream struct {
	incoming
	timer *time.Timer // rejects it
}

// reserve accounts for a session that is about to start, unless the limit is
// reached.
func (r *registry) reserve(limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions)+r.starting >= limit {
		return false
	}
	r.starting++
	return true
}

// unreserve is called if the session did not start. If there is no other one to
// start, nothing on this side explains the streams that wait.
func (r *registry) unreserve() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starting--
}

// add makes a reserved session get its streams.
func (r *registry) add(s *Session) {
	r.mu.Lock()
	r.starting--
	r.sessions[s.id] = s
	early := r.early[s.id]
	delete(r.early, s.id)
	r.waiting -= len(early)
	var rejected []incoming
	for _, e := range early {
		e.timer.Stop()
		if !s.offer(e.incoming) {
			rejected = append(rejected, e.incoming)
		}
	}
	r.mu.Unlock()
	for _, in := range rejected {
		in.reject(codeBufferedStreamRejected)
	}
}

// remove forgets a session that has ended.
func (r *registry) remove(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s.id)
	if len(r.gone) == maxGone {
		r.gone = r.gone[1:]
	}
	r.gone = append(r.gone, s.id)
}

// deliver hands a stream to its session, or makes it wait for it.
//
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-4.6
func (r *registry) deliver(id transport.StreamID, in incoming) {
	if code := r.place(id, in); code != 0 {
		in.reject(code)
	}
}

// place returns the code to reject the stream with, or 0.
func (r *registry) place(id transport.StreamID, in incoming) transport.ErrorCode {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[id]; s != nil {
		if !s.offer(in) {
			return codeBufferedStreamRejected
		}
		return 0
	}
	for _, g := range r.gone {
		if g == id {
			return codeSessionGone
		}
	}
	if r.waiting >= r.cfg.MaxEarlyStreams {
		return codeBufferedStreamRejected
	}
	e := &earlyStream{incoming: in}
	e.timer = time.AfterFunc(r.cfg.EarlyTimeout, func() { r.expire(id, e) })
	r.early[id] = append(r.early[id], e)
	r.waiting++
	return 0
}

// expire rejects a stream whose session did not come.
func (r *registry) expire(id transport.StreamID, e *earlyStream) {
	r.mu.Lock()
	list := r.early[id]
	found := false
	for i := range list {
		if list[i] == e {
			found = true
			r.waiting--
			if list = append(list[:i:i], list[i+1:]...); len(list) == 0 {
				delete(r.early, id)
			} else {
				r.early[id] = list
			}
			break
		}
	}
	r.mu.Unlock()
	if found {
		e.reject(codeBufferedStreamRejected)
	}
}

// acceptUni takes a stream of type streamUni.
func acceptUni(c *http3.Conn, rs transport.ReceiveStream) { accept(c, rs, incoming{uni: rs}) }

// acceptBidi takes a stream that starts with streamBidi.
func acceptBidi(c *http3.Conn, qs transport.Stream) {
	qs.SetPriority(transport.DefaultPriority) // not that of a request
	accept(c, qs, incoming{bidi: qs})
}

// accept reads the session's ID and delivers the stream.
func accept(c *http3.Conn, rs transport.ReceiveStream, in incoming) {
	r := registryOf(c)
	_ = rs.SetReadDeadline(time.Now().Add(r.cfg.EarlyTimeout)) // Read says so
	id, err := http3.ReadVarint(byteReader{rs})
	if err != nil {
		in.reject(codeBufferedStreamRejected) // nobody can tell what it belongs to
		return
	}
	if id&3 != 0 {
		// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-4
		_ = c.Transport().CloseWithError(http3.ErrID, fmt.Sprintf("session %d of a stream is no request", id)) // the first call counts
		return
	}
	_ = rs.SetReadDeadline(time.Time{}) // Read says so
	r.deliver(transport.StreamID(id), in)
}

// A byteReader reads no more than it is asked for: what follows belongs to
// somebody else.
type byteReader struct{ r io.Reader }

func (b byteReader) ReadByte() (byte, error) {
	var p [1]byte
	_, err := io.ReadFull(b.r, p[:])
	return p[0], err
}

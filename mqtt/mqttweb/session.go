package mqttweb

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
)

// A sessionLink is a WebTransport session as a Link: MQTT over QUIC, but for the
// numbers of the streams, and for which of them comes first.
type sessionLink struct {
	*mqttquic.Link
	session *webtransport.Session
	server  bool

	mu      sync.Mutex
	control bool          // the control stream was found, or opened; guarded by mu
	early   []mqtt.Stream // data streams that came before it; guarded by mu
}

func newSessionLink(s *webtransport.Session, server bool) *sessionLink {
	return &sessionLink{Link: mqttquic.Wrap(s.TransportConn(), server), session: s, server: server}
}

// Session returns the WebTransport session, for a client to migrate its connection
// and to wait until the end is known to the server.
func (l *sessionLink) Session() *webtransport.Session { return l.session }

// Carrier returns [mqtt.WebTransport].
func (l *sessionLink) Carrier() mqtt.Carrier { return mqtt.WebTransport }

// Heard returns the packets of the connection, which the session may share.
func (l *sessionLink) Heard() (uint64, time.Duration) { return heard(l.session.Conn().Transport()) }

// heard is [mqttquic.Link.Heard] of a connection.
func heard(c transport.Conn) (uint64, time.Duration) { return mqttquic.Wrap(c, true).Heard() }

// OpenStream opens the client's next stream. The first is the control stream.
func (l *sessionLink) OpenStream(ctx context.Context) (mqtt.Stream, error) {
	s, err := l.Link.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.control {
		return s, nil
	}
	l.control = true
	return &controlStream{Stream: s}, nil
}

// AcceptStream returns the client's next stream. The first is the control stream.
// It must not be called by several goroutines at once before that is found.
func (l *sessionLink) AcceptStream(ctx context.Context) (mqtt.Stream, error) {
	l.mu.Lock()
	found := l.control
	if found && len(l.early) > 0 {
		s := l.early[0]
		l.early = l.early[1:]
		l.mu.Unlock()
		return s, nil
	}
	l.mu.Unlock()
	if found {
		return l.Link.AcceptStream(ctx)
	}
	s, early, err := l.findControl(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.control, l.early = true, early
	return &controlStream{Stream: s}, nil
}

// maxEarly is how many data streams may come before the control stream.
const maxEarly = 16

// findControl returns the control stream, and the data streams that came before.
//
// The streams of a session come in the order in which the network brings their
// beginnings, and the first may be late because its packet was lost. The one
// whose number follows that of the session's own stream is the first for sure,
// which it is unless the connection carries something else besides. Of others,
// the control stream is the one that begins with CONNECT: no data stream may.
func (l *sessionLink) findControl(ctx context.Context) (control mqtt.Stream, early []mqtt.Stream, err error) {
	wait, found := context.WithCancelCause(ctx)
	defer found(nil)
	for {
		s, err := l.Link.AcceptStream(wait)
		if err == nil && s.ID() == mqtt.StreamID(l.session.ID()+4) {
			return s, early, nil
		}
		if err == nil && len(early) < maxEarly {
			b := &begunStream{Stream: s, ready: make(chan struct{})}
			early = append(early, b)
			go func() { // ends with the stream's first byte, or with the session
				if b.begin() {
					found(&foundError{b})
				}
			}()
		} else if err == nil {
			s.Reset(uint64(packet.QuotaExceeded))
		}
		if f, ok := errors.AsType[*foundError](context.Cause(wait)); ok {
			early = slices.DeleteFunc(early, func(s mqtt.Stream) bool { return s == f.control })
			return f.control, early, nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

// A foundError ends the wait for the control stream.
type foundError struct{ control mqtt.Stream }

func (*foundError) Error() string { return "mqttweb: the control stream is found" }

// A begunStream is a stream whose first byte is read ahead.
type begunStream struct {
	mqtt.Stream
	ready chan struct{} // closed when first, n and err are set
	first [1]byte
	n     int
	err   error

	mu    sync.Mutex
	taken bool // first was read; guarded by mu
}

// begin reads the first byte, and reports whether it is that of a CONNECT.
func (b *begunStream) begin() bool {
	defer close(b.ready)
	b.n, b.err = b.Stream.Read(b.first[:])
	return b.n == 1 && packet.Type(b.first[0]>>4) == packet.CONNECT
}

// Read is that of the stream, from its beginning.
func (b *begunStream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b.mu.Lock()
	if b.taken {
		b.mu.Unlock()
		return b.Stream.Read(p)
	}
	defer b.mu.Unlock()
	<-b.ready // until the read deadline, which begin's Read has too
	b.taken = true
	if b.n == 0 {
		return 0, b.err
	}
	p[0] = b.first[0]
	return 1, nil
}

// A controlStream has the number that control streams have, whatever that of its
// QUIC stream is.
type controlStream struct{ mqtt.Stream }

func (*controlStream) ID() mqtt.StreamID { return mqtt.ControlStream }

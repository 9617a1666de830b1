package http3

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/anyquic/anyquic/transport"
)

const (
	// streamDatagrams are how many messages wait for one stream's reader;
	// older ones are dropped. earlyDatagrams wait, in all, for streams whose
	// first bytes are still under way.
	streamDatagrams = 64
	earlyDatagrams  = 64
)

// datagrams are the HTTP datagrams of a connection.
//
// https://www.rfc-editor.org/rfc/rfc9297#section-2.1
type datagrams struct {
	on bool // the transport carries them

	mu      sync.Mutex
	streams map[transport.StreamID]*Stream // that receive; guarded by mu
	early   []earlyDatagram                // guarded by mu
}

type earlyDatagram struct {
	id      transport.StreamID
	payload []byte
}

// A datagramQueue holds what has arrived for one stream.
type datagramQueue struct {
	mu    sync.Mutex
	items [][]byte      // guarded by mu
	ready chan struct{} // capacity 1; nil until the stream receives
}

func (q *datagramQueue) put(p []byte) {
	q.mu.Lock()
	if len(q.items) == streamDatagrams {
		q.items = q.items[1:]
	}
	q.items = append(q.items, p)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// receiveDatagrams ends with the connection.
func (c *Conn) receiveDatagrams() {
	for {
		p, err := c.qc.ReceiveDatagram(c.qc.Context())
		if err != nil {
			return
		}
		quarter, n := parseVarint(p)
		if n == 0 || quarter > maxVarint/4 {
			c.fail(connError(ErrDatagram, "datagram without a stream"))
			return
		}
		id, payload := transport.StreamID(quarter*4), p[n:]
		d := &c.datagrams
		d.mu.Lock()
		s := d.streams[id]
		if s == nil {
			if len(d.early) == earlyDatagrams {
				d.early = d.early[1:]
			}
			d.early = append(d.early, earlyDatagram{id, payload})
		}
		d.mu.Unlock()
		if s != nil {
			s.datagrams.put(payload)
		}
	}
}

// takeDatagrams makes the stream receive.
func (c *Conn) takeDatagrams(s *Stream) {
	if !c.datagrams.on {
		return
	}
	s.datagrams.ready = make(chan struct{}, 1)
	d := &c.datagrams
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.streams == nil {
		d.streams = make(map[transport.StreamID]*Stream)
	}
	d.streams[s.StreamID()] = s
	kept := d.early[:0]
	for _, e := range d.early {
		if e.id == s.StreamID() {
			s.datagrams.put(e.payload)
		} else {
			kept = append(kept, e)
		}
	}
	clear(d.early[len(kept):])
	d.early = kept
}

func (c *Conn) forgetDatagrams(s *Stream) {
	if s.datagrams.ready == nil {
		return
	}
	c.datagrams.mu.Lock()
	defer c.datagrams.mu.Unlock()
	delete(c.datagrams.streams, s.StreamID())
}

// SendDatagram sends an unreliable message that belongs to the stream (RFC
// 9297). It never blocks; see [transport.Conn]. It fails before the peer's
// settings have arrived, and with an error matching [errors.ErrUnsupported] if
// one side has datagrams disabled.
func (s *Stream) SendDatagram(p []byte) error {
	c := s.conn
	if !c.datagrams.on {
		return fmt.Errorf("http3: datagrams are disabled: %w", errors.ErrUnsupported)
	}
	select {
	case <-c.settled:
	default:
		return errors.New("http3: datagram before the peer's settings")
	}
	if !c.peer.Datagrams {
		return fmt.Errorf("http3: datagrams are disabled by the peer: %w", errors.ErrUnsupported)
	}
	if s.qs.Context().Err() != nil {
		// https://www.rfc-editor.org/rfc/rfc9297#section-2.1
		return errClosed
	}
	b := appendVarint(make([]byte, 0, 8+len(p)), uint64(s.StreamID())/4)
	return wrap(c.qc.SendDatagram(append(b, p...)))
}

// PutDatagram makes ReceiveDatagram return a message that came in a capsule of
// type [CapsuleDatagram]. The Stream owns the slice.
//
// https://www.rfc-editor.org/rfc/rfc9297#section-3.5
func (s *Stream) PutDatagram(p []byte) {
	if s.datagrams.ready != nil {
		s.datagrams.put(p)
	}
}

// ReceiveDatagram returns the next message. The caller owns the slice. Messages
// that arrive while 64 of them wait push out the oldest. Only streams of a
// CONNECT request receive.
func (s *Stream) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	q := &s.datagrams
	if q.ready == nil {
		return nil, fmt.Errorf("http3: datagrams are disabled: %w", errors.ErrUnsupported)
	}
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			p := q.items[0]
			q.items = q.items[1:]
			q.mu.Unlock()
			return p, nil
		}
		q.mu.Unlock()
		select {
		case <-q.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.qs.Context().Done():
			return nil, errClosed
		}
	}
}

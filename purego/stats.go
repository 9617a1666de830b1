package purego

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"

	"github.com/anyquic/anyquic/transport"
)

// counters are an endpoint's. As a quic.Transport's qlogwriter.Recorder they
// hear of packets that belong to no connection; those of connections cost
// nothing.
type counters struct {
	dialed, accepted, refused, retries, dropped atomic.Uint64

	// Connections that have not ended, those in handshake included.
	outgoing, incoming atomic.Int64

	mu     sync.Mutex
	recent [64]quic.ConnectionID // attempts counted in refused
	next   int                   // in recent
}

// admit takes one of limit places for accepted connections. Zero is no limit.
func (s *counters) admit(limit int) bool {
	if n := s.incoming.Add(1); limit > 0 && n > int64(limit) {
		s.incoming.Add(-1)
		return false
	}
	return true
}

func (s *counters) release() { s.incoming.Add(-1) }

func (s *counters) snapshot() transport.EndpointStats {
	return transport.EndpointStats{
		ConnsDialed:    s.dialed.Load(),
		ConnsAccepted:  s.accepted.Load(),
		ConnsRefused:   s.refused.Load(),
		ConnsOpen:      uint64(s.outgoing.Load() + s.incoming.Load()),
		Retries:        s.retries.Load(),
		PacketsDropped: s.dropped.Load(),
	}
}

// RecordEvent implements qlogwriter.Recorder.
func (s *counters) RecordEvent(ev qlogwriter.Event) {
	switch ev := ev.(type) {
	case qlog.VersionNegotiationSent:
		s.dropped.Add(1)
	case qlog.PacketDropped:
		// This is what quic-go says of a client's first packet when it has
		// never had a listener.
		if ev.Trigger == qlog.PacketDropUnknownConnectionID && ev.Header.PacketType == "" && ev.Raw.Length >= minInitialSize {
			s.refused.Add(1)
			return
		}
		s.dropped.Add(1)
	case qlog.PacketSent:
		switch ev.Header.PacketType {
		case qlog.PacketTypeRetry:
			s.retries.Add(1)
		case qlog.PacketTypeInitial:
			if len(ev.Frames) == 1 && isRefusal(ev.Frames[0].Frame) {
				s.refuse(ev.Header.SrcConnectionID)
			}
		}
	}
}

// minInitialSize is the smallest datagram of a client's first packet (RFC
// 9000, Section 14.1).
const minInitialSize = 1200

func isRefusal(f any) bool {
	c, ok := f.(*qlog.ConnectionCloseFrame)
	return ok && !c.IsApplicationError && c.ErrorCode == uint64(quic.ConnectionRefused)
}

// refuse counts an attempt, to the client's destination connection ID, once:
// each packet of the client's first flight is answered with a refusal.
func (s *counters) refuse(id quic.ConnectionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.recent[:], id) {
		return
	}
	s.recent[s.next] = id
	s.next = (s.next + 1) % len(s.recent)
	s.refused.Add(1)
}

// Close implements qlogwriter.Recorder.
func (s *counters) Close() error { return nil }

// streamCount counts the streams of a connection.
type streamCount struct{ open atomic.Int64 }

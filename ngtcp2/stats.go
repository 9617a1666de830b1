//go:build ngtcp2 && cgo

package ngtcp2

import (
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// streamCounts are a connection's, as transport.Stats has them.
type streamCounts struct{ opened, accepted, open uint64 }

// A snapshot is what State and Stats say when the library cannot be asked:
// after the connection's end, and while a callback of the handshake runs.
type snapshot struct {
	info        capi.Info
	tls         capi.TLSState
	maxDatagram int
	counts      streamCounts

	datagramsSent, datagramsReceived, datagramsDropped uint64
}

// view looks at the connection. The caller holds mu.
func (c *conn) view() *snapshot {
	s := &snapshot{info: c.cc.Info(), maxDatagram: c.maxDatagram(), counts: c.counts}
	s.datagramsSent, s.datagramsReceived, s.datagramsDropped = c.cc.DatagramCounters()
	return s
}

// keepSnapshot remembers how the connection is. The caller holds mu.
func (c *conn) keepSnapshot() {
	s := c.view()
	s.tls = c.cc.TLSState()
	c.last.Store(s)
}

// look returns how the connection is, as far as that can be told without
// waiting for the application.
func (c *conn) look(withTLS bool) *snapshot {
	if c.lockBriefly() {
		defer c.unlock()
		if c.cc != nil {
			s := c.view()
			if withTLS {
				s.tls = c.cc.TLSState()
			}
			return s
		}
	}
	if s := c.last.Load(); s != nil {
		return s
	}
	return new(snapshot)
}

// State implements transport.Conn.
func (c *conn) State() transport.ConnState {
	s := c.look(true)
	complete := c.complete.Load()
	st := transport.ConnState{
		ConnID:            clone(c.id),
		Version:           version1,
		HandshakeComplete: complete,
		EarlyData:         s.tls.EarlyAccepted && !c.rejected.Load(),
		CongestionControl: c.cfg.congestionControl,
		MaxDatagram:       s.maxDatagram,
	}
	if c.client && !complete {
		st.EarlyData = false // the server has not said
	}
	if ts := c.tls.Load(); ts != nil {
		st.TLS = ts.connectionState(s.tls, complete)
	}
	return st
}

// Stats implements transport.Conn.
func (c *conn) Stats() transport.Stats {
	s := c.look(false)
	return transport.Stats{
		MinRTT:            time.Duration(s.info.MinRTT),
		LatestRTT:         time.Duration(s.info.LatestRTT),
		SmoothedRTT:       time.Duration(s.info.SmoothedRTT),
		RTTVar:            time.Duration(s.info.RTTVar),
		CongestionWindow:  s.info.CongestionWindow,
		PacketsSent:       s.info.PacketsSent,
		PacketsReceived:   s.info.PacketsReceived,
		PacketsLost:       s.info.PacketsLost,
		BytesSent:         s.info.BytesSent,
		BytesReceived:     s.info.BytesReceived,
		BytesLost:         s.info.BytesLost,
		DatagramsSent:     s.datagramsSent,
		DatagramsReceived: s.datagramsReceived,
		DatagramsDropped:  s.datagramsDropped,
		StreamsOpened:     s.counts.opened,
		StreamsAccepted:   s.counts.accepted,
		StreamsOpen:       s.counts.open,
	}
}

//go:build ngtcp2 && cgo && fuzzplain

package capi

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// everyEvent makes what there is an event for, as far as it gets. The client's
// TLS is real.
func everyEvent(t *testing.T) *world {
	w := newWorld(t, func(w *world, s *Settings, _ *ClientOptions, ct *TLSConfig) {
		w.serverTLS.Tickets, w.serverTLS.TicketKeys = true, [][32]byte{{1}}
		ct.Tickets = true
		w.serverSettings.MaxStreams, w.serverSettings.MaxUniStreams = 3, 3
		w.serverSettings.StreamWindow, w.serverSettings.ConnWindow = 20_000, 40_000
	})
	dead := func() bool { return w.client.err != nil || w.server.err != nil }
	until := func(what string, done func() bool) {
		t.Helper()
		w.until(what, func() bool { return dead() || done() })
	}
	until("handshake", func() bool { return w.client.count[HandshakeConfirmed] > 0 })
	until("session", func() bool { return w.client.count[Session] > 0 || w.client.Expiry() > w.now+second })
	for i := 0; i < 4 && !dead(); i++ {
		s, err := w.client.OpenStream(i%2 == 1)
		if err != nil || s == nil {
			return w
		}
		h := &half{Stream: s}
		w.client.streams[s.ID()] = h
		switch i {
		case 0:
			h.send(payload(150_000), true)
			until("data", func() bool { return h.finished })
			if r := w.server.streams[s.ID()]; r != nil && r.Stream != nil {
				r.send(nil, true)
			}
			until("close", func() bool { return h.closed })
		case 1:
			h.send(payload(10), false)
			until("data", func() bool { return w.server.streams[s.ID()] != nil })
			h.Reset(1)
			until("reset", func() bool { return w.server.count[StreamReset] > 0 })
		case 2:
			h.send(payload(10), false)
			until("data", func() bool { return w.server.streams[s.ID()] != nil })
			if r := w.server.streams[s.ID()]; r != nil && r.Stream != nil {
				r.StopSending(2)
			}
			until("stop", func() bool { return w.client.count[StopSending] > 0 })
		case 3:
			h.send(payload(10), true)
			until("limit", func() bool { return w.client.count[StreamsUni] > 0 })
		}
	}
	if dead() {
		return w
	}
	w.client.SendDatagram([]byte("x"))
	until("datagram", func() bool { return w.server.count[Datagram] > 0 })
	if dead() || w.server.SubmitNewToken([]byte("token")) != nil {
		return w
	}
	until("token", func() bool { return w.client.count[NewToken] > 0 })
	if dead() {
		return w
	}
	moved := Path{netip.MustParseAddrPort("192.0.2.1:4002"), serverAddr}
	if err := w.client.InitiateMigration(moved, w.now); err != nil {
		w.client.err = err
		return w
	}
	until("path", func() bool { return w.client.count[PathValidated] > 0 && w.server.count[PathValidated] > 0 })
	until("retired", func() bool { return w.server.count[ConnIDRemoved] > 0 && w.client.count[ResetTokenRemoved] > 0 })
	return w
}

func TestAnEventThatThereIsNoMemoryForEndsTheConnectionOnly(t *testing.T) {
	checkMemory(t)
	t.Cleanup(func() { failEvent(0) })
	w := everyEvent(t)
	require.NoError(t, w.client.err)
	require.NoError(t, w.server.err)
	for ev := HandshakeCompleted; ev < StatelessReset; ev++ {
		if ev != EarlyDataRejected {
			require.NotZero(t, w.client.count[ev]+w.server.count[ev], "event %d is not tried", ev)
		}
	}
	w.close()
	sessions := 0
	for n := 1; ; n++ {
		failEvent(n)
		w := everyEvent(t)
		if failEvent(0) > 0 {
			require.Greater(t, n, 40)
			break
		}
		var e *Error
		switch {
		case w.client.err != nil:
			require.ErrorAs(t, w.client.err, &e)
		case w.server.err != nil:
			require.ErrorAs(t, w.server.err, &e)
		default:
			sessions++ // is lost, nothing else
		}
		if e != nil {
			require.Equal(t, ErrNoMem, e.Code, "event %d: %v", n, e)
			require.True(t, e.Fatal)
		}
		w.close()
	}
	require.LessOrEqual(t, sessions, 2)
}

func TestAFloodOfFramesIsAFewEvents(t *testing.T) {
	checkMemory(t)
	w := plainWorld(t, true)
	defer w.close()
	w.wait(second)
	was := len(w.client.events)
	var max uint64
	frames := func(room int) (b []byte) {
		for len(b) < room {
			max++
			b = append(b, 0x12, 0x80)
			b = binary.BigEndian.AppendUint32(b[:len(b)-1], uint32(1000+max)|0x8000_0000)
			b = append(b, 0x13)
			b = binary.BigEndian.AppendUint32(b, uint32(1000+max)|0x8000_0000)
			b = append(b, 0x07, 1, byte(max))
		}
		return b
	}
	var batch []byte
	for i := range uint32(50) {
		pkt := plainPacket(w, w.client, 0, 2000+i, frames(1100))
		require.Less(t, len(pkt), 1200)
		batch = append(batch, append(pkt, make([]byte, 1200-len(pkt))...)...)
	}
	// What pads the packets is behind their tags, which are not checked here.
	require.NoError(t, w.client.ReadPackets(Path{clientAddr, serverAddr}, 0, batch, 1200, w.now))
	require.LessOrEqual(t, int(w.client.c.cap_events), 8)
	w.client.drain()
	require.Len(t, w.client.events[was:], 3)
	for _, ev := range w.client.events[was:] {
		if ev.Type != NewToken {
			require.Equal(t, 1000+max, ev.Code, "the last")
		}
	}
	require.Equal(t, []byte{byte(max)}, w.client.NewToken())
	require.Greater(t, max, uint64(3000))
}

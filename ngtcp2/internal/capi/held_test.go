//go:build ngtcp2 && cgo

package capi

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// mute calls WritePackets, which must have nothing to send.
func (w *world) mute(p *peer, why string) {
	w.t.Helper()
	out, err := p.WritePackets(w.buf, w.now)
	require.NoError(w.t, err)
	require.Zero(w.t, out.N, why)
}

func TestHeldMeansThatNothingIsSentWhateverIsWritten(t *testing.T) {
	for _, algorithm := range []int{Reno, Cubic, BBR} {
		w := connected(t, func(w *world, s *Settings, _ *ClientOptions, _ *TLSConfig) { s.CongestionControl = algorithm })
		w.wait(second)
		c := w.client
		first := c.open(false)
		first.send([]byte("hello"), false)
		require.False(t, c.Held(), "it is not known yet")
		w.flush(c)
		require.False(t, c.Held(), "all of it is sent")
		w.wait(second)

		first.send(payload(200<<10), false)
		require.False(t, c.Held(), "it is not known yet")
		w.flush(c)
		require.True(t, c.Held(), "more than the congestion window")
		urgent := c.open(true)
		require.True(t, c.Held(), "no call for packets came between")
		urgent.SetPriority(0, false)
		urgent.send([]byte("urgent"), true)
		first.send([]byte("more"), true)
		require.True(t, c.Held())
		w.mute(c, "stream data")
		require.True(t, c.Held())
		c.SendDatagram([]byte("datagram"))
		w.mute(c, "a datagram")
		require.True(t, c.Held())
		require.Less(t, c.Expiry(), w.now+second, "a timer comes")

		// What may let it go on.
		require.NoError(t, c.HandleExpiry(w.now))
		require.False(t, c.Held(), "the timer")
		w.flush(c)
		require.True(t, c.Held())
		require.NoError(t, c.ReadPackets(Path{clientAddr, serverAddr}, 0, make([]byte, 30), 0, w.now))
		require.False(t, c.Held(), "a packet")
		w.until("data", func() bool {
			h, u := w.server.streams[first.ID()], w.server.streams[urgent.ID()]
			return h != nil && h.fin && u != nil && u.fin
		})
		w.flush(c)
		require.False(t, c.Held(), "all of it is sent")
		require.EqualValues(t, len("hello")+200<<10+len("more"), w.server.streams[first.ID()].n)
		w.close()
		require.False(t, c.Held())
	}
}

// What the peer's windows stop holds no other stream back.
func TestHeldIsNotSaidOfWhatFlowControlStops(t *testing.T) {
	w := newWorld(t)
	w.serverSettings.StreamWindow, w.serverSettings.MaxStreamWindow = 1000, 1000
	w.handshake()
	w.wait(second)
	w.server.hold = true // read nothing
	c := w.client
	stopped := c.open(false)
	stopped.send(payload(5000), true)
	w.flush(c)
	require.False(t, c.Held())
	w.wait(second)
	require.False(t, c.Held())
	other := c.open(false)
	other.send([]byte("hello"), true)
	require.False(t, c.Held())
	out, err := c.WritePackets(w.buf, w.now)
	require.NoError(t, err)
	require.NotZero(t, out.N)
}

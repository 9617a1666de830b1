//go:build ngtcp2 && cgo

package capi

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDatagramsArriveBesidesStreams(t *testing.T) {
	checkMemory(t)
	w := connected(t)
	s := w.client.open(true)
	s.send(payload(300_000), true)
	for i := range 20 {
		require.True(t, w.client.SendDatagram(payload(i*50)))
	}
	w.until("data", func() bool { h := w.server.streams[s.ID()]; return h != nil && h.fin })
	require.Equal(t, 1, w.server.count[Datagram], "one event until they are read")
	for i := range 20 {
		p, ok := w.server.RecvDatagram()
		require.True(t, ok)
		require.Equal(t, payload(i*50), p)
	}
	_, ok := w.server.RecvDatagram()
	require.False(t, ok)
	sent, _, dropped := w.client.DatagramCounters()
	require.Equal(t, uint64(20), sent)
	require.Zero(t, dropped)
	_, received, _ := w.server.DatagramCounters()
	require.Equal(t, uint64(20), received)
}

func TestTheLargestDatagramFits(t *testing.T) {
	w := connected(t)
	w.wait(second)
	n := w.client.MaxDatagram()
	require.Greater(t, n, 1400)
	require.False(t, w.client.SendDatagram(payload(n+1)))
	require.True(t, w.client.SendDatagram(payload(n)))
	w.until("datagram", func() bool { return w.server.count[Datagram] > 0 })
	p, _ := w.server.RecvDatagram()
	require.Equal(t, payload(n), p)
}

func TestFullDatagramQueuesDropTheOldest(t *testing.T) {
	w := connected(t)
	for i := range 40 {
		require.True(t, w.client.SendDatagram([]byte{byte(i)}))
	}
	_, _, dropped := w.client.DatagramCounters()
	require.Equal(t, uint64(8), dropped)
	w.wait(second)
	p, _ := w.server.RecvDatagram()
	require.Equal(t, []byte{8}, p)
	for i := range 40 {
		w.client.SendDatagram([]byte{byte(i)})
		w.wait(100 * millisecond)
	}
	_, received, dropped := w.server.DatagramCounters()
	require.Equal(t, uint64(32+1), received)
	require.Equal(t, uint64(39), dropped)
}

func TestDatagramsCanBeDisabled(t *testing.T) {
	w := connected(t, func(w *world, _ *Settings, _ *ClientOptions, _ *TLSConfig) { w.serverSettings.MaxDatagramFrame = 0 })
	require.Zero(t, w.client.MaxDatagram())
	require.False(t, w.client.SendDatagram([]byte("x")))
	require.Positive(t, w.server.MaxDatagram())
}

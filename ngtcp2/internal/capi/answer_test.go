//go:build ngtcp2 && cgo

package capi

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOnePacketWithDataWaitsForTheApplicationsAnswerAndTheSecondDoesNot(t *testing.T) {
	w := connected(t)
	w.wait(uint64(3 * time.Second))
	h := w.client.open(false)
	send := func() {
		t.Helper()
		require.Equal(t, 32, h.Write(make([]byte, 32)))
		w.flush(w.client)
		require.Len(t, w.queue, 1)
		f := w.queue[0]
		w.queue = nil
		w.now = max(w.now, f.at)
		if w.server.Expiry() <= w.now {
			require.NoError(t, w.server.HandleExpiry(w.now))
		}
		require.NoError(t, w.server.ReadPackets(f.path, f.ecn, f.pkt, 0, w.now))
	}
	answered := func() bool {
		t.Helper()
		out, err := w.server.WritePackets(w.buf, w.now)
		require.NoError(t, err)
		return out.N > 0
	}

	send() // opens the stream
	require.True(t, w.server.AnswerWaits())
	w.server.drain()
	at := w.server.Expiry()
	require.Greater(t, at, w.now)
	require.LessOrEqual(t, at, w.now+uint64(25*time.Millisecond), "RFC 9000, Section 13.2.1")
	w.now = at
	require.NoError(t, w.server.HandleExpiry(w.now))
	require.True(t, answered(), "without an answer the acknowledgment goes out alone")

	send()
	require.True(t, w.server.AnswerWaits())
	w.server.drain()
	send()
	require.False(t, w.server.AnswerWaits())
	w.server.drain()
	require.True(t, answered())
}

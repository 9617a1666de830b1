//go:build ngtcp2 && cgo

package ngtcp2

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheInboxOfAHandshakeIsBoundedInPackets(t *testing.T) {
	h := newHandshake(new(atomic.Int64))
	for range 2 * inboxPackets {
		require.True(t, h.receive(nil, &batch{data: make([]byte, 100)}))
	}
	packets, _, _ := h.take()
	require.Len(t, packets, inboxPackets)
	packets, _, _ = h.take()
	require.Empty(t, packets)
	require.True(t, h.receive(nil, &batch{data: make([]byte, 100)}))
	packets, _, _ = h.take()
	require.Len(t, packets, 1, "there is room again")
}

func TestTheInboxOfAHandshakeIsBoundedInBytes(t *testing.T) {
	h := newHandshake(new(atomic.Int64))
	require.True(t, h.receive(nil, &batch{data: make([]byte, 2*inboxBytes), segment: 32 << 10}))
	packets, _, _ := h.take()
	require.Len(t, packets, 3)
}

func TestTheInboxOfAHandshakeKeepsACopyOfEachPacket(t *testing.T) {
	h := newHandshake(new(atomic.Int64))
	b := []byte("onetwo!")
	require.True(t, h.receive(nil, &batch{data: b, segment: 3, ecn: 2}))
	clear(b)
	packets, _, _ := h.take()
	require.Len(t, packets, 3)
	for i, want := range []string{"one", "two", "!"} {
		require.Equal(t, want, string(packets[i].data))
		require.EqualValues(t, 2, packets[i].ecn)
	}
}

func TestAHandshakeIsNotOverWhileSomethingWaits(t *testing.T) {
	h := newHandshake(new(atomic.Int64))
	require.True(t, h.post(func() { h.tick = true }))
	require.False(t, h.finish())
	h.take()
	require.True(t, h.finish())
	require.False(t, h.receive(nil, &batch{data: []byte("late")}), "the loop has the connection now")
}

// Handshakes that hang fill what an endpoint's inboxes may take together.
func TestAHandshakeGetsPacketsWhateverOthersHold(t *testing.T) {
	var waiting atomic.Int64
	for waiting.Load() <= allInboxes {
		h := newHandshake(&waiting)
		require.True(t, h.receive(nil, &batch{data: make([]byte, inboxBytes), segment: inboxBytes}))
	}
	h := newHandshake(&waiting)
	for range 2 * inboxLeast {
		require.True(t, h.receive(nil, &batch{data: make([]byte, 1200)}))
	}
	packets, _, _ := h.take()
	require.Len(t, packets, inboxLeast)
}

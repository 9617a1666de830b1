//go:build ngtcp2 && cgo

package capi

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func smallWindows(stream, conn uint64) option {
	return func(w *world, s *Settings, _ *ClientOptions, _ *TLSConfig) {
		for _, s := range []*Settings{s, &w.serverSettings} {
			s.StreamWindow, s.ConnWindow, s.MaxStreamWindow, s.MaxConnWindow = stream, conn, 0, 0
		}
	}
}

func TestTheStreamWindowHoldsTheSenderBack(t *testing.T) {
	checkMemory(t)
	w := connected(t, smallWindows(10_000, 1<<20))
	w.server.hold = true
	s := w.client.open(true)
	s.send(payload(50_000), true)
	w.wait(2 * second)
	h := w.server.streams[s.ID()]
	h.read()
	require.Len(t, h.got, 10_000)
	w.server.hold = false
	w.until("the rest", func() bool { return h.fin && s.closed })
	require.True(t, bytes.Equal(payload(50_000), h.got))
}

func TestTheConnectionWindowHoldsDataBackButNotFIN(t *testing.T) {
	w := connected(t, smallWindows(1<<20, 10_000))
	w.server.hold = true
	a, b := w.client.open(true), w.client.open(true)
	b.send([]byte("x"), false)
	w.wait(second)
	a.send(payload(50_000), true)
	w.wait(second)
	b.Finish()
	w.wait(second)
	hb := w.server.streams[b.ID()]
	hb.read()
	require.True(t, hb.fin, "FIN needs no window")
	ha := w.server.streams[a.ID()]
	ha.read()
	require.Len(t, ha.got, 9_999)
	w.server.hold = false
	w.until("the rest", func() bool { return ha.fin })
	require.True(t, bytes.Equal(payload(50_000), ha.got))
}

func TestATinyWindowKeepsMoving(t *testing.T) {
	for _, window := range []uint64{1, 3, 100} {
		w := connected(t, smallWindows(window, window))
		s := w.client.open(true)
		s.send(payload(300), true)
		w.until("data", func() bool { h := w.server.streams[s.ID()]; return h != nil && h.fin })
		require.True(t, bytes.Equal(payload(300), w.server.streams[s.ID()].got))
	}
}

func TestConsumedSaysWhenAFlushIsDue(t *testing.T) {
	w := connected(t, smallWindows(8000, 80_000))
	w.server.hold = true
	s := w.client.open(true)
	s.send(payload(5000), false)
	w.wait(second)
	h := w.server.streams[s.ID()]
	FreeChunks(h.RecvChunks())
	require.False(t, h.Consumed(999))
	require.True(t, h.Consumed(1))
	require.False(t, h.Consumed(0))
}

func TestUnreadDataOfCancelledStreamsGivesTheWindowBackOnce(t *testing.T) {
	checkMemory(t)
	w := connected(t, smallWindows(20_000, 30_000))
	w.server.hold = true
	// Each stream fills most of the connection's window.
	for i := range 30 {
		s := w.client.open(true)
		s.send(payload(20_000), false)
		w.until("arrival", func() bool { h := w.server.streams[s.ID()]; return h != nil })
		w.wait(second)
		h := w.server.streams[s.ID()]
		switch i % 4 {
		case 0:
			h.StopSending(7)
			h.Consumed(20_000) // of what a reader had taken; already given back
		case 1:
			s.Reset(9)
		case 2:
			list := h.RecvChunks()
			s.Reset(9)
			w.wait(second)
			h.Consumed(20_000)
			w.server.Recycle(list)
		case 3:
			h.read()
			s.Reset(9)
		}
		w.until("close", func() bool { return s.closed && h.closed })
		h.FreeStream()
	}
	// The window is what it was, no less and no more.
	s := w.client.open(true)
	a := w.client.open(true)
	s.send(payload(20_000), false)
	a.send(payload(20_000), false)
	w.wait(second)
	got := 0
	for _, id := range []int64{s.ID(), a.ID()} {
		h := w.server.streams[id]
		for ch := h.RecvChunks(); ch != nil; {
			next := ch.Next()
			got += len(ch.Bytes())
			ch.next = nil
			FreeChunks(ch)
			ch = next
		}
	}
	require.Equal(t, 30_000, got)
}

func TestResetAndStopSendingCarryTheirCodes(t *testing.T) {
	checkMemory(t)
	w := connected(t)
	s := w.client.open(false)
	s.Reset(42) // nothing was sent: the peer is told all the same
	w.until("reset", func() bool { h := w.server.streams[s.ID()]; return h != nil && h.reset != nil })
	require.Equal(t, uint64(42), *w.server.streams[s.ID()].reset)
	require.Zero(t, s.Write([]byte("x")))
	h := w.server.streams[s.ID()]
	h.send([]byte("answer"), true)
	w.until("answer", func() bool { return s.fin && s.closed && h.closed })
	require.False(t, s.finished)
	require.True(t, h.finished)

	s = w.client.open(false)
	s.send(payload(100_000), false)
	w.until("data", func() bool { return w.server.streams[s.ID()] != nil })
	h = w.server.streams[s.ID()]
	h.StopSending(43)
	w.until("stop", func() bool { return s.stopped != nil })
	require.Equal(t, uint64(43), *s.stopped)
	h.Finish()
	s.StopSending(1)
	w.until("end", func() bool { return s.closed && h.closed })
}

func TestStreamsBelowAnOpenedOneCanBeWrittenBeforeThePeerUsesThem(t *testing.T) {
	checkMemory(t)
	w := connected(t)
	a, b, c := w.client.open(false), w.client.open(false), w.client.open(false)
	c.send([]byte("third"), false)
	w.until("open", func() bool { return w.server.streams[c.ID()] != nil })
	ha := &half{Stream: w.server.AddRemoteStream(a.ID())}
	hb := &half{Stream: w.server.AddRemoteStream(b.ID())}
	w.server.streams[a.ID()], w.server.streams[b.ID()] = ha, hb
	ha.send([]byte("early answer"), true)
	hb.Reset(5)
	hb.StopSending(6)
	w.wait(second)
	require.Empty(t, a.got)
	a.send([]byte("now"), true)
	b.send([]byte("now"), false)
	w.until("answer", func() bool { return a.fin && b.reset != nil && b.stopped != nil })
	require.Equal(t, "early answer", string(a.got))
	require.Equal(t, uint64(5), *b.reset)
	require.Equal(t, uint64(6), *b.stopped)
	require.Nil(t, w.server.AddRemoteStream(1))
	require.Nil(t, w.server.AddRemoteStream(-4))
}

func TestTheStreamLimitRisesWhenStreamsAreFreed(t *testing.T) {
	checkMemory(t)
	w := connected(t, func(w *world, _ *Settings, _ *ClientOptions, _ *TLSConfig) { w.serverSettings.MaxStreams = 2 })
	for range 5 {
		a, b := w.client.open(false), w.client.open(false)
		none, err := w.client.OpenStream(false)
		require.NoError(t, err)
		require.Nil(t, none)
		for _, s := range []*half{a, b} {
			s.send([]byte("x"), true)
		}
		before := w.client.count[StreamsBidi]
		w.until("arrival", func() bool { return w.server.streams[b.ID()] != nil && w.server.streams[a.ID()] != nil })
		for _, s := range []*half{a, b} {
			w.server.streams[s.ID()].send(nil, true)
		}
		w.until("limit", func() bool { return w.client.count[StreamsBidi] > before && a.closed && b.closed })
		w.wait(second)
	}
}

func TestThePeerIsToldOfPlacesForManyStreamsAtOnceUnlessFewAreLeft(t *testing.T) {
	checkMemory(t)
	w := connected(t, func(w *world, _ *Settings, _ *ClientOptions, _ *TLSConfig) { w.serverSettings.MaxStreams = 16 })
	before := w.client.count[StreamsBidi]
	exchange := func() {
		t.Helper()
		s := w.client.open(false)
		s.send([]byte("x"), true)
		w.until("arrival", func() bool { return w.server.streams[s.ID()] != nil })
		w.server.streams[s.ID()].send(nil, true)
		w.until("end", func() bool { return s.closed })
		w.wait(second)
	}
	for range 3 {
		exchange()
	}
	require.Equal(t, before, w.client.count[StreamsBidi])
	exchange() // a quarter of the limit
	require.Equal(t, before+1, w.client.count[StreamsBidi])

	// Of 16 places 14 are taken for good: each of the two others counts.
	for range 14 {
		w.client.open(false).send([]byte("x"), false)
	}
	w.wait(second)
	for range 5 {
		told := w.client.count[StreamsBidi]
		exchange()
		require.Greater(t, w.client.count[StreamsBidi], told)
	}
}

func TestUrgencyAndOrderDecideWhatIsSent(t *testing.T) {
	w := connected(t)
	var order []int64
	send := func(urgency uint8, incremental bool) *half {
		s := w.client.open(true)
		s.SetPriority(urgency, incremental)
		s.send(payload(60_000), true)
		return s
	}
	low := send(7, false)
	incA, incB := send(3, true), send(3, true)
	high2 := send(1, false)
	high1 := send(1, false)
	w.server.onEvent = func(ev Event) {
		if ev.Type == StreamOpened {
			h := w.server.streams[ev.Stream]
			h.order = &order
		}
	}
	w.until("all", func() bool { return low.closed && incA.closed && incB.closed && high1.closed && high2.closed })
	compact := slices.Compact(slices.Clone(order))
	require.Equal(t, []int64{high2.ID(), high1.ID()}, compact[:2], "one after the other, by ID")
	require.Equal(t, low.ID(), compact[len(compact)-1])
	middle := compact[2 : len(compact)-1]
	require.Greater(t, len(middle), 10, "incremental streams take turns")
	for _, id := range middle {
		require.Contains(t, []int64{incA.ID(), incB.ID()}, id)
	}
}

func TestPriorityCanChangeWhileDataWaits(t *testing.T) {
	w := connected(t)
	var all []*half
	for i := range 50 {
		s := w.client.open(true)
		s.SetPriority(uint8(i%8), i%3 == 0)
		s.send(payload(5000), false)
		all = append(all, s)
	}
	for i, s := range all {
		s.SetPriority(uint8((i*7)%8), i%2 == 0)
		if i%5 == 0 {
			s.Reset(1)
		}
	}
	for i, s := range all {
		s.SetPriority(uint8(i*3%11), i%4 == 0)
		s.Finish()
	}
	w.until("all", func() bool {
		for _, s := range all {
			if !s.closed {
				return false
			}
		}
		return true
	})
}

func TestManySmallStreamsShareAPacket(t *testing.T) {
	w := connected(t)
	w.wait(second)
	packets := w.client.Info().PacketsSent
	for range 40 {
		w.client.open(true).send([]byte("small"), true)
	}
	w.flush(w.client)
	require.LessOrEqual(t, w.client.Info().PacketsSent-packets, uint64(2))
}

func TestASmallMessageIsASmallPacket(t *testing.T) {
	w := connected(t)
	w.wait(second)
	w.client.open(true).send([]byte("hello"), true)
	out, err := w.client.WritePackets(w.buf, w.now)
	require.NoError(t, err)
	require.Less(t, out.N, 100)
}

func TestBulkFillsEqualPackets(t *testing.T) {
	w := connected(t)
	w.wait(second)
	w.client.open(true).send(payload(100_000), true)
	out, err := w.client.WritePackets(w.buf, w.now)
	require.NoError(t, err)
	require.Equal(t, 1452, out.Segment, "the path was searched for its limit")
	require.GreaterOrEqual(t, out.N, 8*out.Segment)
}

func TestTheSendBufferIsBoundedAndDrains(t *testing.T) {
	checkMemory(t)
	w := connected(t, func(_ *world, s *Settings, _ *ClientOptions, _ *TLSConfig) { s.SendBuffer = 100_000 })
	s, err := w.client.OpenStream(true)
	require.NoError(t, err)
	require.Equal(t, 100_000, s.Write(payload(200_000)))
	require.Zero(t, s.Write([]byte("x")))
	w.until("room", func() bool { return w.client.count[Writable] == 1 })
	require.Positive(t, s.Write([]byte("x")))
	require.False(t, s.SendDone())
}

func TestIdleStreamsAndConnectionsHoldNoBuffers(t *testing.T) {
	w := connected(t)
	w.wait(3 * second)
	was := Memory()
	s := w.client.open(false)
	h := func() *half { return w.server.streams[s.ID()] }
	for range 3 {
		s.send(payload(500_000), false)
		w.until("data", func() bool { return h() != nil && h().n%500_000 == 0 && h().n > 0 })
		w.wait(5 * second)
	}
	// ngtcp2 keeps what it has for packets in flight; the 1.5 MB are gone.
	require.Less(t, Memory()-was, int64(200_000))
	for _, p := range []*peer{w.client, w.server} {
		require.Equal(t, uint64(NoExpiry), uint64(p.c.trim_at), "nothing is left to be trimmed")
	}
}

func TestFINIsReportedOnlyWhenItArrived(t *testing.T) {
	checkMemory(t)
	for seed := range 200 {
		w := connected(t)
		w.rand = rand.New(rand.NewPCG(uint64(seed), 11))
		w.jitter = uint64(seed%4) * 3 * millisecond
		w.lose = func(*peer, []byte) bool { return w.rand.IntN(3) == 0 }
		s := w.client.open(false)
		s.send(payload(100*(seed%20)), false)
		w.flush(w.client)
		s.Finish()
		w.until("finished", func() bool {
			if s.finished {
				h := w.server.streams[s.ID()]
				require.True(t, h != nil && h.fin, "FIN is acknowledged before it came")
			}
			return s.finished
		})
		require.True(t, s.SendDone())
		w.close()
	}
}

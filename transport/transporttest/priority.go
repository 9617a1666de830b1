package transporttest

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var priorityCases = []testCase{
	{name: "PriorityAPI", rows: "S11", run: testPriorityAPI,
		says: "SetPriority orders this stream's data among the connection's streams, from now on. A new stream has DefaultPriority. Priority returns the priority in force."},
	{name: "PriorityEffect", rows: "S12", run: testPriorityEffect,
		says: "Data of a lower urgency waits while a more urgent stream has data that flow control lets through."},
	{name: "PriorityOrder", rows: "S11 S12", run: testPriorityOrder,
		says: "Urgency is 0 (first) to 7 (last)."},
	{name: "PriorityChange", rows: "S11 S12", run: testPriorityChange,
		says: "SetPriority orders this stream's data, from now on."},
	{name: "PriorityIncremental", rows: "S12", run: testPriorityIncremental,
		says: "Incremental streams share the bandwidth with others of equal urgency."},
	{name: "PrioritySequential", rows: "S12", run: testPrioritySequential,
		says: "Of the streams that are not, the one with the lowest ID is served first."},
	{name: "PriorityDefault", rows: "S12", run: testPriorityDefault,
		says: "DefaultPriority is the priority of a new stream: a fair share."},
	{name: "PriorityBlocked", rows: "S12", run: testPriorityBlocked,
		says: "While a more urgent stream has data that flow control lets through."},
}

func testPriorityAPI(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	u, _ := openUni(l, p.client, p.server)
	for _, s := range []transport.SendStream{c, s, u} {
		require.Equal(l, transport.DefaultPriority, s.Priority())
		for _, want := range []transport.Priority{
			transport.PriorityCritical, transport.PriorityHigh, transport.PriorityNormal,
			transport.PriorityLow, transport.PriorityBackground, {Urgency: 4}, {},
		} {
			s.SetPriority(want)
			require.Equal(l, want, s.Priority())
		}
		s.SetPriority(transport.Priority{Urgency: 200, Incremental: true})
		require.Equal(l, transport.PriorityBackground, s.Priority(), "higher values count as 7")
		_, err := s.Write([]byte("x"))
		require.NoError(l, err, "between the changes")
	}
}

// A race is a set of uploads that share a link of 1 MB/s.
type race struct {
	l       *lab
	p       *pair
	mu      sync.Mutex
	arrived map[transport.StreamID]int // bytes
	order   []transport.StreamID       // that have finished
	wg      sync.WaitGroup
	errs    chan error
}

const raceRate = 1_000_000

func newRace(l *lab) *race {
	p := l.connect(setup{})
	l.settle(time.Second)
	// A queue as a router has it: what is in it cannot be overtaken.
	sim(p.clientPC).Links(Link{Latency: oneWay, Rate: raceRate, Queue: 30_000}, Link{})
	r := &race{l: l, p: p, arrived: map[transport.StreamID]int{}, errs: make(chan error, 100)}
	// Warm up, so that the congestion window knows the link.
	transfer(l, p.client, p.server, 1<<20)
	return r
}

// upload starts to send n bytes. It returns the stream.
func (r *race) upload(pr transport.Priority, n int) transport.SendStream {
	r.l.Helper()
	w, err := r.p.client.OpenUniStream(r.l.ctx)
	require.NoError(r.l, err)
	w.SetPriority(pr)
	r.wg.Go(func() {
		_, err := w.Write(make([]byte, n))
		if err == nil {
			err = w.Close()
		}
		r.errs <- err
	})
	r.wg.Go(func() {
		r.errs <- func() error {
			s, err := r.p.server.AcceptUniStream(r.l.ctx)
			if err != nil {
				return err
			}
			b := make([]byte, 64<<10)
			for {
				k, err := s.Read(b)
				r.mu.Lock()
				r.arrived[s.StreamID()] += k
				if err == io.EOF {
					r.order = append(r.order, s.StreamID())
				}
				r.mu.Unlock()
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return fmt.Errorf("stream %d: %w", s.StreamID(), err)
				}
			}
		}()
	})
	return w
}

// bytes returns what has arrived of s.
func (r *race) bytes(s transport.SendStream) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.arrived[s.StreamID()]
}

// finish waits for all uploads and returns the order in which they ended.
func (r *race) finish() []transport.StreamID {
	r.l.Helper()
	r.wg.Wait()
	close(r.errs)
	for err := range r.errs {
		require.NoError(r.l, err)
	}
	return r.order
}

func testPriorityEffect(l *lab) {
	r := newRace(l)
	low := r.upload(transport.PriorityLow, 1<<20)
	l.settle(200 * time.Millisecond)
	critical := r.upload(transport.PriorityCritical, 1<<20)
	l.settle(100 * time.Millisecond) // what was on its way when the critical one started
	lowBefore, criticalBefore := r.bytes(low), r.bytes(critical)
	require.Positive(l, lowBefore, "the low one started earlier")
	l.settle(600 * time.Millisecond)
	gained := r.bytes(critical) - criticalBefore
	lost := r.bytes(low) - lowBefore
	require.Greater(l, gained, raceRate/5, "the link is in use")
	require.GreaterOrEqual(l, float64(gained), 0.8*float64(gained+lost), "critical %d bytes, low %d", gained, lost)
	require.Equal(l, []transport.StreamID{critical.StreamID(), low.StreamID()}, r.finish())
}

func testPriorityOrder(l *lab) {
	r := newRace(l)
	var want []transport.StreamID
	streams := map[uint8]transport.SendStream{}
	for u := uint8(8); u > 0; u-- { // the last comes first
		streams[u-1] = r.upload(transport.Priority{Urgency: u - 1, Incremental: true}, 200_000)
		l.settle(0)
	}
	for u := range uint8(8) {
		want = append(want, streams[u].StreamID())
	}
	require.Equal(l, want, r.finish())
}

func testPriorityChange(l *lab) {
	r := newRace(l)
	a := r.upload(transport.PriorityHigh, 1<<20)
	b := r.upload(transport.PriorityLow, 1<<20)
	l.settle(300 * time.Millisecond)
	require.Greater(l, r.bytes(a), 4*r.bytes(b))
	b.SetPriority(transport.PriorityCritical)
	l.settle(100 * time.Millisecond)
	beforeA, beforeB := r.bytes(a), r.bytes(b)
	l.settle(400 * time.Millisecond)
	require.Greater(l, r.bytes(b)-beforeB, 4*(r.bytes(a)-beforeA))
	require.Equal(l, []transport.StreamID{b.StreamID(), a.StreamID()}, r.finish())
}

// fairShare checks that the streams have got about the same.
func fairShare(l *lab, r *race, streams []transport.SendStream) {
	l.Helper()
	least, most := 1<<62, 0
	for _, s := range streams {
		least, most = min(least, r.bytes(s)), max(most, r.bytes(s))
	}
	require.Positive(l, least)
	require.LessOrEqual(l, float64(most), 1.5*float64(least), "the most and the least")
}

func testPriorityIncremental(l *lab) {
	r := newRace(l)
	var streams []transport.SendStream
	for range 4 {
		streams = append(streams, r.upload(transport.Priority{Urgency: 2, Incremental: true}, 500_000))
	}
	l.settle(time.Second)
	fairShare(l, r, streams)
	r.finish()
}

func testPrioritySequential(l *lab) {
	r := newRace(l)
	var want []transport.StreamID
	for i := range 4 {
		// Each is smaller than the one before: in turns, the last would be first.
		s := r.upload(transport.Priority{Urgency: 2}, 500_000-100_000*i)
		want = append(want, s.StreamID())
	}
	require.Equal(l, want, r.finish())
}

func testPriorityDefault(l *lab) {
	p := newRace(l)
	var streams []transport.SendStream
	for range 4 {
		streams = append(streams, p.upload(transport.DefaultPriority, 500_000))
	}
	l.settle(time.Second)
	fairShare(l, p, streams)
	p.finish()
}

// An urgent stream that waits for its window holds up nobody.
func testPriorityBlocked(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.StreamWindow = 64 << 10 }})
	c, _ := p.streams(l)
	c.SetPriority(transport.PriorityCritical)
	writing := async(func() error { _, err := c.Write(make([]byte, 1<<20)); return err })
	l.settle(time.Second)
	require.Empty(l, writing)
	w, r := openUni(l, p.client, p.server)
	w.SetPriority(transport.PriorityBackground)
	start := time.Now()
	sendAll(l, w, r, 1<<20)
	require.Less(l, time.Since(start), 10*time.Second)
	c.CancelWrite(1)
	wantStream(l, <-writing, 1, false, "Write")
}

package broker_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// stall is how long a subscriber may take nothing.
const stall = 200 * time.Millisecond

// vanished publishes n messages of 1 KB to 100 subscribers that take nothing and
// returns how long that took and how much memory it left in use. It calls settled when
// the subscribers are there.
func vanished(tb testing.TB, n int, settled func()) (took time.Duration, held int64, s broker.Stats) {
	b := newBroker(tb, &broker.Config{StallTimeout: stall})
	for i := range 100 {
		connect(tb, b, fmt.Sprint("gone", i)).subscribe(packet.Subscription{Filter: "t"})
	}
	pub := connect(tb, b, "pub")
	settled() // nothing of theirs is still being written, which would be progress
	one := encode(tb, packet.V5, &packet.Publish{Topic: "t", Payload: make([]byte, 1000)})
	batch := bytes.Repeat(one, 50)
	before := inUse()
	began := time.Now()
	for range n / 50 {
		_, err := pub.conn.Write(batch)
		require.NoError(tb, err)
	}
	pub.ping()
	took = time.Since(began)
	s = b.Stats()
	held = inUse() - before
	return took, held, s
}

func TestSubscribersThatVanishHoldLittleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20_000
		_, held, s := vanished(t, n, synctest.Wait)
		t.Logf("%d KB held", held>>10)
		require.Less(t, held, int64(64<<20))
		require.EqualValues(t, 100, s.Stalled)
		require.Less(t, s.PushedBackFor, 50*stall, "waited for all hundred together")
		require.Greater(t, s.Dropped[broker.DropQueueFull], uint64(100*(n-2000)))
	})
}

// BenchmarkStalledDelivery measures what a message to a stalled subscriber costs.
func BenchmarkStalledDelivery(b *testing.B) {
	const n = 20_000
	for b.Loop() {
		took, held, s := vanished(b, n, func() {})
		b.ReportMetric(float64(took-s.PushedBackFor)/(100*n), "ns/delivery")
		b.ReportMetric(float64(held)/(1<<20), "MB-held")
		b.ReportMetric(float64(s.PushedBackFor.Milliseconds()), "ms-pushed-back")
	}
}

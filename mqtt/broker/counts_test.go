package broker_test

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A brokenListener fails a number of times, and then is closed.
type brokenListener struct {
	net.Listener
	fails int
}

func (l *brokenListener) Accept() (net.Conn, error) {
	if l.fails == 0 {
		return nil, net.ErrClosed
	}
	l.fails--
	return nil, errors.New("too many open files")
}

func (l *brokenListener) Close() error { return nil }

func TestAcceptsThatFailAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		require.ErrorIs(t, b.Serve(&brokenListener{fails: 3}, mqtt.TCP), net.ErrClosed)
		require.EqualValues(t, 3, b.Stats().AcceptErrors)
	})
}

func TestBytesByTypeAddUpToAllBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		c := connect(t, b, "a")
		c.subscribe(packet.Subscription{Filter: "t", QoS: 1})
		c.publish("t", "x", 0)
		c.message("t", "x")
		c.ping()
		synctest.Wait()
		s := b.Stats()
		for _, by := range []struct {
			parts map[string]uint64
			all   uint64
		}{{s.BytesInBy, s.BytesIn}, {s.BytesOutBy, s.BytesOut}} {
			sum := uint64(0)
			for _, n := range by.parts {
				sum += n
			}
			require.Equal(t, by.all, sum)
			require.Positive(t, sum)
		}
	})
}

func TestTheLatencyOfOneMessageInSixteenIsMeasuredAndNoRetainedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		sub, pub := connect(t, b, "sub"), connect(t, b, "pub")
		sub.subscribe(packet.Subscription{Filter: "t"})
		for range 33 {
			pub.publish("t", "x", 0)
			sub.message("t", "x")
		}
		h := b.Stats().Latency
		require.EqualValues(t, 3, h.Count)
		require.EqualValues(t, 3, h.Classes[0], "time stands still here")

		for range 32 {
			pub.send(&packet.Publish{Topic: "kept", Payload: []byte("x"), Retain: true})
		}
		pub.ping()
		sub.subscribe(packet.Subscription{Filter: "kept"})
		sub.message("kept", "x")
		require.EqualValues(t, 3, b.Stats().Latency.Count)
	})
}

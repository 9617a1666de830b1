package broker_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// sysTopics waits for what the broker publishes about itself, and reads it until
// nothing more comes for a second.
func sysTopics(t *testing.T, c *peer) map[string]string {
	t.Helper()
	found := map[string]string{}
	for {
		q, err := c.read()
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			c.conn.SetReadDeadline(time.Time{})
			return found
		}
		c.conn.SetReadDeadline(time.Now().Add(time.Second))
		p := q.(*packet.Publish)
		name, ok := strings.CutPrefix(p.Topic, "$SYS/broker/")
		require.True(t, ok, p.Topic)
		found[name] = string(p.Payload)
	}
}

func sysNumber(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	require.NoError(t, err)
	return v
}

func TestSysTopicsSayWhatTheBrokerDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{SysInterval: 30 * time.Second, Version: "test 1.2"})
		synctest.Wait() // it publishes at once
		watcher, all, away := connect(t, b, "watcher"), connect(t, b, "all"), connect(t, b, "away", keep(1000))
		away.close()
		all.subscribe(packet.Subscription{Filter: "#"}, packet.Subscription{Filter: "+/broker/version"})
		watcher.subscribe(packet.Subscription{Filter: "$SYS/#"})
		first := sysTopics(t, watcher) // kept from the beginning
		require.Equal(t, "test 1.2", first["version"])
		require.Equal(t, "0", first["uptime"])
		require.Zero(t, b.Stats().Retained)
		require.Zero(t, b.Stats().Unmatched)

		for range 60 {
			all.send(&packet.Publish{Topic: "$t", Payload: []byte("x")})
		}
		all.ping()
		then := sysTopics(t, watcher)
		for name, want := range map[string]string{
			"uptime": "30", "clients/connected": "2", "clients/disconnected": "1", "clients/total": "3", "clients/maximum": "2",
			"connections/tcp": "2", "connections/quic": "0", "subscriptions/count": "3", "publish/messages/received": "60",
			"retained messages/count": "0", "messages/inflight": "0", "shared_subscriptions/count": "0",
		} {
			require.Equal(t, want, then[name], name)
		}
		s := b.Stats()
		require.Equal(t, strconv.FormatUint(s.BytesIn, 10), then["bytes/received"])
		// 120 in a minute, of which half a minute is e^-½ of what there is.
		require.InDelta(t, 120*(1-0.60653), sysNumber(t, then["load/publish/received/1min"]), 0.01)
		require.InDelta(t, 120*(1-0.90484), sysNumber(t, then["load/publish/received/5min"]), 0.01)
		require.InDelta(t, 120*(1-0.96722), sysNumber(t, then["load/publish/received/15min"]), 0.01)
		for name := range first {
			require.Contains(t, then, name)
		}
		all.silent(time.Minute)
	})
}

func TestNobodyElsePublishesBelowSys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		watcher, liar := connect(t, b, "watcher"), connect(t, b, "liar", will("$SYS/broker/clients/connected", "9", 0))
		watcher.subscribe(packet.Subscription{Filter: "$SYS/#"}, packet.Subscription{Filter: "$SYSTEM"})
		for _, q := range []packet.QoS{0, 1, 2} {
			liar.send(&packet.Publish{Topic: "$SYS", Payload: []byte("x"), QoS: q, PacketID: uint16(q), Retain: true})
		}
		require.Equal(t, packet.NotAuthorized, receive[*packet.Puback](liar).Code)
		require.Equal(t, packet.NotAuthorized, receive[*packet.Pubrec](liar).Code)
		liar.publish("$SYSTEM", "x", 1)
		watcher.message("$SYSTEM", "x")
		liar.close()
		watcher.silent(time.Minute)
		require.Zero(t, b.Stats().Retained)
		require.EqualValues(t, 4, b.Stats().Dropped[broker.DropDenied])
	})
}

func TestSysTopicsTakeNoPlaceOfRetainedMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{SysInterval: time.Minute, MaxRetained: 1})
		synctest.Wait()
		c := connect(t, b, "a")
		c.send(&packet.Publish{Topic: "kept", Payload: []byte("x"), Retain: true, QoS: 1, PacketID: 1})
		require.Equal(t, packet.NoMatchingSubscribers, receive[*packet.Puback](c).Code)
		require.Equal(t, 1, b.Stats().Retained)
		_, err := broker.New(&broker.Config{SysInterval: time.Millisecond})
		require.ErrorContains(t, err, "SysInterval 1ms")
	})
}

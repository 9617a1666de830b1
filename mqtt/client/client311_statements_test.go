package client

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// MQTT 3.1.1 and 5 say the same of what a lost connection leaves behind.
func TestWhatIsUnacknowledgedGoesOnWithTheSession(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.1.0-1 MQTT-4.4.0-1 MQTT-4.6.0-1 MQTT-3.3.1-1 MQTT-3.1.2-23")
	t.Attr("mqtt3.1.1", "MQTT-2.3.1-3 MQTT-3.1.2-4 MQTT-3.1.3-2 MQTT-3.3.1-1 MQTT-4.1.0-1 MQTT-4.1.0-2 MQTT-4.3.2-1 MQTT-4.3.3-1 MQTT-4.4.0-1 MQTT-4.6.0-1")
	onBothVersions(t, func(t *testing.T, l *listener) {
		cfg := l.config()
		cfg.KeepAlive = -1
		cfg.SessionExpiry = time.Hour
		delivered := 0
		cfg.OnMessage = func(*packet.Publish) { delivered++ }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		var sent []*packet.Publish
		for i := range 6 {
			require.NoError(t, c.PublishAsync(t.Context(), msg(fmt.Sprint(i), packet.QoS(1+i%2)), nil))
			sent = append(sent, expect[*packet.Publish](p))
			require.False(t, sent[i].Dup)
		}
		p.send(inMsg("in", 2, 9))
		require.Equal(t, ack(9), expect[*packet.Pubrec](p).Ack)
		p.send(&packet.Puback{Ack: ack(sent[0].PacketID)})
		p.send(&packet.Pubrec{Ack: ack(sent[1].PacketID)})
		require.Equal(t, sent[1].PacketID, expect[*packet.Pubrel](p).PacketID)
		p.quiet() // nothing is sent again while the connection lasts

		for range 2 {
			p.close()
			var again *packet.Connect
			p, again = l.accepted(&packet.Connack{SessionPresent: true})
			require.Equal(t, "c", again.ClientID)
			require.False(t, again.CleanStart)
			require.Equal(t, sent[1].PacketID, expect[*packet.Pubrel](p).PacketID)
			for _, m := range sent[2:] {
				want := *m
				want.Dup = true
				require.Equal(t, &want, expect[*packet.Publish](p))
			}
			repeated := inMsg("in", 2, 9)
			repeated.Dup = true
			p.send(repeated)
			require.Equal(t, ack(9), expect[*packet.Pubrec](p).Ack)
			p.quiet()
			require.Equal(t, 1, delivered)
		}
		c.Close()
		p.close()
	})
}

func TestACleanStartForgetsWhatWasBefore(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.2-4 MQTT-3.2.2-5")
	t.Attr("mqtt3.1.1", "MQTT-3.1.2-6")
	synctest.Test(t, func(t *testing.T) {
		// Of MQTT 3.1.1 every connection of a clean session is one.
		l := newListener(t, packet.V311)
		cfg := l.config()
		cfg.CleanStart = true
		calls := 0
		cfg.OnMessage = func(*packet.Publish) { calls++ }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		for round := range 3 {
			for i := range round { // what the caller still wants published
				got := expect[*packet.Publish](p)
				require.Equal(t, fmt.Sprint(i), got.Topic)
				require.False(t, got.Dup, "the session does not know it")
			}
			p.send(inMsg("a", 2, 5)) // the same identifier is another message in another session
			expect[*packet.Pubrec](p)
			synctest.Wait()
			require.Equal(t, round+1, calls)
			require.NoError(t, c.PublishAsync(t.Context(), msg(fmt.Sprint(round), 2), nil))
			require.Equal(t, fmt.Sprint(round), expect[*packet.Publish](p).Topic)
			p.close()
			var again *packet.Connect
			p, again = l.accepted(&packet.Connack{})
			require.True(t, again.CleanStart)
		}
		c.Close()
		p.close()
	})
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.CleanStart = true
		go func() {
			c, err := Dial(context.Background(), cfg)
			require.NoError(t, err)
			c.Close()
		}()
		p, first := l.accepted(&packet.Connack{})
		require.True(t, first.CleanStart)
		p.expectEnd() // with nothing of an earlier session before it
	})
}

func TestPINGREQIsSentOn311Too(t *testing.T) {
	t.Attr("mqtt3.1.1", "MQTT-3.1.2-23")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V311)
		cfg := l.config()
		cfg.KeepAlive = 7 * time.Second
		c, p := dialed(t, l, cfg, &packet.Connack{})
		for range 3 {
			start := time.Now()
			expect[*packet.Pingreq](p)
			after(t, 7*time.Second, start)
			p.send(&packet.Pingresp{})
		}
		disconnect(t, c, p)
	})
}

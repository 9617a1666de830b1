package client

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestPINGREQIsSentWhenTheConnectionIsSilent(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.2-20 MQTT-3.1.2-21 MQTT-3.2.2-21")
	for _, tc := range []struct {
		name   string
		own    time.Duration
		server packet.Opt[uint16]
		want   time.Duration
	}{
		{"by default", 0, packet.Opt[uint16]{}, 60 * time.Second},
		{"as configured", 5 * time.Second, packet.Opt[uint16]{}, 5 * time.Second},
		{"as the server says", 5 * time.Second, packet.Some[uint16](9), 9 * time.Second}, // [MQTT-3.2.2-21]
		{"as the server says, none of our own", -1, packet.Some[uint16](9), 9 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, packet.V5)
				cfg := l.config()
				cfg.KeepAlive = tc.own
				c, p := dialed(t, l, cfg, &packet.Connack{Properties: &packet.Properties{ServerKeepAlive: tc.server}})
				for range 3 {
					start := time.Now()
					expect[*packet.Pingreq](p)
					after(t, tc.want, start)
					p.send(&packet.Pingresp{})
				}
				disconnect(t, c, p)
			})
		})
	}
}

func TestABusyConnectionNeedsNoPINGREQ(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.KeepAlive = 10 * time.Second
		c, p := dialed(t, l, cfg, &packet.Connack{})
		ticker := time.NewTicker(9 * time.Second)
		defer ticker.Stop()
		for range 10 {
			<-ticker.C
			done := publish(t.Context(), c, msg("a", 1))
			p.send(&packet.Puback{Ack: ack(expect[*packet.Publish](p).PacketID)})
			require.NoError(t, (<-done).err)
		}
		start := time.Now()
		expect[*packet.Pingreq](p)
		after(t, 10*time.Second, start)
		c.Close()
		p.close()
	})
}

func TestNoKeepAliveMeansNoPINGREQ(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V311)
		cfg := l.config()
		cfg.KeepAlive = -1
		c, p := dialed(t, l, cfg, &packet.Connack{})
		require.NoError(t, p.conn.SetReadDeadline(time.Now().Add(100*time.Hour)))
		_, _, err := p.in.Next()
		require.Error(t, err)
		require.True(t, c.Connected())
		c.Close()
		p.close()
	})
}

func TestASilentServerLosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.KeepAlive = 20 * time.Second
		lost := make(chan error, 1)
		cfg.OnDisconnect = func(err error) { lost <- err }
		start := time.Now()
		c, p := dialed(t, l, cfg, &packet.Connack{})
		expect[*packet.Pingreq](p)
		p.expectEnd()
		err := <-lost
		require.ErrorIs(t, err, ErrKeepAlive)
		timeout, ok := err.(interface{ Timeout() bool })
		require.True(t, ok && timeout.Timeout())
		after(t, 30*time.Second, start)
		p, _ = l.accepted(&packet.Connack{})
		disconnect(t, c, p)
		require.NoError(t, <-lost)
	})
}

func TestAnythingThatArrivesIsASignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.KeepAlive = 20 * time.Second
		start := time.Now()
		c, p := dialed(t, l, cfg, &packet.Connack{})
		expect[*packet.Pingreq](p)
		ticker := time.NewTicker(9 * time.Second)
		defer ticker.Stop()
		for range 5 {
			<-ticker.C
			p.send(msg("a", 0)) // a server that is slow with PINGRESP
		}
		expect[*packet.Pingreq](p) // [MQTT-3.1.2-20]: after 40 s
		expect[*packet.Pingreq](p) // and after 60 s
		p.expectEnd()
		after(t, (20+5*9+10)*time.Second, start)
		c.Close()
	})
}

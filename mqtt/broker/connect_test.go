package broker_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestAConnectionWithoutConnectIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		c := dial(t, b)
		began := time.Now()
		c.closed()
		require.InDelta(t, 10*time.Second, time.Since(began), float64(50*time.Millisecond))
		require.EqualValues(t, 1, b.Stats().Refused)
	})
}

func TestARefusedConnectIsAnsweredInTheClientsVersion(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"level 6 gets 0x84":                   {"\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x01a", "\x20\x03\x00\x84\x00"},
		"level 2 gets return code 1":          {"\x10\x0d\x00\x04MQTT\x02\x02\x00\x00\x00\x01a", "\x20\x02\x00\x01"},
		"malformed 5 gets 0x81":               {"\x10\x0e\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x01a", "\x20\x03\x00\x81\x00"},
		"3.1.1 without identifier gets 2":     {"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00", "\x20\x02\x00\x02"},
		"authentication method gets 0x8C":     {"\x10\x12\x00\x04MQTT\x05\x02\x00\x00\x04\x15\x00\x01x\x00\x01a", "\x20\x03\x00\x8c\x00"},
		"another protocol gets nothing":       {"\x10\x0d\x00\x04HTTP\x05\x02\x00\x00\x00\x01a", ""},
		"another packet gets nothing":         {"\xc0\x00", ""},
		"an HTTP request gets nothing":        {"GET / HTTP/1.1\r\n\r\n", ""},
		"a packet above the maximum, nothing": {"\x10\xff\xff\xff\x7f", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, nil)
				p := dial(t, b)
				go p.conn.Write([]byte(c.in)) // junk is not read to its end
				var got strings.Builder
				buf := make([]byte, 64)
				for {
					n, err := p.conn.Read(buf)
					got.Write(buf[:n])
					if err != nil {
						break
					}
				}
				require.Equal(t, c.want, got.String())
				<-p.end
				require.EqualValues(t, 1, b.Stats().Refused)
				require.Zero(t, b.Stats().Sessions)
			})
		})
	}
}

func TestAClientWithoutIdentifierIsAssignedOne(t *testing.T) {
	b := newBroker(t, nil)
	seen := map[string]bool{}
	for range 3 {
		c := dial(t, b)
		ack := c.connect("")
		require.Len(t, ack.Properties.AssignedClientID, 26)
		seen[ack.Properties.AssignedClientID] = true
	}
	require.Len(t, seen, 3)
	c := dial(t, b)
	require.Equal(t, packet.Success, c.connect("", v311).Code)
}

func TestASessionIsResumedOnlyWhileItLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		c := connect(t, b, "a", keep(60))
		c.subscribe(packet.Subscription{Filter: "t", QoS: 1})
		c.close()

		pub := connect(t, b, "pub")
		pub.publish("t", "one", 1)
		c = dial(t, b)
		ack := c.connect("a", resume, keep(60))
		require.True(t, ack.SessionPresent)
		m := c.message("t", "one")
		c.send(&packet.Puback{Ack: packet.Ack{PacketID: m.PacketID}})
		c.close()

		time.Sleep(61 * time.Second)
		require.Equal(t, 1, b.Stats().Sessions, "only the publisher's")
		require.Zero(t, b.Stats().Subscriptions)
		c = dial(t, b)
		require.False(t, c.connect("a", resume, keep(60)).SessionPresent)
		c.close()

		c = dial(t, b)
		require.False(t, c.connect("a", keep(60)).SessionPresent, "clean start")
	})
}

// The wheel has not yet found out that the old connection's keep-alive is over
// when the client comes back: that end must not be the new connection's.
func TestTakeoverOfAConnectionWhoseKeepAliveIsOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		time.Sleep(10 * time.Millisecond) // what follows is not due at a tick of the wheel
		old := connect(t, b, "id", keep(3600), func(p *packet.Connect) { p.KeepAlive = 2 })
		time.Sleep(3*time.Second + time.Nanosecond) // 1.5 x 2 s
		c := connect(t, b, "id", keep(3600), resume)
		require.Equal(t, packet.SessionTakenOver, receive[*packet.Disconnect](old).Code)
		c.ping()
		require.EqualValues(t, 0, b.Stats().Disconnects[packet.KeepAliveTimeout])
	})
}

func TestTakeover(t *testing.T) {
	t.Run("the old connection is told and the new one wins at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, nil)
			old := connect(t, b, "a", keep(60))
			old.subscribe(packet.Subscription{Filter: "t", QoS: 1})
			began := time.Now()
			c := dial(t, b)
			require.True(t, c.connect("a", resume, keep(60)).SessionPresent)
			require.Zero(t, time.Since(began))
			require.Equal(t, packet.SessionTakenOver, receive[*packet.Disconnect](old).Code)
			old.closed()
			require.LessOrEqual(t, time.Since(began), 1050*time.Millisecond)

			c.publish("t", "x", 0)
			c.message("t", "x")
		})
	})
	t.Run("an old connection that takes nothing is gone after a second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, nil)
			old := connect(t, b, "a")
			began := time.Now()
			connect(t, b, "a")
			<-old.end // nothing was read of it
			require.LessOrEqual(t, time.Since(began), 1050*time.Millisecond)
		})
	})
	t.Run("a clean start ends the old session and its subscriptions", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, nil)
			old := connect(t, b, "a", keep(60), will("w", "dead", 30))
			old.subscribe(packet.Subscription{Filter: "t"})
			watch := connect(t, b, "watch")
			watch.subscribe(packet.Subscription{Filter: "w"})
			c := connect(t, b, "a")
			watch.message("w", "dead") // the session ended, so the delay did
			c.publish("t", "x", 0)
			c.silent(time.Second)
			require.Equal(t, 1, b.Stats().Subscriptions)
			require.Equal(t, 2, b.Stats().Sessions)
		})
	})
	t.Run("many at once leave one connection", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, nil)
			peers := make([]*peer, 20)
			for i := range peers {
				peers[i] = dial(t, b)
			}
			done := make(chan struct{})
			for _, p := range peers {
				go func() {
					defer func() { done <- struct{}{} }()
					p.send(&packet.Connect{Version: packet.V5, ClientID: "a", CleanStart: true})
					for {
						if _, err := p.read(); err != nil {
							return
						}
						if _, err := p.read(); err != nil { // DISCONNECT
							return
						}
						p.conn.Close()
					}
				}()
			}
			for range len(peers) - 1 {
				<-done
			}
			synctest.Wait()
			s := b.Stats()
			require.Equal(t, 1, s.Sessions)
			require.EqualValues(t, 1, s.Connections[mqtt.TCP].Now)
			b.Close()
			<-done
		})
	})
}

func TestWills(t *testing.T) {
	for name, c := range map[string]struct {
		connect func(*packet.Connect)
		end     func(*peer)
		after   time.Duration // -1: never
	}{
		"a lost connection publishes it":   {will("w", "x", 0), (*peer).close, 0},
		"a delay delays it":                {func(p *packet.Connect) { will("w", "x", 5)(p); keep(60)(p) }, (*peer).close, 5 * time.Second},
		"the end of the session is faster": {func(p *packet.Connect) { will("w", "x", 5)(p); keep(2)(p) }, (*peer).close, 2 * time.Second},
		"DISCONNECT removes it": {will("w", "x", 0), func(c *peer) {
			c.send(&packet.Disconnect{})
			c.close()
		}, -1},
		"DISCONNECT 0x04 keeps it": {will("w", "x", 0), func(c *peer) {
			c.send(&packet.Disconnect{Code: packet.DisconnectWithWill})
			c.close()
		}, 0},
		"a broken rule publishes it": {will("w", "x", 0), func(c *peer) {
			c.sendBytes(0xf1, 0)
			receive[*packet.Disconnect](c)
		}, 0},
		"silence beyond the keep-alive publishes it": {func(p *packet.Connect) { will("w", "x", 0)(p); p.KeepAlive = 10 },
			func(c *peer) { go c.read() }, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, nil)
				watch := connect(t, b, "watch")
				watch.subscribe(packet.Subscription{Filter: "w"})
				p := connect(t, b, "a", c.connect)
				began := time.Now()
				c.end(p)
				if c.after < 0 {
					watch.silent(time.Hour)
					return
				}
				watch.message("w", "x")
				took := time.Since(began)
				require.GreaterOrEqual(t, took, c.after)
				require.LessOrEqual(t, took, c.after+50*time.Millisecond)
				watch.silent(time.Hour)
			})
		})
	}
	t.Run("coming back in time keeps a delayed will from being published", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, nil)
			watch := connect(t, b, "watch")
			watch.subscribe(packet.Subscription{Filter: "w"})
			connect(t, b, "a", will("w", "x", 5), keep(60)).close()
			time.Sleep(4 * time.Second)
			connect(t, b, "a", resume, keep(60))
			watch.silent(time.Hour)
		})
	})
}

func TestMoreConnectionsThanAllowedAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{MaxConns: 2, MaxSessions: 3})
		a := connect(t, b, "a", keep(60))
		connect(t, b, "b")
		c := dial(t, b)
		require.Equal(t, packet.ServerBusy, c.connect("c").Code)
		c.closed()
		c = dial(t, b)
		require.Equal(t, packet.ServerUnavailable, c.connect("c", v311).Code, "return code 3")
		c.closed()
		a.close()
		connect(t, b, "c").close()
		connect(t, b, "d", keep(60)).close()
		c = dial(t, b)
		require.Equal(t, packet.QuotaExceeded, c.connect("e").Code)
		c.closed()
		require.EqualValues(t, 3, b.Stats().Refused)
	})
}

func TestBrokenPacketsEndTheConnectionWithTheirCodeAndOneLine(t *testing.T) {
	big := append([]byte{0x30}, 0x81, 0x80, 0x40) // 1 MiB and a byte
	for name, c := range map[string]struct {
		in   []byte
		code packet.ReasonCode
	}{
		"reserved type":          {[]byte{0x00, 0x00}, packet.MalformedPacket},
		"second CONNECT":         {[]byte("\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01a"), packet.ProtocolError},
		"above the maximum size": {big, packet.PacketTooLarge},
		"QoS 3":                  {[]byte{0x36, 0x00}, packet.MalformedPacket},
		"topic with a wildcard":  {[]byte{0x30, 0x04, 0x00, 0x01, '#', 0x00}, packet.MalformedPacket},
		"unknown topic alias":    {[]byte{0x30, 0x06, 0x00, 0x00, 0x03, 0x23, 0x00, 0x01}, packet.ProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logged
				b := newBroker(t, &broker.Config{Logger: log.logger()})
				other := connect(t, b, "other")
				p := connect(t, b, "bad", func(p *packet.Connect) {
					p.Username, p.Password = packet.Some("user"), []byte("secret")
				})
				p.sendBytes(c.in...)
				require.Equal(t, c.code, receive[*packet.Disconnect](p).Code)
				p.closed()
				other.ping()
				require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
				require.Contains(t, log.String(), "client=bad remote=pipe carrier=tcp")
				require.NotContains(t, log.String(), "secret")
				require.EqualValues(t, 1, b.Stats().Disconnects[c.code])
			})
		})
	}
}

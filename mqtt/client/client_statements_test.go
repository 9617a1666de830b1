package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// onBothVersions runs f for MQTT 3.1.1 and for MQTT 5, which say the same.
func onBothVersions(t *testing.T, f func(t *testing.T, l *listener)) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		synctest.Test(t, func(t *testing.T) { f(t, newListener(t, v)) })
	}
}

// quiet expects that the client sends nothing for an hour.
func (p *peer) quiet() {
	p.t.Helper()
	require.NoError(p.t, p.conn.SetReadDeadline(time.Now().Add(time.Hour)))
	h, _, err := p.in.Next()
	require.Truef(p.t, errors.Is(err, os.ErrDeadlineExceeded), "got %v, %v", h.Type, err)
	require.NoError(p.t, p.conn.SetReadDeadline(time.Time{}))
}

func TestNothingIsSentBetweenCONNECTAndCONNACK(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.0-1 MQTT-4.12.0-7")
	t.Attr("mqtt3.1.1", "MQTT-3.1.0-1")
	onBothVersions(t, func(t *testing.T, l *listener) {
		v := l.v
		cfg := l.config()
		cfg.KeepAlive = -1
		cfg.ConnectTimeout = 100 * time.Hour
		cfg.Username, cfg.Password = "u", []byte("p")
		c, p := dialed(t, l, cfg, &packet.Connack{})
		p.quiet() // nor AUTH at any time
		p.close()
		synctest.Wait()
		waiting := publish(t.Context(), c, msg("a", 1))
		subscribing := subscribe(t.Context(), c, nil, packet.Subscription{Filter: "f"})
		p = l.accept()
		connect := expect[*packet.Connect](p)
		if v == packet.V5 {
			require.Empty(t, connect.Properties.AuthMethod)
			require.Nil(t, connect.Properties.AuthData)
		}
		p.quiet()
		p.send(&packet.Connack{})
		for range 2 {
			switch pk := p.next().(type) {
			case *packet.Publish:
				p.send(&packet.Puback{Ack: ack(pk.PacketID)})
			case *packet.Subscribe:
				p.send(&packet.Suback{PacketID: pk.PacketID, Codes: []packet.ReasonCode{0}})
			default:
				require.Failf(t, "unexpected", "%T", pk)
			}
		}
		require.NoError(t, (<-waiting).err)
		require.NoError(t, (<-subscribing).err)
		disconnect(t, c, p)
	})
}

func TestNoTopicAliasForAServerThatAllowsNone(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.2.2-17 MQTT-3.2.2-18 MQTT-3.3.2-8 MQTT-3.3.2-9")
	for _, most := range []packet.Opt[uint16]{{}, packet.Some[uint16](0), packet.Some[uint16](2)} {
		synctest.Test(t, func(t *testing.T) {
			l := newListener(t, packet.V5)
			cfg := l.config()
			cfg.TopicAliases = 10
			c, p := dialed(t, l, cfg, &packet.Connack{Properties: &packet.Properties{TopicAliasMaximum: most}})
			used := map[uint16]bool{}
			for i := range 30 {
				m := msg(fmt.Sprint("topic/", i%5), 0)
				m.Properties = &packet.Properties{TopicAlias: packet.Some[uint16](60_000)} // the caller's counts for nothing
				_, err := c.Publish(t.Context(), m)
				require.NoError(t, err)
				if got := expect[*packet.Publish](p); got.Properties != nil && got.Properties.TopicAlias.Set {
					used[got.Properties.TopicAlias.Value] = true
				}
			}
			require.Len(t, used, int(most.Or(0)))
			for alias := range used {
				require.NotZero(t, alias)
				require.LessOrEqual(t, alias, most.Or(0))
			}
			disconnect(t, c, p)
		})
	}
}

func TestEveryTopicAliasThatWasOfferedIsAccepted(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.3.2-10 MQTT-3.3.2-7")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.TopicAliasMaximum = 300
		topics := make(chan string, 1)
		cfg.OnMessage = func(p *packet.Publish) { topics <- p.Topic }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		for _, name := range []bool{true, false} {
			for alias := uint16(1); alias <= 300; alias++ {
				m := &packet.Publish{Properties: &packet.Properties{TopicAlias: packet.Some(alias)}}
				if name {
					m.Topic = fmt.Sprint("topic/", alias)
				}
				p.send(m)
				require.Equal(t, fmt.Sprint("topic/", alias), <-topics)
			}
		}
		// Another connection, other aliases.
		p.close()
		p, _ = l.accepted(&packet.Connack{SessionPresent: true})
		p.send(&packet.Publish{Properties: &packet.Properties{TopicAlias: packet.Some[uint16](1)}})
		require.Equal(t, packet.ProtocolError, expect[*packet.Disconnect](p).Code)
		c.Close()
		p.close()
	})
}

func TestWhatACallerPutsIntoAPublishThatIsNotItsOwnIsNotSent(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.3.4-6 MQTT-3.3.1-1 MQTT-3.3.1-2 MQTT-4.3.1-1 MQTT-4.3.2-2 MQTT-4.3.3-2")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		for q := packet.AtMostOnce; q <= packet.ExactlyOnce; q++ {
			m := msg("a", q)
			m.Dup = true
			m.Properties = &packet.Properties{SubscriptionIDs: []uint32{1, 2}, ContentType: "text"}
			done := publish(t.Context(), c, m)
			got := expect[*packet.Publish](p)
			require.Equal(t, q, got.QoS)
			require.False(t, got.Dup)
			require.Empty(t, got.Properties.SubscriptionIDs)
			require.Equal(t, "text", got.Properties.ContentType)
			switch q {
			case packet.AtLeastOnce:
				p.send(&packet.Puback{Ack: ack(got.PacketID)})
			case packet.ExactlyOnce:
				p.send(&packet.Pubrec{Ack: ack(got.PacketID)})
				expect[*packet.Pubrel](p)
				p.send(&packet.Pubcomp{Ack: ack(got.PacketID)})
			}
			require.NoError(t, (<-done).err)
		}
		disconnect(t, c, p)
	})
}

func TestWhatIsNoMessageDoesNotWaitForTheWindow(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.3.4-7 MQTT-3.3.4-8 MQTT-4.9.0-1 MQTT-4.9.0-2 MQTT-4.9.0-3")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.KeepAlive = 10 * time.Second
		c, p := dialed(t, l, cfg, &packet.Connack{Properties: &packet.Properties{ReceiveMaximum: packet.Some[uint16](1)}})
		first := publish(t.Context(), c, msg("first", 2))
		id := expect[*packet.Publish](p).PacketID
		second := publish(t.Context(), c, msg("second", 1))
		pending(t, second)

		granted(c, p, nil, "f")
		unsubscribed := make(chan error, 1)
		go func() {
			_, err := c.Unsubscribe(t.Context(), "f")
			unsubscribed <- err
		}()
		p.send(&packet.Unsuback{PacketID: expect[*packet.Unsubscribe](p).PacketID, Codes: []packet.ReasonCode{0}})
		require.NoError(t, <-unsubscribed)
		_, err := c.Publish(t.Context(), msg("zero", 0))
		require.NoError(t, err)
		require.Equal(t, "zero", expect[*packet.Publish](p).Topic)
		p.send(inMsg("in", 1, 7))
		require.Equal(t, ack(7), expect[*packet.Puback](p).Ack)
		p.send(inMsg("in", 2, 8))
		require.Equal(t, ack(8), expect[*packet.Pubrec](p).Ack)
		p.send(&packet.Pubrel{Ack: ack(8)})
		require.Equal(t, ack(8), expect[*packet.Pubcomp](p).Ack)
		expect[*packet.Pingreq](p)
		p.send(&packet.Pingresp{})
		p.send(&packet.Pubrec{Ack: ack(id)})
		require.Equal(t, id, expect[*packet.Pubrel](p).PacketID)
		pending(t, second)
		p.send(&packet.Pubcomp{Ack: ack(id)})
		require.NoError(t, (<-first).err)
		got := expect[*packet.Publish](p)
		require.Equal(t, "second", got.Topic)
		p.send(&packet.Puback{Ack: ack(got.PacketID)})
		require.NoError(t, (<-second).err)
		disconnect(t, c, p)
	})
}

func TestMessagesThatNobodyHandlesAreAcknowledged(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.5.0-2 MQTT-3.3.4-1 MQTT-2.2.1-5 MQTT-4.3.2-4 MQTT-4.3.3-8 MQTT-4.3.3-11 MQTT-4.3.3-13")
	t.Attr("mqtt5", "MQTT-3.4.2-1 MQTT-3.5.2-1 MQTT-3.7.2-1 MQTT-3.4.2-2 MQTT-3.4.2-3 MQTT-3.5.2-2 MQTT-3.5.2-3 MQTT-3.7.2-2 MQTT-3.7.2-3 MQTT-4.3.3-9")
	t.Attr("mqtt3.1.1", "MQTT-4.5.0-2 MQTT-3.3.4-1 MQTT-2.3.1-6 MQTT-4.3.2-2 MQTT-4.3.3-2")
	onBothVersions(t, func(t *testing.T, l *listener) {
		v := l.v
		cfg := l.config()
		cfg.KeepAlive = -1
		c, p := dialed(t, l, cfg, &packet.Connack{})
		expiring := func(q packet.QoS, id uint16) *packet.Publish {
			m := inMsg("a", q, id)
			if v == packet.V5 {
				m.Properties = &packet.Properties{MessageExpiry: packet.Some[uint32](1)}
			}
			return m
		}
		for _, id := range []uint16{1, 256, 65535} {
			p.send(expiring(1, id))
			require.Equal(t, ack(id), expect[*packet.Puback](p).Ack, "no code, no property")
			p.send(expiring(2, id))
			require.Equal(t, ack(id), expect[*packet.Pubrec](p).Ack)
			p.quiet() // much longer than the message lives
			p.send(&packet.Pubrel{Ack: ack(id)})
			require.Equal(t, ack(id), expect[*packet.Pubcomp](p).Ack)
		}
		disconnect(t, c, p)
	})
}

func TestAnAcknowledgedIdentifierIsANewMessage(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.3.2-5 MQTT-4.3.3-10 MQTT-4.3.3-12")
	t.Attr("mqtt3.1.1", "MQTT-4.3.2-2 MQTT-4.3.3-2")
	onBothVersions(t, func(t *testing.T, l *listener) {
		cfg := l.config()
		calls := 0
		cfg.OnMessage = func(*packet.Publish) { calls++ }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		for round, dup := range []bool{false, true, false} {
			one, two := inMsg("a", 1, 7), inMsg("b", 2, 7)
			one.Dup, two.Dup = dup, dup
			p.send(one)
			expect[*packet.Puback](p)
			for range 3 {
				p.send(two)
				require.Equal(t, ack(7), expect[*packet.Pubrec](p).Ack)
				two.Dup = true
			}
			p.send(&packet.Pubrel{Ack: ack(7)})
			expect[*packet.Pubcomp](p)
			synctest.Wait()
			require.Equal(t, 2*(round+1), calls)
		}
		disconnect(t, c, p)
	})
}

func TestAcknowledgementsKeepTheOrderOfTheMessages(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.6.0-2 MQTT-4.6.0-3")
	t.Attr("mqtt3.1.1", "MQTT-4.6.0-2 MQTT-4.6.0-3")
	onBothVersions(t, func(t *testing.T, l *listener) {
		cfg := l.config()
		block := make(chan struct{})
		cfg.OnMessage = func(*packet.Publish) { <-block }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		ids := []uint16{9, 3, 7, 65535, 1, 8, 2}
		for _, id := range ids {
			p.send(inMsg("a", 1, id))
			p.send(inMsg("b", 2, id+100))
		}
		close(block)
		var acks, recs []uint16
		for range 2 * len(ids) {
			switch pk := p.next().(type) {
			case *packet.Puback:
				acks = append(acks, pk.PacketID)
			case *packet.Pubrec:
				recs = append(recs, pk.PacketID-100)
			default:
				require.Failf(t, "unexpected", "%T", pk)
			}
		}
		require.Equal(t, ids, acks)
		require.Equal(t, ids, recs)
		c.Close()
		p.close()
	})
}

func TestPUBRELsKeepTheOrderOfPUBRECs(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.6.0-4 MQTT-4.3.3-4 MQTT-3.6.2-1 MQTT-3.6.2-2 MQTT-3.6.2-3 MQTT-2.2.1-5")
	t.Attr("mqtt3.1.1", "MQTT-4.6.0-4 MQTT-2.3.1-6")
	onBothVersions(t, func(t *testing.T, l *listener) {
		v := l.v
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		var ids []uint16
		for i := range 6 {
			require.NoError(t, c.PublishAsync(t.Context(), msg(fmt.Sprint(i), 2), nil))
			ids = append(ids, expect[*packet.Publish](p).PacketID)
		}
		order := []uint16{ids[3], ids[0], ids[5], ids[1], ids[4], ids[2]}
		release := func(ids []uint16) {
			var burst []byte
			for _, id := range ids {
				b, err := (&packet.Pubrec{Ack: ack(id)}).Append(nil, v)
				require.NoError(t, err)
				burst = append(burst, b...)
			}
			p.raw(burst)
		}
		released := func(ids []uint16) {
			for _, id := range ids {
				require.Equal(t, ack(id), expect[*packet.Pubrel](p).Ack)
			}
		}
		release(order[:4])
		released(order[:4])
		// So they do on the next connection, those of PUBRECs that come
		// there behind the others.
		p.close()
		p, _ = l.accepted(&packet.Connack{SessionPresent: true})
		released(order[:4])
		for _, id := range []uint16{ids[2], ids[4]} {
			require.Equal(t, id, expect[*packet.Publish](p).PacketID)
		}
		release(order[4:])
		released(order[4:])
		p.close()
		p, _ = l.accepted(&packet.Connack{SessionPresent: true})
		released(order)
		c.Close()
		p.close()
	})
}

func TestNothingFollowsDISCONNECTAndTheClientCloses(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.14.4-1 MQTT-3.14.4-2 MQTT-3.14.2-1 MQTT-3.14.2-3 MQTT-3.14.2-4")
	t.Attr("mqtt3.1.1", "MQTT-3.14.4-1 MQTT-3.14.4-2")
	onBothVersions(t, func(t *testing.T, l *listener) {
		v := l.v
		c, p := dialed(t, l, l.config(), &packet.Connack{Properties: properties(v, 8)})
		done := make(chan error, 1)
		go func() { done <- c.Disconnect(context.Background()) }()
		d := expect[*packet.Disconnect](p)
		require.Equal(t, &packet.Disconnect{}, d)
		_, err := c.Publish(t.Context(), msg("late", 0))
		require.Error(t, err)
		for _, pk := range []packet.Packet{inMsg("a", 1, 1), inMsg("a", 2, 2), &packet.Pubrel{Ack: ack(9)}} {
			b, err := pk.Append(nil, v)
			require.NoError(t, err)
			_, err = p.conn.Write(b) // it may have closed already
			if err != nil {
				break
			}
		}
		p.expectEnd()
		require.NoError(t, <-done)
	})
}

// properties are a CONNACK's with a maximum packet size, where there are any.
func properties(v packet.Version, most uint32) *packet.Properties {
	if v < packet.V5 {
		return nil
	}
	return &packet.Properties{MaximumPacketSize: packet.Some(most)}
}

func TestARefusalOrADisconnectEndsTheConnection(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.13.2-1 MQTT-4.12.1-2")
	for _, code := range []packet.ReasonCode{packet.UnspecifiedError, packet.NotAuthorized, packet.BadAuthenticationMethod, packet.QuotaExceeded} {
		synctest.Test(t, func(t *testing.T) {
			l := newListener(t, packet.V5)
			done := make(chan error, 1)
			go func() {
				_, err := Dial(context.Background(), l.config())
				done <- err
			}()
			p, _ := l.accepted(&packet.Connack{Code: code})
			p.expectEnd()
			require.Error(t, <-done)

			cfg := l.config()
			cfg.Reconnect.Disabled = true
			c, p := dialed(t, l, cfg, &packet.Connack{})
			p.send(&packet.Disconnect{Code: code})
			p.expectEnd()
			<-c.Done()
		})
	}
}

func TestByteOrderMarksAreKept(t *testing.T) {
	t.Attr("mqtt5", "MQTT-1.5.4-3 MQTT-4.7.3-4")
	t.Attr("mqtt3.1.1", "MQTT-1.5.3-3")
	onBothVersions(t, func(t *testing.T, l *listener) {
		cfg := l.config()
		topics := make(chan string, 1)
		cfg.OnMessage = func(p *packet.Publish) { topics <- "default " + p.Topic }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		s := granted(c, p, func(p *packet.Publish) { topics <- "handler " + p.Topic }, "\ufeffa")
		require.Equal(t, "\ufeffa", s.Subscriptions[0].Filter)
		p.send(msg("\ufeffa", 0))
		require.Equal(t, "handler \ufeffa", <-topics)
		p.send(msg("a", 0))
		require.Equal(t, "default a", <-topics)
		_, err := c.Publish(t.Context(), msg("\ufeffa", 0))
		require.NoError(t, err)
		require.Equal(t, "\ufeffa", expect[*packet.Publish](p).Topic)
		disconnect(t, c, p)
	})
}

func TestNewPacketsTakeIdentifiersThatAreFree(t *testing.T) {
	t.Attr("mqtt5", "MQTT-2.2.1-3 MQTT-4.3.2-1 MQTT-4.3.3-1")
	t.Attr("mqtt3.1.1", "MQTT-2.3.1-1 MQTT-2.3.1-2 MQTT-4.3.2-1 MQTT-4.3.3-1")
	onBothVersions(t, func(t *testing.T, l *listener) {
		cfg := l.config()
		cfg.QueueBytes = 64 << 20
		c, p := dialed(t, l, cfg, &packet.Connack{})
		inUse := map[uint16]bool{}
		take := func(id uint16) {
			require.NotZero(t, id)
			require.False(t, inUse[id], id)
			inUse[id] = true
		}
		for q := packet.AtLeastOnce; q <= packet.ExactlyOnce; q++ {
			require.NoError(t, c.PublishAsync(t.Context(), msg("kept", q), nil))
			take(expect[*packet.Publish](p).PacketID)
		}
		subscribing := subscribe(t.Context(), c, nil, packet.Subscription{Filter: "kept"})
		s := expect[*packet.Subscribe](p)
		take(s.PacketID)
		for i := range 70_000 { // more than there are
			require.NoError(t, c.PublishAsync(t.Context(), msg("t", 1), nil))
			id := expect[*packet.Publish](p).PacketID
			take(id)
			p.send(&packet.Puback{Ack: ack(id)})
			delete(inUse, id)
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
		require.Len(t, inUse, 3)
		p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{0}})
		require.NoError(t, (<-subscribing).err)
		c.Close()
		p.close()
	})
}

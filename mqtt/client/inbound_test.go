package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func inMsg(topic string, qos packet.QoS, id uint16) *packet.Publish {
	p := msg(topic, qos)
	p.PacketID = id
	return p
}

func TestMessagesAreAcknowledgedAfterTheHandler(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, v)
				cfg := l.config()
				got, proceed := make(chan *packet.Publish, 10), make(chan struct{})
				cfg.OnMessage = func(p *packet.Publish) {
					got <- Clone(p)
					<-proceed
				}
				c, p := dialed(t, l, cfg, &packet.Connack{})
				p.send(inMsg("a", 1, 7))
				p.send(inMsg("b", 2, 8))
				p.send(inMsg("c", 0, 0))
				require.Equal(t, inMsg("a", 1, 7), <-got)
				synctest.Wait()
				require.Empty(t, got, "one at a time")
				proceed <- struct{}{}
				require.Equal(t, ack(7), expect[*packet.Puback](p).Ack)
				require.Equal(t, inMsg("b", 2, 8), <-got)
				proceed <- struct{}{}
				require.Equal(t, ack(8), expect[*packet.Pubrec](p).Ack)
				p.send(&packet.Pubrel{Ack: ack(8)})
				require.Equal(t, ack(8), expect[*packet.Pubcomp](p).Ack)
				require.Equal(t, inMsg("c", 0, 0), <-got)
				proceed <- struct{}{}
				// The identifier is free: the same one is a new message.
				p.send(inMsg("d", 2, 8))
				require.Equal(t, "d", (<-got).Topic)
				close(proceed)
				expect[*packet.Pubrec](p)
				disconnect(t, c, p)
			})
		})
	}
}

// [MQTT-4.3.3-10]
func TestQoS2IsDeliveredOnceAcrossConnections(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.3.3-10 MQTT-3.2.2-5 MQTT-3.1.2-23")
	for _, tc := range []struct {
		name     string
		released bool // PUBREC reached the server, so it goes on with PUBREL
		running  bool // the handler still runs when the connection is lost
		present  bool
		want     int // deliveries
	}{
		{name: "PUBREC lost", present: true, want: 1},
		{name: "PUBREL lost", released: true, present: true, want: 1},
		{name: "handler running", running: true, present: true, want: 1},
		{name: "session lost", want: 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, packet.V5)
				cfg := l.config()
				calls, proceed := 0, make(chan struct{})
				cfg.OnMessage = func(*packet.Publish) {
					calls++
					<-proceed
				}
				c, p := dialed(t, l, cfg, &packet.Connack{})
				p.send(inMsg("a", 2, 5))
				if !tc.running {
					close(proceed)
					expect[*packet.Pubrec](p)
				}
				p.close()
				p, _ = l.accepted(&packet.Connack{SessionPresent: tc.present})
				if !tc.released {
					again := inMsg("a", 2, 5)
					again.Dup = tc.present
					p.send(again)
					if tc.running {
						close(proceed)
					}
					require.Equal(t, ack(5), expect[*packet.Pubrec](p).Ack)
				}
				p.send(&packet.Pubrel{Ack: ack(5)})
				require.Equal(t, ack(5), expect[*packet.Pubcomp](p).Ack)
				require.Equal(t, tc.want, calls)
				disconnect(t, c, p)
			})
		})
	}
}

func TestAnUnknownPUBRELIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{SessionPresent: true})
		p.send(&packet.Pubrel{Ack: ack(3)})
		require.Equal(t, packet.Ack{PacketID: 3, Code: packet.PacketIDNotFound}, expect[*packet.Pubcomp](p).Ack)
		p.send(&packet.Pubrec{Ack: ack(4)})
		require.Equal(t, packet.Ack{PacketID: 4, Code: packet.PacketIDNotFound}, expect[*packet.Pubrel](p).Ack)
		p.send(&packet.Puback{Ack: ack(5)})
		p.send(&packet.Pubcomp{Ack: ack(6)})
		disconnect(t, c, p)
	})
}

func TestTopicAliasesOfTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		topics := make(chan string, 10)
		cfg.OnMessage = func(p *packet.Publish) {
			require.False(t, p.Properties != nil && p.Properties.TopicAlias.Set)
			topics <- p.Topic
		}
		c, p := dialed(t, l, cfg, &packet.Connack{})
		alias := func(topic string, n uint16) *packet.Publish {
			m := msg(topic, 0)
			m.Properties = &packet.Properties{TopicAlias: packet.Some(n)}
			return m
		}
		p.send(alias("a", 1))
		p.send(alias("b", 64))
		p.send(alias("", 1))
		p.send(alias("c", 1))
		p.send(alias("", 1))
		p.send(alias("", 64))
		for _, want := range []string{"a", "b", "a", "c", "c", "b"} {
			require.Equal(t, want, <-topics)
		}
		disconnect(t, c, p)
	})
}

// What the server sends against the rules is answered with a DISCONNECT that names
// the reason, and the client connects again.
func TestViolationsOfTheServerEndTheConnection(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.12.0-3 MQTT-3.6.1-1 MQTT-3.3.1-4 MQTT-4.13.2-1")
	t.Attr("mqtt3.1.1", "MQTT-1.5.3-1 MQTT-2.2.2-2 MQTT-3.3.1-4 MQTT-4.8.0-1 MQTT-4.8.0-2")
	alias := func(topic string, n uint16) *packet.Publish {
		m := msg(topic, 0)
		m.Properties = &packet.Properties{TopicAlias: packet.Some(n)}
		return m
	}
	bytes := func(p packet.Packet) []byte {
		b, err := p.Append(nil, packet.V5)
		require.NoError(t, err)
		return b
	}
	for _, tc := range []struct {
		name  string
		bytes []byte
		code  packet.ReasonCode
	}{
		{"reserved packet type", []byte{0, 0}, packet.MalformedPacket},
		{"PUBLISH with QoS 3", []byte{0x36, 5, 0, 1, 'a', 0, 1}, packet.MalformedPacket},
		{"topic with a wildcard", []byte{0x30, 4, 0, 1, '#', 0}, packet.MalformedPacket},
		{"topic that is not UTF-8", []byte{0x30, 4, 0, 1, 0xFF, 0}, packet.MalformedPacket},
		{"topic longer than the packet", []byte{0x30, 4, 0, 9, 'a', 0}, packet.MalformedPacket},
		{"length of five bytes", []byte{0x30, 0x80, 0x80, 0x80, 0x80, 1}, packet.MalformedPacket},
		{"packet above our maximum", []byte{0x30, 0x80, 0x80, 0x80, 0x40}, packet.PacketTooLarge},
		{"alias above our maximum", bytes(alias("a", 65)), packet.TopicAliasInvalid},
		{"alias never set", bytes(alias("", 2)), packet.ProtocolError},
		{"second CONNACK", bytes(&packet.Connack{}), packet.ProtocolError},
		{"PINGREQ", bytes(&packet.Pingreq{}), packet.ProtocolError},
		{"SUBSCRIBE", bytes(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "a"}}}), packet.ProtocolError},
		{"AUTH", []byte{0xF0, 2, 0x18, 0}, 0},
		{"PUBREL with DUP [MQTT-3.6.1-1]", []byte{0x6A, 2, 0, 1}, packet.MalformedPacket},
		{"more than the receive maximum", append(append(bytes(inMsg("a", 2, 1)), bytes(inMsg("a", 1, 2))...), bytes(inMsg("a", 2, 3))...), packet.ReceiveMaximumExceeded},
		{"one identifier for two messages", append(bytes(inMsg("a", 1, 1)), bytes(inMsg("b", 2, 1))...), packet.ProtocolError},
		{"PUBREL before PUBREC", append(bytes(inMsg("a", 2, 1)), bytes(&packet.Pubrel{Ack: ack(1)})...), packet.ProtocolError},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, packet.V5)
				cfg := l.config()
				cfg.ReceiveMaximum = 2
				block := make(chan struct{})
				cfg.OnMessage = func(*packet.Publish) { <-block }
				lost := make(chan error, 1)
				cfg.OnDisconnect = func(err error) { lost <- err }
				c, p := dialed(t, l, cfg, &packet.Connack{})
				p.raw(tc.bytes)
				got := expect[*packet.Disconnect](p)
				if tc.code != 0 {
					require.Equal(t, tc.code, got.Code)
				}
				p.close()
				close(block)
				var e *ProtocolError
				require.ErrorAs(t, <-lost, &e)
				p, _ = l.accepted(&packet.Connack{})
				p.close() // nothing is disturbed: it lives
				<-lost
				p, _ = l.accepted(&packet.Connack{})
				go func() { <-lost }()
				disconnect(t, c, p)
			})
		})
	}
}

func TestASlowHandlerStopsTheReaderAndNotTheKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		block := make(chan struct{})
		calls := 0
		cfg.OnMessage = func(*packet.Publish) {
			calls++
			<-block
		}
		c, p := dialed(t, l, cfg, &packet.Connack{})
		stopped := make(chan int, 1)
		go func() {
			n := 0
			for ; n < 1000; n++ {
				b, _ := msg("a", 0).Append(nil, p.v)
				if _, err := p.conn.Write(b); err != nil {
					break
				}
				if n == 40 {
					stopped <- n
				}
			}
			stopped <- n
		}()
		pings := 0
		go func() { // whatever the client sends is PINGREQ; no answer gets through
			for {
				if _, _, err := p.in.Next(); err != nil {
					return
				}
				pings++
			}
		}()
		synctest.Wait()
		require.Empty(t, stopped, "the reader has stopped")
		tick := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), cfg.ConnectTimeout+30*defaultKeepAlive)
		defer cancel()
		go func() { <-ctx.Done(); close(tick) }()
		<-tick
		require.True(t, c.Connected(), "its own deafness is no reason to end the connection")
		synctest.Wait()
		require.Equal(t, 30, pings, "[MQTT-3.1.2-20]: nor to be silent, or the server would end it")
		close(block)
		<-stopped
		require.Equal(t, 1000, <-stopped)
		synctest.Wait()
		require.Equal(t, 1000, calls)
		c.Close()
		p.close()
	})
}

func TestAHandlerThatWaitsForTheServerIsNotADeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		var c *Client
		published := make(chan error, 1)
		var got []string
		cfg.OnMessage = func(p *packet.Publish) {
			got = append(got, p.Topic)
			if p.Topic == "first" {
				_, err := c.Publish(t.Context(), msg("out", 1))
				published <- err
			}
		}
		c, p := dialed(t, l, cfg, &packet.Connack{})
		p.send(msg("first", 0))
		id := expect[*packet.Publish](p).PacketID
		for range 100 {
			p.send(msg("flood", 0)) // more than the client takes while a handler runs
		}
		p.send(inMsg("kept", 1, 9))
		p.send(&packet.Puback{Ack: ack(id)})
		require.NoError(t, <-published)
		require.Equal(t, ack(9), expect[*packet.Puback](p).Ack)
		p.send(msg("later", 0))
		synctest.Wait()
		require.Equal(t, "later", got[len(got)-1])
		require.Equal(t, "kept", got[len(got)-2])
		require.Equal(t, uint64(103-len(got)), c.Stats().MessagesDropped)
		require.Equal(t, maxBatches, len(got)-2)
		disconnect(t, c, p)
	})
}

// The DISCONNECT must not be lost in the reset that TCP sends for data that nobody
// reads, nor with a QUIC connection that is closed too early.
func TestAfterAViolationTheServerHasASecondToRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		start := time.Now()
		p.raw([]byte{0, 0})
		for range 100 {
			p.send(msg("a", 0)) // taken, or this would block
		}
		require.Equal(t, packet.MalformedPacket, expect[*packet.Disconnect](p).Code)
		p.expectEnd()
		after(t, lingerTimeout, start)
		c.Close()
	})
}

// A server that demands answers and does not read them is not read any more.
func TestAnswersThatTheServerDoesNotReadAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		const n = 60_000
		written := make(chan int, 1)
		go func() {
			b, _ := (&packet.Pubrel{Ack: ack(1)}).Append(nil, p.v)
			i := 0
			for ; i < n; i++ {
				if _, err := p.conn.Write(b); err != nil {
					break
				}
			}
			written <- i
		}()
		synctest.Wait()
		require.Empty(t, written)
		c.mu.Lock()
		require.LessOrEqual(t, c.m.backlog(), maxBacklog+1)
		require.LessOrEqual(t, len(c.out), outMax+16)
		c.mu.Unlock()
		for range n {
			require.Equal(t, packet.PacketIDNotFound, expect[*packet.Pubcomp](p).Code)
		}
		require.Equal(t, n, <-written)
		disconnect(t, c, p)
	})
}

// Who has the message that ends his wait calls Disconnect while the handler, which told
// him, is about to return: the server must not send that message again.
func TestDisconnectWaitsForTheAcknowledgementOfTheMessageAtHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		got, proceed := make(chan struct{}), make(chan struct{})
		cfg.OnMessage = func(*packet.Publish) {
			got <- struct{}{}
			<-proceed
		}
		c, p := dialed(t, l, cfg, &packet.Connack{})
		p.send(inMsg("a", 1, 7))
		<-got
		done := make(chan error, 1)
		go func() { done <- c.Disconnect(context.Background()) }()
		synctest.Wait()
		close(proceed)
		require.Equal(t, ack(7), expect[*packet.Puback](p).Ack)
		expect[*packet.Disconnect](p)
		p.close()
		require.NoError(t, <-done)
	})
}

// The messages behind the one at hand are the server's: on a busy topic they have no end.
func TestDisconnectWaitsForNoFurtherMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		got, proceed := make(chan string, 10), make(chan struct{})
		cfg.OnMessage = func(p *packet.Publish) {
			got <- p.Topic
			<-proceed
		}
		c, p := dialed(t, l, cfg, &packet.Connack{})
		for i, topic := range []string{"a", "b", "c"} {
			p.send(inMsg(topic, packet.QoS(1+i%2), uint16(7+i)))
		}
		require.Equal(t, "a", <-got)
		done := make(chan error, 1)
		go func() { done <- c.Disconnect(context.Background()) }()
		synctest.Wait()
		proceed <- struct{}{}
		require.Equal(t, ack(7), expect[*packet.Puback](p).Ack)
		expect[*packet.Disconnect](p)
		p.close()
		require.NoError(t, <-done)
		require.Empty(t, got)
	})
}

package mqtttest

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// expectEOF expects that the broker closes its half of a data stream.
func (p *peer) expectEOF() {
	p.r.Helper()
	pk, err := p.receive()
	require.Nil(p.r, pk)
	require.Equal(p.r, io.EOF, err)
}

// silent shows that nothing waits on a data stream: pub's message on a topic of its
// own is the next.
func (p *peer) silent(pub *peer) {
	p.r.Helper()
	p.subscribe("marker/"+p.topic(), 1)
	pub.publish("marker/"+p.topic(), "m", 1)
	p.message("marker/"+p.topic(), "m")
}

// numbered opens a data stream whose identifiers no other stream of c uses.
func (p *peer) numbered() *peer {
	p.r.Helper()
	d := p.openStream()
	d.version, d.nextID = p.version, uint16(100*d.stream.ID())
	return d
}

// behaviourCases are what users of EMQX's multi-stream mode can see of it, one by
// one; docs/mqtt-over-quic.md says which is which, and where we differ. What needs
// the engine itself is in the tests of package mqttquic.
var behaviourCases = []testCase{
	{"LastSubscribeMovesTheSubscriptionToItsStream", func(r *run) { // [MQTT-3.8.4-3]; EMQX would send a copy for each
		c, pub := r.client("c"), r.client("pub")
		a, b := c.numbered(), c.numbered()
		a.subscribe("t", 1)
		b.subscribe("t", 1)
		pub.publish("t", "m", 1)
		b.message("t", "m")
		a.silent(pub)
		c.subscribe("t", 1)
		pub.publish("t", "n", 1)
		c.message("t", "n")
		b.silent(pub)
	}},
	{"ResetOfASubscribersStreamMovesWhatWasInFlight", func(r *run) {
		c, pub := r.client("c"), r.client("pub")
		d := c.numbered()
		d.subscribe("t", 2)
		pub.publish("t", "first", 1)
		pub.publish("t", "second", 2)
		pub.publish("t", "third", 2)
		first := d.unacked("t", "first")
		second := d.unacked("t", "second")
		third := d.unacked("t", "third")
		d.send(&packet.Pubrec{Ack: packet.Ack{PacketID: third.PacketID}})
		d.expectPubrel(third.PacketID)
		d.stream.Reset(0)

		c.expectPubrel(third.PacketID)
		c.send(&packet.Pubcomp{Ack: packet.Ack{PacketID: third.PacketID}})
		for _, m := range []*packet.Publish{first, second} {
			again := c.message("t", string(m.Payload))
			require.True(r, again.Dup, "[MQTT-3.3.1-1]")
			require.Equal(r, m.PacketID, again.PacketID)
		}
		pub.publish("t", "later", 1)
		c.message("t", "later")
		c.ping()
	}},
	{"ClientGoesOnWithAnExchangeOfAStreamItReset", func(r *run) {
		sub, c := r.client("sub"), r.client("c")
		sub.subscribe("t", 2)
		d := c.numbered()
		m := &packet.Publish{Topic: "t", Payload: []byte("m"), QoS: 2, PacketID: d.id()}
		d.send(m)
		expect[*packet.Pubrec](d)
		sub.message("t", "m")
		d.stream.Reset(0)

		m.Dup = true
		c.send(m)
		require.Equal(r, packet.Success, expect[*packet.Pubrec](c).Code)
		c.send(&packet.Pubrel{Ack: packet.Ack{PacketID: m.PacketID}})
		require.Equal(r, packet.Success, expect[*packet.Pubcomp](c).Code)
		sub.ping() // not a second time
		c.ping()
	}},
	{"PacketsOfSeveralStreamsMayBeSplitAnywhere", func(r *run) {
		sub, c := r.client("sub"), r.client("c")
		sub.subscribe("t", 1)
		a, b := c.numbered(), c.numbered()
		wire := func(p *peer, payload string) []byte {
			return p.encode(&packet.Publish{Topic: "t", Payload: []byte(payload), QoS: 1, PacketID: p.id()})
		}
		for at := 1; at < len(wire(a, "a")); at++ {
			x, y := wire(a, "a"), wire(b, "b")
			a.sendRaw(x[:at])
			b.sendRaw(y[:at])
			a.sendRaw(x[at:])
			expect[*packet.Puback](a)
			sub.message("t", "a")
			b.sendRaw(y[at:])
			expect[*packet.Puback](b)
			sub.message("t", "b")
		}
		// And many may come at once.
		a.sendRaw(append(wire(a, "1"), wire(a, "2")...))
		sub.message("t", "1")
		sub.message("t", "2")
		c.ping()
	}},
	{"PacketTooLargeOnADataStreamEndsThatStream", func(r *run) {
		r.start(&broker.Config{Limits: session.Limits{MaximumPacketSize: 1000}})
		c := r.client("c")
		d := c.openStream()
		d.send(&packet.Publish{Topic: "t", Payload: make([]byte, 1000)})
		d.expectReset(c)
		next := c.numbered()
		next.publishPacket(&packet.Publish{Topic: "t", Payload: make([]byte, 900), QoS: 1})
	}},
	{"FiveStreamsPublishAHundredMessagesEach", func(r *run) {
		sub, c := r.client("sub"), r.client("c")
		sub.subscribe("t/+", 1)
		var streams []*peer
		for i := range 5 {
			d := c.numbered()
			for j := range 100 {
				d.send(&packet.Publish{Topic: fmt.Sprint("t/", i), Payload: fmt.Append(nil, j), QoS: packet.QoS(1 + i%2), PacketID: d.id()})
			}
			streams = append(streams, d)
		}
		next := map[string]int{}
		for range 500 {
			m := expect[*packet.Publish](sub)
			require.Equal(r, fmt.Sprint(next[m.Topic]), string(m.Payload), "order within a stream")
			next[m.Topic]++
			sub.ack(m)
		}
		for i, d := range streams {
			for j := range 100 {
				id := uint16(100*d.stream.ID()) + uint16(j) + 1
				if i%2 == 0 {
					require.Equal(r, id, expect[*packet.Puback](d).PacketID)
					continue
				}
				require.Equal(r, id, expect[*packet.Pubrec](d).PacketID)
				d.send(&packet.Pubrel{Ack: packet.Ack{PacketID: id}})
			}
			if i%2 == 1 {
				for range 100 {
					require.Equal(r, packet.Success, expect[*packet.Pubcomp](d).Code)
				}
			}
		}
		c.ping()
	}},
	{"StreamsPublishInParallelUnderTheSameIdentifiers", func(r *run) { // EMQX counts them for each stream
		sub, c := r.client("sub"), r.client("c")
		sub.subscribe("t", 1)
		streams := []*peer{c.openStream(), c.openStream(), c.openStream()}
		for i, d := range streams {
			d.send(&packet.Publish{Topic: "t", Payload: []byte{'a' + byte(i)}, QoS: 2, PacketID: 7})
		}
		seen := map[string]bool{}
		for range streams {
			m := expect[*packet.Publish](sub)
			seen[string(m.Payload)] = true
			sub.ack(m)
		}
		require.Len(r, seen, 3)
		for _, d := range streams {
			require.EqualValues(r, 7, expect[*packet.Pubrec](d).PacketID)
			d.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 7}})
			require.Equal(r, packet.Success, expect[*packet.Pubcomp](d).Code)
		}
		c.ping()
	}},
	{"StreamThatStopsInAPacketHoldsUpNoOther", func(r *run) {
		sub, c := r.client("sub"), r.client("c")
		sub.subscribe("t", 1)
		stuck, d := c.numbered(), c.numbered()
		wire := stuck.encode(&packet.Publish{Topic: "t", Payload: []byte("late"), QoS: 1, PacketID: stuck.id()})
		stuck.sendRaw(wire[:len(wire)-1])
		for i := range 10 {
			d.publishPacket(&packet.Publish{Topic: "t", Payload: fmt.Append(nil, i), QoS: 1})
			sub.message("t", fmt.Sprint(i))
		}
		c.ping()
		stuck.sendRaw(wire[len(wire)-1:])
		sub.message("t", "late")
		expect[*packet.Puback](stuck)
	}},
	{"ReconnectFindsTheSessionThatHadStreams", func(r *run) { // EMQX loses what was on them
		pub := r.client("pub")
		c, _ := r.session("c", true)
		d := c.numbered()
		d.subscribe("t", 1)
		pub.publish("t", "in flight", 1)
		m := d.unacked("t", "in flight")
		require.NoError(r, c.stream.CloseWrite())
		d.expectEnd()
		<-c.link.Context().Done()
		pub.publish("t", "offline", 1)

		c, ack := r.session("c", false)
		require.True(r, ack.SessionPresent)
		again := c.message("t", "in flight")
		require.True(r, again.Dup)
		require.Equal(r, m.PacketID, again.PacketID)
		c.message("t", "offline")
		// Another stream with the number of the old one gets nothing of it.
		d = c.numbered()
		d.silent(pub)
		pub.publish("t", "control", 1)
		c.message("t", "control")
		d.subscribe("t", 1)
		pub.publish("t", "moved", 1)
		d.message("t", "moved")
	}},
	{"ServerThatShutsDownEndsEveryStream", func(r *run) {
		c := r.client("c")
		d := c.numbered()
		d.subscribe("t", 1)
		down := make(chan error, 1)
		go func() { down <- r.broker.Shutdown(context.Background()) }() // ends when c has closed, or in time
		c.expectDisconnect(packet.ServerShuttingDown)
		d.expectEnd()
		require.NoError(r, <-down)
	}},
	{"StreamOfAPublisherMayEndWithAFIN", func(r *run) {
		sub, c := r.client("sub"), r.client("c")
		sub.subscribe("t", 2)
		for q := range packet.QoS(3) {
			d := c.numbered()
			m := &packet.Publish{Topic: "t", Payload: []byte("last"), QoS: q}
			if q == 0 {
				d.send(m)
			} else {
				d.publishPacket(m)
			}
			require.NoError(r, d.stream.CloseWrite())
			sub.message("t", "last")
			d.expectEOF()
		}
		c.ping()
	}},
	{"StreamOfASubscriberMayEndWithAFIN", func(r *run) {
		c, pub := r.client("c"), r.client("pub")
		d := c.numbered()
		d.subscribe("t", 1)
		pub.publish("t", "m", 1)
		d.message("t", "m")
		require.NoError(r, d.stream.CloseWrite())
		d.expectEOF()
		pub.publish("t", "moved", 1)
		c.message("t", "moved")
	}},
	{"DataStreamPublishesToItself", func(r *run) {
		c := r.client("c")
		d := c.numbered()
		d.subscribe("t", 2)
		for q := range packet.QoS(3) {
			m := &packet.Publish{Topic: "t", Payload: []byte("m"), QoS: q}
			if q > 0 {
				m.PacketID = d.id()
			}
			d.send(m)
			got, acked := false, q == 0
			for !got || !acked { // in either order
				pk, err := d.receive()
				require.NoError(r, err)
				switch pk := pk.(type) {
				case *packet.Publish:
					require.Equal(r, q, pk.QoS)
					got = true
					switch q {
					case 1:
						d.send(&packet.Puback{Ack: packet.Ack{PacketID: pk.PacketID}})
					case 2:
						d.send(&packet.Pubrec{Ack: packet.Ack{PacketID: pk.PacketID}})
						got = false
					}
				case *packet.Pubrel:
					d.send(&packet.Pubcomp{Ack: packet.Ack{PacketID: pk.PacketID}})
					got = true
				case *packet.Puback:
					acked = true
				case *packet.Pubrec:
					d.send(&packet.Pubrel{Ack: packet.Ack{PacketID: pk.PacketID}})
				case *packet.Pubcomp:
					acked = true
				}
			}
		}
		c.ping()
	}},
	{"StreamsSubscribeAndPublishWithoutWaiting", func(r *run) {
		c := r.client("c")
		sub, pub := c.numbered(), c.numbered()
		sub.send(&packet.Subscribe{PacketID: sub.id(), Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}})
		expect[*packet.Suback](sub)
		for i := range 20 {
			pub.send(&packet.Publish{Topic: "t", Payload: fmt.Append(nil, i), QoS: 1, PacketID: pub.id()})
		}
		for i := range 20 {
			sub.message("t", fmt.Sprint(i))
		}
		for range 20 {
			expect[*packet.Puback](pub)
		}
	}},
	{"UnsubscribeOnItsStreamEndsTheSubscription", func(r *run) {
		c, pub := r.client("c"), r.client("pub")
		d := c.numbered()
		d.subscribe("t", 1)
		require.Equal(r, []packet.ReasonCode{packet.Success}, d.unsubscribe("t"))
		require.Equal(r, []packet.ReasonCode{packet.NoSubscriptionExisted}, d.unsubscribe("t"))
		pub.publish("t", "m", 1)
		d.silent(pub)
		c.ping()
	}},
	{"UnsubscribeWorksFromAnotherDataStream", func(r *run) { // EMQX answers 0x11
		c, pub := r.client("c"), r.client("pub")
		a, b := c.numbered(), c.numbered()
		a.subscribe("t", 1)
		require.Equal(r, []packet.ReasonCode{packet.Success}, b.unsubscribe("t"))
		pub.publish("t", "m", 1)
		a.silent(pub)
	}},
	{"TopicAliasesOfStreamsAreApart", func(r *run) {
		sub, c := r.client("sub"), r.client("c")
		sub.subscribe("#", 0)
		a, b := c.numbered(), c.numbered()
		alias := func(p *peer, topic string) {
			p.send(&packet.Publish{Topic: topic, Payload: []byte("m"), Properties: &packet.Properties{TopicAlias: packet.Some[uint16](1)}})
		}
		alias(a, "of/a")
		sub.message("of/a", "m")
		alias(b, "of/b")
		sub.message("of/b", "m")
		alias(a, "")
		sub.message("of/a", "m")
		alias(b, "")
		sub.message("of/b", "m")
		alias(c, "") // unknown on this one
		c.expectDisconnect(packet.ProtocolError)
	}},
	{"KeepAliveEndsAClientWithSilentStreams", func(r *run) { // [MQTT-3.1.2-22]
		began := time.Now()
		p, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, KeepAlive: 1})
		d := p.openStream()
		d.subscribe("t", 1)
		p.expectDisconnect(packet.KeepAliveTimeout)
		d.expectEnd()
		require.Greater(r, time.Since(began), time.Second)
	}},
}

// streamPolicies are those of package client, for subtests.
var streamPolicies = map[string]client.StreamPolicy{
	"control": client.Control, "topic": client.PerTopic, "hash": client.Hash(3), "dedicated": client.Dedicated,
}

// clientStreamCases are about package client on carriers with streams.
var clientStreamCases = []testCase{
	{"ClientUsesStreamsAsItsPolicySays", func(r *run) {
		for name, policy := range streamPolicies {
			sub, _ := r.dialClient(&client.Config{ClientID: "sub-" + name, CleanStart: true, Streams: policy})
			pub, _ := r.dialClient(&client.Config{ClientID: "pub-" + name, CleanStart: true, Streams: policy})
			in := make(inbox, 1000)
			for i := range 3 {
				_, err := sub.Subscribe(r.patient(), in.handle, packet.Subscription{Filter: fmt.Sprint(name, "/", i), QoS: 2})
				require.NoError(r, err)
			}
			for n := range 30 {
				_, err := pub.Publish(r.patient(), &packet.Publish{Topic: fmt.Sprint(name, "/", n%3), Payload: fmt.Append(nil, n), QoS: packet.QoS(n / 3 % 3)})
				require.NoError(r, err)
			}
			last := map[string]map[packet.QoS]int{}
			for range 30 {
				m := in.next(r)
				var n int
				_, err := fmt.Sscan(string(m.Payload), &n)
				require.NoError(r, err)
				if last[m.Topic] == nil {
					last[m.Topic] = map[packet.QoS]int{}
				}
				require.LessOrEqual(r, last[m.Topic][m.QoS], n, "order of a topic and QoS")
				last[m.Topic][m.QoS] = n
			}
			codes, err := sub.Unsubscribe(r.patient(), name+"/0", name+"/1", name+"/2")
			require.NoError(r, err)
			require.Equal(r, []packet.ReasonCode{0, 0, 0}, codes)
			require.NoError(r, pub.Disconnect(r.patient()))
			require.NoError(r, sub.Disconnect(r.patient()))
		}
	}},
	{"ClientsLastMessagesOnStreamsArriveBeforeItsDisconnect", func(r *run) {
		// Disconnect gives the server a second to read the streams. On a machine that
		// is busy that may be too short, and nothing is promised then.
		const moment = time.Second
		inTime := false
		for end, round := time.Now().Add(patience), 0; !inTime; round++ {
			require.True(r, time.Now().Before(end), "the server never read the streams within %v", moment)
			in := make(inbox, 100)
			sub, _ := r.dialClient(&client.Config{ClientID: "sub", CleanStart: true})
			_, err := sub.Subscribe(r.patient(), in.handle, packet.Subscription{Filter: fmt.Sprintf("t/%d/#", round), QoS: 1})
			require.NoError(r, err)
			pub, _ := r.dialClient(&client.Config{ClientID: "pub", CleanStart: true, Streams: client.PerTopic})
			for n := range 100 {
				_, err := pub.Publish(r.patient(), &packet.Publish{Topic: fmt.Sprintf("t/%d/%d", round, n%20), Payload: make([]byte, 2000)})
				require.NoError(r, err)
			}
			began := time.Now()
			require.NoError(r, pub.Disconnect(r.patient()))
			if inTime = time.Since(began) < moment; inTime {
				for range 100 {
					in.next(r)
				}
			}
			require.NoError(r, sub.Disconnect(r.patient()))
		}
	}},
	{"ClientLosesNothingOnStreamsWhenConnectionsAreKilled", func(r *run) { // QoS 2: exactly once
		var mu sync.Mutex
		got := map[string][]string{}
		total := 0
		done := make(chan struct{})
		const n, topics = 200, 4
		sub, killSub := r.dialClient(&client.Config{ClientID: "sub", SessionExpiry: time.Hour, Streams: client.PerTopic})
		for i := range topics {
			_, err := sub.Subscribe(r.patient(), func(p *packet.Publish) {
				mu.Lock()
				defer mu.Unlock()
				got[p.Topic] = append(got[p.Topic], string(p.Payload))
				if total++; total == n {
					close(done)
				}
			}, packet.Subscription{Filter: fmt.Sprint("t/", i), QoS: 2})
			require.NoError(r, err)
		}
		pub, killPub := r.dialClient(&client.Config{ClientID: "pub", SessionExpiry: time.Hour, Streams: client.PerTopic})
		errs := make(chan error, n)
		for i := range n {
			err := pub.PublishAsync(r.patient(), &packet.Publish{Topic: fmt.Sprint("t/", i%topics), Payload: fmt.Append(nil, i), QoS: 2}, func(err error) { errs <- err })
			require.NoError(r, err)
			switch i {
			case n / 4, n / 2:
				killPub.kill(r)
			case n / 3, 2 * n / 3:
				killSub.kill(r)
			}
		}
		select {
		case <-done:
		case <-time.After(patience):
			mu.Lock()
			defer mu.Unlock()
			require.Failf(r, "lost", "%d of %d messages arrived", total, n)
		}
		for range n {
			require.NoError(r, <-errs)
		}
		require.NoError(r, pub.Disconnect(r.patient()))
		require.NoError(r, sub.Disconnect(r.patient())) // no handler runs after it
		mu.Lock()
		defer mu.Unlock()
		require.Equal(r, n, total, "a message arrived twice")
	}},
}

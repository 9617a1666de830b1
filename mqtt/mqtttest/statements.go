package mqtttest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// statementCases are for the numbered statements that no other case has to do
// with. Like the others they say which they prove with attributes of the test,
// "mqtt5" and "mqtt3.1.1", from which tests/mqttstatements makes its table.
var statementCases = []testCase{
	{"ByteOrderMarkIsACharacterLikeOthers", func(r *run) {
		r.Attr("mqtt5", "MQTT-1.5.4-3")
		r.Attr("mqtt3.1.1", "MQTT-1.5.3-3")
		for _, v := range versions {
			sub, plain, pub := r.clientOf(v, "sub"), r.clientOf(v, "plain"), r.clientOf(v, "pub")
			sub.subscribe("\ufefft", 1)
			plain.subscribe("t", 1)
			pub.publish("\ufefft", "m", 1)
			sub.message("\ufefft", "m")
			plain.ping()
			pub.publish("t", "m", 1)
			plain.message("t", "m")
			sub.ping()
			for _, p := range []*peer{sub, plain, pub} {
				p.disconnect(packet.NormalDisconnection)
			}
		}
	}},
	{"AnswersNameTheIdentifierTheyAnswer", func(r *run) {
		r.Attr("mqtt5", "MQTT-2.2.1-5 MQTT-2.2.1-6 MQTT-3.3.4-1 MQTT-4.3.2-4 MQTT-4.3.3-8 MQTT-4.3.3-11 MQTT-3.8.4-1 MQTT-3.8.4-2 MQTT-3.10.4-4 MQTT-3.10.4-5")
		r.Attr("mqtt3.1.1", "MQTT-2.3.1-6 MQTT-2.3.1-7 MQTT-3.3.4-1 MQTT-4.3.2-2 MQTT-3.8.4-1 MQTT-3.8.4-2 MQTT-3.10.4-4 MQTT-3.10.4-5")
		for _, v := range versions {
			p := r.clientOf(v, "c")
			for _, id := range []uint16{1, 255, 256, 0x0102, 65535} {
				p.send(&packet.Publish{Topic: "t", QoS: 1, PacketID: id})
				require.Equal(r, id, expect[*packet.Puback](p).PacketID)
				p.send(&packet.Publish{Topic: "t", QoS: 2, PacketID: id})
				require.Equal(r, id, expect[*packet.Pubrec](p).PacketID)
				p.send(&packet.Pubrel{Ack: packet.Ack{PacketID: id}})
				require.Equal(r, id, expect[*packet.Pubcomp](p).PacketID)
				p.send(&packet.Subscribe{PacketID: id, Subscriptions: []packet.Subscription{{Filter: "own"}}})
				require.Equal(r, id, expect[*packet.Suback](p).PacketID)
				p.send(&packet.Unsubscribe{PacketID: id, Filters: []string{"own"}})
				require.Equal(r, id, expect[*packet.Unsuback](p).PacketID)
				p.send(&packet.Unsubscribe{PacketID: id, Filters: []string{"never"}})
				require.Equal(r, id, expect[*packet.Unsuback](p).PacketID)
			}
			p.disconnect(packet.NormalDisconnection)
		}
	}},
	{"ConnectThatIsNotAsSpecifiedIsRefused", func(r *run) {
		r.Attr("mqtt5", "MQTT-1.5.4-1 MQTT-1.5.4-2 MQTT-1.5.7-1 MQTT-3.1.2-3 MQTT-3.1.2-9 MQTT-3.1.2-11 MQTT-3.1.2-12 MQTT-3.1.2-13")
		r.Attr("mqtt5", "MQTT-3.1.2-16 MQTT-3.1.2-17 MQTT-3.1.2-18 MQTT-3.1.2-19 MQTT-3.1.3-3 MQTT-3.1.3-4 MQTT-3.1.3-11 MQTT-3.1.3-12 MQTT-3.1.4-1 MQTT-3.2.2-6 MQTT-3.2.2-7")
		r.Attr("mqtt3.1.1", "MQTT-1.5.3-1 MQTT-1.5.3-2 MQTT-3.1.2-3 MQTT-3.1.2-9 MQTT-3.1.2-11 MQTT-3.1.2-13 MQTT-3.1.2-14 MQTT-3.1.2-15 MQTT-3.1.2-18 MQTT-3.1.2-19")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-20 MQTT-3.1.2-21 MQTT-3.1.2-22 MQTT-3.1.3-3 MQTT-3.1.3-4 MQTT-3.1.3-10 MQTT-3.1.3-11 MQTT-3.1.4-1 MQTT-3.2.2-6")
		watch := r.client("watch")
		watch.subscribe("#", 0)
		for _, bad := range []struct {
			flags   byte
			payload [][]byte // nil stands for a will's properties
		}{
			{0x03, [][]byte{str("c")}},              // reserved flag
			{0x02 | 0x04 | 0x18, will("t", "m")},    // will QoS 3
			{0x02 | 0x08, [][]byte{str("c")}},       // will QoS without a will
			{0x02 | 0x20, [][]byte{str("c")}},       // will retain without a will
			{0x02, will("t", "m")},                  // a will without its flag
			{0x02 | 0x04, [][]byte{str("c")}},       // no will
			{0x02 | 0x04, will("t", "m")[:3]},       // no will payload
			{0x02 | 0x04, will("t\xff", "m")},       // will topic that is not UTF-8
			{0x02 | 0x04, will("t\x00", "m")},       // with a null character
			{0x02 | 0x04, will("t/#", "m")},         // with a wildcard
			{0x02, [][]byte{str("c"), str("u")}},    // a user name without its flag
			{0x82, [][]byte{str("c")}},              // no user name
			{0x82, [][]byte{str("c"), str("\xff")}}, // one that is not UTF-8
			{0x82, [][]byte{str("c"), str("\x00")}},
			{0x82, [][]byte{str("c"), str("u"), str("p")}}, // a password without its flag
			{0xC2, [][]byte{str("c"), str("u")}},           // no password
			{0x02, [][]byte{str("\xed\xa0\x80")}},          // identifier with a surrogate
			{0x02, [][]byte{str("a\x00")}},                 // with a null character
			{0x02, nil},                                    // no identifier
		} {
			with, without := slices.Clone(bad.payload), [][]byte{}
			for i, field := range with {
				if field == nil {
					with[i] = []byte{0} // MQTT 5 alone has them
					continue
				}
				without = append(without, field)
			}
			p := r.dial()
			p.sendRaw(connect5(bad.flags, with...))
			p.expectRefused(packet.MalformedPacket, packet.ProtocolError)
			q := r.dial()
			q.version = packet.V311
			q.sendRaw(connect311(bad.flags, without...))
			q.expectEnd()
		}
		// A user property that is no string, and, in 3.1.1, a password alone.
		for _, pair := range []string{"\xff=v", "k=\xff", "\x00=v", "k=\x00"} {
			k, v, _ := strings.Cut(pair, "=")
			prop := slices.Concat([]byte{0x26}, str(k), str(v))
			p := r.dial()
			p.sendRaw(frame(0x10, str("MQTT"), []byte{5, 0x02, 0, 0, byte(len(prop))}, prop, str("c")))
			p.expectRefused(packet.MalformedPacket)
		}
		q := r.dial()
		q.version = packet.V311
		q.sendRaw(connect311(0x42, str("c"), str("p")))
		q.expectEnd()
		watch.ping()
	}},
	{"FieldsOfConnectAreTakenInTheirOrder", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.1.2-7 MQTT-3.1.2-9 MQTT-3.1.2-17 MQTT-3.1.2-19 MQTT-3.1.3-1 MQTT-3.1.3-3")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-8 MQTT-3.1.2-9 MQTT-3.1.2-19 MQTT-3.1.2-21 MQTT-3.1.3-1 MQTT-3.1.3-3")
		w := r.watcher()
		const flags = 0x02 | 0x04 | 0x08 | 0x40 | 0x80
		p := r.dial()
		p.sendRaw(connect5(flags, str("identifier"), []byte{0}, str("will"), str("five"), str("user"), str("password")))
		require.Equal(r, packet.Success, expect[*packet.Connack](p).Code)
		p.kill()
		require.Equal(r, packet.AtLeastOnce, w.message("will", "five").QoS)
		q := r.dial()
		q.version = packet.V311
		q.sendRaw(connect311(flags, str("identifier"), str("will"), str("four"), str("user"), str("password")))
		require.Equal(r, packet.Success, expect[*packet.Connack](q).Code)
		next := r.clientOf(packet.V311, "identifier") // by which the first is known
		w.message("will", "four")
		next.ping()
	}},
	{"WillWithoutRetainIsNotKept", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.1.2-14")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-16")
		w := r.watcher()
		for _, v := range versions {
			p, _ := r.connect(willed(v, "passing"))
			p.kill()
			require.False(r, w.message("will", "passing").Retain)
			late := r.client("late")
			late.subscribe("will", 1)
			late.ping()
			late.disconnect(packet.NormalDisconnection)
		}
		require.Zero(r, r.broker.Stats().Retained)
	}},
	{"NoWillIsPublishedForAClientWithoutOne", func(r *run) {
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-12")
		w := r.watcher()
		w.subscribe("#", 1)
		for _, v := range versions {
			p := r.clientOf(v, "c")
			p.kill()
			r.clientOf(v, "c").disconnect(packet.NormalDisconnection) // the end has been seen
		}
		w.ping()
	}},
	{"IdentifiersOfLettersAndDigitsAreAccepted", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.1.3-5")
		r.Attr("mqtt3.1.1", "MQTT-3.1.3-5")
		const all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		for _, v := range versions {
			for _, id := range []string{all[:23], all[23:46], all[39:], "0", "z"} {
				p, ack := r.connect(&packet.Connect{Version: v, ClientID: id, CleanStart: true})
				if ack.Properties != nil {
					require.Empty(r, ack.Properties.AssignedClientID)
				}
				p.disconnect(packet.NormalDisconnection)
			}
		}
	}},
	{"ConnackSaysWhatItMayAndComesOnce", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.1.2-28 MQTT-3.2.0-1 MQTT-3.2.0-2 MQTT-3.2.2-1 MQTT-3.2.2-9 MQTT-3.2.2-10 MQTT-3.2.2-19 MQTT-3.2.2-20 MQTT-4.12.0-2 MQTT-4.12.0-6")
		r.Attr("mqtt3.1.1", "MQTT-3.2.0-1")
		for _, v := range versions {
			for _, info := range []packet.Opt[byte]{{}, packet.Some[byte](0), packet.Some[byte](1)} {
				c := &packet.Connect{Version: v, ClientID: "c", Properties: persistent(v)}
				if v == packet.V5 {
					c.Properties.RequestResponseInfo = info
				}
				p := r.dial()
				p.version = v
				p.send(c,
					&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "a", QoS: 1}, {Filter: "b", QoS: 2}}},
					&packet.Pingreq{})
				first := <-p.arrivals
				require.NoError(r, first.err)
				require.Equal(r, packet.CONNACK, first.header.Type)
				require.Zero(r, first.body[0]&^1, "acknowledge flags")
				pk, err := packet.Decode(first.header, first.body, v)
				require.NoError(r, err)
				if props := pk.(*packet.Connack).Properties; props != nil {
					require.False(r, props.MaximumQoS.Set)
					require.Empty(r, props.ReasonString)
					require.Empty(r, props.User)
					require.Empty(r, props.AuthMethod)
					require.Nil(r, props.AuthData)
					if info.Or(0) == 0 {
						require.Empty(r, props.ResponseInfo)
					}
				}
				got := map[packet.Type]int{}
				for range 2 {
					pk, err := p.receive()
					require.NoError(r, err)
					got[pk.Type()]++
					if ack, ok := pk.(*packet.Suback); ok {
						require.Equal(r, []packet.ReasonCode{packet.GrantedQoS1, packet.GrantedQoS2}, ack.Codes)
					}
				}
				require.Equal(r, map[packet.Type]int{packet.SUBACK: 1, packet.PINGRESP: 1}, got)
				p.ping() // nothing more, no AUTH
				p.disconnect(packet.NormalDisconnection)
			}
		}
	}},
	{"WillOfEveryQoSAndRetainIsAccepted", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.2.2-12 MQTT-3.2.2-13 MQTT-3.1.3-8")
		w := r.watcher()
		w.subscribe("will", 2)
		for q := packet.AtMostOnce; q <= packet.ExactlyOnce; q++ {
			for _, retain := range []bool{false, true} {
				c := willed(packet.V5, fmt.Sprint(q, retain))
				c.ClientID = strings.Repeat("\u00e9 /#+$", 100) // no identifier is rejected
				c.Will.QoS, c.Will.Retain = q, retain
				p, _ := r.connect(c)
				p.kill()
				require.Equal(r, q, w.message("will", fmt.Sprint(q, retain)).QoS)
			}
		}
	}},
	{"ConnectThatFailsAFurtherCheckEndsTheConnection", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.1.4-2 MQTT-3.2.2-6 MQTT-3.2.2-7 MQTT-4.13.2-1 MQTT-3.14.0-1")
		r.Attr("mqtt3.1.1", "MQTT-3.2.2-4 MQTT-3.2.2-5")
		r.start(&broker.Config{MaxSessions: 1})
		first := r.client("first")
		for _, v := range []packet.Version{packet.V311, packet.V5} {
			p := r.dial()
			p.version = v
			p.send(&packet.Connect{Version: v, ClientID: "second", CleanStart: true})
			p.expectRefused(packet.QuotaExceeded, packet.ServerUnavailable)
		}
		first.ping()
	}},
	{"DupOfAPublisherIsItsOwn", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.3.1-3 MQTT-4.3.2-2 MQTT-4.3.3-2")
		r.Attr("mqtt3.1.1", "MQTT-3.3.1-3")
		for _, v := range versions {
			sub, pub := r.clientOf(v, "sub"), r.clientOf(v, "pub")
			sub.subscribe("t", 2)
			for q := packet.AtLeastOnce; q <= packet.ExactlyOnce; q++ {
				pub.publishPacket(&packet.Publish{Topic: "t", Payload: []byte("m"), QoS: q, Dup: true})
				m := sub.message("t", "m")
				require.False(r, m.Dup)
				require.Equal(r, q, m.QoS)
			}
			sub.disconnect(packet.NormalDisconnection)
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"IdentifierThatWasAcknowledgedIsANewMessage", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.3.2-5 MQTT-4.3.3-12")
		r.Attr("mqtt3.1.1", "MQTT-4.3.2-2 MQTT-4.3.3-2")
		for _, v := range versions {
			sub, pub := r.clientOf(v, "sub"), r.clientOf(v, "pub")
			sub.subscribe("t", 0)
			for _, dup := range []bool{false, true, false} {
				pub.send(&packet.Publish{Topic: "t", Payload: []byte("one"), QoS: 1, PacketID: 5, Dup: dup})
				require.EqualValues(r, 5, expect[*packet.Puback](pub).PacketID)
				sub.message("t", "one")
				pub.send(&packet.Publish{Topic: "t", Payload: []byte("two"), QoS: 2, PacketID: 5, Dup: dup})
				require.EqualValues(r, 5, expect[*packet.Pubrec](pub).PacketID)
				pub.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 5}})
				require.EqualValues(r, 5, expect[*packet.Pubcomp](pub).PacketID)
				sub.message("t", "two")
			}
			sub.ping()
			sub.disconnect(packet.NormalDisconnection)
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"EveryTopicAliasUpToTheMaximumIsAccepted", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.3.2-12")
		sub := r.client("sub")
		sub.subscribe("#", 1)
		pub, ack := r.connect(&packet.Connect{Version: packet.V5, ClientID: "pub", CleanStart: true})
		most := ack.Properties.TopicAliasMaximum.Or(0)
		require.NotZero(r, most)
		for _, name := range []bool{true, false} {
			for alias := uint16(1); alias <= most; alias++ {
				m := &packet.Publish{QoS: 1, Properties: &packet.Properties{TopicAlias: packet.Some(alias)}}
				if name {
					m.Topic = fmt.Sprint("topic/", alias)
				}
				pub.publishPacket(m)
				sub.message(fmt.Sprint("topic/", alias), "")
			}
		}
	}},
	{"CopiesOfDifferentSubscriptionsHaveTheirOwnIdentifiers", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.3.4-3 MQTT-3.3.4-5")
		sub, pub := r.client("sub"), r.client("pub")
		for id, filter := range []string{"t", "$share/a/t", "$share/b/t"} {
			sub.suback(&packet.Subscribe{
				Subscriptions: []packet.Subscription{{Filter: filter, QoS: 1}},
				Properties:    &packet.Properties{SubscriptionIDs: []uint32{uint32(id + 1)}},
			})
		}
		pub.publish("t", "m", 1)
		var got []uint32
		for range 3 {
			m := sub.message("t", "m")
			require.Len(r, m.Properties.SubscriptionIDs, 1)
			got = append(got, m.Properties.SubscriptionIDs...)
		}
		require.ElementsMatch(r, []uint32{1, 2, 3}, got)
		sub.ping()
	}},
	{"EmptySendQuotaHoldsNothingElse", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.3.4-9 MQTT-3.3.4-10 MQTT-4.9.0-2 MQTT-4.9.0-3")
		p, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "p", CleanStart: true, Properties: &packet.Properties{
			ReceiveMaximum: packet.Some[uint16](1),
		}})
		pub := r.client("pub")
		p.subscribe("t", 2)
		pub.publish("t", "one", 2)
		pub.publish("t", "two", 2)
		one := p.unacked("t", "one")
		p.subscribe("free", 0)
		p.publish("free", "to itself", 1)
		p.message("free", "to itself")
		p.publish("other", "m", 2)
		require.Equal(r, []packet.ReasonCode{packet.Success}, p.unsubscribe("free"))
		p.ping()
		p.send(&packet.Pubrec{Ack: packet.Ack{PacketID: one.PacketID}})
		p.expectPubrel(one.PacketID)
		p.ping() // the exchange is not complete
		p.send(&packet.Pubcomp{Ack: packet.Ack{PacketID: one.PacketID}})
		p.message("t", "two")
	}},
	{"ReplacingASubscriptionLosesNothing", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.8.4-3 MQTT-3.8.4-4")
		r.Attr("mqtt3.1.1", "MQTT-3.8.4-3")
		sub, pub := r.client("sub"), r.client("pub")
		sub.subscribe("t", 1)
		const n, again = 200, 50
		var burst []packet.Packet
		for i := range n {
			burst = append(burst, &packet.Publish{Topic: "t", Payload: fmt.Append(nil, i), QoS: 1, PacketID: pub.id()})
		}
		pub.send(burst...)
		var replace []packet.Packet
		for range again {
			replace = append(replace, &packet.Subscribe{PacketID: sub.id(), Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}})
		}
		sub.send(replace...)
		answers := 0
		for got := 0; got < n || answers < again; {
			pk, err := sub.receive()
			require.NoError(r, err)
			switch pk := pk.(type) {
			case *packet.Suback:
				answers++
			case *packet.Publish:
				require.Equal(r, fmt.Sprint(got), string(pk.Payload))
				got++
				sub.ack(pk)
			}
		}
		sub.ping()
	}},
	{"LongestTopicAndFilterWork", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.7.3-3")
		r.Attr("mqtt3.1.1", "MQTT-4.7.3-3")
		longest := strings.Repeat("t", 65535)
		for _, v := range versions {
			p := r.clientOf(v, "p")
			p.subscribe(longest, 1)
			p.send(&packet.Publish{Topic: longest, Payload: []byte("m")})
			m := expect[*packet.Publish](p)
			require.True(r, longest == m.Topic)
			p.disconnect(packet.NormalDisconnection)
		}
	}},
	{"SharedMessageOfQoS2StaysWithItsMember", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.8.2-4")
		a, _ := r.session("a", true)
		a.subscribe("$share/g/t", 2)
		pub := r.client("pub")
		pub.publish("t", "m", 2)
		m := a.unacked("t", "m")
		b := r.client("b")
		b.subscribe("$share/g/t", 2)
		a.kill()
		a, ack := r.session("a", false)
		require.True(r, ack.SessionPresent)
		again := a.message("t", "m")
		require.True(r, again.Dup)
		require.Equal(r, m.PacketID, again.PacketID)
		b.ping()
	}},
	{"SharedMessageOfQoS2EndsWithTheSessionOfItsMember", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.8.2-5")
		a, _ := r.session("a", true)
		a.subscribe("$share/g/t", 2)
		pub := r.client("pub")
		pub.publish("t", "m", 2)
		a.unacked("t", "m")
		b := r.client("b")
		b.subscribe("$share/g/t", 2)
		a.kill()
		a = r.client("a") // a clean start
		a.ping()
		b.ping()
		pub.publish("t", "next", 2)
		b.message("t", "next")
	}},
	{"SharedMessageThatAMemberRefusesIsNobodyElses", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.8.2-6 MQTT-4.4.0-2")
		for q := packet.AtLeastOnce; q <= packet.ExactlyOnce; q++ {
			a, _ := r.session("a", true)
			a.subscribe("$share/g/t", q)
			pub := r.client("pub")
			pub.publish("t", "m", q)
			m := a.unacked("t", "m")
			b := r.client("b")
			b.subscribe("$share/g/t", q)
			refusal := packet.Ack{PacketID: m.PacketID, Code: packet.NotAuthorized}
			if q == packet.AtLeastOnce {
				a.send(&packet.Puback{Ack: refusal})
			} else {
				a.send(&packet.Pubrec{Ack: refusal})
			}
			a.ping()
			b.ping()
			a.kill()
			a, ack := r.session("a", false)
			require.True(r, ack.SessionPresent)
			a.ping() // nor sent again
			a.disconnect(packet.NormalDisconnection)
			b.disconnect(packet.NormalDisconnection)
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"RetainedMessageOutlivesTheSession", func(r *run) {
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-7 MQTT-3.3.1-5 MQTT-3.3.1-6 MQTT-3.3.1-7")
		pub := r.clientOf(packet.V311, "pub")
		pub.retain("t", "first", 2)
		pub.retain("t", "last", 0)
		pub.disconnect(packet.NormalDisconnection) // a clean session, it ends
		sub := r.clientOf(packet.V311, "sub")
		sub.subscribe("t", 2)
		m := sub.message("t", "last")
		require.True(r, m.Retain)
		require.Equal(r, packet.AtMostOnce, m.QoS)
		sub.ping()
	}},
	{"OverlappingSubscriptionsOf311DeliverTheHighestQoS", func(r *run) {
		r.Attr("mqtt3.1.1", "MQTT-3.3.5-1")
		sub, pub := r.clientOf(packet.V311, "sub"), r.clientOf(packet.V311, "pub")
		sub.subscribe("a/b", 0)
		sub.subscribe("a/+", 2)
		sub.subscribe("#", 1)
		pub.publish("a/b", "m", 2)
		m := expect[*packet.Publish](sub)
		highest := m.QoS
		sub.ack(m)
		for _, m := range sub.drain() { // it may send one for each subscription
			highest = max(highest, m.QoS)
		}
		require.Equal(r, packet.ExactlyOnce, highest)
	}},
	{"PublishThatIsNotAllowedFrom311IsAcknowledged", func(r *run) {
		r.Attr("mqtt3.1.1", "MQTT-3.3.5-2")
		r.start(&broker.Config{MaxRetained: 1, Limits: session.Limits{}})
		for q := packet.AtLeastOnce; q <= packet.ExactlyOnce; q++ {
			five, old := r.client("five"), r.clientOf(packet.V311, "old")
			five.retain("kept", "m", 1)
			refused := &packet.Publish{Topic: "more", Payload: []byte("m"), QoS: q, Retain: true}
			require.True(r, five.publishPacket(refused).Failed())
			old.publishPacket(refused) // expects the whole exchange
			old.ping()
			five.disconnect(packet.NormalDisconnection)
			old.disconnect(packet.NormalDisconnection)
		}
	}},
}

// will is the payload of a CONNECT with a will; nil stands for its properties.
func will(topic, payload string) [][]byte {
	return [][]byte{str("c"), nil, str(topic), str(payload)}
}

// badStrings are packets with strings that are none, and others that break a
// numbered statement.
var badStrings = []badPacket{
	{"SubscribeToWhatIsNotUTF8", frame(0x82, []byte{0, 1, 0}, str("a\xff"), []byte{0}), malformed, frame(0x82, []byte{0, 1}, str("a\xff"), []byte{0})},
	{"SubscribeWithANulInTheFilter", frame(0x82, []byte{0, 1, 0}, str("a\x00"), []byte{0}), malformed, frame(0x82, []byte{0, 1}, str("a\x00"), []byte{0})},
	{"UnsubscribeFromWhatIsNotUTF8", frame(0xA2, []byte{0, 1, 0}, str("a\xff")), malformed, frame(0xA2, []byte{0, 1}, str("a\xff"))},
	{"UnsubscribeWithANulInTheFilter", frame(0xA2, []byte{0, 1, 0}, str("a\x00")), malformed, frame(0xA2, []byte{0, 1}, str("a\x00"))},
	{"PublishWithAResponseTopicThatIsNotUTF8", frame(0x30, str("t"), []byte{5, 0x08, 0, 2, 'a', 0xff}), malformed, nil},
	{"PublishWithAContentTypeThatIsNotUTF8", frame(0x30, str("t"), []byte{5, 0x03, 0, 2, 'a', 0xff}), malformed, nil},
	{"PublishWithAUserPropertyNameThatIsNotUTF8", frame(0x30, str("t"), []byte{7, 0x26, 0, 1, 0xff, 0, 1, 'v'}), malformed, nil},
	{"PublishWithAUserPropertyValueThatIsNotUTF8", frame(0x30, str("t"), []byte{7, 0x26, 0, 1, 'k', 0, 1, 0xff}), malformed, nil},
	{"PublishWithANulInAUserProperty", frame(0x30, str("t"), []byte{7, 0x26, 0, 1, 'k', 0, 1, 0}), malformed, nil},
	{"PublishWithAPropertyLengthThatIsNotMinimal", frame(0x30, str("t"), []byte{0x80, 0}), malformed, nil},
	{"AuthWithReservedFlags", frame(0xF1, []byte{0x18, 4, 0x15, 0, 1, 'm'}), malformed, nil},
	{"AuthWithAReasonItDoesNotHave", frame(0xF0, []byte{0x01, 4, 0x15, 0, 1, 'm'}), either, nil},
	{"PubrecWithAReasonItDoesNotHave", frame(0x50, []byte{0, 1, 0x8E}), either, nil},
	{"PubrelWithAReasonItDoesNotHave", frame(0x62, []byte{0, 1, 0x10}), either, nil},
	{"PubcompWithAReasonItDoesNotHave", frame(0x70, []byte{0, 1, 0x10}), either, nil},
}

// badProofs are the statements that the refusal of a bad packet proves, of MQTT 5
// and of MQTT 3.1.1. That it is refused at all proves others: see
// makeMalformedCases.
var badProofs = map[string][2]string{
	"ReservedFlagsOfSubscribe":                   {"MQTT-2.1.3-1 MQTT-3.8.1-1", "MQTT-2.2.2-1 MQTT-2.2.2-2 MQTT-3.8.1-1"},
	"ReservedFlagsOfUnsubscribe":                 {"MQTT-2.1.3-1 MQTT-3.10.1-1", "MQTT-2.2.2-1 MQTT-2.2.2-2 MQTT-3.10.1-1"},
	"ReservedFlagsOfPubrel":                      {"MQTT-2.1.3-1 MQTT-3.6.1-1", "MQTT-2.2.2-1 MQTT-2.2.2-2 MQTT-3.6.1-1"},
	"ReservedFlagsOfPingreq":                     {"MQTT-2.1.3-1", "MQTT-2.2.2-1 MQTT-2.2.2-2"},
	"ReservedFlagsOfDisconnect":                  {"MQTT-2.1.3-1 MQTT-3.14.1-1", "MQTT-2.2.2-2 MQTT-3.14.1-1"},
	"AuthWithReservedFlags":                      {"MQTT-2.1.3-1 MQTT-3.15.1-1", ""},
	"LengthThatIsNotMinimal":                     {"MQTT-1.5.5-1", ""},
	"PublishWithAPropertyLengthThatIsNotMinimal": {"MQTT-1.5.5-1", ""},
	"PublishWithQoSThree":                        {"MQTT-3.3.1-4", "MQTT-3.3.1-4"},
	"PublishOfQoS0WithDup":                       {"MQTT-3.3.1-2", "MQTT-3.3.1-2"},
	"PublishWithIdentifierZero":                  {"", "MQTT-2.3.1-1"},
	"SubscribeWithIdentifierZero":                {"", "MQTT-2.3.1-1"},
	"PublishToAWildcard":                         {"MQTT-3.3.2-2 MQTT-4.7.0-1", "MQTT-3.3.2-2 MQTT-4.7.1-1"},
	"PublishWithoutTopic":                        {"MQTT-4.7.3-1", "MQTT-4.7.3-1"},
	"PublishWithNulInTheTopic":                   {"MQTT-1.5.4-2 MQTT-4.7.3-2", "MQTT-1.5.3-2 MQTT-4.7.3-2"},
	"PublishWithInvalidUTF8":                     {"MQTT-1.5.4-1 MQTT-3.3.2-1", "MQTT-1.5.3-1 MQTT-3.3.2-1"},
	"PublishWithASurrogate":                      {"MQTT-1.5.4-1", "MQTT-1.5.3-1"},
	"PublishWithAWildcardInTheResponseTopic":     {"MQTT-3.3.2-14", ""},
	"PublishWithAResponseTopicThatIsNotUTF8":     {"MQTT-3.3.2-13", ""},
	"PublishWithAContentTypeThatIsNotUTF8":       {"MQTT-3.3.2-19", ""},
	"PublishWithAUserPropertyNameThatIsNotUTF8":  {"MQTT-1.5.7-1", ""},
	"PublishWithAUserPropertyValueThatIsNotUTF8": {"MQTT-1.5.7-1", ""},
	"SubscribeWithoutFilters":                    {"MQTT-3.8.3-2", "MQTT-3.8.3-3"},
	"SubscribeWithQoSThree":                      {"", "MQTT-3.8.3-4"},
	"SubscribeWithReservedOptions":               {"MQTT-3.8.3-5", "MQTT-3.8.3-4"},
	"SubscribeToWhatIsNotUTF8":                   {"MQTT-3.8.3-1", "MQTT-3.8.3-1"},
	"SubscribeWithANulInTheFilter":               {"MQTT-4.7.3-2", "MQTT-4.7.3-2"},
	"UnsubscribeWithoutFilters":                  {"MQTT-3.10.3-2", "MQTT-3.10.3-2"},
	"UnsubscribeFromWhatIsNotUTF8":               {"MQTT-3.10.3-1", "MQTT-3.10.3-1"},
	"DisconnectWithAnUnknownReason":              {"MQTT-3.14.2-1", ""},
	"PubackWithAReasonItDoesNotHave":             {"MQTT-3.4.2-1", ""},
	"PubrecWithAReasonItDoesNotHave":             {"MQTT-3.5.2-1", ""},
	"PubrelWithAReasonItDoesNotHave":             {"MQTT-3.6.2-1", ""},
	"PubcompWithAReasonItDoesNotHave":            {"MQTT-3.7.2-1", ""},
	"AuthWithAReasonItDoesNotHave":               {"MQTT-3.15.2-1", ""},
	"AuthForReauthenticationWithoutAMethod":      {"MQTT-4.12.1-2", ""},
}

// proveBad says what the refusal of bad proves.
func (r *run) proveBad(bad badPacket) {
	r.Attr("mqtt5", strings.TrimSpace("MQTT-4.13.1-1 MQTT-4.13.2-1 MQTT-3.14.4-1 MQTT-3.14.4-2 "+badProofs[bad.name][0]))
	if bad.old != nil {
		r.Attr("mqtt3.1.1", strings.TrimSpace("MQTT-4.8.0-1 "+badProofs[bad.name][1]))
	}
}

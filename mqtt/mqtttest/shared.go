package mqtttest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

var sharedCases = []testCase{
	{"SharedSubscriptionSendsEachMessageToOneMember", func(r *run) { // Section 4.8.2
		const members, n = 3, 60
		var peers []*peer
		for i := range members {
			p := r.client(fmt.Sprint("member", i))
			p.subscribe("$share/g/t/+", 1)
			peers = append(peers, p)
		}
		pub := r.client("pub")
		for i := range n {
			pub.publish(fmt.Sprint("t/", i), "m", 1)
		}
		got := map[string]int{}
		for _, p := range peers {
			mine := p.drain()
			for _, m := range mine {
				got[m.Topic]++
			}
			require.NotEmpty(r, mine, "a member got nothing of %d messages", n)
		}
		require.Len(r, got, n)
		for topic, copies := range got {
			require.Equal(r, 1, copies, topic)
		}
	}},
	{"GroupsAndOrdinarySubscriptionsEachGetACopy", func(r *run) { // Section 4.8.2
		a, b, c := r.client("a"), r.client("b"), r.client("c")
		a.subscribe("$share/one/t", 1)
		b.subscribe("$share/two/t", 1)
		c.subscribe("t", 1)
		pub := r.client("pub")
		pub.publish("t", "m", 1)
		for _, p := range []*peer{a, b, c} {
			p.message("t", "m")
			p.ping()
		}
	}},
	{"MemberThatAlsoSubscribesItselfGetsBoth", func(r *run) { // Section 4.8.2: they are different subscriptions
		p, pub := r.client("p"), r.client("pub")
		p.subscribe("$share/g/t", 1)
		p.subscribe("t", 1)
		pub.publish("t", "m", 1)
		p.message("t", "m")
		p.message("t", "m")
		p.ping()
	}},
	{"SharedSubscriptionGetsNoRetainedMessages", func(r *run) { // Section 3.8.4
		pub, p := r.client("pub"), r.client("p")
		pub.retain("t", "retained", 1)
		p.subscribe("$share/g/t", 1)
		p.ping()
		pub.publish("t", "m", 1)
		p.message("t", "m")
	}},
	{"NoLocalOnASharedSubscriptionIsAProtocolError", func(r *run) { // [MQTT-3.8.3-4]
		r.Attr("mqtt5", "MQTT-3.8.3-4")
		p := r.client("p")
		p.sendRaw(frame(0x82, []byte{0, 1, 0}, str("$share/g/t"), []byte{0x04}))
		p.expectDisconnect(packet.ProtocolError)
	}},
	{"MalformedShareNameIsRefused", func(r *run) { // [MQTT-4.8.2-1], [MQTT-4.8.2-2], Section 4.13
		r.Attr("mqtt5", "MQTT-4.8.2-1 MQTT-4.8.2-2")
		other := r.client("other")
		for _, bad := range []string{"$share/", "$share/g", "$share/g/", "$share//t", "$share/g+/t", "$share/#/t", "$share/g/a#"} {
			p := r.client("p")
			p.sendRaw(frame(0x82, []byte{0, 1, 0}, str(bad), []byte{0}))
			p.expectDisconnect(packet.MalformedPacket, packet.ProtocolError)
		}
		other.ping()
	}},
	{"MemberThatLeavesIsPassedOver", func(r *run) { // Section 4.8.2
		a, b, pub := r.client("a"), r.client("b"), r.client("pub")
		a.subscribe("$share/g/t", 1)
		b.subscribe("$share/g/t", 1)
		require.Equal(r, []packet.ReasonCode{packet.Success}, a.unsubscribe("$share/g/t"))
		for range 4 {
			pub.publish("t", "m", 1)
			b.message("t", "m")
		}
		a.ping()
	}},
	{"MemberWithItsOwnQoS", func(r *run) { // [MQTT-4.8.2-3]
		r.Attr("mqtt5", "MQTT-4.8.2-3")
		p, pub := r.client("p"), r.client("pub")
		p.subscribe("$share/g/t", 1)
		pub.publish("t", "m", 2)
		require.Equal(r, packet.AtLeastOnce, p.message("t", "m").QoS)
		p.subscribe("$share/g/t", 2)
		pub.publish("t", "m", 2)
		require.Equal(r, packet.ExactlyOnce, p.message("t", "m").QoS)
	}},
	{"SharedSubscriptionOutlivesTheConnection", func(r *run) {
		p, _ := r.session("p", true)
		p.subscribe("$share/g/t", 1)
		p.kill()
		p, ack := r.session("p", false)
		require.True(r, ack.SessionPresent)
		r.client("pub").publish("t", "m", 1)
		p.message("t", "m")
	}},
}

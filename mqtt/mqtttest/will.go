package mqtttest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// willed is a CONNECT with a will for the topic "will".
func willed(v packet.Version, payload string) *packet.Connect {
	return &packet.Connect{Version: v, ClientID: "willed", CleanStart: true, Will: &packet.Will{Topic: "will", Payload: []byte(payload), QoS: 1}}
}

// watcher subscribes to "will" and to "marker", whose messages show that none
// came before.
func (r *run) watcher() *peer {
	r.Helper()
	w := r.client("watcher")
	w.subscribe("will", 1)
	w.subscribe("marker", 1)
	return w
}

// noWill shows that no will was published before now.
func (p *peer) noWill() {
	p.r.Helper()
	marker := p.r.client("marker")
	marker.publish("marker", "m", 1)
	p.message("marker", "m")
	marker.disconnect(packet.NormalDisconnection)
}

var willCases = []testCase{
	{"WillIsPublishedWhenTheConnectionIsLost", func(r *run) { // [MQTT-3.1.2-8]
		r.Attr("mqtt5", "MQTT-3.1.2-7 MQTT-3.1.2-8")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-8")
		w := r.watcher()
		for _, v := range versions {
			p, _ := r.connect(willed(v, "lost"))
			p.kill()
			m := w.message("will", "lost")
			require.Equal(r, packet.AtLeastOnce, m.QoS)
			require.False(r, m.Retain)
		}
	}},
	{"WillIsNotPublishedAfterDisconnect", func(r *run) { // [MQTT-3.1.2-10], [MQTT-3.14.4-3]
		r.Attr("mqtt5", "MQTT-3.1.2-8 MQTT-3.1.2-10 MQTT-3.14.4-3")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-8 MQTT-3.1.2-10 MQTT-3.14.4-3")
		w := r.watcher()
		for _, v := range versions {
			p, _ := r.connect(willed(v, "no"))
			p.disconnect(packet.NormalDisconnection)
			w.noWill()
		}
	}},
	{"WillIsPublishedAfterDisconnectThatAsksForIt", func(r *run) { // Section 3.14.2.1, reason code 0x04
		w := r.watcher()
		p, _ := r.connect(willed(packet.V5, "asked"))
		p.disconnect(packet.DisconnectWithWill)
		w.message("will", "asked")
	}},
	{"WillIsPublishedAfterAProtocolError", func(r *run) { // Section 3.1.2.5
		w := r.watcher()
		for _, v := range versions {
			p, _ := r.connect(willed(v, "error"))
			p.sendRaw([]byte{0x00, 0x00})
			p.expectDisconnect(packet.MalformedPacket)
			w.message("will", "error")
		}
	}},
	{"WillIsPublishedWhenTheKeepAliveRunsOut", func(r *run) { // [MQTT-3.1.2-22], Section 3.1.2.5
		r.Attr("mqtt5", "MQTT-3.1.2-22")
		w := r.watcher()
		c := willed(packet.V5, "silent")
		c.KeepAlive = 1
		p, _ := r.connect(c)
		p.expectDisconnect(packet.KeepAliveTimeout)
		w.message("will", "silent")
	}},
	{"WillIsPublishedAtTakeover", func(r *run) { // Section 3.1.4: the connection is closed, and the delay is zero
		w := r.watcher()
		p, _ := r.connect(willed(packet.V5, "old"))
		q, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "willed"})
		p.expectDisconnect(packet.SessionTakenOver)
		w.message("will", "old")
		q.ping()
	}},
	{"WillMayBeRetained", func(r *run) { // [MQTT-3.1.2-15]
		r.Attr("mqtt5", "MQTT-3.1.2-15")
		w := r.watcher()
		c := willed(packet.V5, "retained")
		c.Will.Retain, c.Will.QoS = true, packet.ExactlyOnce
		p, _ := r.connect(c)
		p.kill()
		w.message("will", "retained")
		late := r.client("late")
		late.subscribe("will", 2)
		m := late.message("will", "retained")
		require.True(r, m.Retain)
		require.Equal(r, packet.ExactlyOnce, m.QoS)
	}},
	{"WillKeepsItsProperties", func(r *run) { // Section 3.1.3.2, [MQTT-3.1.3-10]
		r.Attr("mqtt5", "MQTT-3.1.3-10")
		w := r.watcher()
		c := willed(packet.V5, "m")
		c.Will.Properties = &packet.Properties{
			ContentType: "text/plain", ResponseTopic: "answer", CorrelationData: []byte("1"), PayloadFormat: packet.Some[byte](1),
			User: []packet.UserProperty{{Key: "k", Value: "v"}, {Key: "k", Value: "w"}},
		}
		p, _ := r.connect(c)
		p.kill()
		got := w.message("will", "m").Properties
		require.NotNil(r, got)
		require.Equal(r, "text/plain", got.ContentType)
		require.Equal(r, "answer", got.ResponseTopic)
		require.Equal(r, []byte("1"), got.CorrelationData)
		require.Equal(r, packet.Some[byte](1), got.PayloadFormat)
		require.Equal(r, c.Will.Properties.User, got.User)
		require.False(r, got.WillDelay.Set)
	}},
	{"WillWaitsForItsDelay", func(r *run) { // [MQTT-3.1.3-9], Section 3.1.3.2.2
		r.Attr("mqtt5", "MQTT-3.1.2-8")
		w := r.watcher()
		p, _ := r.connect(delayed(4))
		start := time.Now()
		p.kill()
		w.noWill()
		w.message("will", "delayed")
		require.GreaterOrEqual(r, time.Since(start), 4*time.Second)
	}},
	{"WillIsCancelledByTheClientsReturn", func(r *run) { // [MQTT-3.1.3-9]
		r.Attr("mqtt5", "MQTT-3.1.3-9 MQTT-3.1.2-8")
		w := r.watcher()
		p, _ := r.connect(delayed(4))
		p.kill()
		back, ack := r.connect(&packet.Connect{Version: packet.V5, ClientID: "willed", Properties: persistent(packet.V5)})
		require.True(r, ack.SessionPresent)
		r.wait(4)
		w.noWill()
		back.kill() // and it has no will on this connection
		w.noWill()
	}},
	{"WillDelayEndsWithTheSession", func(r *run) { // Section 3.1.3.2.2: whichever happens first
		r.Attr("mqtt5", "MQTT-3.1.2-8")
		w := r.watcher()
		c := delayed(3600)
		c.Properties = nil // the session ends with the connection
		p, _ := r.connect(c)
		p.kill()
		w.message("will", "delayed")

		// A clean start ends the session too.
		p, _ = r.connect(delayed(3600))
		p.kill()
		r.connect(&packet.Connect{Version: packet.V5, ClientID: "willed", CleanStart: true})
		w.message("will", "delayed")
	}},
	{"WillIsPublishedOnce", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.1.2-10")
		w := r.watcher()
		p, _ := r.connect(willed(packet.V5, "once"))
		require.NoError(r, p.link.CloseWithCode(mqtt.LinkControlDown))
		w.message("will", "once")
		r.client("willed").disconnect(packet.NormalDisconnection)
		w.noWill()
	}},
}

// delayed is a CONNECT with a will that waits for some seconds, for a session
// that outlives them.
func delayed(seconds uint32) *packet.Connect {
	c := willed(packet.V5, "delayed")
	c.Properties = persistent(packet.V5)
	c.Will.Properties = &packet.Properties{WillDelay: packet.Some(seconds)}
	return c
}

package mqtttest

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

var serverCases = []testCase{
	{"PingIsAnswered", func(r *run) { // [MQTT-3.12.4-1]
		r.Attr("mqtt5", "MQTT-3.12.4-1")
		r.Attr("mqtt3.1.1", "MQTT-3.12.4-1")
		for _, v := range versions {
			p := r.clientOf(v, "c")
			p.ping()
			p.ping()
			p.disconnect(packet.NormalDisconnection)
		}
	}},
	{"SilentClientIsDisconnectedAfterOneAndAHalfKeepAlives", func(r *run) { // [MQTT-3.1.2-22], reason code 0x8D
		r.Attr("mqtt5", "MQTT-3.1.2-22 MQTT-3.2.2-22 MQTT-3.14.4-1 MQTT-3.14.4-2")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-24")
		start := time.Now()
		var silent []*peer
		for _, v := range versions {
			p, _ := r.connect(&packet.Connect{Version: v, ClientID: fmt.Sprint("c", v), CleanStart: true, KeepAlive: 1})
			silent = append(silent, p)
		}
		for _, p := range silent {
			p.expectDisconnect(packet.KeepAliveTimeout)
			require.GreaterOrEqual(r, time.Since(start), 1500*time.Millisecond)
		}
	}},
	{"EveryPacketCountsForTheKeepAlive", func(r *run) { // Section 3.1.2.10
		p, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, KeepAlive: 6})
		silent, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "silent", CleanStart: true, KeepAlive: 7})
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for alive := 0; ; alive++ {
			select {
			case <-tick.C:
				if alive%2 == 0 {
					p.send(&packet.Publish{Topic: "t"})
				} else {
					p.ping()
				}
			case <-silent.arrivals: // after 10.5 s: more than p is allowed
				p.ping()
				return
			}
		}
	}},
	{"KeepAliveOfZeroTurnsItOff", func(r *run) { // Section 3.1.2.10
		p, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true})
		silent, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "silent", CleanStart: true, KeepAlive: 1})
		silent.expectDisconnect(packet.KeepAliveTimeout)
		p.ping()
	}},
	{"DisconnectEndsTheConnection", func(r *run) { // [MQTT-3.14.4-1], [MQTT-3.14.4-2]
		for _, v := range versions {
			p := r.clientOf(v, "c")
			p.send(&packet.Disconnect{})
			p.expectEnd()
		}
	}},
	{"ShutdownTellsTheClients", func(r *run) { // Section 3.14.2.1, reason code 0x8B
		sub, pub := r.client("sub"), r.client("pub")
		old := r.clientOf(packet.V311, "old")
		sub.subscribe("t", 1)
		pub.publish("t", "last", 1)
		done := make(chan error, 1)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		go func() { done <- r.broker.Shutdown(ctx) }() // ends with the clients or ctx
		sub.unacked("t", "last")                       // is not lost by the shutdown
		for _, p := range []*peer{sub, pub, old} {
			p.expectDisconnect(packet.ServerShuttingDown)
			p.close()
		}
		require.NoError(r, <-done)
		for kind, n := range r.broker.Stats().Connections {
			require.Zero(r, n.Now, kind)
		}
		// Nobody is served any more; on UDP, nobody may be there to say so.
		late, cancelLate := context.WithTimeout(ctx, time.Second)
		defer cancelLate()
		link, err := r.target.Dial(late)
		if err == nil {
			s, err := link.OpenStream(late)
			if err == nil {
				p := newPeer(r, link, s)
				_, _ = s.Write(connect5(0x02, str("late")))
				p.expectEnd()
			}
			require.NoError(r, link.CloseWithCode(mqtt.LinkNormal))
		}
	}},
	{"ShutdownDoesNotWaitForADeafClient", func(r *run) {
		r.start(&broker.Config{DrainTimeout: 200 * time.Millisecond})
		r.client("deaf") // does not read and does not close
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(r, r.broker.Shutdown(ctx))
	}},
	{"CloseEndsEveryConnection", func(r *run) {
		p, q := r.client("p"), r.dial()
		require.NoError(r, r.broker.Close())
		for _, c := range []*peer{p, q} {
			for {
				if _, err := c.receive(); err != nil {
					break
				}
			}
		}
	}},
	{"ManyClientsConnectAtOnce", func(r *run) {
		r.start(nil)
		const n = 50
		errs := make(chan error, n)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for i := range n {
			go func() { errs <- r.roundTrip(ctx, fmt.Sprint("client-", i)) }() // ends with ctx
		}
		for range n {
			require.NoError(r, <-errs)
		}
		require.Equal(r, uint64(n), r.broker.Stats().Connections[r.carrier.Kind].Total)
	}},
	{"SilentConnectionsDoNotKeepOthersOut", func(r *run) { // MQTT over QUIC: a connection without stream 0 never blocks Accept
		r.start(nil)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for range 10 {
			link, err := r.target.Dial(ctx)
			require.NoError(r, err)
			r.Cleanup(func() { _ = link.CloseWithCode(mqtt.LinkNormal) })
		}
		r.client("c").ping()
	}},
}

// roundTrip connects, has a PING answered and disconnects.
func (r *run) roundTrip(ctx context.Context, id string) error {
	link, err := r.target.Dial(ctx)
	if err != nil {
		return fmt.Errorf("%s: dial: %w", id, err)
	}
	defer link.CloseWithCode(mqtt.LinkNormal)
	s, err := link.OpenStream(ctx)
	if err != nil {
		return fmt.Errorf("%s: open: %w", id, err)
	}
	deadline, _ := ctx.Deadline()
	if err := s.SetReadDeadline(deadline); err != nil {
		return err
	}
	if _, err := s.Write(append(connect5(0x02, str(id)), 0xC0, 0)); err != nil {
		return fmt.Errorf("%s: write: %w", id, err)
	}
	rd := mqtt.NewReader(s, 0)
	for _, want := range []packet.Type{packet.CONNACK, packet.PINGRESP} {
		h, body, err := rd.Next()
		switch {
		case err != nil:
			return fmt.Errorf("%s: read: %w", id, err)
		case h.Type != want:
			return fmt.Errorf("%s: packet type %d, want %d", id, h.Type, want)
		case want == packet.CONNACK && body[1] != 0:
			return fmt.Errorf("%s: refused with %#x", id, body[1])
		}
	}
	return nil
}

package session_test

import (
	"fmt"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A client publishes with QoS 1. The caller routes the message, here to the same
// client, and writes what the session wants to send.
func Example() {
	now := time.Now()
	s := session.New("client-1", session.Limits{})
	s.Attach(now, &packet.Connect{Version: packet.V311, ClientID: "client-1"}, session.Attach{})

	publish := &packet.Publish{Topic: "greeting", Payload: []byte("hello"), QoS: packet.AtLeastOnce, PacketID: 7}
	for _, e := range s.Receive(nil, now, mqtt.ControlStream, publish) {
		if e.Kind == session.EffectRoute {
			s.Deliver(now, e.Message, session.Delivery{QoS: packet.AtMostOnce})
			s.Routed(now, e.Stream, e.PacketID, packet.Success)
		}
	}
	for {
		o, ok := s.Next(now, mqtt.ControlStream)
		if !ok {
			break
		}
		wire, err := o.Append(nil, s.Version(), now)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("% x\n", wire)
	}
	// Output:
	// 20 02 00 00
	// 40 02 00 07
	// 30 0f 00 08 67 72 65 65 74 69 6e 67 68 65 6c 6c 6f
}

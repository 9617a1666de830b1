package packet_test

import (
	"errors"
	"fmt"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A reader finds packets in the bytes that it has and decodes them.
func ExampleParseHeader() {
	// Two packets, the second of which is not complete.
	buf := []byte("\x30\x0B\x00\x03a/b\x00hello\x30\x0B\x00\x03a")
	for {
		h, n, err := packet.ParseHeader(buf)
		if err != nil {
			fmt.Println(err)
			return
		}
		if n == 0 || len(buf) < n+h.Length {
			fmt.Println("read more")
			return
		}
		p, err := packet.Decode(h, buf[n:n+h.Length], packet.V5)
		if err != nil {
			fmt.Println(err)
			return
		}
		if m, ok := p.(*packet.Publish); ok {
			fmt.Printf("%v %s %s\n", p.Type(), m.Topic, m.Payload)
		}
		buf = buf[n+h.Length:]
	}
	// Output:
	// PUBLISH a/b hello
	// read more
}

// A message goes to many subscribers without being copied for each.
func ExampleAppendPublish() {
	m := &packet.Publish{Topic: "a/b", Payload: []byte("hi")}
	for id := range uint16(2) {
		b, err := packet.AppendPublish(nil, packet.V5, m, packet.PublishHeader{
			PacketID: id + 1, QoS: packet.AtLeastOnce, SubscriptionIDs: []uint32{7},
		})
		fmt.Printf("%x %v\n", b, err)
	}
	// Output:
	// 320c0003612f620001020b076869 <nil>
	// 320c0003612f620002020b076869 <nil>
}

// A CONNECT that cannot be accepted is answered in a version that the client
// understands.
func ExampleConnectError() {
	h, n, _ := packet.ParseHeader([]byte("\x10\x0D"))
	_, err := packet.Decode(h, []byte("\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x00"), 0)
	fmt.Println(n, err)
	var refused *packet.ConnectError
	if errors.As(err, &refused) {
		if answer := refused.Connack(); answer != nil {
			b, _ := answer.Append(nil, refused.Version)
			fmt.Printf("% x\n", b)
		}
	}
	// Output:
	// 2 mqtt: unsupported protocol version: CONNECT: protocol version is not supported
	// 20 03 00 84 00
}

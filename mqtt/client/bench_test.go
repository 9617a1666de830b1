package client

import (
	"bufio"
	"context"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// serveOne accepts connections on loopback, one after the other, plays CONNACK and
// calls serve.
func serveOne(b testing.TB, serve func(net.Conn, *mqtt.Reader)) (url string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	b.Cleanup(func() { ln.Close() })
	go func() { // ends with ln
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			in := mqtt.NewReader(conn, 0)
			ack, _ := (&packet.Connack{}).Append(nil, packet.V5)
			if _, _, err := in.Next(); err == nil {
				if _, err := conn.Write(ack); err == nil {
					serve(conn, in)
				}
			}
			conn.Close()
		}
	}()
	return "mqtt://" + ln.Addr().String()
}

func BenchmarkPublishAsyncQoS0(b *testing.B) {
	url := serveOne(b, func(conn net.Conn, _ *mqtt.Reader) { _, _ = io.Copy(io.Discard, conn) })
	c, err := Dial(context.Background(), &Config{URL: url})
	require.NoError(b, err)
	defer c.Close()
	p := &packet.Publish{Topic: "bench/topic", Payload: make([]byte, 64)}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.PublishAsync(context.Background(), p, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

func BenchmarkPublishAsyncQoS1(b *testing.B) { benchmarkQoS1(b, Queue{}) }

func benchmarkQoS1(b *testing.B, q Queue) {
	url := serveOne(b, func(conn net.Conn, in *mqtt.Reader) {
		out := bufio.NewWriterSize(conn, 64<<10)
		var p packet.Publish
		var buf []byte
		for {
			if !in.Ready() {
				out.Flush()
			}
			h, body, err := in.Next()
			if err != nil {
				return
			}
			if h.Type != packet.PUBLISH || p.Decode(h, body, packet.V5) != nil {
				return
			}
			buf, _ = (&packet.Puback{Ack: packet.Ack{PacketID: p.PacketID}}).Append(buf[:0], packet.V5)
			out.Write(buf)
		}
	})
	c, err := Dial(context.Background(), &Config{URL: url, Queue: q})
	require.NoError(b, err)
	defer c.Close()
	p := &packet.Publish{Topic: "bench/topic", Payload: make([]byte, 64), QoS: packet.AtLeastOnce}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.PublishAsync(context.Background(), p, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

func benchmarkInbound(b *testing.B, qos packet.QoS) {
	p := &packet.Publish{Topic: "bench/topic", Payload: make([]byte, 64), QoS: qos}
	n := b.N
	url := serveOne(b, func(conn net.Conn, _ *mqtt.Reader) {
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		out := bufio.NewWriterSize(conn, 64<<10)
		var buf []byte
		for i := range n {
			if qos > 0 {
				p.PacketID = uint16(i%60000) + 1
			}
			buf, _ = p.Append(buf[:0], packet.V5)
			if _, err := out.Write(buf); err != nil {
				return
			}
		}
		out.Flush()
		<-b.Context().Done()
	})
	done := make(chan struct{})
	got := 0
	b.ReportAllocs()
	b.ResetTimer()
	c, err := Dial(context.Background(), &Config{URL: url, ReceiveMaximum: 65535, OnMessage: func(*packet.Publish) {
		if got++; got == n {
			close(done)
		}
	}})
	require.NoError(b, err)
	<-done
	b.StopTimer()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
	c.Close()
}

func BenchmarkInboundQoS0(b *testing.B) { benchmarkInbound(b, packet.AtMostOnce) }
func BenchmarkInboundQoS1(b *testing.B) { benchmarkInbound(b, packet.AtLeastOnce) }

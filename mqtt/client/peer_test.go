package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A listener hands the connections that a client dials to the test, over net.Pipe:
// nothing is buffered, so that the order of events is the test's.
type listener struct {
	t     *testing.T
	v     packet.Version
	conns chan net.Conn
	fail  chan error // what the next dials return
}

func newListener(t *testing.T, v packet.Version) *listener {
	return &listener{t: t, v: v, conns: make(chan net.Conn, 16), fail: make(chan error, 16)}
}

func (l *listener) dial(context.Context, *url.URL) (net.Conn, error) {
	select {
	case err := <-l.fail:
		return nil, err
	default:
	}
	a, b := net.Pipe()
	l.conns <- b
	return a, nil
}

func (l *listener) config() *Config {
	return &Config{URL: "mqtt://broker.test", Dial: l.dial, Version: l.v, ClientID: "c"}
}

// A peer is the server's end of a connection, played by the test.
type peer struct {
	t    *testing.T
	v    packet.Version
	conn net.Conn
	in   *mqtt.Reader
}

func (l *listener) accept() *peer {
	c := <-l.conns
	return &peer{l.t, l.v, c, mqtt.NewReader(c, 0)}
}

// accepted plays the server until CONNACK.
func (l *listener) accepted(ack *packet.Connack) (*peer, *packet.Connect) {
	p := l.accept()
	c := expect[*packet.Connect](p)
	p.send(ack)
	synctest.Wait() // the client has seen it
	return p, c
}

func (p *peer) send(pk packet.Packet) {
	p.t.Helper()
	b, err := pk.Append(nil, p.v)
	require.NoError(p.t, err)
	p.raw(b)
}

func (p *peer) raw(b []byte) {
	p.t.Helper()
	_, err := p.conn.Write(b)
	require.NoError(p.t, err)
}

func (p *peer) next() packet.Packet {
	p.t.Helper()
	h, body, err := p.in.Next()
	require.NoError(p.t, err)
	pk, err := packet.Decode(h, append([]byte(nil), body...), p.v)
	require.NoError(p.t, err)
	return pk
}

// expect reads the next packet, which must be a T.
func expect[T packet.Packet](p *peer) T {
	p.t.Helper()
	pk := p.next()
	v, ok := pk.(T)
	require.Truef(p.t, ok, "got %T %+v", pk, pk)
	return v
}

// expectEnd waits for the client to close.
func (p *peer) expectEnd() {
	p.t.Helper()
	_, _, err := p.in.Next()
	require.Error(p.t, err)
	require.True(p.t, errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe), err)
	p.conn.Close()
}

func (p *peer) close() { p.conn.Close() }

// dialed connects a client to a listener.
func dialed(t *testing.T, l *listener, cfg *Config, ack *packet.Connack) (*Client, *peer) {
	t.Helper()
	type result struct {
		c   *Client
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := Dial(t.Context(), cfg)
		done <- result{c, err}
	}()
	p, _ := l.accepted(ack)
	r := <-done
	require.NoError(t, r.err)
	return r.c, p
}

// disconnect ends c in order, with p as its server.
func disconnect(t *testing.T, c *Client, p *peer) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- c.Disconnect(context.Background()) }()
	expect[*packet.Disconnect](p)
	p.close()
	require.NoError(t, <-done)
}

func msg(topic string, qos packet.QoS) *packet.Publish {
	return &packet.Publish{Topic: topic, Payload: []byte("payload of " + topic), QoS: qos}
}

func ack(id uint16) packet.Ack { return packet.Ack{PacketID: id} }

func after(t *testing.T, d time.Duration, start time.Time) {
	t.Helper()
	require.Equal(t, d, time.Since(start))
}

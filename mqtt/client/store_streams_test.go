package client

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A manyLink is a Link with data streams: connections beside that of the control
// stream. It is one end of two.
type manyLink struct {
	mqtt.Link
	streams chan cutConn // that the client has opened

	mu   sync.Mutex
	next mqtt.StreamID
	open []net.Conn
}

// A cutConn is one end of a data stream, which either side can reset.
type cutConn struct {
	net.Conn
	cut *atomic.Bool
}

func newManyLinks() (client, server *manyLink) {
	a, b := net.Pipe()
	streams := make(chan cutConn, 16)
	client = &manyLink{Link: mqtt.NewConnLink(a, mqtt.QUIC), streams: streams}
	server = &manyLink{Link: mqtt.NewConnLink(b, mqtt.QUIC), streams: streams}
	for _, l := range []*manyLink{client, server} {
		context.AfterFunc(l.Context(), func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, conn := range l.open {
				conn.Close()
			}
		})
	}
	return client, server
}

// stream makes the next stream of a connection.
func (l *manyLink) stream(ctx context.Context, conn cutConn, open bool) (mqtt.Stream, error) {
	link := mqtt.NewConnLink(conn, mqtt.QUIC)
	make := link.AcceptStream
	if open {
		make = link.OpenStream
	}
	s, err := make(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, conn)
	if l.Context().Err() != nil {
		conn.Close() // who closes what is open may have been here before
	}
	id := 4 * l.next
	return &numbered{s, id, conn.cut}, err
}

func (l *manyLink) first() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	return l.next == 1
}

func (l *manyLink) OpenStream(ctx context.Context) (mqtt.Stream, error) {
	if l.first() {
		return l.Link.OpenStream(ctx)
	}
	a, b := net.Pipe()
	cut := new(atomic.Bool)
	s, err := l.stream(ctx, cutConn{a, cut}, true)
	l.streams <- cutConn{b, cut}
	return s, err
}

func (l *manyLink) AcceptStream(ctx context.Context) (mqtt.Stream, error) {
	if l.first() {
		return l.Link.AcceptStream(ctx)
	}
	select {
	case conn := <-l.streams:
		return l.stream(ctx, conn, false)
	case <-l.Context().Done():
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type numbered struct {
	mqtt.Stream
	id  mqtt.StreamID
	cut *atomic.Bool
}

func (s *numbered) Abandoned() error {
	if s.cut.Load() {
		return &mqtt.StreamError{}
	}
	return nil
}

func (s *numbered) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if err != nil && s.cut.Load() {
		err = s.Abandoned()
	}
	return n, err
}

func (s *numbered) Reset(code uint64) {
	s.cut.Store(true)
	s.Stream.Reset(code)
}

func (s *numbered) ID() mqtt.StreamID { return s.id }

// manyStreams is the network of links with many streams.
type manyStreams struct {
	links chan mqtt.Link
	done  chan struct{}
	once  sync.Once
}

func (n *manyStreams) Accept(ctx context.Context) (mqtt.Link, error) {
	select {
	case l := <-n.links:
		return l, nil
	case <-n.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *manyStreams) Addr() net.Addr { return scriptAddr{} }

func (n *manyStreams) Close() error {
	n.once.Do(func() { close(n.done) })
	return nil
}

func (n *manyStreams) Scheme(name string) (mqtt.Scheme, bool) {
	return mqtt.Scheme{Carrier: mqtt.QUIC, Port: "1"}, name == "many"
}

func (n *manyStreams) DialLink(ctx context.Context, _ *url.URL, _ *tls.Config) (mqtt.Link, error) {
	client, server := newManyLinks()
	select {
	case n.links <- server:
		return client, nil
	case <-n.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestAReceptionOnADataStreamIsRecognisedAfterARestart(t *testing.T) {
	l := &sessionLog{version: packet.V5, clientID: "c"}
	cfg := machineConfig{version: packet.V5, inflightMax: 10, receiveMaximum: 10}
	m := newMachine(cfg)
	m.log = l
	require.NoError(t, m.attach(time.Time{}, &packet.Connack{}, false))
	arrive := func(m *machine, stream mqtt.StreamID, id uint16, dup bool) bool {
		p := inMsg("t", packet.ExactlyOnce, id)
		p.Dup = dup
		deliver, err := m.receivePublish(stream, p)
		require.NoError(t, err)
		return deliver
	}
	for id := range uint16(4) {
		require.True(t, arrive(m, 3, id+1, false))
		m.delivered(m.epoch, m.session, 3, packet.ExactlyOnce, id+1)
	}
	m.detach() // what follows is named by the stream that has ended
	require.NoError(t, m.attach(time.Time{}, &packet.Connack{SessionPresent: true}, false))
	require.NoError(t, m.receivePubrel(mqtt.ControlStream, &packet.Ack{PacketID: 4}))

	restore := func() *machine {
		m := newMachine(cfg)
		again := &sessionLog{version: packet.V5}
		r := newRestorer(m, again)
		l.salt.Scan(l.buf, r.add)
		require.Zero(t, r.bad)
		m.cutInbound(mqtt.ControlStream)
		m.log, m.epoch = again, 1
		again.snapshot(m)
		require.Len(t, m.received, 3)
		require.EqualValues(t, 3, m.slots.last, "no number is used twice")
		require.NoError(t, m.attach(time.Time{}, &packet.Connack{SessionPresent: true}, false))
		l = again
		return m
	}
	_ = restore()
	m = restore() // also from a snapshot
	require.False(t, arrive(m, mqtt.ControlStream, 1, true), "it was delivered")
	require.True(t, arrive(m, mqtt.ControlStream, 2, false), "another message")
	require.NoError(t, m.receivePubrel(mqtt.ControlStream, &packet.Ack{PacketID: 3}))
	require.Len(t, m.received, 2)
	m.detach()
	r := newRestorer(newMachine(cfg), new(sessionLog))
	r.log.version = packet.V5
	l.salt.Scan(l.buf, r.add)
	require.Zero(t, r.bad)
	require.Len(t, r.m.received, 1, "only that of 1 is delivered and not over")
}

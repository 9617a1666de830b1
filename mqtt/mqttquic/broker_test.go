package mqttquic_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport"
)

// withBroker is simulate with a broker that serves the listener.
func withBroker(t *testing.T, cfg *broker.Config, f func(w *world)) {
	t.Helper()
	withBrokerStats(t, cfg, func(w *world, _ *broker.Broker) { f(w) })
}

// withBrokerStats is withBroker for tests that look at the broker.
func withBrokerStats(t *testing.T, cfg *broker.Config, f func(w *world, b *broker.Broker)) {
	t.Helper()
	simulate(t, nil, func(w *world, e transport.Transport) {
		b, err := broker.New(cfg)
		require.NoError(w, err)
		served := make(chan error, 1)
		go func() { served <- b.ServeLinks(w.listener) }() // ends with b.Close
		defer func() {
			require.NoError(w, b.Close())
			require.NoError(w, <-served)
		}()
		f(w, b)
	})
}

// dial connects a client that sends p on its control stream.
func (w *world) dial(p []byte) (*mqttquic.Link, mqtt.Stream) {
	w.Helper()
	l, err := w.dialer().DialLink(w.Context(), serverURL, w.clientTLS)
	require.NoError(w, err)
	s, err := l.OpenStream(w.Context())
	require.NoError(w, err)
	_, err = s.Write(p)
	require.NoError(w, err)
	return l.(*mqttquic.Link), s
}

// closedWith waits for the server's CONNECTION_CLOSE and returns its code.
func (w *world) closedWith(l *mqttquic.Link) mqtt.LinkCode {
	w.Helper()
	<-l.Context().Done()
	var ae *transport.ApplicationError
	require.ErrorAs(w, context.Cause(l.Context()), &ae)
	require.True(w, ae.Remote)
	return mqtt.LinkCode(ae.Code)
}

func TestBrokerClosesAConnectionThatNeverOpensAStream(t *testing.T) {
	withBroker(t, nil, func(w *world) {
		silent, err := w.dialer().DialLink(w.Context(), serverURL, w.clientTLS)
		require.NoError(w, err)
		start := time.Now()
		_, s := w.dial(connect311) // is not held up
		got := make([]byte, len(connack))
		_, err = io.ReadFull(s, got)
		require.NoError(w, err)
		require.Equal(w, connack, got)
		require.Less(w, time.Since(start), time.Second)

		w.closedWith(silent.(*mqttquic.Link))
		require.InDelta(w, 10, time.Since(start).Seconds(), 1)
	})
}

// The codes are those of EMQX.
func TestBrokerClosesWithTheCodeForTheReason(t *testing.T) {
	disconnect := append(append([]byte{}, connect311...), 0xE0, 0)
	malformed := append(append([]byte{}, connect311...), 0x00, 0)
	withBroker(t, nil, func(w *world) {
		l, _ := w.dial(disconnect)
		require.Equal(w, mqtt.LinkNormal, w.closedWith(l))

		l, _ = w.dial(malformed)
		require.Equal(w, mqtt.LinkControlDown, w.closedWith(l))

		l, s := w.dial(connect311)
		_, err := io.ReadFull(s, make([]byte, len(connack)))
		require.NoError(w, err)
		s.Reset(0)
		require.Equal(w, mqtt.LinkControlDown, w.closedWith(l))
	})
	withBroker(t, &broker.Config{MaxConns: 1}, func(w *world) {
		_, s := w.dial(connect311)
		_, err := io.ReadFull(s, make([]byte, len(connack)))
		require.NoError(w, err)
		l, _ := w.dial(connect311)
		require.Equal(w, mqtt.LinkOverloaded, w.closedWith(l))
	})
}

// What the broker writes last arrives before it closes the connection, also
// when the first packet with it is lost.
func TestBrokersLastPacketArrives(t *testing.T) {
	withBroker(t, nil, func(w *world) {
		// MQTT 5, with an authentication method that nobody knows.
		refused := []byte{0x10, 18, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 4, 0x15, 0, 1, 'x', 0, 1, 'c'}
		l, s := w.dial(refused)
		b := make([]byte, 5)
		_, err := io.ReadFull(s, b[:4])
		require.NoError(w, err)
		require.Equal(w, []byte{0x20, b[1], 0, 0x8C}, b[:4])
		w.closedWith(l)
	})
}

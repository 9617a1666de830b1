// Package mqtttest is the suite that package mqtt/broker is held to, over every
// carrier. It knows nothing of how a carrier works:
//
//	func TestBroker(t *testing.T) { mqtttest.Run(t, mqtttest.TCP()) }
//
// A case speaks to the broker packet by packet, with a client so simple that
// nothing it sends or receives is hidden, or uses package mqtt/client where
// that one's meeting with the broker is the point. Each case names the
// statements of the specification that it checks; those in brackets are the
// numbered statements of MQTT 5, or of MQTT 3.1.1 where it says so.
//
// A case has a broker of its own, checks that the carrier it runs on is the one
// it was given, seen from both sides, and never sleeps: what must not arrive is
// shown by what arrives in its place. Time is the real time, because a carrier
// may be the real network; cases that wait for seconds, the unit of MQTT's
// timers, run beside each other. Run with -parallel above the number of
// processors to make use of that.
package mqtttest

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
)

// patience is how long a case waits for what must happen. It is long, because
// only a failure waits for its end: longer than QUIC waits for a peer that has gone,
// if the packet that says so is lost.
const patience = time.Minute

// A Carrier is a way to reach a broker.
type Carrier struct {
	// Name of the subtests: "tcp", "quic-purego".
	Name string

	// Kind is what both sides' Links must say that they are.
	Kind mqtt.Carrier

	// ALPN is what must have been negotiated; empty on a carrier without TLS, or
	// if nothing is.
	ALPN string

	// OneStream leaves out the cases with data streams, on a carrier that has
	// them: clients may do without.
	OneStream bool

	// Serve makes b serve a new listener on loopback until the test ends, and
	// says how to reach it.
	Serve func(t testing.TB, b *broker.Broker) Target
}

// A Target is a broker that serves a [Carrier].
type Target struct {
	// Dial connects. The handshake is complete when it returns.
	Dial func(context.Context) (mqtt.Link, error)

	// Client sets the URL and whatever else package client needs to connect.
	Client func(*client.Config)
}

// A testCase is one case of the suite.
type testCase struct {
	name string
	run  func(r *run)
}

var groups = [][]testCase{
	connectCases,
	publishCases,
	qosCases,
	retainCases,
	willCases,
	subscribeCases,
	sharedCases,
	sessionCases,
	limitCases,
	malformedCases,
	pieceCases,
	serverCases,
	clientCases,
	statementCases,
	statement311Cases,
	authCases,
}

// Run runs every case over c, as parallel subtests.
func Run(t *testing.T, c Carrier) {
	for _, group := range groups {
		runCases(t, c, group)
	}
	if c.Kind.Streams() && !c.OneStream {
		runCases(t, c, streamCases)
		runCases(t, c, behaviourCases)
		runCases(t, c, clientStreamCases)
		runCases(t, c, authStreamCases)
		runCases(t, c, malformedStreamCases)
		runCases(t, c, pieceStreamCases)
	}
}

func runCases(t *testing.T, c Carrier, cases []testCase) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := &run{T: t, carrier: c}
			tc.run(r)
			require.NotNil(t, r.broker, "the case used no broker")
			require.Positive(t, r.broker.Stats().Connections[c.Kind].Total, "the broker saw no connection over %s", c.Kind)
			for kind, n := range r.broker.Stats().Connections {
				if kind != c.Kind {
					require.Zero(t, n.Total, "the broker saw a connection over %s", kind)
				}
			}
		})
	}
}

// A run is one case with its broker.
type run struct {
	*testing.T
	carrier Carrier
	broker  *broker.Broker
	target  Target
}

// start starts the broker with cfg. A case that needs no special configuration
// does without: the first connection starts it.
func (r *run) start(cfg *broker.Config) {
	r.Helper()
	require.Nil(r, r.broker, "start after the first connection")
	// A peer may be slow on a machine that is busy, also with its CONNECT, and with
	// what a broker says last.
	patient := broker.Config{}
	if cfg != nil {
		patient = *cfg
	}
	for _, d := range []*time.Duration{&patient.ConnectTimeout, &patient.DrainTimeout, &patient.HookTimeout} {
		if *d == 0 {
			*d = patience
		}
	}
	b, err := broker.New(&patient)
	require.NoError(r, err)
	r.broker = b
	r.target = r.carrier.Serve(r, b)
	r.Cleanup(func() { require.NoError(r, b.Close()) }) // before what Serve cleans up, which waits for it
}

// dial opens a connection and its control stream, and checks what carries it.
func (r *run) dial() *peer {
	r.Helper()
	if r.broker == nil {
		r.start(nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	link, err := r.target.Dial(ctx)
	require.NoError(r, err)
	r.Cleanup(func() { _ = link.CloseWithCode(mqtt.LinkNormal) })
	s, err := link.OpenStream(ctx)
	require.NoError(r, err)

	require.Equal(r, r.carrier.Kind, link.Carrier())
	require.Equal(r, mqtt.ControlStream, s.ID())
	r.checkTLS(link.TLS())
	network := "tcp"
	switch r.carrier.Kind {
	case mqtt.QUIC, mqtt.WSSH3, mqtt.WebTransport:
		network = "udp"
	}
	require.Equal(r, network, link.RemoteAddr().Network())
	if !r.carrier.Kind.Streams() {
		_, err := link.OpenStream(ctx)
		require.ErrorIs(r, err, errors.ErrUnsupported)
	}
	return newPeer(r, link, s)
}

// checkTLS checks what the handshake has negotiated.
func (r *run) checkTLS(state *tls.ConnectionState) {
	r.Helper()
	if !r.carrier.Kind.Secure() {
		require.Nil(r, state, "TLS is in use")
		return
	}
	require.NotNil(r, state)
	require.True(r, state.HandshakeComplete)
	require.Equal(r, r.carrier.ALPN, state.NegotiatedProtocol)
}

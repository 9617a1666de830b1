package pahov3_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqttquic/pahov3"
	"github.com/anyquic/anyquic/transport/engine"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// A server is a broker on QUIC that knows its connections.
type server struct {
	*testing.T
	url    string
	broker *broker.Broker
	dialer *mqttquic.Dialer

	mu    sync.Mutex
	links []mqtt.Link // guarded by mu
}

// overQUIC runs f with a server for every engine, and checks afterwards that
// its connections were MQTT on QUIC.
func overQUIC(t *testing.T, f func(s *server)) {
	serverTLS, clientTLS := testcert.New()
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			b, err := broker.New(nil)
			require.NoError(t, err)
			l, err := mqttquic.ListenAddr(e, "127.0.0.1:0", &mqttquic.ListenConfig{TLS: serverTLS, HandshakeTimeout: patience})
			require.NoError(t, err)
			s := &server{
				T: t, broker: b,
				url:    "mqtt+quic://" + l.Addr().String(),
				dialer: &mqttquic.Dialer{Transport: e, TLS: clientTLS, HandshakeTimeout: patience},
			}
			served := make(chan error, 1)
			go func() { served <- b.ServeLinks(&watched{l, s}) }() // ends with b.Close
			t.Cleanup(func() {
				require.NoError(t, b.Close())
				require.NoError(t, <-served)
				require.NoError(t, l.CloseNow())
			})
			f(s)
			s.mu.Lock()
			defer s.mu.Unlock()
			require.NotEmpty(t, s.links, "nobody came over QUIC")
			for _, l := range s.links {
				require.Equal(t, mqtt.QUIC, l.Carrier())
				require.Equal(t, "mqtt", l.TLS().NegotiatedProtocol)
			}
			require.EqualValues(t, len(s.links), b.Stats().Connections[mqtt.QUIC].Total)
		})
	}
}

// A watched listener tells its server of the links.
type watched struct {
	mqtt.LinkListener
	s *server
}

func (w *watched) Accept(ctx context.Context) (mqtt.Link, error) {
	l, err := w.LinkListener.Accept(ctx)
	if err == nil {
		w.s.mu.Lock()
		w.s.links = append(w.s.links, l)
		w.s.mu.Unlock()
	}
	return l, err
}

// A client is paho with what arrived.
type client struct {
	paho.Client
	messages chan paho.Message
	ups      chan struct{}
	conns    chan net.Conn
}

// connect starts paho's client; configure may be nil.
func (s *server) connect(id string, configure func(*paho.ClientOptions)) *client {
	s.Helper()
	c := &client{messages: make(chan paho.Message, 100), ups: make(chan struct{}, 100), conns: make(chan net.Conn, 100)}
	open := pahov3.Open(s.dialer)
	opts := paho.NewClientOptions().AddBroker(s.url).SetClientID(id).SetKeepAlive(20 * time.Second).
		SetProtocolVersion(4).SetMaxReconnectInterval(10 * time.Millisecond).SetOrderMatters(true).
		SetCustomOpenConnectionFn(func(u *url.URL, o paho.ClientOptions) (net.Conn, error) {
			nc, err := open(u, o)
			if err == nil {
				c.conns <- nc
			}
			return nc, err
		}).
		SetOnConnectHandler(func(paho.Client) { c.ups <- struct{}{} }).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { c.messages <- m })
	if configure != nil {
		configure(opts)
	}
	c.Client = paho.NewClient(opts)
	s.done(c.Connect())
	s.Cleanup(func() { c.Disconnect(0) })
	s.up(c)
	return c
}

func (s *server) done(token paho.Token) {
	s.Helper()
	require.True(s, token.WaitTimeout(patience), "no answer")
	require.NoError(s, token.Error())
}

func (s *server) up(c *client) {
	s.Helper()
	select {
	case <-c.ups:
	case <-time.After(patience):
		require.Fail(s, "no connection")
	}
}

func (s *server) message(c *client) paho.Message {
	s.Helper()
	select {
	case m := <-c.messages:
		return m
	case <-time.After(patience):
		require.Fail(s, "no message")
		return nil
	}
}

// link returns the server's side of c's newest connection.
func (s *server) link(c *client) mqtt.Link {
	s.Helper()
	var nc net.Conn
	for len(c.conns) > 0 {
		nc = <-c.conns
	}
	require.NotNil(s, nc)
	require.Equal(s, "udp", nc.RemoteAddr().Network())
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range slices.Backward(s.links) { // an earlier one may have had the same port
		if l.RemoteAddr().(*net.UDPAddr).Port == nc.LocalAddr().(*net.UDPAddr).Port {
			return l
		}
	}
	require.Fail(s, "the server does not know the connection")
	return nil
}

// kill cuts the newest connection of c without a word of MQTT.
func (s *server) kill(c *client) {
	s.Helper()
	require.NoError(s, s.link(c).CloseWithCode(mqtt.LinkControlDown))
}

func TestPahoPublishesAndSubscribesWithEveryQoS(t *testing.T) {
	overQUIC(t, func(s *server) {
		for _, version := range []uint{3, 4} {
			v := func(o *paho.ClientOptions) { o.SetProtocolVersion(version) }
			sub, pub := s.connect("sub", v), s.connect("pub", v)
			s.done(sub.Subscribe("t/#", 2, nil))
			for q := byte(0); q <= 2; q++ {
				s.done(pub.Publish("t/x", q, false, []byte{'q', '0' + q}))
				m := s.message(sub)
				require.Equal(s, "t/x", m.Topic())
				require.Equal(s, []byte{'q', '0' + q}, m.Payload())
				require.Equal(s, q, m.Qos())
			}
			sub.Disconnect(250)
			pub.Disconnect(250)
		}
	})
}

func TestPahoGetsRetainedMessages(t *testing.T) {
	overQUIC(t, func(s *server) {
		s.done(s.connect("pub", nil).Publish("t", 1, true, "kept"))
		sub := s.connect("sub", nil)
		s.done(sub.Subscribe("t", 1, nil))
		m := s.message(sub)
		require.Equal(s, "kept", string(m.Payload()))
		require.True(s, m.Retained())
	})
}

func TestPahosWillIsForLostConnectionsOnly(t *testing.T) {
	overQUIC(t, func(s *server) {
		watcher := s.connect("watcher", nil)
		s.done(watcher.Subscribe("will", 1, nil))
		withWill := func(payload string) *client {
			return s.connect(payload, func(o *paho.ClientOptions) {
				o.SetWill("will", payload, 1, false).SetAutoReconnect(false)
			})
		}
		// DISCONNECT arrives though paho closes the connection right after it.
		left := withWill("must not be seen")
		link := s.link(left)
		left.Disconnect(uint(patience / time.Millisecond)) // at most: paho gives up what is not written by then
		<-link.Context().Done()
		s.kill(withWill("lost"))
		require.Equal(s, "lost", string(s.message(watcher).Payload()))
	})
}

func TestPahoResumesItsSessionAfterAKilledConnection(t *testing.T) {
	overQUIC(t, func(s *server) {
		persistent := func(o *paho.ClientOptions) { o.SetCleanSession(false).SetResumeSubs(true) }
		sub, pub := s.connect("sub", persistent), s.connect("pub", persistent)
		s.done(sub.Subscribe("t", 1, nil))
		for i := range 6 {
			if i%2 == 1 {
				s.kill(sub)
			}
			s.done(pub.Publish("t", 1, false, []byte{byte(i)}))
			// The subscription is the session's: nobody made it again.
			for m := s.message(sub); int(m.Payload()[0]) != i; m = s.message(sub) {
				// Its acknowledgement was lost with the connection.
				require.True(s, m.Duplicate())
				require.Less(s, int(m.Payload()[0]), i)
			}
			if i%2 == 1 {
				s.up(sub)
			}
		}
	})
}

func TestOtherSchemes(t *testing.T) {
	serverTLS, clientTLS := testcert.New("mqtt")
	b, err := broker.New(nil)
	require.NoError(t, err)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	secure, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS)
	require.NoError(t, err)
	served := make(chan error, 2)
	go func() { served <- b.Serve(plain, mqtt.TCP) }()  // ends with b.Close
	go func() { served <- b.Serve(secure, mqtt.TLS) }() // likewise
	open := pahov3.Open(&mqttquic.Dialer{Transport: engine.Default()})
	for _, u := range []string{"tcp://" + plain.Addr().String(), "mqtts://" + secure.Addr().String(), "ssl://" + secure.Addr().String()} {
		c := paho.NewClient(paho.NewClientOptions().AddBroker(u).SetTLSConfig(clientTLS).SetCustomOpenConnectionFn(open))
		token := c.Connect()
		require.True(t, token.WaitTimeout(patience))
		require.NoError(t, token.Error(), u)
		c.Disconnect(250)
	}
	_, err = open(&url.URL{Scheme: "wss", Host: "localhost"}, *paho.NewClientOptions())
	require.EqualError(t, err, `pahov3: URL scheme "wss" is not supported beside "mqtt+quic"`)
	require.NoError(t, b.Close())
	require.NoError(t, <-served)
	require.NoError(t, <-served)
}

func TestOpenEndsWithTheConnectTimeout(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // nobody answers
	require.NoError(t, err)
	defer silent.Close()
	for _, e := range engine.All() {
		start := time.Now()
		opts := paho.NewClientOptions().SetConnectTimeout(100 * time.Millisecond)
		_, err = pahov3.Open(&mqttquic.Dialer{Transport: e})(&url.URL{Scheme: "mqtt+quic", Host: silent.LocalAddr().String()}, *opts)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(start), patience)
	}
}

package pahov5_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqttquic/pahov5"
	"github.com/anyquic/anyquic/transport/engine"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// A server is a broker on QUIC that knows its connections.
type server struct {
	*testing.T
	url    *url.URL
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
				url:    &url.URL{Scheme: "mqtt+quic", Host: l.Addr().String()},
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
	*autopaho.ConnectionManager
	messages chan *paho.Publish
	ups      chan *paho.Connack
	last     chan net.Conn // the newest network connection
}

// connect starts paho's client; configure may be nil.
func (s *server) connect(id string, configure func(*autopaho.ClientConfig)) *client {
	s.Helper()
	c := &client{messages: make(chan *paho.Publish, 100), ups: make(chan *paho.Connack, 100), last: make(chan net.Conn, 100)}
	attempt := pahov5.Attempt(s.dialer)
	cfg := autopaho.ClientConfig{
		ServerUrls:       []*url.URL{s.url},
		KeepAlive:        20,
		ConnectTimeout:   patience,
		ReconnectBackoff: func(int) time.Duration { return 10 * time.Millisecond },
		AttemptConnection: func(ctx context.Context, cfg autopaho.ClientConfig, u *url.URL) (net.Conn, error) {
			nc, err := attempt(ctx, cfg, u)
			if err == nil {
				c.last <- nc
			}
			return nc, err
		},
		OnConnectionUp: func(_ *autopaho.ConnectionManager, ack *paho.Connack) { c.ups <- ack },
		ClientConfig: paho.ClientConfig{
			ClientID: id,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				c.messages <- p.Packet
				return true, nil
			}},
		},
	}
	if configure != nil {
		configure(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cm, err := autopaho.NewConnection(ctx, cfg)
	require.NoError(s, err)
	s.Cleanup(func() { cancel(); <-cm.Done() })
	c.ConnectionManager = cm
	s.up(c)
	return c
}

func (s *server) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.Cleanup(cancel)
	return ctx
}

func (s *server) up(c *client) *paho.Connack {
	s.Helper()
	select {
	case ack := <-c.ups:
		return ack
	case <-time.After(patience):
		require.Fail(s, "no connection")
		return nil
	}
}

func (s *server) message(c *client) *paho.Publish {
	s.Helper()
	select {
	case m := <-c.messages:
		return m
	case <-time.After(patience):
		require.Fail(s, "no message")
		return nil
	}
}

func (s *server) subscribe(c *client, filter string) {
	s.Helper()
	ack, err := c.Subscribe(s.ctx(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 2}}})
	require.NoError(s, err)
	require.Equal(s, []byte{2}, ack.Reasons)
}

func TestPahoPublishesAndSubscribesWithEveryQoS(t *testing.T) {
	overQUIC(t, func(s *server) {
		sub, pub := s.connect("sub", nil), s.connect("pub", nil)
		s.subscribe(sub, "t/#")
		for q := byte(0); q <= 2; q++ {
			_, err := pub.Publish(s.ctx(), &paho.Publish{Topic: "t/x", Payload: []byte{'q', '0' + q}, QoS: q})
			require.NoError(s, err)
			m := s.message(sub)
			require.Equal(s, "t/x", m.Topic)
			require.Equal(s, []byte{'q', '0' + q}, m.Payload)
			require.Equal(s, q, m.QoS)
		}
		require.NoError(s, pub.Disconnect(s.ctx()))
		require.NoError(s, sub.Disconnect(s.ctx()))
	})
}

func TestPahoGetsRetainedMessages(t *testing.T) {
	overQUIC(t, func(s *server) {
		pub := s.connect("pub", nil)
		_, err := pub.Publish(s.ctx(), &paho.Publish{Topic: "t", Payload: []byte("kept"), QoS: 1, Retain: true})
		require.NoError(s, err)
		sub := s.connect("sub", nil)
		s.subscribe(sub, "t")
		m := s.message(sub)
		require.Equal(s, "kept", string(m.Payload))
		require.True(s, m.Retain)
	})
}

func TestPahosWillIsForLostConnectionsOnly(t *testing.T) {
	overQUIC(t, func(s *server) {
		watcher := s.connect("watcher", nil)
		s.subscribe(watcher, "will")
		withWill := func(payload string) *client {
			return s.connect(payload, func(cfg *autopaho.ClientConfig) {
				cfg.WillMessage = &paho.WillMessage{Topic: "will", Payload: []byte(payload), QoS: 1}
				cfg.OnConnectionDown = func() bool { return false } // stay away
			})
		}
		// DISCONNECT arrives though paho closes the connection right after it.
		left := withWill("must not be seen")
		link := s.link(left)
		require.NoError(s, left.Disconnect(s.ctx()))
		<-left.Done()
		<-link.Context().Done()

		lost := withWill("lost")
		s.kill(lost)
		require.Equal(s, "lost", string(s.message(watcher).Payload))
	})
}

// link returns the server's side of c's newest connection.
func (s *server) link(c *client) mqtt.Link {
	s.Helper()
	var nc net.Conn
	for len(c.last) > 0 {
		nc = <-c.last
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

func TestPahoResumesItsSessionAfterAKilledConnection(t *testing.T) {
	overQUIC(t, func(s *server) {
		persistent := func(cfg *autopaho.ClientConfig) { cfg.SessionExpiryInterval = 3600 }
		sub, pub := s.connect("sub", persistent), s.connect("pub", persistent)
		s.subscribe(sub, "t")
		for i := range 6 {
			if i%2 == 1 {
				s.kill(sub)
			}
			_, err := pub.Publish(s.ctx(), &paho.Publish{Topic: "t", Payload: []byte{byte(i)}, QoS: 1})
			require.NoError(s, err)
			for m := s.message(sub); int(m.Payload[0]) != i; m = s.message(sub) {
				// Its acknowledgement was lost with the connection.
				require.True(s, m.Duplicate())
				require.Less(s, int(m.Payload[0]), i)
			}
			if i%2 == 1 {
				require.True(s, s.up(sub).SessionPresent)
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
	attempt := pahov5.Attempt(&mqttquic.Dialer{Transport: engine.Default()})
	cfg := autopaho.ClientConfig{TlsCfg: clientTLS}
	for _, u := range []string{"mqtt://" + plain.Addr().String(), "mqtts://" + secure.Addr().String(), "SSL://" + secure.Addr().String()} {
		parsed, err := url.Parse(u)
		require.NoError(t, err)
		c, err := attempt(t.Context(), cfg, parsed)
		require.NoError(t, err, u)
		_, isLocker := c.(sync.Locker)
		require.True(t, isLocker, "paho needs a connection that it can lock")
		require.NoError(t, c.Close())
	}
	_, err = attempt(t.Context(), cfg, &url.URL{Scheme: "wss", Host: "localhost"})
	require.EqualError(t, err, `pahov5: URL scheme "wss" is not supported beside "mqtt+quic"`)
	require.NoError(t, b.Close())
	require.NoError(t, <-served)
	require.NoError(t, <-served)
}

func TestAttemptEndsWithTheConnectTimeout(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // nobody answers
	require.NoError(t, err)
	defer silent.Close()
	for _, e := range engine.All() {
		attempt := pahov5.Attempt(&mqttquic.Dialer{Transport: e})
		start := time.Now()
		_, err = attempt(context.Background(), autopaho.ClientConfig{ConnectTimeout: 100 * time.Millisecond}, &url.URL{Scheme: "mqtt+quic", Host: silent.LocalAddr().String()})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(start), patience)
	}
}

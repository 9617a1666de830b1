package mqttquic_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

func TestListenRefusesWhatCannotWork(t *testing.T) {
	server, _ := testcert.New()
	for name, cfg := range map[string]*mqttquic.ListenConfig{
		"ListenConfig.TLS is not set":               nil,
		"ListenConfig.TLS is not set: QUIC needs":   {},
		"ListenConfig.TLS has no certificate":       {TLS: &tls.Config{}},
		"ListenConfig.MaxStreams is 4":              {TLS: server, MaxStreams: 4},
		"ListenConfig.MaxStreams is -1: clients co": {TLS: server, MaxStreams: -1},
		`ListenConfig.Others: protocol "mqtt"`:      {TLS: server, Others: []mqttquic.Protocol{{ALPN: "mqtt", Serve: func(transport.Conn) {}}}},
		`ListenConfig.Others: protocol "h3"`:        {TLS: server, Others: []mqttquic.Protocol{{ALPN: "h3"}}},
	} {
		_, err := mqttquic.ListenAddr(engine.Default(), "127.0.0.1:0", cfg)
		require.ErrorContains(t, err, "mqttquic: "+name)
		pc := &countedConn{}
		_, err = mqttquic.Listen(engine.Default(), pc, cfg)
		require.ErrorContains(t, err, "mqttquic: "+name)
		require.EqualValues(t, 1, pc.closed.Load(), "Listen owns the socket")
	}
	_, err := mqttquic.ListenAddr(engine.Default(), "127.0.0.1:99999", &mqttquic.ListenConfig{TLS: server})
	require.ErrorContains(t, err, "99999")
}

func TestListenLeavesTheCallersTLSConfigAlone(t *testing.T) {
	server, _ := testcert.New("h3")
	l, err := mqttquic.ListenAddr(engine.Default(), "127.0.0.1:0", &mqttquic.ListenConfig{TLS: server})
	require.NoError(t, err)
	require.Equal(t, []string{"h3"}, server.NextProtos)
	require.NoError(t, l.CloseNow())
}

func TestConfigForClientSpeaksMQTTToo(t *testing.T) {
	server, client := testcert.New()
	chooser := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return server, nil }}
	simulate(t, &mqttquic.ListenConfig{TLS: chooser}, func(w *world, e transport.Transport) {
		w.clientTLS = client
		s, _ := w.link()
		require.Equal(w, "mqtt", s.TLS().NegotiatedProtocol)
		conf := client.Clone()
		conf.NextProtos = []string{"h3"}
		_, err := w.endpoint.Dial(w.Context(), serverAddr, &transport.Config{TLS: conf})
		var pe *transport.ProtocolError
		require.ErrorAs(w, err, &pe)
		require.EqualValues(w, 0x178, pe.Code)
	})
}

func TestSessionsResumeAlsoWithConfigForClient(t *testing.T) {
	server, client := testcert.New()
	chooser := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return server, nil }}
	simulate(t, &mqttquic.ListenConfig{TLS: chooser}, func(w *world, e transport.Transport) {
		cache := new(sessionCache)
		d := &mqttquic.Dialer{Endpoint: w.endpoint, Sessions: cache}
		for i := range 3 {
			c, err := d.DialLink(w.Context(), serverURL, client)
			require.NoError(w, err)
			s, err := w.listener.Accept(w.Context())
			require.NoError(w, err)
			time.Sleep(time.Second) // virtual: the ticket has arrived
			require.Equal(w, i > 0, s.TLS().DidResume)
			require.False(w, s.(*mqttquic.Link).Conn().State().EarlyData)
			require.NoError(w, c.CloseWithCode(mqtt.LinkNormal))
		}
	})
}

// A sessionCache holds one session.
type sessionCache struct{ last atomic.Pointer[[]byte] }

func (c *sessionCache) Put(_ string, s []byte) { c.last.Store(&s) }
func (c *sessionCache) Take(string) []byte {
	if s := c.last.Swap(nil); s != nil {
		return *s
	}
	return nil
}

func TestCloseStopsAcceptingAndLetsLinksLive(t *testing.T) {
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := testcert.New()
				w := &world{T: t, router: new(router), clientTLS: client}
				socket := &countedConn{PacketConn: w.socket(serverAddr)}
				var err error
				w.listener, err = mqttquic.Listen(e, socket, &mqttquic.ListenConfig{TLS: server})
				require.NoError(t, err)
				w.endpoint, err = e.Open(w.socket(clientAddr), nil)
				require.NoError(t, err)

				_, c1, ss, cs := w.streams()
				_, c2 := w.link()
				accepting := make(chan error, 1)
				go func() {
					_, err := w.listener.Accept(context.Background())
					accepting <- err
				}()
				synctest.Wait()
				require.NoError(t, w.listener.Close())
				require.NoError(t, w.listener.Close())
				require.ErrorIs(t, <-accepting, net.ErrClosed)
				_, err = w.listener.Accept(t.Context())
				require.ErrorIs(t, err, net.ErrClosed)
				_, err = w.dialer().DialLink(w.within(time.Minute), serverURL, client)
				require.Error(t, err)

				_, err = ss.Write([]byte("x"))
				require.NoError(t, err)
				_, err = cs.Read(make([]byte, 1))
				require.NoError(t, err)

				require.NoError(t, c1.CloseWithCode(mqtt.LinkNormal))
				time.Sleep(time.Minute) // virtual
				require.Zero(t, socket.closed.Load(), "a Link still needs the socket")
				require.NoError(t, c2.CloseWithCode(mqtt.LinkNormal))
				time.Sleep(time.Minute) // virtual
				require.Positive(t, socket.closed.Load(), "nobody needs the socket any more")
				require.NoError(t, w.endpoint.Close())
			})
		})
	}
}

func TestCloseNowEndsLinks(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		server, client := w.link()
		require.NoError(w, w.listener.CloseNow())
		require.Error(w, server.Context().Err())
		<-client.Context().Done()
		var ae *transport.ApplicationError
		require.ErrorAs(w, context.Cause(client.Context()), &ae)
		require.Zero(w, ae.Code)
	})
}

func TestMaxConnsRefusesMore(t *testing.T) {
	simulate(t, &mqttquic.ListenConfig{Options: transport.Options{MaxConns: 1}}, func(w *world, e transport.Transport) {
		_, client := w.link()
		_, err := w.dialer().DialLink(w.Context(), serverURL, w.clientTLS)
		var pe *transport.ProtocolError
		require.ErrorAs(w, err, &pe)
		require.EqualValues(w, 0x02, pe.Code) // CONNECTION_REFUSED: RFC 9000, Section 20.1
		require.NoError(w, client.CloseWithCode(mqtt.LinkNormal))
		time.Sleep(time.Second) // virtual
		w.link()
	})
}

func TestRetryProvesTheClientsAddress(t *testing.T) {
	var asked atomic.Int32
	always := func(net.Addr) bool { asked.Add(1); return true }
	simulate(t, &mqttquic.ListenConfig{Options: transport.Options{RequireRetry: always}}, func(w *world, e transport.Transport) {
		before := asked.Load()
		w.link()
		require.Greater(w, asked.Load(), before)
		// One for each packet that the ClientHello takes.
		require.Positive(w, w.listener.Stats().Retries)
	})
}

// A countedConn counts how often it is closed.
type countedConn struct {
	net.PacketConn
	closed atomic.Int32
}

func (c *countedConn) Close() error {
	c.closed.Add(1)
	if c.PacketConn == nil {
		return nil
	}
	return c.PacketConn.Close()
}

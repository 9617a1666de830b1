package mqttweb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// sessionEnd waits for the end of a session and returns why it ended.
func sessionEnd(t testing.TB, l mqtt.Link) *webtransport.SessionError {
	t.Helper()
	select {
	case <-l.Context().Done():
	case <-time.After(time.Minute):
		require.Fail(t, "the session lives on")
	}
	e, ok := errors.AsType[*webtransport.SessionError](context.Cause(l.Context()))
	require.True(t, ok, "%v", context.Cause(l.Context()))
	return e
}

func TestASessionIsClosedWithTheCodeForTheReason(t *testing.T) {
	simulate(t, nil, &broker.Config{MaxConns: 1}, func(w *world) {
		for code, last := range map[mqtt.LinkCode][]byte{
			mqtt.LinkNormal:      {0xE0, 0},
			mqtt.LinkControlDown: {0x00, 0},
		} {
			c := w.client("mqtt+wt", "c")
			_, err := c.stream.Write(last)
			require.NoError(w, err)
			e := sessionEnd(w, c.link)
			require.True(w, e.Remote)
			require.EqualValues(w, code, e.Code)
			require.NoError(w, e.Err)
		}
		first := w.client("mqtt+wt", "first")
		second := newClient(w, w.link("mqtt+wt"))
		second.send(&packet.Connect{Version: packet.V5, ClientID: "second", CleanStart: true})
		require.Equal(w, packet.ServerBusy, receive[*packet.Connack](second).Code)
		require.EqualValues(w, mqtt.LinkOverloaded, sessionEnd(w, second.link).Code)

		require.NoError(w, first.link.CloseWithCode(mqtt.LinkControlDown))
		time.Sleep(time.Second) // of virtual time
		require.Zero(w, w.broker.Stats().Connections[mqtt.WebTransport].Now)
	})
}

// A server's timeout for connections without requests, and MQTT's for silent
// clients, leave alone who has neither.
func TestASilentClientOutlivesTheTimeoutsOfHTTP(t *testing.T) {
	simulate(t, nil, nil, func(w *world) {
		for _, scheme := range []string{"mqtt+wt", "wss+h3"} {
			c := w.client(scheme, scheme) // without a keep-alive
			time.Sleep(3 * time.Hour)     // of virtual time
			c.ping()
			packets, within := c.link.Heard()
			require.NotZero(w, packets)
			require.Greater(w, within, 40*time.Millisecond)
			require.Less(w, within, time.Second)
		}
	})
}

func TestAClientKeepsItsSessionWhenItsAddressChanges(t *testing.T) {
	for _, scheme := range []string{"mqtt+wt", "wss+h3"} {
		t.Run(scheme, func(t *testing.T) {
			simulate(t, nil, nil, func(w *world) {
				slow := transporttest.Link{Latency: 10 * time.Millisecond}
				socket := w.network.Socket("198.51.100.2:40000", slow, slow)
				ep, err := w.engine.Open(socket, nil)
				require.NoError(w, err)
				defer func() { require.NoError(w, ep.Close()) }()
				d := &mqttweb.Dialer{DialQUIC: func(ctx context.Context, _ string, cfg *transport.Config) (transport.Conn, error) {
					return ep.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(serverAddr)), cfg)
				}}
				l, err := d.DialLink(w.Context(), &url.URL{Scheme: scheme, Host: "localhost"}, w.ca.Client("localhost"))
				require.NoError(w, err)
				c := connected(w, l, "mover")
				c.subscribe("t")
				pub := w.client("wss+h3", "pub")

				socket.Rebind("203.0.113.9:50000") // as a NAT does
				c.ping()
				pub.send(&packet.Publish{Topic: "t", Payload: []byte("after")})
				c.message("t", "after")
				require.EqualValues(w, 2, w.broker.Stats().Connections[mqtt.WebTransport].Total+w.broker.Stats().Connections[mqtt.WSSH3].Total)
				require.NoError(w, l.CloseWithCode(mqtt.LinkNormal))
				time.Sleep(10 * time.Second) // of virtual time, for what lingers
			})
		})
	}
}

// connectPacket is a CONNECT of MQTT 5 by client "c".
var connectPacket = []byte{0x10, 14, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0, 1, 'c'}

func TestTheControlStreamIsTheFirstEvenIfItIsLate(t *testing.T) {
	publish := []byte{0x30, 6, 0, 1, 't', 0, 'm', '!'}
	for name, between := range map[string]bool{"alone on the connection": false, "beside a request": true} {
		t.Run(name, func(t *testing.T) {
			simulate(t, nil, nil, func(w *world) {
				sub := w.client("mqtt+wt", "sub")
				sub.subscribe("t")

				conn, err := w.dialQUIC(w.Context(), "", &transport.Config{TLS: w.ca.Client("localhost", http3.ALPN), Datagrams: true})
				require.NoError(w, err)
				defer func() { _ = conn.CloseWithError(0, "") }()
				b := newBrowser(w, conn)
				id, status := b.session("localhost", "https://localhost")
				require.Equal(w, "200", status)
				if between {
					s := b.stream(headers(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/hello"))
					require.NoError(w, s.Close())
				}
				control := b.stream(nil)
				preamble := varints(0x41, id)
				for range 3 {
					b.stream(append(preamble, publish...))
				}
				b.stream(preamble) // says nothing
				time.Sleep(time.Second)
				_, err = control.Write(append(preamble, connectPacket...))
				require.NoError(w, err)
				require.Zero(w, receive[*packet.Connack](b.on(control)).Code)
				for range 3 {
					sub.message("t", "m!")
				}
				require.EqualValues(w, 2, w.broker.Stats().Connections[mqtt.WebTransport].Now)
			})
		})
	}
}

func TestAClientThatNeverSaysConnectIsGivenUp(t *testing.T) {
	simulate(t, nil, nil, func(w *world) {
		conn, err := w.dialQUIC(w.Context(), "", &transport.Config{TLS: w.ca.Client("localhost", http3.ALPN), Datagrams: true})
		require.NoError(w, err)
		b := newBrowser(w, conn)
		id, _ := b.session("localhost", "https://localhost")
		b.stream(nil) // the first, whose beginning never comes
		start := time.Now()
		ended := make(chan time.Duration, 40)
		for range cap(ended) {
			s := b.stream(append(varints(0x41, id), 0x30))
			go func() { // ends with the stream
				_, _ = io.Copy(io.Discard, s)
				ended <- time.Since(start)
			}()
		}
		for range cap(ended) - 16 {
			require.Less(w, <-ended, time.Second, "streams above the limit are refused")
		}
		require.InDelta(w, 10, (<-ended).Seconds(), 1, "the others wait")
		require.Eventually(w, func() bool { return w.broker.Stats().Connections[mqtt.WebTransport].Now == 0 }, time.Minute, time.Second)
		require.EqualValues(w, 1, w.broker.Stats().Refused)
		_ = conn.CloseWithError(0, "")
	})
}

// What MQTT has no use for is not read, and what it costs is bounded.
func TestUnidirectionalStreamsAndDatagramsAreIgnored(t *testing.T) {
	simulate(t, nil, nil, func(w *world) {
		c := w.client("mqtt+wt", "c")
		s := c.link.(interface{ Session() *webtransport.Session }).Session()
		open := 0
		for {
			ctx, cancel := context.WithTimeout(w.Context(), time.Second)
			u, err := s.OpenUniStream(ctx)
			cancel()
			if err != nil {
				require.ErrorIs(w, err, context.DeadlineExceeded)
				break
			}
			open++
			_, err = u.Write(make([]byte, 1000))
			require.NoError(w, err)
			require.NoError(w, u.Close())
		}
		require.Less(w, open, 8, "HTTP/3's own are among the eight")
		for range 1000 {
			require.NoError(w, s.SendDatagram(make([]byte, 100)))
		}
		c.ping()
		c.subscribe("t")
		c.send(&packet.Publish{Topic: "t", Payload: []byte("m")})
		c.message("t", "m")
		_, err := c.link.AcceptStream(w.Context())
		require.ErrorIs(w, err, errors.ErrUnsupported, "a server opens no streams")
	})
}

func TestASessionFromAnotherOriginIsRefused(t *testing.T) {
	simulate(t, &mqttweb.ListenConfig{Origins: []string{"app.example"}}, nil, func(w *world) {
		for origin, want := range map[string]string{
			"https://localhost":    "200",
			"https://app.example":  "200",
			"https://evil.example": "403",
			"http://app.example":   "403",
			"null":                 "403",
		} {
			conn, err := w.dialQUIC(w.Context(), "", &transport.Config{TLS: w.ca.Client("localhost", http3.ALPN), Datagrams: true})
			require.NoError(w, err)
			_, status := newBrowser(w, conn).session("localhost", origin)
			require.Equal(w, want, status, origin)
			_ = conn.CloseWithError(0, "")
		}
	})
}

func TestSeveralSessionsShareAConnection(t *testing.T) {
	simulate(t, nil, nil, func(w *world) {
		tr := &http3.Transport{Dial: w.dialQUIC, TLS: w.ca.Client("localhost")}
		webtransport.ConfigureTransport(tr, nil)
		defer func() { require.NoError(w, tr.Close()) }()
		s, err := webtransport.Dial(w.Context(), tr, "https://"+site, &webtransport.DialOptions{Pool: true, Protocols: []string{"mqtt"}})
		require.NoError(w, err)
		require.Equal(w, "mqtt", s.Protocol())
		resp, err := (&http.Client{Transport: tr}).Get("https://localhost/hello")
		require.NoError(w, err)
		require.NoError(w, resp.Body.Close())
		control, err := s.OpenStream(w.Context())
		require.NoError(w, err)
		_, err = control.Write(connectPacket)
		require.NoError(w, err)
		require.Zero(w, receive[*packet.Connack](&rawClient{t: w, in: mqtt.NewReader(control, 0)}).Code)
		require.NoError(w, s.Close())
	})
}

func TestABrowsersPageReachesASubscriberOnTCP(t *testing.T) {
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			s := newLoopback(t, e, nil, nil)
			tcp, err := net.Dial("tcp", s.tcp)
			require.NoError(t, err)
			sub := connected(t, mqtt.NewConnLink(tcp, mqtt.TCP), "sub")
			sub.subscribe("from/#")

			conf := s.tls.Clone()
			conf.NextProtos = []string{http3.ALPN}
			conn, err := transport.DialAddr(t.Context(), e, s.h3, &transport.Config{TLS: conf, Datagrams: true, HandshakeTimeout: patience})
			require.NoError(t, err)
			defer func() { _ = conn.CloseWithError(0, "") }()
			b := newBrowser(t, conn)
			id, status := b.session(s.h3, "https://"+s.h3)
			require.Equal(t, "200", status)
			control := b.stream(append(varints(0x41, id), connectPacket...))
			require.Zero(t, receive[*packet.Connack](b.on(control)).Code)
			_, err = control.Write([]byte{0x30, 14, 0, 9, 'f', 'r', 'o', 'm', '/', 'p', 'a', 'g', 'e', 0, 'h', 'i'})
			require.NoError(t, err)
			sub.message("from/page", "hi")
			require.NoError(t, sub.link.CloseWithCode(mqtt.LinkNormal))
		})
	}
}

func TestOneUDPPortTakesMQTTAndHTTP3(t *testing.T) {
	simulate(t, nil, nil, func(w *world) {
		slow := transporttest.Link{Latency: 10 * time.Millisecond}
		const addr = "192.0.2.7:14567"
		to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr))
		l, err := mqttquic.Listen(w.engine, w.network.Socket(addr, slow, slow), &mqttquic.ListenConfig{
			TLS: w.ca.Server("localhost"), Others: []mqttquic.Protocol{mqttweb.SharedPort(w.server)},
		})
		require.NoError(w, err)
		served := make(chan error, 1)
		go func() { served <- w.broker.ServeLinks(l) }() // ends with CloseNow
		quic := func(ctx context.Context, _ string, cfg *transport.Config) (transport.Conn, error) {
			return w.endpoint.Dial(ctx, to, cfg)
		}
		clientTLS := w.ca.Client("localhost")
		clients := map[mqtt.Carrier]*rawClient{}
		for scheme, carrier := range map[string]mqtt.Carrier{"wss+h3": mqtt.WSSH3, "mqtt+wt": mqtt.WebTransport} {
			link, err := (&mqttweb.Dialer{DialQUIC: quic}).DialLink(w.Context(), &url.URL{Scheme: scheme, Host: "localhost"}, clientTLS)
			require.NoError(w, err)
			require.Equal(w, carrier, link.Carrier())
			require.Equal(w, http3.ALPN, link.TLS().NegotiatedProtocol)
			clients[carrier] = connected(w, link, scheme)
		}
		link, err := (&mqttquic.Dialer{Endpoint: w.endpoint}).DialLink(w.Context(), &url.URL{Scheme: "mqtt+quic", Host: addr}, clientTLS)
		require.NoError(w, err)
		require.Equal(w, mqttquic.ALPN, link.TLS().NegotiatedProtocol)
		clients[mqtt.QUIC] = connected(w, link, "quic")
		for carrier, c := range clients {
			require.EqualValues(w, 1, w.broker.Stats().Connections[carrier].Now, carrier)
			c.subscribe("t/#")
		}
		for carrier, c := range clients {
			c.send(&packet.Publish{Topic: fmt.Sprintf("t/%x", carrier), Payload: []byte("to all")})
			for _, other := range clients {
				other.message(fmt.Sprintf("t/%x", carrier), "to all")
			}
		}
		_, err = w.endpoint.Dial(w.Context(), to, &transport.Config{TLS: w.ca.Client("localhost", "other")})
		require.Error(w, err, "no other protocol")
		require.NoError(w, l.CloseNow())
		<-served
		for _, c := range clients {
			<-c.link.Context().Done()
		}
	})
}

package mochi_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	server "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mochi"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// certificates returns the configurations of a server for 127.0.0.1 and of its clients.
func certificates(t *testing.T) (serverTLS, clientTLS *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: roots}
}

// carriers is a hook that remembers what carried the client that connected last.
type carriers struct {
	server.HookBase
	last atomic.Value
}

func (*carriers) ID() string           { return "carriers" }
func (*carriers) Provides(b byte) bool { return b == server.OnConnect }
func (h *carriers) OnConnect(cl *server.Client, _ packets.Packet) error {
	c, ok := cl.Net.Conn.(*mochi.Conn)
	if !ok {
		return errors.New("not our Conn")
	}
	h.last.Store(c.Link().Carrier())
	return nil
}

// A place is a mochi-mqtt broker that serves one carrier.
type place struct {
	*testing.T
	broker *server.Server
	hook   *carriers
	dialer client.LinkDialer
	url    string
	tls    *tls.Config
	ended  sync.Once
}

// close ends the broker, which panics when it is closed twice.
func (p *place) close() { p.ended.Do(func() { require.NoError(p, p.broker.Close()) }) }

func (p *place) dial(id string, change ...func(*client.Config)) *client.Client {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	cfg := &client.Config{
		URL: p.url, TLS: p.tls, Dialers: []client.LinkDialer{p.dialer}, ClientID: id, CleanStart: true,
		Reconnect: client.Backoff{Disabled: true},
	}
	for _, f := range change {
		f(cfg)
	}
	c, err := client.Dial(ctx, cfg)
	require.NoError(p, err)
	p.Cleanup(func() { c.Close() })
	return c
}

// serve runs a broker on l until the test ends.
func serve(t *testing.T, l mqtt.LinkListener) *place {
	t.Helper()
	p := &place{T: t, broker: server.New(&server.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}), hook: new(carriers)}
	require.NoError(t, p.broker.AddHook(new(auth.AllowHook), nil))
	require.NoError(t, p.broker.AddHook(p.hook, nil))
	require.NoError(t, p.broker.AddListener(mochi.NewListener("anyquic", l)))
	require.NoError(t, p.broker.Serve())
	t.Cleanup(p.close)
	return p
}

func onQUIC(t *testing.T, e transport.Transport) *place {
	serverTLS, clientTLS := certificates(t)
	l, err := mqttquic.ListenAddr(e, "127.0.0.1:0", &mqttquic.ListenConfig{TLS: serverTLS, HandshakeTimeout: time.Minute})
	require.NoError(t, err)
	p := serve(t, l)
	p.dialer, p.url, p.tls = &mqttquic.Dialer{Transport: e, HandshakeTimeout: time.Minute}, mqttquic.Scheme+"://"+l.Addr().String(), clientTLS
	return p
}

func onWeb(scheme string) func(t *testing.T, e transport.Transport) *place {
	return func(t *testing.T, e transport.Transport) *place {
		serverTLS, clientTLS := certificates(t)
		web := mqttweb.NewListener(nil)
		hs := &http3.Server{TLS: serverTLS, Handler: web}
		hs.Transport, hs.Extensions = mqttweb.ServerConfig(&transport.Config{HandshakeTimeout: time.Minute})
		cfg, err := hs.TransportConfig()
		require.NoError(t, err)
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		ep, err := e.Open(pc, nil)
		require.NoError(t, err)
		l, err := ep.Listen(cfg)
		require.NoError(t, err)
		served := make(chan error, 1)
		go func() { served <- hs.Serve(l) }() // ends with Close
		t.Cleanup(func() {
			require.NoError(t, errors.Join(hs.Close(), ep.Close()))
			require.ErrorIs(t, <-served, http.ErrServerClosed)
		})
		p := serve(t, web)
		p.dialer, p.url, p.tls = &mqttweb.Dialer{Transport: e, QUIC: &transport.Config{HandshakeTimeout: time.Minute}}, scheme+"://"+pc.LocalAddr().String()+mqttweb.Path, clientTLS
		return p
	}
}

var cases = []struct {
	name string
	run  func(p *place, want mqtt.Carrier)
}{
	{"MessagesPassWithEveryQoSAndVersion", func(p *place, want mqtt.Carrier) {
		for _, v := range []packet.Version{packet.V311, packet.V5} {
			got := make(chan *packet.Publish, 100)
			set := func(cfg *client.Config) { cfg.Version = v }
			sub, pub := p.dial("sub", set), p.dial("pub", set)
			require.Equal(p, want, p.hook.last.Load())
			_, err := sub.Subscribe(p.Context(), func(m *packet.Publish) { got <- client.Clone(m) }, packet.Subscription{Filter: "t/#", QoS: 2})
			require.NoError(p, err)
			for i := range 30 {
				m := &packet.Publish{Topic: fmt.Sprint("t/", i), Payload: make([]byte, i*i*100), QoS: packet.QoS(i % 3)}
				_, err := pub.Publish(p.Context(), m)
				require.NoError(p, err)
				in := <-got
				require.Equal(p, m.Topic, in.Topic)
				require.Equal(p, m.Payload, append([]byte{}, in.Payload...))
				require.Equal(p, m.QoS, in.QoS)
			}
			require.NoError(p, sub.Disconnect(p.Context()))
			require.NoError(p, pub.Disconnect(p.Context()))
		}
	}},
	{"TheBrokersGoodbyeArrives", func(p *place, _ mqtt.Carrier) {
		ended := make(chan error, 1)
		p.dial("c", func(cfg *client.Config) { cfg.OnDisconnect = func(err error) { ended <- err } })
		cl, ok := p.broker.Clients.Get("c")
		require.True(p, ok)
		require.ErrorIs(p, p.broker.DisconnectClient(cl, packets.ErrServerShuttingDown), packets.ErrServerShuttingDown, "it returns what it says")
		var bye *client.DisconnectError
		require.ErrorAs(p, <-ended, &bye)
		require.Equal(p, packet.ServerShuttingDown, bye.Code)
	}},
	{"ASilentConnectionHoldsUpNobody", func(p *place, _ mqtt.Carrier) {
		u, err := url.Parse(p.url)
		require.NoError(p, err)
		link, err := p.dialer.DialLink(p.Context(), u, p.tls.Clone())
		require.NoError(p, err)
		defer link.CloseWithCode(mqtt.LinkNormal)
		c := p.dial("c")
		_, err = c.Publish(p.Context(), &packet.Publish{Topic: "t", QoS: 1})
		require.NoError(p, err)
		// And Close waits for nobody's handshake.
		p.close()
	}},
	{"ADataStreamIsReset", func(p *place, want mqtt.Carrier) {
		if !want.Streams() {
			return // there is none
		}
		c := p.dial("c")
		s, err := c.Link().OpenStream(p.Context())
		require.NoError(p, err)
		_, err = s.Write([]byte{0xC0, 0})
		if err == nil { // or the header of the stream, which is written first, had its answer
			_, err = s.Read(make([]byte, 1))
		}
		var reset *mqtt.StreamError
		require.ErrorAs(p, err, &reset)
		require.EqualValues(p, packet.ImplementationSpecificError, reset.Code)
		_, err = c.Publish(p.Context(), &packet.Publish{Topic: "t", QoS: 1})
		require.NoError(p, err, "the connection lives")
	}},
	{"TheEndOfTheBrokerEndsConnections", func(p *place, _ mqtt.Carrier) {
		c := p.dial("c")
		p.close()
		<-c.Done()
	}},
}

func TestMochiServesOurCarriers(t *testing.T) {
	for _, carrier := range []struct {
		kind mqtt.Carrier
		on   func(*testing.T, transport.Transport) *place
	}{
		{mqtt.QUIC, onQUIC},
		{mqtt.WSSH3, onWeb("wss+h3")},
		{mqtt.WebTransport, onWeb("mqtt+wt")},
	} {
		for _, e := range engine.All() {
			for _, tc := range cases {
				t.Run(fmt.Sprintf("%s-%s/%s", carrier.kind, e.Name(), tc.name), func(t *testing.T) {
					t.Parallel()
					tc.run(carrier.on(t, e), carrier.kind)
				})
			}
		}
	}
}

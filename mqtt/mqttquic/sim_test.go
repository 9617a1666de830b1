package mqttquic_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// latency is what a packet takes from one end of the simulated network to the
// other.
const latency = 50 * time.Millisecond

// A world is a simulated network, in virtual time, with a server and a client's
// socket, for one engine.
type world struct {
	*testing.T
	engine    transport.Transport
	router    *router
	listener  *mqttquic.Listener
	endpoint  transport.Endpoint // the client's
	clientTLS *tls.Config
	serverTLS *tls.Config // of the listener, if it was not given one
}

var (
	serverAddr = &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1).To4(), Port: mqttquic.Port}
	serverURL  = &url.URL{Scheme: mqttquic.Scheme, Host: serverAddr.String()}
	clientAddr = &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2).To4(), Port: 40000}
	secondAddr = &net.UDPAddr{IP: net.IPv4(10, 0, 0, 3).To4(), Port: 40000} // where the client can migrate to
	newNATAddr = &net.UDPAddr{IP: net.IPv4(10, 9, 9, 9).To4(), Port: 50000} // what its NAT can change to
)

// simulate runs f for every engine, with a listener that cfg configures but for
// the certificate. A nil cfg is the zero ListenConfig.
func simulate(t *testing.T, cfg *mqttquic.ListenConfig, f func(w *world, e transport.Transport)) {
	t.Helper()
	serverTLS, clientTLS := testcert.New()
	c := mqttquic.ListenConfig{TLS: serverTLS}
	if cfg != nil {
		c = *cfg
		if c.TLS == nil {
			c.TLS = serverTLS
		}
	}
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{T: t, engine: e, router: new(router), clientTLS: clientTLS, serverTLS: serverTLS}
				serverSocket, clientSocket := w.socket(serverAddr), w.socket(clientAddr)
				var err error
				w.listener, err = mqttquic.Listen(e, serverSocket, &c)
				require.NoError(t, err)
				defer func() { require.NoError(t, w.listener.CloseNow()) }()
				w.endpoint, err = e.Open(clientSocket, nil)
				require.NoError(t, err)
				defer func() { require.NoError(t, w.endpoint.Close()) }()
				f(w, e)
			})
		})
	}
}

// socket makes a host. The simulator starts all hosts of a Simnet at once, and
// one that is added later is lost; so each has a Simnet of its own, and what they
// share is the router.
func (w *world) socket(addr *net.UDPAddr) net.PacketConn {
	w.Helper()
	n := &simnet.Simnet{Router: w.router}
	c := n.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: latency})
	require.NoError(w, n.Start())
	w.Cleanup(func() { _ = n.Close() })
	return c
}

func (w *world) dialer() *mqttquic.Dialer {
	return &mqttquic.Dialer{Endpoint: w.endpoint, TLS: w.clientTLS}
}

// link connects and returns both sides.
func (w *world) link() (server, client *mqttquic.Link) {
	w.Helper()
	c, err := w.dialer().DialLink(w.Context(), serverURL, w.clientTLS)
	require.NoError(w, err)
	s, err := w.listener.Accept(w.Context())
	require.NoError(w, err)
	return s.(*mqttquic.Link), c.(*mqttquic.Link)
}

// streams connects, opens the control stream and returns both sides of it. What
// was sent to open it is read.
func (w *world) streams() (server, client *mqttquic.Link, ss, cs mqtt.Stream) {
	w.Helper()
	server, client = w.link()
	cs, err := client.OpenStream(w.Context())
	require.NoError(w, err)
	_, err = cs.Write([]byte{'!'})
	require.NoError(w, err)
	ss, err = server.AcceptStream(w.Context())
	require.NoError(w, err)
	b := make([]byte, 1)
	_, err = ss.Read(b)
	require.NoError(w, err)
	require.Equal(w, "!", string(b))
	return server, client, ss, cs
}

// within is a context for what must not take longer.
func (w *world) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), d)
	w.Cleanup(cancel)
	return ctx
}

// A router is a network between hosts, with a NAT in front of clientAddr.
type router struct {
	simnet.PerfectRouter
	down atomic.Bool // the network loses everything
	drop atomic.Bool // it loses the next packet of the client

	mu   sync.Mutex
	tap  [][]byte     // what the client has sent since record; guarded by mu
	rec  bool         // guarded by mu
	dead *net.UDPAddr // a host whose packets are lost; guarded by mu
	nat  *net.UDPAddr // how the world sees clientAddr; guarded by mu; nil: as it is
}

func (r *router) rebind(to *net.UDPAddr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nat = to
}

// record keeps what the client sends, until stop returns it.
func (r *router) record() (stop func() [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tap, r.rec = nil, true
	return func() [][]byte {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.rec = false
		return r.tap
	}
}

// kill makes the packets from and to a host get lost.
func (r *router) kill(host *net.UDPAddr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = host
}

func (r *router) SendPacket(p simnet.Packet) error {
	r.mu.Lock()
	nat, dead := r.nat, r.dead
	fromClient := p.From.String() == clientAddr.String()
	if r.rec && fromClient {
		r.tap = append(r.tap, bytes.Clone(p.Data))
	}
	r.mu.Unlock()
	if dead != nil && (p.From.String() == dead.String() || p.To.String() == dead.String()) {
		return nil
	}
	if r.down.Load() || fromClient && r.drop.Swap(false) {
		return nil
	}
	if nat != nil {
		switch {
		case fromClient:
			p.From = nat
		case p.To.String() == nat.String():
			p.To = clientAddr
		case p.To.String() == clientAddr.String():
			return nil // the old mapping is gone
		}
	}
	return r.PerfectRouter.SendPacket(p)
}

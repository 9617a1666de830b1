package main

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// A quicLab is a listener of QUIC whose connections are counted, and a client.
type quicLab struct {
	t      *testing.T
	ops    *operations
	ln     transport.Listener
	server transport.Endpoint
	client transport.Endpoint
	socket *lossySocket // the client's
	tls    *tls.Config  // likewise
	cfg    *transport.Config
	retry  atomic.Bool // clients have to prove their addresses
}

// A lossySocket loses packets when it is told to.
type lossySocket struct {
	net.PacketConn
	lose atomic.Bool // every fifth
	n    atomic.Uint64
}

func (s *lossySocket) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, addr, err := s.PacketConn.ReadFrom(p)
		if err != nil || !s.lose.Load() || s.n.Add(1)%5 != 0 {
			return n, addr, err
		}
	}
}

func udpSocket(t *testing.T) net.PacketConn {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	return pc
}

func newQUICLab(t *testing.T) *quicLab {
	cert := testcert.NewCA().Certificate("localhost")
	cfg := defaults()
	ops, err := newOperations(&cfg, engine.Default(), &cert, io.Discard, func(*slog.Logger) (*broker.Broker, error) { return broker.New(nil) })
	require.NoError(t, err)
	t.Cleanup(func() { ops.broker.Close() })
	l := &quicLab{t: t, ops: ops, socket: &lossySocket{PacketConn: udpSocket(t)}}
	server, client := testcert.New("lab")
	l.tls = client
	l.server, err = l.ops.meter("lab").Open(udpSocket(t), &transport.Options{
		MaxConns:     2,
		RequireRetry: func(net.Addr) bool { return l.retry.Load() },
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.server.Close()) })
	l.cfg = &transport.Config{TLS: server, Datagrams: true, DatagramQueue: 1, EarlyData: true, HandshakeTimeout: patience}
	l.ln, err = l.server.Listen(l.cfg)
	require.NoError(t, err)
	l.client, err = engine.Default().Open(l.socket, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.client.Close()) })
	return l
}

func (l *quicLab) dial(change ...func(*transport.Config)) (client, server transport.Conn) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	cfg := &transport.Config{TLS: l.tls.Clone(), Datagrams: true, HandshakeTimeout: patience}
	for _, f := range change {
		f(cfg)
	}
	client, err := l.client.Dial(ctx, l.server.Addr(), cfg)
	require.NoError(l.t, err)
	for server == nil || string(server.State().ConnID) != string(client.State().ConnID) {
		server, err = l.ln.Accept(ctx) // with early data also those whose handshake has failed
		require.NoError(l.t, err)
	}
	require.NoError(l.t, server.Handshake(ctx))
	return client, server
}

func (l *quicLab) scrape() scrape {
	l.t.Helper()
	w := httptest.NewRecorder()
	monitoring(l.ops).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return parseScrape(l.t, w.Body.String())
}

// quicMoves are what clients on QUIC can move, each in a lab of its own: an engine may
// count what is left of a connection after its end.
var quicMoves = []struct {
	by  string
	act func(t *testing.T, l *quicLab) // may leave connections open
	how map[string]float64
}{
	{"a client that has to prove its address", func(_ *testing.T, l *quicLab) {
		l.retry.Store(true)
		l.dial()
	}, map[string]float64{
		`quic_retries_total{listener="lab"}`:                   more, // one for each time that the client asks
		`quic_connections{listener="lab"}`:                     1,
		`quic_handshakes_total{listener="lab"}`:                1,
		`handshakes_started_total{listener="lab"}`:             1,
		`handshake_duration_seconds_count{listener="lab"}`:     1,
		`quic_packets_sent_total{listener="lab"}`:              more,
		`quic_packets_received_total{listener="lab"}`:          more,
		`quic_sent_bytes_total{listener="lab"}`:                more,
		`quic_received_bytes_total{listener="lab"}`:            more,
		`quic_congestion_window_bytes{listener="lab"}`:         more,
		`quic_rtt_seconds{listener="lab",of="p50"}`:            more,
		`quic_early_data_offered_total{listener="lab"}`:        0,
		`handshakes_failed_total{listener="lab",reason="tls"}`: 0,
	}},
	{"a client without a protocol in common", func(t *testing.T, l *quicLab) {
		cfg := &transport.Config{TLS: l.tls.Clone()}
		cfg.TLS.NextProtos = []string{"other"}
		_, err := l.client.Dial(t.Context(), l.server.Addr(), cfg)
		require.Error(t, err)
	}, map[string]float64{
		`handshakes_failed_total{listener="lab",reason="no_protocol"}`: 1,
		`handshakes_started_total{listener="lab"}`:                     1,
		`quic_handshakes_total{listener="lab"}`:                        0,
	}},
	{"a client that does not trust the certificate", func(t *testing.T, l *quicLab) {
		cfg := &transport.Config{TLS: l.tls.Clone()}
		cfg.TLS.RootCAs = testcert.NewCA().Pool()
		_, err := l.client.Dial(t.Context(), l.server.Addr(), cfg)
		require.Error(t, err)
	}, map[string]float64{`handshakes_failed_total{listener="lab",reason="certificate"}`: 1}},
	{"one client more than there is room for", func(t *testing.T, l *quicLab) {
		l.dial()
		l.dial()
		_, err := l.client.Dial(t.Context(), l.server.Addr(), &transport.Config{TLS: l.tls})
		require.Error(t, err)
	}, map[string]float64{`quic_refused_total{listener="lab"}`: more, `quic_handshakes_total{listener="lab"}`: 2}},
	{"a packet of nobody", func(t *testing.T, l *quicLab) {
		pc := udpSocket(t)
		defer pc.Close()
		_, err := pc.WriteTo(make([]byte, 64), l.server.Addr())
		require.NoError(t, err)
	}, map[string]float64{`quic_packets_dropped_total{listener="lab"}`: 1}},
	{"streams of both sides", func(t *testing.T, l *quicLab) {
		c, s := l.dial()
		for range 3 {
			w, err := c.OpenUniStream(t.Context())
			require.NoError(t, err)
			_, err = w.Write([]byte("x"))
			require.NoError(t, err)
			_, err = s.AcceptUniStream(t.Context())
			require.NoError(t, err)
		}
		_, err := s.OpenStream(t.Context())
		require.NoError(t, err)
	}, map[string]float64{
		`quic_streams{listener="lab"}`:                4,
		`quic_streams_accepted_total{listener="lab"}`: 3,
		`quic_streams_opened_total{listener="lab"}`:   1,
	}},
	{"a network that loses packets", func(t *testing.T, l *quicLab) {
		c, s := l.dial()
		l.socket.lose.Store(true)
		defer l.socket.lose.Store(false)
		w, err := s.OpenUniStream(t.Context())
		require.NoError(t, err)
		go func() { // ends with the stream
			if _, err := w.Write(make([]byte, 300_000)); err == nil {
				w.Close()
			}
		}()
		r, err := c.AcceptUniStream(t.Context())
		require.NoError(t, err)
		n, err := io.Copy(io.Discard, r)
		require.NoError(t, err)
		require.EqualValues(t, 300_000, n)
	}, map[string]float64{`quic_packets_lost_total{listener="lab"}`: more, `quic_lost_bytes_total{listener="lab"}`: more}},
	{"datagrams, more than anybody reads", func(t *testing.T, l *quicLab) {
		c, s := l.dial()
		require.NoError(t, s.SendDatagram([]byte("x")))
		_, err := c.ReceiveDatagram(t.Context())
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, c.SendDatagram([]byte("x")))
		}
	}, map[string]float64{
		`quic_datagrams_sent_total{listener="lab"}`:     1,
		`quic_datagrams_received_total{listener="lab"}`: 1,
		`quic_datagrams_dropped_total{listener="lab"}`:  2,
	}},
	{"a client that comes back with early data", func(t *testing.T, l *quicLab) {
		sessions := make(oneSession, 1)
		resume := func(c *transport.Config) { c.Sessions, c.EarlyData = sessions, true }
		first, _ := l.dial(resume)
		require.Eventually(t, func() bool { return len(sessions) == 1 }, patience, time.Millisecond)
		require.NoError(t, first.CloseWithError(0, ""))
		again, _ := l.dial(resume)
		require.NoError(t, again.Handshake(t.Context()))
		require.True(t, again.State().EarlyData)
	}, map[string]float64{
		`quic_early_data_offered_total{listener="lab"}`:  1,
		`quic_early_data_accepted_total{listener="lab"}`: 1,
	}},
	{"a client that moves", func(t *testing.T, l *quicLab) {
		c, s := l.dial()
		before := s.RemoteAddr().String()
		require.NoError(t, c.Migrate(t.Context(), udpSocket(t)))
		st, err := c.OpenUniStream(t.Context())
		require.NoError(t, err)
		_, err = st.Write([]byte("x"))
		require.NoError(t, err)
		require.Eventually(t, func() bool { return s.RemoteAddr().String() != before }, patience, time.Millisecond)
	}, map[string]float64{`quic_migrations_total{listener="lab"}`: 1}},
	{"a connection that is closed by the client", func(t *testing.T, l *quicLab) {
		c, s := l.dial()
		require.NoError(t, c.CloseWithError(0, ""))
		<-s.Context().Done()
	}, map[string]float64{
		`quic_connections_ended_total{listener="lab",reason="peer_closed"}`: 1,
		`quic_connections_ended_total{listener="lab",reason="closed"}`:      0,
	}},
}

// oneSession is a cache for one session at a time.
type oneSession chan []byte

func (c oneSession) Take(string) []byte {
	select {
	case s := <-c:
		return s
	default:
		return nil
	}
}

func (c oneSession) Put(_ string, s []byte) {
	select {
	case c <- s:
	default:
	}
}

func TestEverySeriesOfQUICMovesWithItsTraffic(t *testing.T) {
	for _, q := range quicMoves {
		t.Run(q.by, func(t *testing.T) {
			l := newQUICLab(t)
			before := l.scrape()
			q.act(t, l)
			mv := move{by: q.by, how: q.how}
			require.Eventually(t, func() bool { return mv.arrived(before, l.scrape()) }, patience, 5*time.Millisecond)
			mv.check(t, before, l.scrape())
		})
	}
}

// dialStreams connects over QUIC and returns the control stream's peer.
func (s *served) dialStreams(t *testing.T) (mqtt.Link, *rawPeer) {
	t.Helper()
	d := &mqttquic.Dialer{Transport: engine.Default()}
	link, err := d.DialLink(t.Context(), parseURL(t, s.url("quic")), &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	t.Cleanup(func() { link.CloseWithCode(mqtt.LinkNormal) })
	p := openPeer(t, link)
	require.Equal(t, packet.Success, p.hello("streams").Code)
	return link, p
}

func openPeer(t *testing.T, link mqtt.Link) *rawPeer {
	t.Helper()
	st, err := link.OpenStream(t.Context())
	require.NoError(t, err)
	return newPeer(t, streamConn{st, link})
}

var streamMoves = []move{
	{"a data stream", func(t *testing.T, s *served) {
		link, _ := s.dialStreams(t)
		openPeer(t, link).subscribe(0, "x")
	}, map[string]float64{`mqtt_streams`: 1, `mqtt_streams_total`: 1, `mqtt_streams_reset_total`: 0}},
	{"a data stream that breaks the protocol", func(t *testing.T, s *served) {
		link, p := s.dialStreams(t)
		openPeer(t, link).send(&packet.Pingreq{})
		p.ping()
	}, map[string]float64{`mqtt_streams_reset_total`: 1}},
}

func TestEverySeriesOfStreamsMovesWithItsTraffic(t *testing.T) {
	s := startServe(t)
	for i := range streamMoves {
		streamMoves[i].run(t, s)
	}
}

func TestSeriesOfTheProgramSayWhatIs(t *testing.T) {
	l := newQUICLab(t)
	before := l.scrape()
	v := buildVersion()
	require.EqualValues(t, 1, before[`build_info{engine="`+v.Engine+`",go="`+v.Go+`",version="`+v.Version+`"}`])
	for library, version := range v.Versions {
		require.EqualValues(t, 1, before[`library_info{library="`+library+`",version="`+version+`"}`])
	}
	require.InDelta(t, float64(time.Now().Unix()), before[`start_time_seconds`], 600)
	require.Equal(t, before[`start_time_seconds`], before[`last_reload_time_seconds`])
	require.EqualValues(t, l.ops.cert.Load().Leaf.NotAfter.Unix(), before[`certificate_expiry_time_seconds`])
	require.Zero(t, before[`draining`])
	l.ops.draining.Store(true)
	require.EqualValues(t, 1, l.scrape()[`draining`])
}

// A streamConn is a stream of a Link as a net.Conn.
type streamConn struct {
	mqtt.Stream
	link mqtt.Link
}

func (c streamConn) Close() error         { c.Reset(0); return nil }
func (c streamConn) LocalAddr() net.Addr  { return c.link.LocalAddr() }
func (c streamConn) RemoteAddr() net.Addr { return c.link.RemoteAddr() }
func (c streamConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func parseURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	require.NoError(t, err)
	return u
}

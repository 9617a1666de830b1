package mqttquic_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// conn connects with DialConn and returns both sides.
func (w *world) conn() (net.Conn, mqtt.Link, mqtt.Stream) {
	w.Helper()
	c, err := w.dialer().DialConn(w.Context(), serverAddr.String())
	require.NoError(w, err)
	_, err = c.Write([]byte{'!'})
	require.NoError(w, err)
	l, err := w.listener.Accept(w.Context())
	require.NoError(w, err)
	s, err := l.AcceptStream(w.Context())
	require.NoError(w, err)
	require.Equal(w, mqtt.ControlStream, s.ID())
	_, err = io.ReadFull(s, make([]byte, 1))
	require.NoError(w, err)
	return c, l, s
}

func TestConnsLastPacketArrivesThoughItIsClosedAtOnce(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		for _, lossy := range []bool{false, true} {
			c, l, s := w.conn()
			w.router.drop.Store(lossy) // the first packet with it is lost
			start := time.Now()
			_, err := c.Write([]byte{0xE0, 0x00}) // DISCONNECT
			require.NoError(w, err)
			require.NoError(w, c.Close())
			require.Equal(w, start, time.Now(), "Close must not wait")

			b, err := io.ReadAll(s)
			require.NoError(w, err)
			require.Equal(w, []byte{0xE0, 0x00}, b)
			require.NoError(w, l.Context().Err())
			require.NoError(w, s.CloseWrite())
			<-l.Context().Done() // as soon as the client has seen our end
			require.Less(w, time.Since(start), time.Second)
			var ae *transport.ApplicationError
			require.ErrorAs(w, context.Cause(l.Context()), &ae)
			require.Zero(w, ae.Code)
			require.True(w, ae.Remote)
		}
	})
}

func TestConnClosesWithinASecondWhateverThePeerDoes(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		for _, down := range []bool{false, true} {
			w.router.down.Store(down)
			if down {
				w.router.down.Store(false)
			}
			c, l, _ := w.conn()
			qc := c.(interface{ Transport() transport.Conn }).Transport()
			w.router.down.Store(down)
			start := time.Now()
			require.NoError(w, c.Close()) // the server says nothing, or is gone
			<-qc.Context().Done()
			require.Equal(w, time.Second, time.Since(start))
			w.router.down.Store(false)
			if !down {
				<-l.Context().Done()
			}
		}
	})
}

func TestConnCloseEndsBlockedCalls(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		c, _, _ := w.conn()
		errs := make(chan error, 2)
		go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := c.Write(make([]byte, 8<<20)); errs <- err }()
		time.Sleep(time.Second) // virtual: both are blocked
		require.Empty(w, errs)
		start := time.Now()
		require.NoError(w, c.Close())
		require.ErrorIs(w, <-errs, net.ErrClosed)
		require.ErrorIs(w, <-errs, net.ErrClosed)
		require.Equal(w, start, time.Now())

		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(w, err, net.ErrClosed)
		_, err = c.Write([]byte("x"))
		require.ErrorIs(w, err, net.ErrClosed)
		require.ErrorIs(w, c.SetDeadline(time.Time{}), net.ErrClosed)
		require.ErrorIs(w, c.Close(), net.ErrClosed)
	})
}

func TestConnOfAPeerThatIsGoneClosesQuietly(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		c, l, _ := w.conn()
		require.NoError(w, l.CloseWithCode(mqtt.LinkControlDown))
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(w, err, net.ErrClosed)
		var ae *transport.ApplicationError
		require.ErrorAs(w, err, &ae)
		require.Equal(w, transport.ErrorCode(mqtt.LinkControlDown), ae.Code)
		require.NoError(w, c.Close())

		c, l, s := w.conn()
		s.Reset(0x8E)
		time.Sleep(time.Second) // virtual
		require.NoError(w, c.Close())
		<-l.Context().Done()
	})
}

func TestConnReportsEndAndDeadlines(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		c, _, s := w.conn()
		require.Equal(w, serverAddr.String(), c.RemoteAddr().String())
		require.Equal(w, clientAddr.String(), c.LocalAddr().String())
		require.NoError(w, c.SetDeadline(time.Now().Add(time.Second)))
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(w, err, os.ErrDeadlineExceeded)
		require.NoError(w, c.SetDeadline(time.Time{}))
		_, err = s.Write([]byte("last"))
		require.NoError(w, err)
		require.NoError(w, s.CloseWrite())
		b, err := io.ReadAll(c)
		require.NoError(w, err)
		require.Equal(w, "last", string(b))
		require.NoError(w, c.Close())
	})
}

func TestConnWaitsForNothingAfterTheDriverHasGone(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		c, l, _ := w.conn()
		require.NoError(w, c.Close())
		require.NoError(w, w.endpoint.Close())
		<-l.Context().Done()
		synctest.Wait()
	})
}

// TestNetConn holds what DialConn returns to the rules of net.Conn, on loopback.
func TestNetConn(t *testing.T) {
	server, client := testcert.New()
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			l, err := mqttquic.ListenAddr(e, "127.0.0.1:0", &mqttquic.ListenConfig{TLS: server, HandshakeTimeout: time.Minute})
			require.NoError(t, err)
			defer l.CloseNow()
			d := &mqttquic.Dialer{Transport: e, TLS: client, HandshakeTimeout: time.Minute}
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				if c1, err = d.DialConn(t.Context(), l.Addr().String()); err != nil {
					return nil, nil, nil, err
				}
				mqttquic.Linger(c1, time.Minute) // a busy machine takes more than a second for what nettest sends
				// The server learns of a stream when something is sent on it.
				if _, err = c1.Write([]byte{'!'}); err != nil {
					return nil, nil, nil, err
				}
				link, err := l.Accept(t.Context())
				if err != nil {
					return nil, nil, nil, err
				}
				s, err := link.(*mqttquic.Link).Conn().AcceptStream(t.Context())
				if err != nil {
					return nil, nil, nil, err
				}
				if _, err = s.Read(make([]byte, 1)); err != nil {
					return nil, nil, nil, err
				}
				c2 = transport.NetConn(link.(*mqttquic.Link).Conn(), s)
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

func TestDialerNamesWhatIsWrong(t *testing.T) {
	_, err := (&mqttquic.Dialer{}).DialLink(t.Context(), serverURL, nil)
	require.ErrorContains(t, err, "neither Transport nor Endpoint")
	d := &mqttquic.Dialer{Transport: engine.Default()}
	for addr, want := range map[string]string{
		"":            "no host",
		":14567":      "no host",
		"[::1":        "missing ']'",
		"host:1:2":    "too many colons",
		"localhost:x": "unknown port",
	} {
		_, err := d.DialConn(t.Context(), addr)
		require.ErrorContains(t, err, "mqttquic: ")
		require.ErrorContains(t, err, want, addr)
	}
	_, err = d.DialURL(t.Context(), &url.URL{Scheme: "mqtts", Host: "localhost"})
	require.EqualError(t, err, `mqttquic: URL scheme is "mqtts", not "mqtt+quic"`)
}

func TestDialerVerifiesTheServer(t *testing.T) {
	server, client := testcert.New()
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			l, err := mqttquic.ListenAddr(e, "127.0.0.1:0", &mqttquic.ListenConfig{TLS: server, HandshakeTimeout: time.Minute})
			require.NoError(t, err)
			defer l.CloseNow()
			d := &mqttquic.Dialer{Transport: e}
			_, err = d.DialConn(t.Context(), l.Addr().String()) // the system does not know the certificate
			require.Error(t, err)

			// The host of the URL is the name that is verified.
			d.TLS = client.Clone()
			d.TLS.ServerName = ""
			port := l.Addr().(*net.UDPAddr).AddrPort().Port()
			for _, scheme := range []string{"mqtt+quic", "MQTT+QUIC", "mqtt-quic"} {
				u := &url.URL{Scheme: scheme, Host: net.JoinHostPort("localhost", strconv.Itoa(int(port))), User: url.User("ignored"), Path: "/ignored"}
				c, err := d.DialURL(t.Context(), u)
				require.NoError(t, err)
				require.NoError(t, c.Close())
			}
			d.TLS.ServerName = "elsewhere.example"
			_, err = d.DialConn(t.Context(), l.Addr().String())
			require.Error(t, err)
		})
	}
}

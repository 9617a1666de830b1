package purego

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
)

func TestConfigThatCannotBeHonouredIsRefusedByName(t *testing.T) {
	const plain = "" // refused, but not as unsupported
	for _, test := range []struct {
		name        string
		unsupported string // a part of UnsupportedError.What
		change      func(*transport.Config)
		server      bool // refused by Listen
		client      bool // refused by Dial
	}{
		{"no TLS", plain, func(c *transport.Config) { c.TLS = nil }, true, true},
		{"no protocol", plain, func(c *transport.Config) { c.TLS.NextProtos = nil }, true, true},
		{"an empty protocol", plain, func(c *transport.Config) { c.TLS.NextProtos = []string{"a", ""} }, true, true},
		{"TLS 1.2 at most", plain, func(c *transport.Config) { c.TLS.MaxVersion = tls.VersionTLS12 }, true, true},
		{"TLS 1.4 at least", plain, func(c *transport.Config) { c.TLS.MinVersion = tls.VersionTLS13 + 1 }, true, true},
		{"one cipher suite", "CipherSuites", func(c *transport.Config) { c.TLS.CipherSuites = []uint16{tls.TLS_AES_256_GCM_SHA384} }, true, true},
		{"renegotiation", "Renegotiation", func(c *transport.Config) { c.TLS.Renegotiation = tls.RenegotiateFreelyAsClient }, true, true},
		{"no certificate", plain, func(c *transport.Config) { c.TLS.Certificates = nil }, true, false},
		{"no server name", plain, func(c *transport.Config) { c.TLS.ServerName = "" }, false, true},
		{"a session cache of crypto/tls", "ClientSessionCache", func(c *transport.Config) { c.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(1) }, false, true},
		{"early data without tickets", plain, func(c *transport.Config) { c.EarlyData, c.TLS.SessionTicketsDisabled = true, true }, true, false},
		{"sessions without tickets", plain, func(c *transport.Config) { c.Sessions, c.TLS.SessionTicketsDisabled = &memory{}, true }, false, true},
		{"cubic", `"cubic"`, func(c *transport.Config) { c.CongestionControl = "cubic" }, true, true},
		{"bbr", `"bbr"`, func(c *transport.Config) { c.CongestionControl = "bbr" }, true, true},
		{"an unknown algorithm", `"Reno"`, func(c *transport.Config) { c.CongestionControl = "Reno" }, true, true},
		{"no stream window", "StreamWindow", func(c *transport.Config) { c.StreamWindow = -1 }, true, true},
		{"no connection window", "ConnWindow", func(c *transport.Config) { c.ConnWindow = -1 }, true, true},
		{"a negative datagram queue", plain, func(c *transport.Config) { c.DatagramQueue = -1 }, true, true},
		{"a huge datagram queue", plain, func(c *transport.Config) { c.DatagramQueue = 65537 }, true, true},

		{"reno", plain, func(c *transport.Config) { c.CongestionControl = "reno" }, false, false},
		{"older cipher suites", plain, func(c *transport.Config) { c.TLS.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256} }, false, false},
		{"the largest datagram queue", plain, func(c *transport.Config) { c.DatagramQueue = 65536 }, false, false},
		{"nothing has a bound", plain, func(c *transport.Config) {
			c.HandshakeTimeout, c.IdleTimeout, c.KeepAlive, c.MaxStreams, c.MaxUniStreams = -1, -1, -1, -1, -1
		}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, client := testcert.New("test")
			check := func(err error, refused bool) {
				if !refused {
					require.NoError(t, err)
					return
				}
				require.Error(t, err)
				u, ok := errors.AsType[*transport.UnsupportedError](err)
				require.Equal(t, test.unsupported != "", ok, "%v", err)
				if ok {
					require.Equal(t, "purego", u.Engine)
					require.Contains(t, u.What, test.unsupported)
					require.ErrorIs(t, err, errors.ErrUnsupported)
				}
			}
			cfg := &transport.Config{TLS: server}
			test.change(cfg)
			_, _, err := serverConfig(cfg)
			check(err, test.server)
			cfg = &transport.Config{TLS: client}
			test.change(cfg)
			_, _, err = clientConfig(cfg, nil)
			check(err, test.client)
		})
	}
	_, _, err := serverConfig(nil)
	require.Error(t, err)
	_, _, err = clientConfig(nil, nil)
	require.Error(t, err)
}

func TestZeroConfigHasTheDefaultsOfTheContract(t *testing.T) {
	_, client := testcert.New("test")
	_, q, err := clientConfig(&transport.Config{TLS: client}, nil)
	require.NoError(t, err)
	require.Equal(t, 10*time.Second, q.HandshakeIdleTimeout)
	require.Equal(t, 30*time.Second, q.MaxIdleTimeout)
	require.Zero(t, q.KeepAlivePeriod)
	require.EqualValues(t, 100, q.MaxIncomingStreams)
	require.EqualValues(t, 100, q.MaxIncomingUniStreams)
	require.EqualValues(t, 6<<20, q.MaxStreamReceiveWindow)
	require.EqualValues(t, 15<<20, q.MaxConnectionReceiveWindow)
	require.False(t, q.EnableDatagrams)
	require.False(t, q.Allow0RTT)
}

func TestInitialWindowsDoNotExceedTheLimits(t *testing.T) {
	_, client := testcert.New("test")
	_, q, err := clientConfig(&transport.Config{TLS: client, StreamWindow: 1000, ConnWindow: 2000}, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1000, q.InitialStreamReceiveWindow)
	require.EqualValues(t, 1000, q.MaxStreamReceiveWindow)
	require.EqualValues(t, 2000, q.InitialConnectionReceiveWindow)
	require.EqualValues(t, 2000, q.MaxConnectionReceiveWindow)
}

func TestCallersTLSConfigStaysAsItIs(t *testing.T) {
	_, client := testcert.New("test")
	tconf, _, err := clientConfig(&transport.Config{TLS: client, Sessions: &memory{}}, nil)
	require.NoError(t, err)
	require.NotSame(t, client, tconf)
	require.NotNil(t, tconf.ClientSessionCache)
	require.Nil(t, client.ClientSessionCache)
	require.Zero(t, client.MinVersion)
}

func TestOpenRefusesOptionsAndLeavesTheSocketToTheCaller(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer pc.Close()
	for _, opts := range []*transport.Options{
		{MaxConns: -1},
		{ConnIDs: fixedIDs(0)},
		{ConnIDs: fixedIDs(21)},
	} {
		_, err := Transport.Open(pc, opts)
		require.Error(t, err)
		_, err = pc.WriteTo([]byte("still open"), pc.LocalAddr())
		require.NoError(t, err)
	}
	_, err = Transport.Open(nil, nil)
	require.Error(t, err)
}

func TestConnIDsOfAnotherLengthAreRefused(t *testing.T) {
	g := &connIDs{gen: fixedIDs(8), len: 9}
	_, err := g.GenerateConnectionID()
	require.Error(t, err)
	require.Error(t, g.reserve())

	g = &connIDs{gen: fixedIDs(8), len: 8}
	require.NoError(t, g.reserve())
	require.Len(t, g.ahead, 1)
	id, err := g.GenerateConnectionID()
	require.NoError(t, err)
	require.Equal(t, 8, id.Len())
	require.Empty(t, g.ahead)
}

// fixedIDs makes connection IDs of a length.
type fixedIDs int

func (n fixedIDs) GenerateConnID() ([]byte, error) { return make([]byte, n), nil }
func (n fixedIDs) ConnIDLen() int                  { return int(n) }

func TestVersionIsThatOfGoMod(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	m := regexp.MustCompile(`github.com/quic-go/quic-go (\S+)`).FindSubmatch(mod)
	require.NotNil(t, m)
	require.Equal(t, string(m[1]), quicGoVersion)
	require.Equal(t, map[string]string{"quic-go": quicGoVersion}, Transport.Features().Versions)
}

func TestErrorsAreTranslated(t *testing.T) {
	tlsErr := &tls.CertificateVerificationError{Err: errors.New("unknown authority")}
	for _, test := range []struct {
		name     string
		err      error
		complete bool // the handshake
		want     error
	}{
		{"application", &quic.ApplicationError{ErrorCode: 7, ErrorMessage: "bye", Remote: true}, true,
			&transport.ApplicationError{Code: 7, Reason: "bye", Remote: true}},
		{"transport", &quic.TransportError{ErrorCode: quic.FlowControlError, FrameType: 4, ErrorMessage: "too much", Remote: true}, true,
			&transport.ProtocolError{Code: 3, Frame: 4, Reason: "too much", Remote: true}},
		{"idle", &quic.IdleTimeoutError{}, true, transport.ErrIdleTimeout},
		{"idle in the handshake", &quic.IdleTimeoutError{}, false, transport.ErrHandshakeTimeout},
		{"handshake", &quic.HandshakeTimeoutError{}, false, transport.ErrHandshakeTimeout},
		{"reset", &quic.StatelessResetError{}, true, transport.ErrStatelessReset},
		{"version", &quic.VersionNegotiationError{}, false,
			&transport.ProtocolError{Code: 0x11, Reason: (&quic.VersionNegotiationError{}).Error()}},
		{"socket", tlsErr, true, &transport.ProtocolError{Code: 1, Reason: tlsErr.Error(), Err: tlsErr}},
		{"destroyed", nil, false, &transport.ApplicationError{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := endReason(test.err, test.complete)
			require.Equal(t, test.want, got)
			require.ErrorIs(t, got, net.ErrClosed)
		})
	}
}

func TestDialErrorsAreTranslated(t *testing.T) {
	require.Equal(t, transport.ErrHandshakeTimeout, dialError(&quic.IdleTimeoutError{}))
	require.ErrorIs(t, dialError(quic.ErrTransportClosed), net.ErrClosed)
	require.ErrorIs(t, dialError(os.ErrPermission), os.ErrPermission)
}

func TestStreamErrorsAreTranslated(t *testing.T) {
	c := &conn{}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	for _, test := range []struct{ err, want error }{
		{nil, nil},
		{&quic.StreamError{StreamID: 4, ErrorCode: 5, Remote: true}, &transport.StreamError{StreamID: 4, Code: 5, Remote: true}},
		{quic.Err0RTTRejected, transport.ErrEarlyDataRejected},
		{quic.ErrStreamClosed, net.ErrClosed},
		{&net.OpError{Err: os.ErrDeadlineExceeded}, os.ErrDeadlineExceeded},
		{context.Canceled, context.Canceled},
		{&quic.DatagramTooLargeError{MaxDatagramPayloadSize: 9}, &transport.DatagramTooLargeError{Max: 9}},
	} {
		require.Equal(t, test.want, c.err(test.err))
	}
	c.cancel(transport.ErrIdleTimeout)
	for _, err := range []error{&quic.StreamError{}, quic.Err0RTTRejected, quic.ErrStreamClosed} {
		require.Equal(t, transport.ErrIdleTimeout, c.err(err), "after the connection's end")
	}
}

func TestReasonIsShortenedBetweenCharacters(t *testing.T) {
	require.Equal(t, "short", shorten("short"))
	long := shorten(string(make([]byte, 1023)) + "€uro")
	require.Len(t, long, 1023)
	require.Equal(t, "a\ufffdb", shorten("a\xffb"))
	require.EqualValues(t, 1<<62-1, wireCode(1<<63))
}

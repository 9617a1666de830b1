package quicconf_test

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/quicconf"
)

// An unsupported stands for transport's UnsupportedError.
type unsupported string

func (u unsupported) Error() string { return "x: unsupported: " + string(u) }

var engine = quicconf.Engine{Name: "x", Unsupported: func(what string) error { return unsupported(what) }}

// requireRefused checks an error that names what was refused in the engine's name.
func requireRefused(t *testing.T, err error, names string, asUnsupported bool) {
	t.Helper()
	if names == "" {
		require.NoError(t, err)
		return
	}
	require.ErrorContains(t, err, names)
	require.True(t, strings.HasPrefix(err.Error(), "x: "), err)
	_, ok := errors.AsType[unsupported](err)
	require.Equal(t, asUnsupported, ok, err)
}

func TestLimitsOutOfTheirRangeAreRefusedByName(t *testing.T) {
	for _, tt := range []struct {
		name          string
		stream, conn  int64
		queue         int
		refused       string
		asUnsupported bool
	}{
		{"zero is the default", 0, 0, 0, "", false},
		{"the largest queue", 1, 1, quicconf.MaxDatagramQueue, "", false},
		{"no limit for a stream", -1, 0, 0, "StreamWindow", true},
		{"no limit for the connection", 0, -1, 0, "ConnWindow", true},
		{"a negative queue", 0, 0, -1, "DatagramQueue is -1", false},
		{"a queue that is too long", 0, 0, quicconf.MaxDatagramQueue + 1, "DatagramQueue is 65537", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			requireRefused(t, engine.CheckLimits(tt.stream, tt.conn, tt.queue), tt.refused, tt.asUnsupported)
		})
	}
	require.Less(t, quicconf.InitialStreamWindow, quicconf.StreamWindow)
	require.Less(t, quicconf.InitialConnWindow, quicconf.ConnWindow)
	require.LessOrEqual(t, quicconf.DatagramQueue, quicconf.MaxDatagramQueue)
}

func TestTLSThatQUICCannotHaveIsRefusedByName(t *testing.T) {
	// protocols are names that take n bytes, with their lengths.
	protocols := func(n int) (list []string) {
		for ; n > 256; n -= 2 {
			list = append(list, "p")
		}
		return append(list, strings.Repeat("p", n-1))
	}
	for _, tt := range []struct {
		name          string
		change        func(*tls.Config)
		refused       string
		asUnsupported bool
	}{
		{"nothing special", func(*tls.Config) {}, "", false},
		{"TLS 1.3", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS13, tls.VersionTLS13 }, "", false},
		{"TLS 1.2 too", func(c *tls.Config) { c.MinVersion = tls.VersionTLS12 }, "", false},
		{"the longest name", func(c *tls.Config) { c.NextProtos = []string{strings.Repeat("p", 255)} }, "", false},
		{"the longest list", func(c *tls.Config) { c.NextProtos = protocols(65533) }, "", false},
		{"no protocol", func(c *tls.Config) { c.NextProtos = nil }, "NextProtos is empty", false},
		{"an empty name", func(c *tls.Config) { c.NextProtos = []string{"p", ""} }, `NextProtos has ""`, false},
		{"a long name", func(c *tls.Config) { c.NextProtos = []string{strings.Repeat("p", 256)} }, "NextProtos has", false},
		{"a long list", func(c *tls.Config) { c.NextProtos = protocols(65534) }, "NextProtos is too long", false},
		{"TLS 1.2 at most", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, "MaxVersion is TLS 1.2", false},
		{"more than TLS 1.3", func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 + 1 }, "MinVersion is 0x0305", false},
		{"renegotiation", func(c *tls.Config) { c.Renegotiation = tls.RenegotiateOnceAsClient }, "Renegotiation", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &tls.Config{NextProtos: []string{"p"}}
			tt.change(c)
			requireRefused(t, engine.CheckTLS(c), tt.refused, tt.asUnsupported)
		})
	}
}

func TestAClientSaysWhomItVerifies(t *testing.T) {
	requireRefused(t, engine.CheckServerName(&tls.Config{ServerName: "a"}), "", false)
	requireRefused(t, engine.CheckServerName(&tls.Config{InsecureSkipVerify: true}), "", false)
	requireRefused(t, engine.CheckServerName(&tls.Config{}), "ServerName", false)
}

func TestAClientsSessionsAreThoseOfTheConfig(t *testing.T) {
	tickets, none := &tls.Config{}, &tls.Config{SessionTicketsDisabled: true}
	requireRefused(t, engine.CheckResumption(tickets, false), "", false)
	requireRefused(t, engine.CheckResumption(tickets, true), "", false)
	requireRefused(t, engine.CheckResumption(none, false), "", false)
	requireRefused(t, engine.CheckResumption(none, true), "SessionTicketsDisabled", false)
	requireRefused(t, engine.CheckResumption(&tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(1)}, false), "ClientSessionCache", true)
}

func TestAServerHasACertificateAndTicketsForEarlyData(t *testing.T) {
	for _, c := range []*tls.Config{
		{Certificates: make([]tls.Certificate, 1)},
		{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }},
		{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }},
	} {
		requireRefused(t, engine.CheckServer(c, true), "", false)
		c.SessionTicketsDisabled = true
		requireRefused(t, engine.CheckServer(c, false), "", false)
		requireRefused(t, engine.CheckServer(c, true), "SessionTicketsDisabled", false)
	}
	requireRefused(t, engine.CheckServer(&tls.Config{}, false), "certificate", false)
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/selfcert"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// certificates returns the fingerprint that a new handshake sees on each listener
// with TLS, of TCP and of UDP.
func (s *served) certificates(t *testing.T) map[string]string {
	t.Helper()
	seen := map[string]string{}
	for _, name := range []string{"tls", "wss"} {
		c, err := tls.Dial("tcp", s.addr(name), &tls.Config{InsecureSkipVerify: true})
		require.NoError(t, err)
		seen[name] = selfcert.Fingerprint(c.ConnectionState().PeerCertificates[0].Raw)
		require.NoError(t, c.Close())
	}
	for name, alpn := range map[string]string{"quic": "mqtt", "wss": "h3"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		c, err := transport.DialAddr(ctx, engine.Default(), s.addr(name), &transport.Config{
			TLS: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}, HandshakeTimeout: patience,
		})
		cancel()
		require.NoError(t, err)
		seen[name+" "+alpn] = selfcert.Fingerprint(c.State().TLS.PeerCertificates[0].Raw)
		require.NoError(t, c.CloseWithError(0, ""))
	}
	return seen
}

// hup has the program read its files again, and waits until its log says what.
func (s *served) hup(t *testing.T, says string) {
	t.Helper()
	before := len(s.stderr.String())
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, self.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool { return strings.Contains(s.stderr.String()[before:], says) }, patience, time.Millisecond, "the log: %s", &s.stderr)
}

func TestSIGHUPReloadsCertificatesLimitsAndLogLevelWithoutDroppingAnybody(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no signals")
	}
	dir := t.TempDir()
	certFile, keyFile, config := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "broker.yaml")
	old := writeCertificate(t, certFile, keyFile)
	write := func(yaml string) { require.NoError(t, os.WriteFile(config, []byte(yaml), 0o600)) }
	write("limits: {max-subscriptions: 5}\n")
	s := startServe(t, "--config", config, "--cert", certFile, "--key", keyFile)
	hup := func(says string) { s.hup(t, says) }
	for where, cert := range s.certificates(t) {
		require.Equal(t, old, cert, where)
	}
	stays := s.connect(t, "stays")
	_, streams := s.dialStreams(t)

	now := writeCertificate(t, certFile, keyFile)
	write("limits: {max-subscriptions: 1}\nlog: {level: debug}\nlisten: {ws-path: /other}\n")
	hup("configuration reloaded")
	for where, cert := range s.certificates(t) {
		require.Equal(t, now, cert, where)
	}
	require.Contains(t, s.stderr.String(), "keys=listen.ws-path", "what needs a restart is named")
	next := s.connect(t, "new")
	next.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "a"}, {Filter: "b"}}})
	require.Equal(t, []packet.ReasonCode{0, packet.QuotaExceeded}, nextSuback(next))
	require.Contains(t, s.stderr.String(), "level=DEBUG")
	m := s.scrape(t)
	require.EqualValues(t, 1, m[`reloads_total{result="done"}`])
	require.Greater(t, m[`last_reload_time_seconds`], m[`start_time_seconds`])

	// What is wrong changes nothing, and is named with its place.
	newer := writeCertificate(t, certFile, keyFile)
	require.NotEqual(t, now, newer)
	write("limits:\n  max-subscriptions: 9\n  max-sub: 3\n")
	hup("everything stays as it was")
	require.Regexp(t, `broker\.yaml.*\[3:3\].*max-sub`, s.stderr.String())
	write("limits: {max-subscriptions: 9}\n")
	require.NoError(t, os.WriteFile(certFile, nil, 0o600))
	hup(certFile)
	for where, cert := range s.certificates(t) {
		require.Equal(t, now, cert, where)
	}
	again := s.connect(t, "again")
	again.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "a"}, {Filter: "b"}}})
	require.Equal(t, []packet.ReasonCode{0, packet.QuotaExceeded}, nextSuback(again))
	require.EqualValues(t, 2, s.scrape(t)[`reloads_total{result="refused"}`])

	stays.ping()
	streams.ping()
}

func nextSuback(p *rawPeer) []packet.ReasonCode { return next[*packet.Suback](p).Codes }

// A listFile is a reloader of a test. With prepare it is a preparer too.
type listFile struct {
	err     error
	reloads int
}

func (f *listFile) Reload() error {
	if f.err == nil {
		f.reloads++
	}
	return f.err
}

type preparedFile struct{ listFile }

func (f *preparedFile) PrepareReload() (func(), error) { return func() { f.reloads++ }, f.err }

func TestAReloadReadsEverythingBeforeItChangesAnything(t *testing.T) {
	cfg := defaults()
	cert, _, err := cfg.Certificate.certificate(time.Now())
	require.NoError(t, err)
	var log buffer
	ops, err := newOperations(&cfg, engine.Default(), &cert, &log, func(l *slog.Logger) (*broker.Broker, error) { return broker.New(nil) })
	require.NoError(t, err)
	t.Cleanup(func() { ops.broker.Close() })
	users, rules, file := &preparedFile{}, &preparedFile{}, &listFile{}
	ops.reloaders = []reloader{file, users, rules}
	load := func() (serveConfig, error) {
		next := cfg
		next.Log.Level = "error"
		return next, nil
	}

	rules.err = errors.New("acl.txt:7: no such action")
	ops.reload(load)
	require.Contains(t, log.String(), "acl.txt:7")
	require.Zero(t, users.reloads+rules.reloads+file.reloads)
	require.Equal(t, slog.LevelInfo, ops.level.Level())

	rules.err, file.err = nil, errors.New("list.txt:1: what")
	ops.reload(load)
	require.Contains(t, log.String(), "list.txt:1")
	require.Zero(t, users.reloads+rules.reloads+file.reloads)

	file.err = nil
	ops.reload(func() (serveConfig, error) { return cfg, io.ErrUnexpectedEOF })
	require.Contains(t, log.String(), "unexpected EOF")
	require.Zero(t, users.reloads+rules.reloads+file.reloads)

	ops.reload(load)
	require.Equal(t, []int{1, 1, 1}, []int{users.reloads, rules.reloads, file.reloads})
	require.Equal(t, slog.LevelError, ops.level.Level())
}

func TestEveryFileThatIsNamedIsReasonEnoughToReload(t *testing.T) {
	c := defaults()
	require.False(t, c.namesFiles())
	for name, field := range map[string]*string{
		"cert": &c.Certificate.Cert, "users": &c.Access.Users, "jwks": &c.Access.JWKS,
		"client-ca": &c.Access.ClientCA, "auth-http-ca": &c.Access.HTTPCA, "acl": &c.Access.ACL,
	} {
		*field = "file"
		require.True(t, c.namesFiles(), name)
		*field = ""
	}
}

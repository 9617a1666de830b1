package main

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/selfcert"
)

// certFiles writes a certificate made at the given time and returns the files.
func certFiles(t *testing.T, made time.Time) (cert, key string) {
	t.Helper()
	c, err := selfcert.New(made)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return cert, key
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

// refusing returns an address of TCP where nobody listens, or can for as long as the test
// runs: it is that of a client.
func refusing(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

func TestWhatCannotBeDoneIsRefusedByName(t *testing.T) {
	inUse, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer inUse.Close()
	// A UDP port whose number nobody uses for TCP.
	var udpInUse net.PacketConn
	for free := false; !free; {
		udpInUse, err = net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		defer udpInUse.Close()
		if tcp, err := net.Listen("tcp", udpInUse.LocalAddr().String()); err == nil {
			require.NoError(t, tcp.Close())
			free = true
		}
	}
	expired, expiredKey := certFiles(t, time.Now().Add(-2*selfcert.Lifetime))
	future, futureKey := certFiles(t, time.Now().Add(48*time.Hour))
	cert, _ := certFiles(t, time.Now())
	nobody := refusing(t)

	only := func(args ...string) []string {
		return append([]string{"serve", "--tcp", "off", "--tls", "off", "--wss", "off", "--quic", "off", "--metrics", "off"}, args...)
	}
	for name, tt := range map[string]struct {
		args []string
		want string // in standard error
	}{
		"command":                     {[]string{"srve"}, "srve"},
		"flag":                        {[]string{"serve", "--tpc", ":1"}, "--tpc"},
		"argument":                    {[]string{"serve", "now"}, "now"},
		"engine":                      {[]string{"serve", "--engine", "msquic"}, `"msquic" is not compiled in`},
		"engine of a client":          {[]string{"mqtt", "pub", "mqtt://x", "--engine", "msquic", "-t", "a", "-m", "b"}, `"msquic" is not compiled in`},
		"streams of a client":         {only("--quic", "127.0.0.1:0", "--quic-streams", "9"), "--quic-streams 9"},
		"more streams than served":    {only("--quic", "127.0.0.1:0", "--quic-streams", "66"), "--quic-streams 66"},
		"early data":                  {only("--quic", "127.0.0.1:0", "--early-data", "some"), `--early-data "some"`},
		"streams":                     {[]string{"mqtt", "pub", "mqtt+quic://x", "--streams", "hash:65", "-t", "a", "-m", "b"}, "N from 1 to 64"},
		"tcp port in use":             {only("--tcp", inUse.Addr().String()), "--tcp " + inUse.Addr().String() + ": listen tcp"},
		"udp port in use":             {only("--quic", udpInUse.LocalAddr().String()), "--quic " + udpInUse.LocalAddr().String()},
		"wss port in use":             {only("--wss", inUse.Addr().String()), "--wss " + inUse.Addr().String()},
		"udp port of wss in use":      {only("--wss", udpInUse.LocalAddr().String()), "which HTTP/3 needs"},
		"metrics port in use":         {only("--tcp", "127.0.0.1:0", "--metrics", inUse.Addr().String()), "--metrics " + inUse.Addr().String()},
		"no listener":                 {only(), "every listener"},
		"address without port":        {only("--tcp", "localhost"), `--tcp "localhost"`},
		"port that is no number":      {only("--tcp", "localhost:mqtt"), `port "mqtt"`},
		"host that is nobody's":       {only("--tcp", "192.0.2.1:1883"), "--tcp 192.0.2.1:1883"},
		"certificate missing":         {[]string{"serve", "--cert", "/nowhere/c.pem", "--key", "/nowhere/k.pem"}, "/nowhere/c.pem"},
		"certificate without key":     {[]string{"serve", "--cert", cert}, "--cert and --key"},
		"certificate expired":         {[]string{"serve", "--cert", expired, "--key", expiredKey}, "expired on"},
		"certificate not yet valid":   {[]string{"serve", "--cert", future, "--key", futureKey}, "not valid before"},
		"certificate that is none":    {[]string{"serve", "--cert", expiredKey, "--key", expiredKey}, expiredKey},
		"file missing":                {[]string{"serve", "--config", "/nowhere.yaml"}, "/nowhere.yaml"},
		"key in the file":             {[]string{"serve", "--config", writeFile(t, "c.yaml", "listen:\n  tpc: off\n")}, "tpc"},
		"value in the file":           {[]string{"serve", "--config", writeFile(t, "c.yaml", "limits:\n  queue-bytes: many\n")}, "queue-bytes"},
		"engine in the file":          {[]string{"serve", "--config", writeFile(t, "c.yaml", "engine: msquic\n")}, `"msquic" is not compiled in`},
		"limit":                       {[]string{"serve", "--queue-bytes", "0"}, "--queue-bytes"},
		"negative limit":              {[]string{"serve", "--max-connections", "-1"}, "--max-connections"},
		"quota":                       {[]string{"serve", "--message-rate", "-1"}, "--message-rate"},
		"timeout":                     {[]string{"serve", "--connect-timeout", "-1s"}, "--connect-timeout"},
		"keep-alive":                  {[]string{"serve", "--keep-alive", "1500ms"}, "--keep-alive"},
		"log level":                   {[]string{"serve", "--log-level", "loud"}, `--log-level "loud"`},
		"log format":                  {[]string{"serve", "--log-format", "xml"}, `--log-format "xml"`},
		"path":                        {[]string{"serve", "--ws-path", "mqtt"}, `--ws-path "mqtt"`},
		"pub without topic":           {[]string{"mqtt", "pub", "mqtt://" + nobody, "-m", "x"}, "--topic"},
		"pub without message":         {[]string{"mqtt", "pub", "mqtt://" + nobody, "-t", "x"}, "--message"},
		"pub with two messages":       {[]string{"mqtt", "pub", "mqtt://" + nobody, "-t", "x", "-m", "a", "-n"}, "one of --message"},
		"pub of a file that is none":  {[]string{"mqtt", "pub", "mqtt://" + nobody, "-t", "x", "-f", "/nowhere"}, "/nowhere"},
		"QoS":                         {[]string{"mqtt", "pub", "mqtt://" + nobody, "-t", "x", "-m", "a", "-q", "3"}, "--qos 3"},
		"version":                     {[]string{"mqtt", "sub", "mqtt://" + nobody, "-t", "x", "-V", "4.0"}, `"4.0"`},
		"scheme":                      {[]string{"mqtt", "sub", "amqp://" + nobody, "-t", "x"}, "amqp"},
		"sub without filter":          {[]string{"mqtt", "sub", "mqtt://" + nobody}, "--topic"},
		"session without an id":       {[]string{"mqtt", "sub", "mqtt://" + nobody, "-t", "x", "-c"}, "--id"},
		"will without a topic":        {[]string{"mqtt", "sub", "mqtt://" + nobody, "-t", "x", "--will-payload", "x"}, "--will-topic"},
		"cafile missing":              {[]string{"mqtt", "sub", "mqtts://" + nobody, "-t", "x", "--cafile", "/nowhere"}, "/nowhere"},
		"cafile without certificates": {[]string{"mqtt", "sub", "mqtts://" + nobody, "-t", "x", "--cafile", writeFile(t, "ca.pem", "?")}, "no PEM certificate"},
		"nobody listens":              {[]string{"mqtt", "pub", "mqtt://" + nobody, "-t", "x", "-m", "a"}, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := anyquic(t, tt.args...)
			require.Equal(t, 1, code, stdout)
			require.Contains(t, stderr, tt.want)
		})
	}
}

func TestSelfSignedCertificateIsRefusedUnlessAskedOtherwise(t *testing.T) {
	s := startServe(t)
	for _, carrier := range []string{"tls", "wss", "wss+h3", "quic", "wt"} {
		code, _, stderr := anyquic(t, "mqtt", "pub", s.url(carrier), "-t", "x", "-m", "a")
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "certificate", carrier)
	}
}

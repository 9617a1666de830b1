package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/selfcert"
)

func TestInheritedSocketsAreForOneProcess(t *testing.T) {
	for _, tt := range []struct {
		pid, count string
		want       int
	}{
		{"42", "2", 2}, {"42", "0", 0}, {"43", "2", 0}, {"", "", 0}, {"", "2", 0}, {"x", "2", 0}, {"43", "x", 0},
	} {
		n, err := inherited(tt.pid, tt.count, 42)
		require.NoError(t, err)
		require.Equal(t, tt.want, n, tt)
	}
	for _, count := range []string{"", "x", "-1", "65", "99999999999999999999"} {
		_, err := inherited("42", count, 42)
		require.ErrorContains(t, err, strconv.Quote(count))
	}
}

// serveInherited runs `anyquic h3 serve` as systemd would, with the sockets.
func serveInherited(t *testing.T, files []*os.File, args ...string) (*exec.Cmd, *bufio.Reader, *buffer) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("there is no systemd")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	var stderr buffer
	// Only the process itself knows its number before it starts.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, self, "h3", "serve"}, args...)...)
	cmd.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(files)))
	cmd.ExtraFiles, cmd.Stderr = files, &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // likewise
	})
	return cmd, bufio.NewReader(stdout), &stderr
}

func TestH3ServesOnTheSocketsOfSystemd(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer pc.Close()
	tcp, err := ln.(*net.TCPListener).File()
	require.NoError(t, err)
	defer tcp.Close()
	udp, err := pc.(*net.UDPConn).File()
	require.NoError(t, err)
	defer udp.Close()

	_, stdout, stderr := serveInherited(t, []*os.File{tcp, udp}, site(t), "--json")
	line, err := stdout.ReadBytes('\n')
	require.NoError(t, err, stderr.String())
	var l h3Listening
	require.NoError(t, json.Unmarshal(line, &l))
	require.Equal(t, []string{"tcp " + ln.Addr().String(), "udp " + pc.LocalAddr().String()}, l.Addrs)
	for version, addr := range map[string]string{"1.1": ln.Addr().String(), "2": ln.Addr().String(), "3": pc.LocalAddr().String()} {
		code, stdout, stderr := anyquic(t, "h3", "get", "--insecure", "--http", version, "https://"+addr+"/hello.txt")
		require.Zero(t, code, stderr)
		require.Equal(t, "hello, world\n", stdout)
	}
}

func TestH3RefusesSocketsItHasNoUseFor(t *testing.T) {
	file, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer file.Close()
	cmd, _, stderr := serveInherited(t, []*os.File{file}, site(t))
	require.Error(t, cmd.Wait())
	require.Contains(t, stderr.String(), "socket 1 of LISTEN_FDS")

	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer pc.Close()
	udp, err := pc.(*net.UDPConn).File()
	require.NoError(t, err)
	defer udp.Close()
	cmd, _, stderr = serveInherited(t, []*os.File{udp}, site(t), "--addr", "127.0.0.1:0")
	require.Error(t, cmd.Wait())
	require.Contains(t, stderr.String(), "--addr")
}

// writeCertificate makes a certificate in files and returns its fingerprint.
func writeCertificate(t *testing.T, certFile, keyFile string) string {
	t.Helper()
	cert, err := selfcert.New(time.Now(), "localhost")
	require.NoError(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	return selfcert.Fingerprint(cert.Certificate[0])
}

// Without the signal the files would be looked at with the next handshake, of which
// there is none here before the new certificate is in use.
func TestH3ReadsItsCertificateAgainOnSIGHUP(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no signals")
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	old := writeCertificate(t, certFile, keyFile)
	l, stop, stderr := h3ServeLogged(t, site(t), "--cert", certFile, "--key", keyFile)
	require.Equal(t, old, l.CertHash)
	served := func() string {
		c, err := tls.Dial("tcp", l.Addrs[0][len("tcp "):], &tls.Config{InsecureSkipVerify: true})
		require.NoError(t, err)
		defer c.Close()
		return selfcert.Fingerprint(c.ConnectionState().PeerCertificates[0].Raw)
	}
	require.Equal(t, old, served())

	now := writeCertificate(t, certFile, keyFile)
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, self.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool { return strings.Contains(stderr.String(), now) }, patience, time.Millisecond, "the log")
	require.Equal(t, now, served())

	// What is no certificate changes nothing, and ends nothing.
	require.NoError(t, os.WriteFile(certFile, nil, 0o600))
	require.NoError(t, self.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool { return strings.Contains(stderr.String(), "the old one stays") }, patience, time.Millisecond, "the log")
	require.Equal(t, now, served())
	require.Zero(t, stop())
}

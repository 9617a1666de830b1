//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/selfcert"
	"github.com/anyquic/anyquic/internal/testbuild"
)

// patience bounds every wait for a process: it is not reached unless something
// is broken, on a busy machine neither.
const patience = 2 * time.Minute

const sigterm = syscall.SIGTERM

var (
	buildDir string // of the program; made by TestMain
	build    sync.Once
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "anyquic-interop")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// program builds cmd/anyquic once for all tests and returns its path.
func program(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(buildDir, "anyquic")
	build.Do(func() { testbuild.Program(t, bin, testbuild.Root+"/cmd/anyquic") })
	return bin
}

// A server is a running `anyquic serve` on ports that the kernel chose.
type server struct {
	bin    string
	url    map[string]*url.URL // by listener: tcp, tls, ws, wss, quic
	http   string              // of the metrics listener, host:port
	caFile string
	cmd    *exec.Cmd
	stderr *bytes.Buffer // read it only after stop
	exited chan error
}

func start(t *testing.T, args ...string) *server {
	t.Helper()
	bin := program(t)
	cert, err := selfcert.New(time.Now())
	require.NoError(t, err)
	dir := t.TempDir()
	s := &server{bin: bin, caFile: filepath.Join(dir, "cert.pem"), url: make(map[string]*url.URL), stderr: new(bytes.Buffer), exited: make(chan error, 1)}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	keyFile := filepath.Join(dir, "key.pem")
	writePEM(t, s.caFile, "CERTIFICATE", cert.Certificate[0])
	writePEM(t, keyFile, "PRIVATE KEY", key)

	any := "127.0.0.1:0"
	s.cmd = exec.Command(bin, append([]string{
		"serve", "--json", "--cert", s.caFile, "--key", keyFile,
		"--tcp", any, "--tls", any, "--ws", any, "--wss", any, "--quic", any, "--metrics", any,
		"--connect-timeout", "1m", "--drain-timeout", "1m",
	}, args...)...)
	s.cmd.Env = testbuild.Env()
	s.cmd.Stderr = s.stderr
	stdout, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			s.cmd.Process.Kill()
			<-s.exited
		}
		if t.Failed() {
			t.Logf("server's log:\n%s", s.stderr)
		}
	})

	line := make(chan []byte, 1)
	go func() { // ends with the process, whose end of the pipe closes
		first, _ := bufio.NewReader(stdout).ReadBytes('\n')
		line <- first
		s.exited <- s.cmd.Wait()
	}()
	select {
	case first := <-line:
		var l struct {
			Listeners []struct{ Name, Addr, URL string }
		}
		require.NoError(t, json.Unmarshal(first, &l), "%s", first)
		require.Len(t, l.Listeners, 6)
		for _, o := range l.Listeners {
			if o.URL == "" {
				s.http = o.Addr
				continue
			}
			s.url[o.Name], err = url.Parse(o.URL)
			require.NoError(t, err)
		}
	case <-time.After(patience):
		t.Fatal("the server did not start")
	}
	return s
}

// stop sends SIGTERM and returns how the process ended.
func (s *server) stop(t *testing.T) error {
	t.Helper()
	require.NoError(t, s.cmd.Process.Signal(sigterm))
	select {
	case err := <-s.exited:
		return err
	case <-time.After(patience):
		t.Fatal("the server did not end")
		return nil
	}
}

// freePort returns a port for UDP and TCP that nobody uses on 127.0.0.1, for a program that
// cannot say which one the kernel chose. It is below those that a kernel gives to who asks
// for any.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(6000)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", addr)
		require.NoError(t, pc.Close())
		if err != nil {
			continue
		}
		require.NoError(t, l.Close())
		return port
	}
	t.Fatal("no port is free")
	return 0
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	require.NoError(t, os.WriteFile(file, b, 0o600))
}

// A process is a foreign client that is running.
type process struct {
	cmd    *exec.Cmd
	lines  chan string // of its standard output
	exited chan error
	out    bytes.Buffer // standard error; read it after exited
}

// run starts a program and reads its lines until it ends.
func run(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return runWithInput(t, "", name, args...)
}

func runWithInput(t *testing.T, stdin, name string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	p := &process{cmd: exec.CommandContext(ctx, name, args...), lines: make(chan string, 4096), exited: make(chan error, 1)}
	p.cmd.Env = testbuild.Env()
	p.cmd.Stdin = strings.NewReader(stdin)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.cmd.Stderr = &p.out
	require.NoError(t, p.cmd.Start())
	done := make(chan struct{})
	go func() { // ends with the process
		defer close(done)
		sc := bufio.NewScanner(stdout)
		for sc.Scan() {
			p.lines <- sc.Text()
		}
		close(p.lines)
		p.exited <- p.cmd.Wait()
	}()
	t.Cleanup(func() { cancel(); <-done })
	return p
}

// line returns the next line the program prints.
func (p *process) line(t *testing.T) string {
	t.Helper()
	select {
	case l, ok := <-p.lines:
		if !ok {
			t.Fatalf("%s ended: %v %s", p.cmd.Path, <-p.exited, p.out.String())
		}
		return l
	case <-time.After(patience):
		t.Fatalf("%s printed nothing", p.cmd.Path)
		return ""
	}
}

// wait waits until the program ends by itself, without an error.
func (p *process) wait(t *testing.T) {
	t.Helper()
	select {
	case err := <-p.exited:
		require.NoError(t, err, "%s: %s", p.cmd.Path, &p.out)
	case <-time.After(patience):
		t.Fatalf("%s did not end", p.cmd.Path)
	}
}

//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/selfcert"
	"github.com/anyquic/anyquic/internal/testbuild"
	"github.com/anyquic/anyquic/transport"
)

// quicALPN is what both sides must have negotiated.
const quicALPN = "anyquic-interop"

// On each stream the client sends how many bytes it wants, 8 of them, and bytes of
// its own to the end. The server answers with a line of JSON, a serverReport, and
// the bytes that are wanted. All bytes are those of pattern.

// A serverReport is what the server knows.
type serverReport struct {
	ALPN  string `json:"alpn"`
	Early bool   `json:"early"` // 0-RTT was accepted
	Peer  string `json:"peer"`  // where the client is
	Sum   string `json:"sum"`   // SHA-256 of what it sent
}

// A clientReport is what the client knows after an exchange.
type clientReport struct {
	Server  serverReport `json:"server"`
	ALPN    string       `json:"alpn"`
	Early   bool         `json:"early"`
	Resumed bool         `json:"resumed"`
	Intact  bool         `json:"intact"` // both directions
}

// A quicServer is somebody's server on loopback, for as long as the test runs.
type quicServer struct {
	name  string
	start func(t *testing.T, id *identity) (addr string)
}

// A quicClient is somebody's client.
type quicClient struct {
	name  string
	start func(t *testing.T, id *identity) quicSession
}

// A quicSession is a client with a connection, or one after another.
type quicSession interface {
	// connect connects; if early, as soon as it can send 0-RTT with what it
	// keeps of the connection before, which it waits for.
	connect(addr string, early bool) error
	exchange(up, down int) (clientReport, error)
	close() error
}

// An identity is the certificate that servers have and clients trust.
type identity struct {
	cert              tls.Certificate
	certFile, keyFile string
}

func newIdentity(t *testing.T) *identity {
	t.Helper()
	cert, err := selfcert.New(time.Now())
	require.NoError(t, err)
	dir := t.TempDir()
	id := &identity{cert, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	writePEM(t, id.certFile, "CERTIFICATE", cert.Certificate[0])
	writePEM(t, id.keyFile, "PRIVATE KEY", key)
	return id
}

func (id *identity) serverTLS() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{id.cert}, NextProtos: []string{quicALPN}, MinVersion: tls.VersionTLS13}
}

func (id *identity) clientTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(id.cert.Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{quicALPN}, MinVersion: tls.VersionTLS13}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

// answer is the server's side of a stream. report is called when everything has
// been read.
func answer(s io.ReadWriteCloser, report func() (serverReport, error)) error {
	var want [8]byte
	if _, err := io.ReadFull(s, want[:]); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, s); err != nil {
		return err
	}
	r, err := report()
	if err != nil {
		return err
	}
	r.Sum = hex.EncodeToString(sum.Sum(nil))
	if err := json.NewEncoder(s).Encode(r); err != nil {
		return err
	}
	if _, err := s.Write(pattern(int(binary.BigEndian.Uint64(want[:])))); err != nil {
		return err
	}
	return s.Close()
}

// ask is the client's side. It writes and reads at the same time.
func ask(s io.ReadWriteCloser, up, down int) (r clientReport, err error) {
	sent := pattern(up)
	written := make(chan error, 1)
	go func() { // ends with the stream
		_, err := s.Write(append(binary.BigEndian.AppendUint64(nil, uint64(down)), sent...))
		if err == nil {
			err = s.Close()
		}
		written <- err
	}()
	from := bufio.NewReader(s)
	line, err := from.ReadBytes('\n')
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(line, &r.Server); err != nil {
		return r, err
	}
	got, err := io.ReadAll(from)
	if err != nil {
		return r, err
	}
	sum := sha256.Sum256(sent)
	r.Intact = bytes.Equal(got, pattern(down)) && r.Server.Sum == hex.EncodeToString(sum[:])
	return r, <-written
}

// engineServer is a server of ours.
func engineServer(e transport.Transport) quicServer {
	return quicServer{e.Name(), func(t *testing.T, id *identity) string {
		return startEngine(t, e, id.serverTLS(), func(c transport.Conn) {
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return // the connection has ended
				}
				go func() { // ends with the connection; the client says what it misses
					_ = answer(s, func() (serverReport, error) {
						err := c.Handshake(context.Background())
						state := c.State()
						return serverReport{ALPN: state.TLS.NegotiatedProtocol, Early: state.EarlyData, Peer: c.RemoteAddr().String()}, err
					})
				}()
			}
		})
	}}
}

// startEngine listens on loopback and calls handle for each connection, in a
// goroutine that ends when the connection does.
func startEngine(t *testing.T, e transport.Transport, config *tls.Config, handle func(transport.Conn)) (addr string) {
	t.Helper()
	l, err := transport.ListenAddr(e, "127.0.0.1:0", &transport.Config{TLS: config, EarlyData: true, HandshakeTimeout: patience})
	require.NoError(t, err)
	var g sync.WaitGroup
	g.Go(func() {
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return // the listener is closed
			}
			g.Go(func() { handle(c) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		g.Wait()
	})
	return l.Addr().String()
}

// engineClient is a client of ours.
func engineClient(e transport.Transport) quicClient {
	return quicClient{e.Name(), func(t *testing.T, id *identity) quicSession {
		return newEngineSession(t, e, id.clientTLS())
	}}
}

type engineSession struct {
	engine   transport.Transport
	config   *tls.Config
	sessions sessionQueue
	conn     transport.Conn
}

func newEngineSession(t *testing.T, e transport.Transport, config *tls.Config) *engineSession {
	s := &engineSession{engine: e, config: config, sessions: make(sessionQueue, 16)}
	t.Cleanup(func() { s.close() })
	return s
}

// sessionQueue is a SessionCache whose Take waits.
type sessionQueue chan []byte

func (q sessionQueue) Put(_ string, session []byte) {
	select {
	case q <- session:
	default:
	}
}

func (q sessionQueue) Take(string) []byte {
	select {
	case s := <-q:
		return s
	case <-time.After(patience):
		return nil
	}
}

// putOnly does not resume.
type putOnly struct{ sessionQueue }

func (putOnly) Take(string) []byte { return nil }

func (s *engineSession) connect(addr string, early bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cfg := &transport.Config{TLS: s.config, EarlyData: early, Sessions: putOnly{s.sessions}, HandshakeTimeout: patience}
	if early {
		cfg.Sessions = s.sessions
	}
	var err error
	s.conn, err = transport.DialAddr(ctx, s.engine, addr, cfg)
	return err
}

func (s *engineSession) exchange(up, down int) (r clientReport, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := s.conn.OpenStream(ctx)
	if err != nil {
		return r, err
	}
	if err := stream.SetDeadline(time.Now().Add(patience)); err != nil {
		return r, err
	}
	if r, err = ask(stream, up, down); err != nil {
		return r, err
	}
	if err := s.conn.Handshake(ctx); err != nil {
		return r, err
	}
	state := s.conn.State()
	r.ALPN, r.Early, r.Resumed = state.TLS.NegotiatedProtocol, state.EarlyData, state.TLS.DidResume
	return r, nil
}

func (s *engineSession) close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.CloseWithError(0, "")
}

// A nat is a path whose client changes its address when told to: what the server
// sees is a socket of the nat's.
type nat struct {
	inside  *net.UDPConn
	mu      sync.Mutex
	outside *net.UDPConn // guarded by mu
	client  net.Addr     // guarded by mu
	group   sync.WaitGroup
	server  *net.UDPAddr
}

func newNAT(t *testing.T, server string) *nat {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", server)
	require.NoError(t, err)
	inside, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	n := &nat{inside: inside, server: to}
	n.rebind(t)
	n.group.Go(func() { // ends with inside
		buf := make([]byte, 65536)
		for {
			size, from, err := inside.ReadFrom(buf)
			if err != nil {
				return
			}
			n.mu.Lock()
			n.client = from
			n.outside.WriteTo(buf[:size], n.server) // a path may lose packets
			n.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		inside.Close()
		n.outside.Close()
		n.group.Wait()
	})
	return n
}

// rebind replaces the nat's socket towards the server and returns its address.
func (n *nat) rebind(t *testing.T) (addr string) {
	t.Helper()
	outside, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.outside != nil {
		n.outside.Close()
	}
	n.outside = outside
	n.group.Go(func() { // ends with outside
		buf := make([]byte, 65536)
		for {
			size, _, err := outside.ReadFrom(buf)
			if err != nil {
				return
			}
			n.mu.Lock()
			client := n.client
			n.mu.Unlock()
			n.inside.WriteTo(buf[:size], client)
		}
	})
	return outside.LocalAddr().String()
}

// A jsonProcess prints a line of JSON for each line it gets.
type jsonProcess struct {
	name string
	in   io.WriteCloser
	out  *json.Decoder
}

func startJSON(t *testing.T, name string, args ...string) *jsonProcess {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = testbuild.Env()
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		late := time.AfterFunc(patience, cancel)
		err := cmd.Wait()
		late.Stop()
		cancel()
		if t.Failed() {
			t.Logf("%s: %v\n%s", filepath.Base(name), err, &said)
		}
	})
	return &jsonProcess{filepath.Base(name), in, json.NewDecoder(out)}
}

// read reads what the process says next.
func (p *jsonProcess) read(v any) error {
	if err := p.out.Decode(v); err != nil {
		return fmt.Errorf("%s said nothing: %w", p.name, err)
	}
	return nil
}

func (p *jsonProcess) call(req map[string]any, v any) error {
	if err := json.NewEncoder(p.in).Encode(req); err != nil {
		return err
	}
	return p.read(v)
}

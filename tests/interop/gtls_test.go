//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testbuild"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// ngtcp2's own programs, in Debian with GnuTLS, speak HTTP/3 (RFC 9114). What they
// need of it is little: a control stream with SETTINGS, and on each request stream
// HEADERS and DATA frames, with field sections of QPACK's static table (RFC 9204).

const h3ALPN = "h3"

const (
	h3Data     = 0x0
	h3Headers  = 0x1
	h3Settings = 0x4
)

// h3Control opens this side's control stream, with empty SETTINGS.
func h3Control(ctx context.Context, c transport.Conn) error {
	s, err := c.OpenUniStream(ctx)
	if err != nil {
		return err
	}
	_, err = s.Write([]byte{0x0, h3Settings, 0})
	return err
}

// h3Frame appends a frame.
func h3Frame(to []byte, kind byte, payload []byte) []byte {
	n := uint64(len(payload)) | 2<<30 // a variable-length integer of four bytes
	to = append(to, kind, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	return append(to, payload...)
}

func varint(r io.Reader) (v uint64, err error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return 0, err
	}
	size := 1 << (b[0] >> 6)
	if _, err := io.ReadFull(r, b[1:size]); err != nil {
		return 0, err
	}
	v = uint64(b[0] & 0x3f)
	for _, c := range b[1:size] {
		v = v<<8 | uint64(c)
	}
	return v, nil
}

// h3Body reads frames to the end of a stream and returns the field section and the
// content.
func h3Body(r io.Reader) (headers, body []byte, err error) {
	for {
		kind, err := varint(r)
		if err == io.EOF {
			return headers, body, nil
		}
		if err != nil {
			return nil, nil, err
		}
		n, err := varint(r)
		if err != nil {
			return nil, nil, err
		}
		payload, err := io.ReadAll(io.LimitReader(r, int64(n)))
		if err == nil && uint64(len(payload)) < n {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, nil, err
		}
		switch kind {
		case h3Data:
			body = append(body, payload...)
		case h3Headers:
			headers = append(headers, payload...)
		}
	}
}

// h3Request is a field section for GET or POST https://localhost PATH.
func h3Request(method, path string) []byte {
	index := map[string]byte{"GET": 17, "POST": 20}[method]
	b := []byte{0, 0, 0xc0 | index, 0xc0 | 23 /* :scheme https */}
	b = append(append(b, 0x50 /* :authority, index 0 */, byte(len("localhost"))), "localhost"...)
	return append(append(b, 0x50|1 /* :path */, byte(len(path))), path...)
}

// h3OK is one with :status 200.
var h3OK = []byte{0, 0, 0xc0 | 25}

// An h3Seen is what a server of ours knows about a request.
type h3Seen struct {
	alpn     string
	early    bool
	resumed  bool
	accepted string // where the client was when it was accepted
	asked    string // where it was when it had asked
	body     []byte
}

// startH3 is a server of ours that answers every request with size bytes, after
// what wait does.
func startH3(t *testing.T, e transport.Transport, id *identity, size int, wait func(c transport.Conn, accepted string)) (addr string, seen <-chan h3Seen) {
	t.Helper()
	requests := make(chan h3Seen, 16)
	config := id.serverTLS()
	config.NextProtos = []string{h3ALPN}
	addr = startEngine(t, e, config, func(c transport.Conn) {
		ctx := context.Background()
		accepted := c.RemoteAddr().String()
		if h3Control(ctx, c) != nil {
			return
		}
		for {
			s, err := c.AcceptStream(ctx)
			if err != nil {
				return // the connection has ended
			}
			_, body, err := h3Body(s)
			if err != nil || c.Handshake(ctx) != nil {
				return
			}
			wait(c, accepted)
			state := c.State()
			requests <- h3Seen{
				state.TLS.NegotiatedProtocol, state.EarlyData, state.TLS.DidResume,
				accepted, c.RemoteAddr().String(), body,
			}
			if _, err := s.Write(h3Frame(h3Frame(nil, h3Headers, h3OK), h3Data, pattern(size))); err != nil {
				return
			}
			s.Close()
		}
	})
	return addr, requests
}

// gtlsIdle is the idle timeout of ngtcp2's programs.
const gtlsIdle = "--timeout=120s"

// gtlsclient runs ngtcp2's client for /file and returns what it has downloaded.
func gtlsclient(t *testing.T, addr string, options ...string) []byte {
	t.Helper()
	program := foreignProgram(t, "gtlsclient")
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	dir := t.TempDir()
	args := append([]string{"-q", gtlsIdle, "--exit-on-all-streams-close", "--download=" + dir}, options...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, append(args, host, port, "https://localhost/file")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	got, err := os.ReadFile(filepath.Join(dir, "file"))
	require.NoError(t, err, "%s", out)
	return got
}

func eachEngine(t *testing.T, test func(t *testing.T, e transport.Transport)) {
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) { test(t, e) })
	}
}

func nothing(transport.Conn, string) {}

func TestNgtcp2ClientExchangesBulkBothWays(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		const size = 8 << 20
		addr, seen := startH3(t, e, newIdentity(t), size, nothing)
		file := filepath.Join(t.TempDir(), "upload")
		require.NoError(t, os.WriteFile(file, pattern(size), 0o600))
		require.True(t, bytes.Equal(pattern(size), gtlsclient(t, addr, "--data="+file)), "server %s, ALPN h3", e.Name())
		r := <-seen
		require.Equal(t, h3ALPN, r.alpn, "server %s", e.Name())
		require.True(t, bytes.Equal(pattern(size), r.body), "server %s, ALPN h3", e.Name())
		require.False(t, r.early)
		require.False(t, r.resumed)
	})
}

func TestNgtcp2ClientSendsEarlyData(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		addr, seen := startH3(t, e, newIdentity(t), 1000, nothing)
		dir := t.TempDir()
		options := []string{"--session-file=" + filepath.Join(dir, "session"), "--tp-file=" + filepath.Join(dir, "tp")}
		require.Equal(t, pattern(1000), gtlsclient(t, addr, append(options, "--wait-for-ticket")...))
		require.False(t, (<-seen).early, "there is nothing to resume")

		require.Equal(t, pattern(1000), gtlsclient(t, addr, options...))
		r := <-seen
		require.Equal(t, h3ALPN, r.alpn, "server %s", e.Name())
		require.True(t, r.resumed, "server %s, ALPN h3", e.Name())
		require.True(t, r.early, "server %s, ALPN h3", e.Name())
	})
}

func TestNgtcp2ClientMovesToANewPort(t *testing.T) {
	for _, how := range []struct {
		name    string
		options []string
	}{
		{"migration", nil},
		{"NAT_rebinding", []string{"--nat-rebinding"}},
	} {
		t.Run(how.name, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, e transport.Transport) {
				// The request comes from the new port. The server's view changes
				// when it has validated that.
				addr, seen := startH3(t, e, newIdentity(t), 100_000, func(c transport.Conn, accepted string) {
					for end := time.Now().Add(patience / 2); c.RemoteAddr().String() == accepted && time.Now().Before(end); {
						<-time.After(time.Millisecond)
					}
				})
				options := append([]string{"--change-local-addr=100ms", "--delay-stream=200ms"}, how.options...)
				require.Equal(t, pattern(100_000), gtlsclient(t, addr, options...))
				r := <-seen
				require.Equal(t, h3ALPN, r.alpn, "server %s", e.Name())
				require.NotEqual(t, r.accepted, r.asked, "the server %s has seen the client move, ALPN h3", e.Name())
			})
		})
	}
}

// startGTLSServer runs ngtcp2's server, which answers /N with N bytes.
func startGTLSServer(t *testing.T, id *identity) (addr string) {
	t.Helper()
	program := foreignProgram(t, "gtlsserver")
	ctx, cancel := context.WithCancel(context.Background())
	// Another program may take the port, and then the next is tried.
	for range 10 {
		port := freePort(t)
		cmd := exec.CommandContext(ctx, program, "-q", gtlsIdle, "-d", t.TempDir(), "127.0.0.1", strconv.Itoa(port), id.keyFile, id.certFile)
		cmd.Env = testbuild.Env()
		require.NoError(t, cmd.Start())
		exited := make(chan struct{})
		go func() { // ends with the server
			_ = cmd.Wait() // it is killed
			close(exited)
		}()
		for listens := false; !listens; {
			b, err := os.ReadFile("/proc/net/udp")
			require.NoError(t, err)
			listens = strings.Contains(string(b), fmt.Sprintf("0100007F:%04X", port))
			select {
			case <-exited:
				listens = true
			case <-time.After(10 * time.Millisecond):
			}
		}
		select {
		case <-exited:
			continue
		default:
		}
		t.Cleanup(func() { cancel(); <-exited })
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	cancel()
	t.Fatal("gtlsserver does not start")
	return ""
}

// h3Get asks for size bytes and returns what comes.
func h3Get(c transport.Conn, size int) ([]byte, error) {
	return h3Do(c, h3Frame(nil, h3Headers, h3Request("GET", fmt.Sprintf("/%d", size))))
}

func h3Do(c transport.Conn, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := c.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := s.Write(request); err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	headers, body, err := h3Body(s)
	if err == nil && !bytes.HasPrefix(headers, h3OK) {
		err = fmt.Errorf("response fields % x", headers)
	}
	return body, err
}

func h3ClientTLS(id *identity) *tls.Config {
	config := id.clientTLS()
	config.NextProtos = []string{h3ALPN}
	return config
}

// connectedH3 is an engineSession with its control stream open.
func connectedH3(t *testing.T, s *engineSession, addr string, early bool) {
	t.Helper()
	require.NoError(t, s.connect(addr, early))
	require.NoError(t, h3Control(t.Context(), s.conn))
}

func TestNgtcp2ServerExchangesBulkBothWays(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		id := newIdentity(t)
		s := newEngineSession(t, e, h3ClientTLS(id))
		connectedH3(t, s, startGTLSServer(t, id), false)
		require.Equal(t, h3ALPN, s.conn.State().TLS.NegotiatedProtocol, "client %s", e.Name())
		const size = 8 << 20
		got, err := h3Get(s.conn, size)
		require.NoError(t, err, "client %s, ALPN h3", e.Name())
		require.Len(t, got, size, "client %s, ALPN h3", e.Name())

		request := h3Frame(h3Frame(nil, h3Headers, h3Request("POST", "/5")), h3Data, pattern(size))
		got, err = h3Do(s.conn, request)
		require.NoError(t, err, "client %s, ALPN h3", e.Name())
		require.Len(t, got, 5, "client %s, ALPN h3", e.Name())
		sent := s.conn.Stats().BytesSent
		require.Greater(t, sent, uint64(size))
	})
}

func TestNgtcp2ServerAcceptsEarlyData(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		id := newIdentity(t)
		addr := startGTLSServer(t, id)
		config := h3ClientTLS(id)
		// crypto/tls keeps the second in which it got a ticket and takes the ticket
		// for up to a second older than it is; GnuTLS calls that a replay.
		now := time.Now().Truncate(time.Second)
		config.Time = func() time.Time { return now }
		s := newEngineSession(t, e, config)
		connectedH3(t, s, addr, false)
		_, err := h3Get(s.conn, 10)
		require.NoError(t, err)
		require.False(t, s.conn.State().EarlyData)
		require.NoError(t, s.close())

		connectedH3(t, s, addr, true)
		got, err := h3Get(s.conn, 1000)
		require.NoError(t, err, "client %s, ALPN h3", e.Name())
		require.Len(t, got, 1000)
		require.NoError(t, s.conn.Handshake(t.Context()))
		require.Equal(t, h3ALPN, s.conn.State().TLS.NegotiatedProtocol, "client %s", e.Name())
		require.True(t, s.conn.State().EarlyData, "client %s, ALPN h3", e.Name())
	})
}

func TestNgtcp2ServerFollowsToANewPort(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		id := newIdentity(t)
		server := startGTLSServer(t, id)
		n := newNAT(t, server)
		s := newEngineSession(t, e, h3ClientTLS(id))
		connectedH3(t, s, n.inside.LocalAddr().String(), false)
		for range 3 {
			got, err := h3Get(s.conn, 100_000)
			require.NoError(t, err, "client %s, ALPN h3", e.Name())
			require.Len(t, got, 100_000)
			n.rebind(t) // what comes back then comes to the new port
		}
		if !e.Features().Migration {
			return
		}
		// On a connection of its own. For some time after a change of port this
		// server still asks the port of before; if the client uses another
		// connection ID then, it retires the first one and yet counts it, and a
		// client that replaces it breaks the limit (RFC 9000, Section 5.1.1).
		s = newEngineSession(t, e, h3ClientTLS(id))
		connectedH3(t, s, server, false)
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		require.NoError(t, s.conn.Migrate(ctx, pc), "client %s, ALPN h3", e.Name())
		require.Equal(t, pc.LocalAddr().String(), s.conn.LocalAddr().String())
		got, err := h3Get(s.conn, 100_000)
		require.NoError(t, err, "client %s, ALPN h3", e.Name())
		require.Len(t, got, 100_000)
	})
}

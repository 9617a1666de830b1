package tickets_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/tickets"
)

var _ transport.SessionCache = (*tickets.Sessions)(nil)

func open(t *testing.T, path, key string) *tickets.File {
	t.Helper()
	f, err := tickets.Open(path, key)
	require.NoError(t, err)
	return f
}

func TestASessionIsTakenOnceByTheNextRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tickets")
	open(t, path, "k").QUIC("e").Put("example.com", []byte("first"))
	open(t, path, "k").QUIC("e").Put("example.com", []byte("newest"))
	open(t, path, "k").QUIC("e").Put("other", []byte("of another server"))
	require.Nil(t, open(t, path, "another key").QUIC("e").Take("example.com"))
	require.Nil(t, open(t, path, "k").QUIC("another engine").Take("example.com"))
	next := open(t, path, "k").QUIC("e")
	require.Equal(t, "newest", string(next.Take("example.com")))
	require.Nil(t, next.Take("example.com"))
	require.Equal(t, "of another server", string(next.Take("other")))
	if runtime.GOOS != "windows" {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
}

func TestSessionsAreBoundedInNumberSizeAndAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tickets")
	synctest.Test(t, func(t *testing.T) {
		s := open(t, path, "").QUIC("e")
		for i := range 70 {
			s.Put(fmt.Sprint(i), []byte{1})
		}
		require.Nil(t, s.Take("5"), "the oldest make room")
		require.NotNil(t, s.Take("6"))
		s.Put("large", make([]byte, 1<<20))
		require.Nil(t, s.Take("large"))
		s.Put("empty", nil)
		require.Nil(t, s.Take("empty"))
		time.Sleep(8 * 24 * time.Hour) // virtual
		require.Nil(t, s.Take("60"), "a ticket lives for seven days at most")
	})
}

// resumed connects to a TLS server and reports whether a session was resumed.
func resumed(t *testing.T, server, client *tls.Config) bool {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(b, server)
		_, err := s.Write([]byte("tickets are before this"))
		if err == nil {
			_, err = io.Copy(io.Discard, s)
		}
		done <- err
	}()
	c := tls.Client(a, client)
	_, err := io.ReadFull(c, make([]byte, 23))
	require.NoError(t, err)
	r := c.ConnectionState().DidResume
	_ = c.Close()
	<-done
	_ = b.Close()
	return r
}

func TestANewProcessResumesTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tickets")
			server, client := testcert.New()
			client.MaxVersion = version
			connect := func(key string) bool {
				conf := client.Clone()
				conf.ClientSessionCache = open(t, path, key).TLS()
				return resumed(t, server, conf)
			}
			require.False(t, connect("roots"))
			require.True(t, connect("roots"))
			require.True(t, connect("roots"))
			require.False(t, connect("other roots"))
		})
	}
}

// Whatever becomes of the file, a connection is made, and resumed only if nothing has
// changed that the session consists of.
func TestACorruptedFileIsNoTicket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tickets")
	server, client := testcert.New()
	client.ClientSessionCache = open(t, path, "").TLS()
	require.False(t, resumed(t, server, client))
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	const header = 16
	for i := header; i < len(whole); i += 1 + len(whole)/50 {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x10
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		require.False(t, resumed(t, server, client), "byte %d", i)
		require.NoError(t, os.WriteFile(path, whole[:i], 0o600))
		require.False(t, resumed(t, server, client), "%d bytes", i)
	}
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.False(t, resumed(t, server, client))
	require.True(t, resumed(t, server, client), "an empty file is written to")
}

func TestAFileThatIsSomethingElseIsRefusedAndLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes")
	require.NoError(t, os.WriteFile(path, []byte("notes that are no tickets"), 0o600))
	_, err := tickets.Open(path, "")
	require.ErrorContains(t, err, "something else")
	_, err = tickets.Open(filepath.Join(path, "below a file"), "")
	require.Error(t, err)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "notes that are no tickets", string(b))
}

func TestAFileThatOthersCanReadOrWriteIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it has no such modes")
	}
	path := filepath.Join(t.TempDir(), "tickets")
	open(t, path, "").QUIC("e").Put("s", []byte("x"))
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := tickets.Open(path, "")
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, "chmod")
	}
	require.NoError(t, os.Chmod(path, 0o600))
	f := open(t, path, "")
	require.NoError(t, os.Chmod(path, 0o666))
	require.Nil(t, f.QUIC("e").Take("s"), "others may have written it meanwhile")
}

func TestOneTicketIsNotTakenByTwo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tickets")
	for range 20 {
		open(t, path, "").QUIC("e").Put("s", []byte("x"))
		var wg sync.WaitGroup
		taken := make(chan []byte, 8)
		for range 8 {
			f := open(t, path, "")
			wg.Go(func() { taken <- f.QUIC("e").Take("s") })
		}
		wg.Wait()
		close(taken)
		n := 0
		for b := range taken {
			if b != nil {
				n++
			}
		}
		require.LessOrEqual(t, n, 1)
	}
}

package purego

import (
	"bytes"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

// memory is a transport.SessionCache.
type memory struct {
	mu    sync.Mutex
	all   [][]byte
	taken int
}

func (m *memory) Take(string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken++
	if len(m.all) == 0 {
		return nil
	}
	b := m.all[len(m.all)-1]
	m.all = m.all[:len(m.all)-1]
	return b
}

func (m *memory) Put(_ string, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, b)
}

func (m *memory) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.all)
}

// session returns a stored session of a real connection.
func session(t testing.TB) []byte {
	cache := &memory{}
	client, _ := connect(t, func(c *transport.Config) { c.EarlyData = true },
		func(c *transport.Config) { c.Sessions = cache })
	require.Eventually(t, func() bool { return cache.len() > 0 }, wait, tick)
	require.NoError(t, client.CloseWithError(0, ""))
	return cache.Take("")
}

func TestSessionSurvivesEncoding(t *testing.T) {
	b := session(t)
	cs, err := decodeSession(b)
	require.NoError(t, err)
	_, state, err := cs.ResumptionState()
	require.NoError(t, err)
	require.True(t, state.EarlyData)
	require.True(t, bytes.HasPrefix(state.Extra[0], []byte("quic-go")), "the server's transport parameters")
	again, err := encodeSession(cs)
	require.NoError(t, err)
	require.Equal(t, b, again)
}

func TestSessionThatCannotBeReadIsIgnored(t *testing.T) {
	b := session(t)
	for _, bad := range [][]byte{
		{}, {0}, []byte(sessionMagic), b[:len(sessionMagic)+1], b[:len(b)-1], b[:len(b)/2],
		append([]byte("another engine's"), b...),
		append(bytes.Clone(b), 0), damaged(b),
	} {
		cs, ok := (&sessions{&memory{all: [][]byte{bad}}}).Get("localhost")
		require.False(t, ok, "%x", bad)
		require.Nil(t, cs)
	}
	(&sessions{&memory{}}).Put("localhost", nil) // crypto/tls discards a session
}

// damaged returns b with a bit of its secret changed.
func damaged(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/3] ^= 1
	return b
}

func FuzzSession(f *testing.F) {
	b, err := os.ReadFile("testdata/session") // stored by a connection of a test
	require.NoError(f, err)
	_, err = decodeSession(b)
	require.NoError(f, err)
	head := len(sessionMagic) + sumLen
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add(b[head:]) // also without the checksum, which no mutation gets past
	f.Add([]byte("\x00\x01t"))
	f.Add([]byte("\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeSession(b)
		if len(b) < 2 {
			return
		}
		cs, err := decodeTicket(b)
		if err != nil {
			return
		}
		again, err := encodeSession(cs)
		require.NoError(t, err)
		_, err = decodeSession(again)
		require.NoError(t, err)
	})
}

// TestSessionDoesNotShareMemoryWithTheCacheItCameFrom guards against crypto/tls,
// which keeps the certificates of a session in a table of the whole program and
// aliases the bytes they came in.
func TestSessionDoesNotShareMemoryWithTheCacheItCameFrom(t *testing.T) {
	b := session(t)
	mine := bytes.Clone(b)
	cs, err := decodeSession(mine)
	require.NoError(t, err)
	clear(mine)
	again, err := encodeSession(cs)
	require.NoError(t, err)
	require.Equal(t, b, again)
	_, err = decodeSession(again)
	require.NoError(t, err)
}

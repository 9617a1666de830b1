//go:build ngtcp2 && cgo

package ngtcp2

import (
	"crypto/tls"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
)

// TestTicketKeysCanBeRead fails when a release of Go moves the field: then
// SetSessionTicketKeys would have no effect.
func TestTicketKeysCanBeRead(t *testing.T) { require.True(t, ticketKeysReadable) }

func keysOf(t *testing.T, server *tls.Config) []ticketKey {
	cc, err := serverConfig(&transport.Config{TLS: server})
	require.NoError(t, err)
	return cc.tickets.get(server, server)
}

func TestKeysThatAreSetAreUsedAlsoAfterARestart(t *testing.T) {
	server, _ := testcert.New("test")
	server.SetSessionTicketKeys([][32]byte{{1}, {2}})
	first := keysOf(t, server)
	require.Len(t, first, 2)
	require.NotEqual(t, first[0], first[1])
	other, _ := testcert.New("test")
	other.SetSessionTicketKeys([][32]byte{{2}})
	require.Equal(t, first[1:], keysOf(t, other), "of another process")

	legacy, _ := testcert.New("test")
	legacy.SessionTicketKey = [32]byte{2} //nolint:staticcheck // what is tested
	require.Equal(t, first[1:], keysOf(t, legacy))
	legacy.SetSessionTicketKeys([][32]byte{{1}})
	require.Equal(t, first[:1], keysOf(t, legacy), "what is set later counts")
	unused, _ := testcert.New("test")
	copy(unused.SessionTicketKey[:], "DEPRECATED and random") //nolint:staticcheck // crypto/tls writes it
	require.NotEqual(t, keysOf(t, unused), keysOf(t, unused), "each listener has its own")
}

func TestKeysCanBeSetWhileTheServerRuns(t *testing.T) {
	server, _ := testcert.New("test")
	cc, err := serverConfig(&transport.Config{TLS: server})
	require.NoError(t, err)
	own := cc.tickets.get(server, server)
	require.Len(t, own, 1)
	require.Equal(t, own, cc.tickets.get(server, server))
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 100 {
			server.SetSessionTicketKeys([][32]byte{{byte(i)}})
		}
	})
	for range 100 {
		require.Len(t, cc.tickets.get(server, server), 1)
	}
	wg.Wait()
	require.NotEqual(t, own, cc.tickets.get(server, server))
}

func TestGetConfigForClientsKeysComeFirst(t *testing.T) {
	server, _ := testcert.New("test")
	cc, err := serverConfig(&transport.Config{TLS: server})
	require.NoError(t, err)
	special := &tls.Config{}
	require.Equal(t, cc.tickets.get(server, server), cc.tickets.get(server, special), "the listener's, if it has none")
	special.SetSessionTicketKeys([][32]byte{{1}})
	require.NotEqual(t, cc.tickets.get(server, server), cc.tickets.get(server, special))
	special.SessionTicketsDisabled = true
	require.Empty(t, cc.tickets.get(server, special))
	special.SessionTicketsDisabled, server.SessionTicketsDisabled = false, true
	require.Len(t, cc.tickets.get(server, special), 1, "its own keys count")
	require.Empty(t, cc.tickets.get(server, &tls.Config{}))
	require.Empty(t, cc.tickets.get(server, server))
}

func TestOwnKeysChangeDailyAndThreeAreKept(t *testing.T) {
	server, _ := testcert.New("test")
	clock := start
	server.Time = func() time.Time { return clock }
	cc, err := serverConfig(&transport.Config{TLS: server})
	require.NoError(t, err)
	before := cc.tickets.get(server, server)
	for day := range 5 {
		clock = clock.Add(ticketKeyRotation - 1)
		require.Equal(t, before, cc.tickets.get(server, server))
		clock = clock.Add(1)
		after := cc.tickets.get(server, server)
		require.Len(t, after, min(day+2, ticketKeysKept))
		require.False(t, slices.Contains(before, after[0]))
		require.Equal(t, before[:len(after)-1], after[1:])
		before = after
	}
}

func TestTicketsAreBoundToWhatIsDemandedOfClients(t *testing.T) {
	server, _ := testcert.New("test")
	server.SetSessionTicketKeys([][32]byte{{1}})
	seen := map[ticketKey]tls.ClientAuthType{}
	for mode := tls.NoClientCert; mode <= tls.RequireAndVerifyClientCert; mode++ {
		server.ClientAuth = mode
		key := keysOf(t, server)[0]
		require.NotContains(t, seen, key)
		seen[key] = mode
	}
	one, two := server.Clone(), server.Clone()
	one.ClientCAs = testcert.NewCA().Pool()
	two.ClientCAs = one.ClientCAs.Clone()
	require.Equal(t, keysOf(t, one), keysOf(t, two))
	require.NotEqual(t, keysOf(t, server), keysOf(t, one))
}

func TestTicketsForEarlyDataAreBoundToTheTransportParameters(t *testing.T) {
	server, _ := testcert.New("test")
	server.SetSessionTicketKeys([][32]byte{{1}})
	keys := func(change func(*transport.Config)) []ticketKey {
		cfg := &transport.Config{TLS: server, EarlyData: true}
		change(cfg)
		cc, err := serverConfig(cfg)
		require.NoError(t, err)
		return cc.tickets.get(server, server)
	}
	same := keys(func(*transport.Config) {})
	require.Equal(t, same, keys(func(c *transport.Config) { c.IdleTimeout = time.Minute }), "is not remembered by clients")
	for _, change := range []func(*transport.Config){
		func(c *transport.Config) { c.MaxStreams = 1 },
		func(c *transport.Config) { c.MaxUniStreams = 1 },
		func(c *transport.Config) { c.StreamWindow = 1000 },
		func(c *transport.Config) { c.ConnWindow = 1000 },
		func(c *transport.Config) { c.Datagrams = true },
		func(c *transport.Config) { c.EarlyData = false },
	} {
		require.NotEqual(t, same, keys(change))
	}
}

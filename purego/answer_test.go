package purego

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
)

// With the race detector this tells whether 0-RTT and the server's answer are kept
// apart: over loopback the answer comes while streams open.
func TestEarlyDataAndTheServersAnswerAreApart(t *testing.T) {
	sTLS, cTLS := testcert.New("test")
	config := transport.Config{EarlyData: true, Datagrams: true, MaxStreams: 10, HandshakeTimeout: wait, IdleTimeout: wait}
	sCfg, cCfg := config, config
	sCfg.TLS, cCfg.TLS = sTLS, cTLS
	cache := &memory{}
	cCfg.Sessions = cache
	server, client := openUDP(t, nil), openUDP(t, nil)
	l, err := server.Listen(&sCfg)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	accepted := 0
	for range 30 {
		c, err := client.Dial(ctx, server.Addr(), &cCfg)
		require.NoError(t, err)
		var group sync.WaitGroup
		group.Go(func() {
			for !c.State().HandshakeComplete && c.Context().Err() == nil {
				require.GreaterOrEqual(t, c.State().MaxDatagram, smallDatagram)
			}
		})
		group.Go(func() {
			for range 3 * maxEarlyDatagrams {
				require.NoError(t, c.SendDatagram([]byte("early")))
			}
		})
		s, err := l.Accept(ctx)
		require.NoError(t, err)
		const streams = 20 // more than the session promises
		group.Go(func() {
			for range streams {
				s, err := s.AcceptStream(ctx)
				require.NoError(t, err)
				s.CancelRead(0)
				_ = s.Close() // the client may have stopped it
			}
		})
		for range streams {
			s, err := c.OpenStream(ctx)
			require.NoError(t, err)
			require.NoError(t, s.Close())
			s.CancelRead(0)
		}
		require.NoError(t, c.Handshake(ctx))
		group.Wait()
		if c.State().EarlyData {
			accepted++
		}
		require.Eventually(t, func() bool { return cache.len() > 0 }, wait, tick)
		require.NoError(t, c.CloseWithError(0, ""))
	}
	require.Positive(t, accepted, "connections with early data")
}

package transporttest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var handshakeCases = []testCase{
	{name: "HandshakeDone", rows: "O04 O06", run: testHandshakeDone,
		says: "HandshakeDone is called once for each connection when its handshake is complete, with a nil reason."},
	{name: "HandshakeDoneFails", rows: "O04 O06", run: testHandshakeDoneFails,
		says: "HandshakeDone is called when the connection ends before that, with the reason that its methods would return. took is the time since the client's first packet."},
}

// A handshaken is a call of HandshakeDone.
type handshaken struct {
	took   time.Duration
	reason error
}

// handshakes returns Options that report into the channel.
func handshakes() (*transport.Options, chan handshaken) {
	done := make(chan handshaken, 16)
	return &transport.Options{HandshakeDone: func(took time.Duration, reason error) { done <- handshaken{took, reason} }}, done
}

func testHandshakeDone(l *lab) {
	opts, done := handshakes()
	p := l.listen(setup{serverOpts: opts})
	first, _ := p.more(l)
	h := <-done
	require.NoError(l, h.reason)
	require.Positive(l, h.took)
	require.Less(l, h.took, time.Minute)
	p.more(l)
	require.NoError(l, (<-done).reason)
	require.NoError(l, first.CloseWithError(0, ""))
	l.settle(time.Second)
	require.Empty(l, done, "once for each")
}

func testHandshakeDoneFails(l *lab) {
	opts, done := handshakes()
	const limit = 5 * time.Second
	p := l.listen(setup{serverOpts: opts, server: func(c *transport.Config) { c.HandshakeTimeout = limit }})

	p.clientCfg.TLS.NextProtos = []string{"something-else"}
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	require.Error(l, err)
	l.settle(time.Second)
	h := <-done
	wantProtocol(l, h.reason, 0x178, false, "no protocol in common")
	require.Less(l, h.took, limit)

	p.clientCfg = l.clientConfig()
	oneFlight(l, p)
	l.settle(limit + late)
	h = <-done
	wantTimeout(l, h.reason, transport.ErrHandshakeTimeout, "a client that says no more")
	require.GreaterOrEqual(l, h.took, limit)
	require.LessOrEqual(l, h.took, limit+late)
	require.Empty(l, done)
}

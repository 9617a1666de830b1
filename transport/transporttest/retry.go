package transporttest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var retryCases = []testCase{
	{name: "Retry", rows: "A01", run: testRetry,
		says: "RequireRetry reports whether a client at the unverified address must prove it receives packets there, at the cost of a round trip."},
	{name: "RetryNever", rows: "A01", run: testRetryNever,
		says: "RequireRetry: if nil, no client must."},
	{name: "RetryChosen", rows: "A01", run: testRetryChosen,
		says: "RequireRetry reports whether a client at the unverified address must prove it receives packets there."},
	{name: "RetryFromElsewhere", rows: "A01", run: testRetryFromElsewhere,
		says: "A client at the unverified address must prove it receives packets there."},
	{name: "TokenKey", rows: "A01 Z07", run: testTokenKey,
		says: "TokenKey protects address validation tokens. If zero, a random key is used, and tokens do not survive a restart."},
	{name: "Amplification", rows: "A02", run: testAmplification,
		says: "A Transport is an implementation of QUIC version 1 (RFC 9000)."},
	{name: "StatelessReset", rows: "A03 T25", run: testStatelessReset,
		says: "StatelessResetKey lets a restarted server end connections it no longer knows (RFC 9000, Section 10.3)."},
	{name: "StatelessResetOff", rows: "A03", run: testStatelessResetOff,
		says: "If zero, stateless resets are not sent."},
	{name: "StatelessResetOtherKey", rows: "A03", run: testStatelessResetOtherKey,
		says: "StatelessResetKey lets a restarted server end connections it no longer knows."},
}

func always(net.Addr) bool { return true }

func testRetry(l *lab) {
	asked := make(chan net.Addr, 10)
	seen := l.net.Capture()
	p := l.listen(setup{serverOpts: &transport.Options{RequireRetry: func(a net.Addr) bool { asked <- a; return true }}})
	start := time.Now()
	p.dial(l)
	require.GreaterOrEqual(l, time.Since(start), 4*oneWay, "a round trip more")
	retries := seenKinds(seen, p.serverPC.LocalAddr())[retryPacket]
	require.Positive(l, retries) // one for each packet of the client's first flight
	require.EqualValues(l, retries, p.serverEP.Stats().Retries)
	require.Equal(l, clientAddr, (<-asked).String())
	require.Equal(l, p.client.State().ConnID, p.server.State().ConnID, "the first destination connection ID, from before the Retry")
	p.echo(l)
}

func testRetryNever(l *lab) {
	seen := l.net.Capture()
	p := l.listen(setup{})
	start := time.Now()
	p.dial(l)
	require.Less(l, time.Since(start), 4*oneWay)
	require.Zero(l, seenKinds(seen, p.serverPC.LocalAddr())[retryPacket])
	require.Zero(l, p.serverEP.Stats().Retries)
}

func testRetryChosen(l *lab) {
	var load atomic.Bool
	p := l.listen(setup{serverOpts: &transport.Options{RequireRetry: func(net.Addr) bool { return load.Load() }}})
	p.dial(l)
	require.Zero(l, p.serverEP.Stats().Retries)
	load.Store(true)
	p.dial(l)
	retries := p.serverEP.Stats().Retries
	require.Positive(l, retries)
	load.Store(false)
	p.dial(l)
	require.Equal(l, retries, p.serverEP.Stats().Retries)
	p.echo(l)
}

// RFC 9000, Section 8.1.4: a token is bound to the address it was sent to.
func testRetryFromElsewhere(l *lab) {
	p := l.listen(setup{serverOpts: &transport.Options{RequireRetry: always}})
	seen := l.net.Capture()
	server, client := addrPort(p.serverPC.LocalAddr()), addrPort(p.clientPC.LocalAddr())
	thief := netip.MustParseAddrPort("203.0.113.66:666")
	// The Initial with the token of the Retry never arrives from the client.
	var withToken []byte
	l.net.Filter(func(pkt Packet) Verdict {
		h, ok := parseLong(pkt.Data)
		if ok && pkt.From == client && h.kind == initialPacket {
			if n, _ := varint(h.rest); n > 0 {
				withToken = pkt.Data
				return Verdict{Drop: true}
			}
		}
		return Verdict{}
	})
	require.ErrorIs(l, dialUntil(l, p, 100*time.Millisecond), context.DeadlineExceeded)
	require.NotNil(l, withToken)
	cut(p.clientPC)
	l.settle(time.Second)
	l.net.Inject(thief, server, withToken)
	l.settle(10 * time.Second)
	answered := 0
	for _, pkt := range seen.Packets() {
		if pkt.To != thief {
			continue
		}
		answered += len(pkt.Data)
		for _, k := range longPackets(pkt.Data) {
			require.NotEqual(l, handshakePacket, int(k), "the handshake goes on at another address")
		}
	}
	require.LessOrEqual(l, answered, 3*len(withToken))
	require.Zero(l, p.serverEP.Stats().ConnsAccepted)

	// The same packet from where it belongs is welcome.
	l.net.Filter(nil)
	sim(p.clientPC).Links(access, Link{})
	p.dial(l)
	p.echo(l)
}

func testTokenKey(l *lab) {
	for _, restart := range []struct {
		key, after [32]byte
		retries    bool
	}{
		{[32]byte{1}, [32]byte{1}, false},
		{[32]byte{1}, [32]byte{2}, true},
		{[32]byte{}, [32]byte{}, true},
	} {
		p, _ := l.resumable(false, setup{serverOpts: &transport.Options{RequireRetry: always, TokenKey: restart.key}})
		require.Positive(l, p.serverEP.Stats().Retries)
		require.NoError(l, p.serverEP.Close())
		p.serverEP = l.open(l.server, l.serverSocket(), &transport.Options{RequireRetry: always, TokenKey: restart.after})
		var err error
		p.ln, err = p.serverEP.Listen(l.serverConfig())
		require.NoError(l, err)
		p.dial(l)
		p.echo(l)
		require.Equal(l, restart.retries, p.serverEP.Stats().Retries > 0, "a server whose key was %x and is %x", restart.key[:1], restart.after[:1])
		require.NoError(l, p.clientEP.Close())
		require.NoError(l, p.serverEP.Close())
	}
}

// RFC 9000, Section 8.1: before the client's address is validated, a server
// sends no more than three times what it has received.
func testAmplification(l *lab) {
	many := make([]string, 400) // a certificate larger than that
	for i := range many {
		many[i] = fmt.Sprintf("host-%d.with-a-long-name.example", i)
	}
	p := l.listen(setup{server: func(c *transport.Config) {
		c.TLS.Certificates = certs(l.ca.Certificate(many...))
		c.HandshakeTimeout = time.Minute
	}})
	seen := l.net.Capture()
	client, server := addrPort(p.clientPC.LocalAddr()), addrPort(p.serverPC.LocalAddr())
	oneFlight(l, p)
	l.settle(50 * time.Second)
	received, sent, largest := 0, 0, 0
	for _, pkt := range seen.Packets() {
		switch {
		case pkt.From == client && !pkt.Lost:
			received += len(pkt.Data)
		case pkt.From == server:
			sent += len(pkt.Data)
			largest = max(largest, len(pkt.Data))
		}
	}
	require.Positive(l, sent)
	require.GreaterOrEqual(l, received, 1200)
	// By less than a packet an engine may pass it: quic-go asks before a packet whether
	// the limit is reached, not whether the packet keeps it, which it does not if small
	// ones came before, as an acknowledgment of the first half of a ClientHello.
	require.Less(l, sent, 3*received+largest, "%d bytes for %d", sent, received)
}

// oneFlight lets a client send its first flight and then fall silent.
func oneFlight(l *lab, p *pair) {
	l.Helper()
	client, start := addrPort(p.clientPC.LocalAddr()), time.Now()
	l.net.Filter(func(pkt Packet) Verdict {
		return Verdict{Drop: pkt.From == client && pkt.Time.After(start)}
	})
	sim(p.clientPC).Links(access, Link{Cut: true})
	require.ErrorIs(l, dialUntil(l, p, 100*time.Millisecond), context.DeadlineExceeded)
}

// restarted replaces the server by one that knows none of its connections.
func restarted(l *lab, p *pair, key [32]byte) {
	l.Helper()
	sim(p.serverPC).Links(Link{Cut: true}, Link{Cut: true}) // it dies without a word
	require.NoError(l, p.serverEP.Close())
	p.serverPC = l.serverSocket()
	p.serverEP = l.open(l.server, p.serverPC, &transport.Options{StatelessResetKey: key})
	var err error
	p.ln, err = p.serverEP.Listen(l.serverConfig())
	require.NoError(l, err)
}

func testStatelessReset(l *lab) {
	key := [32]byte{1, 2, 3}
	p := l.connect(setup{serverOpts: &transport.Options{StatelessResetKey: key}})
	p.echo(l)
	c, _ := p.streams(l)
	l.settle(time.Second)
	restarted(l, p, key)
	start := time.Now()
	_, err := c.Write(make([]byte, 500))
	require.NoError(l, err)
	err = ended(l, p.client)
	require.ErrorIs(l, err, transport.ErrStatelessReset)
	require.ErrorIs(l, err, errClosed)
	require.Less(l, time.Since(start), 5*time.Second, "at once, not at the idle timeout")
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(l, err, transport.ErrStatelessReset)
	_, err = p.client.OpenStream(l.ctx)
	require.ErrorIs(l, err, transport.ErrStatelessReset)
	p.dial(l)
	p.echo(l)
}

// notReset checks that the client learns of the restart only by silence.
func notReset(l *lab, p *pair, c transport.Stream, answers int) {
	l.Helper()
	seen := l.net.Capture()
	start := time.Now()
	_, err := c.Write(make([]byte, 500))
	require.NoError(l, err)
	wantTimeout(l, ended(l, p.client), transport.ErrIdleTimeout, "client")
	require.Greater(l, time.Since(start), 5*time.Second)
	n := 0
	for _, pkt := range seen.Packets() {
		if pkt.From == addrPort(p.serverPC.LocalAddr()) {
			n++
		}
	}
	if answers == 0 {
		require.Zero(l, n, "packets of the server")
	}
}

func testStatelessResetOff(l *lab) {
	p := l.connect(setup{})
	c, _ := p.streams(l)
	l.settle(time.Second)
	restarted(l, p, [32]byte{})
	notReset(l, p, c, 0)
	require.Positive(l, p.serverEP.Stats().PacketsDropped)
}

func testStatelessResetOtherKey(l *lab) {
	p := l.connect(setup{serverOpts: &transport.Options{StatelessResetKey: [32]byte{1}}})
	c, _ := p.streams(l)
	l.settle(time.Second)
	restarted(l, p, [32]byte{2})
	notReset(l, p, c, 1) // what it sends proves nothing
}

//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// longPacket makes a packet of size bytes that says it is of a version. That
// of version 1 is an Initial with a token, whose payload nobody can decrypt.
func longPacket(version uint32, dcid, token string, size int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0xc0}, version)
	b = append(append(b, byte(len(dcid))), dcid...)
	b = append(b, 4, 's', 'c', 'i', 'd')
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(len(token)))
	b = append(b, token...)
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(max(0, size-len(b)-2)))
	return append(b, make([]byte, max(0, size-len(b)))...)
}

func from(data []byte, now uint64) *batch {
	return &batch{path: capi.Path{Local: netip.MustParseAddrPort("192.0.2.1:1"), Remote: somewhere}, data: data, now: now}
}

// listening gives e a listener, and closes what comes of it after the test.
func listening(t *testing.T, e *endpoint) {
	t.Helper()
	_, err := e.Listen(&transport.Config{TLS: testcert.NewCA().Server("localhost", "test")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
}

func TestUnknownVersionsAreNegotiatedAtALimitedRate(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{})
	long := "a destination ID of an unknown version may be longer than 20 bytes"
	packet := longPacket(0x1a2a3a4a, long, "", minInitialSize)
	e.route(o, from(packet, 0))
	require.Empty(t, o.sent, "without a listener this is no server")
	listening(t, e)
	for range 2 * maxVersionsPerSecond {
		e.route(o, from(packet, 1))
	}
	require.Len(t, o.sent, maxVersionsPerSecond)
	h, ok := parseHeader(o.sent[0].data, 8)
	require.True(t, ok)
	require.True(t, h.long)
	require.Zero(t, h.version)
	require.Equal(t, "scid", string(h.dcid))
	require.Equal(t, long, string(h.scid))
	require.Equal(t, somewhere, o.sent[0].to)
	// RFC 9000, Section 6.2: a client discards the packet if its own version,
	// which might be 2 here, is in it.
	versions := o.sent[0].data[5+1+len("scid")+1+len(long):]
	require.Len(t, versions, 8)
	require.EqualValues(t, version1, binary.BigEndian.Uint32(versions))
	require.EqualValues(t, 0x0a0a0a0a, binary.BigEndian.Uint32(versions[4:])&0x0f0f0f0f, "a reserved one")
	e.route(o, from(packet, 2+uint64(time.Second)))
	require.Len(t, o.sent, maxVersionsPerSecond+1)
	for _, silent := range [][]byte{
		packet[:minInitialSize-1],
		longPacket(0, "12345678", "", minInitialSize), // nobody answers a Version Negotiation packet
	} {
		e.route(o, from(silent, 3e9))
	}
	require.Len(t, o.sent, maxVersionsPerSecond+1)
	require.EqualValues(t, 2*maxVersionsPerSecond+4, e.stats.dropped.Load())
}

func TestStatelessResetsOfStatelessResetsEnd(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{StatelessResetKey: [32]byte{1}})
	for size := minReset + 1; size < 1500; size += 7 {
		packet := append([]byte{0x40}, make([]byte, size-1)...)
		o.sent = nil
		rounds := 0
		for e.route(o, from(packet, uint64(size)*2e9)); len(o.sent) > 0; rounds++ {
			require.Less(t, len(o.sent[0].data), len(packet))
			require.GreaterOrEqual(t, len(o.sent[0].data), minReset)
			require.Equal(t, byte(0x40), o.sent[0].data[0]&0xc0, "it looks like any packet")
			packet = o.sent[0].data
			o.sent = nil
			e.route(o, from(packet, uint64(size)*2e9))
		}
		require.Less(t, rounds, 50)
	}
	o.sent = nil
	for range 2 * maxResetsPerSecond {
		e.route(o, from(make([]byte, 100), 1e15))
	}
	require.Len(t, o.sent, maxResetsPerSecond)
	off, o := newTestEndpoint(t, transport.Options{})
	off.route(o, from(make([]byte, 100), 1))
	require.Empty(t, o.sent)
	require.EqualValues(t, 1, off.stats.dropped.Load())
}

func TestInitialsThatCannotBeOnesAreDropped(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{})
	listening(t, e)
	packets := [][]byte{
		longPacket(1, "12345678", "", minInitialSize-1),
		longPacket(1, "1234567", "", minInitialSize),
		longPacket(1, "123456789012345678901", "", minInitialSize),
		longPacket(1, "12345678", "", 100),
		make([]byte, 0, 1)[:1],
		{0xc0},
		{0x80, 0, 0, 0, 1, 255},
	}
	for _, p := range packets {
		e.route(o, from(p, 1))
	}
	require.Empty(t, o.sent)
	require.EqualValues(t, len(packets), e.stats.dropped.Load())
	require.Empty(t, e.conns)
	require.Empty(t, e.table.ids)
}

// A socket that has never listened may be a server's that is about to.
func TestBeforeItListensAnEndpointAnswersNobody(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{})
	e.route(o, from(longPacket(1, "12345678", "", minInitialSize), 1))
	require.Empty(t, o.sent)
	require.EqualValues(t, 1, e.stats.refused.Load())
}

func TestAfterItsListenerAttemptsAreRefused(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{})
	listening(t, e)
	require.NoError(t, e.listener.Load().Close())
	for i := range 2 * maxRefusalsPerSecond {
		e.route(o, from(longPacket(1, fmt.Sprintf("%08d", i), "", minInitialSize), 1))
	}
	require.Len(t, o.sent, maxRefusalsPerSecond)
	require.EqualValues(t, 2*maxRefusalsPerSecond, e.stats.refused.Load())
	h, ok := parseHeader(o.sent[0].data, 8)
	require.True(t, ok)
	require.True(t, h.long)
	require.Equal(t, "scid", string(h.dcid))
	require.Zero(t, e.stats.dropped.Load())
}

// retryToken returns the token of a Retry packet, and the connection ID that
// the client is to use.
func retryToken(t *testing.T, packet []byte) (token, scid string) {
	t.Helper()
	require.Equal(t, byte(0xf0), packet[0]&0xf0, "a Retry packet")
	h, ok := parseHeader(packet, 8)
	require.True(t, ok)
	at := 1 + 4 + 1 + len(h.dcid) + 1 + len(h.scid)
	return string(packet[at : len(packet)-16]), string(h.scid)
}

func TestTokensProveAnAddress(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{RequireRetry: always})
	listening(t, e)
	initial := func(dcid, token string) { e.route(o, from(longPacket(1, dcid, token, minInitialSize), 1)) }
	initial("original", "")
	require.Len(t, o.sent, 1)
	require.EqualValues(t, 1, e.stats.retries.Load())
	require.Empty(t, e.table.ids, "a Retry needs no state")
	token, scid := retryToken(t, o.sent[0].data)
	require.Len(t, scid, 8)

	// A Retry token that is wrong ends the attempt (RFC 9000, Section 8.1.2).
	bad := []byte(token)
	bad[len(bad)-1] ^= 1
	initial(scid, string(bad))
	require.Len(t, o.sent, 2)
	require.EqualValues(t, 1, e.stats.refused.Load())
	require.EqualValues(t, 1, e.stats.retries.Load())

	// It proves nothing with another connection ID than that of the Retry.
	initial("otherone", token)
	require.EqualValues(t, 2, e.stats.refused.Load())

	// Another token that is wrong is as good as none (Section 8.1.3).
	initial("original", "\x00 whatever this is")
	require.EqualValues(t, 2, e.stats.retries.Load())

	regular, err := e.newToken(somewhere)
	require.NoError(t, err)
	elsewhereToken, err := e.newToken(netip.MustParseAddrPort("203.0.113.10:9"))
	require.NoError(t, err)
	initial("original", string(elsewhereToken))
	require.EqualValues(t, 3, e.stats.retries.Load())

	option := &capi.ServerOptions{Path: from(nil, 0).path}
	read := func(dcid, token string) {
		option = &capi.ServerOptions{Path: from(nil, 0).path}
		option.Initial, err = capi.Accept(longPacket(1, dcid, token, minInitialSize))
		require.NoError(t, err)
		require.NoError(t, e.readToken(option))
	}
	read(scid, token)
	require.Equal(t, capi.TokenRetry, option.TokenKind)
	require.Equal(t, "original", string(option.OriginalDCID))
	require.Equal(t, token, string(option.Token))
	read("12345678", string(regular))
	require.Equal(t, capi.TokenRegular, option.TokenKind)
	require.Nil(t, option.OriginalDCID)
	read("12345678", string(elsewhereToken))
	require.Equal(t, capi.TokenNone, option.TokenKind)
	read("12345678", "")
	require.Equal(t, capi.TokenNone, option.TokenKind)
}

func TestAGeneratorThatFailsRefusesConnections(t *testing.T) {
	for _, retry := range []func() bool{func() bool { return false }, func() bool { return true }} {
		e, o := newTestEndpoint(t, transport.Options{
			MaxConns:     1,
			ConnIDs:      scripted{8, func() ([]byte, error) { return nil, errors.New("boom") }},
			RequireRetry: func(netAddress) bool { return retry() },
		})
		listening(t, e)
		for i := range 3 {
			e.route(o, from(longPacket(1, fmt.Sprintf("%08d", i), "", minInitialSize), 1))
		}
		require.EqualValues(t, 3, e.stats.refused.Load())
		require.Len(t, o.sent, 3)
		require.Zero(t, e.servers, "no place is lost")
		require.Empty(t, e.conns)
	}
}

// A flood of first packets from addresses that are not their senders': the
// server asks for proof when there are many, keeps no more, and who can prove
// its address gets through.
func TestAFloodOfInitialsDoesNotKeepARealClientOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.NewNetwork(1)
		defer network.Close()
		ca := testcert.NewCA()
		open := func(addr string) *endpoint {
			e, err := open(network.Socket(addr, transporttest.Link{}, transporttest.Link{}), nil)
			require.NoError(t, err)
			return e
		}
		server, flood, client := open("192.0.2.1:443"), open("198.51.100.1:1"), open("198.51.100.2:2")
		ln, err := server.Listen(&transport.Config{TLS: ca.Server("localhost", "test")})
		require.NoError(t, err)
		spoofed := netip.MustParseAddrPort("198.51.100.1:1")
		network.Filter(func(p transporttest.Packet) transporttest.Verdict {
			return transporttest.Verdict{Drop: p.To == spoofed}
		})
		cfg := &transport.Config{TLS: ca.Client("localhost", "test")}
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		var wg sync.WaitGroup
		for range maxUnvalidated + 200 {
			wg.Go(func() { flood.Dial(ctx, server.Addr(), cfg) })
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, maxUnvalidated, server.unvalidated.Load())
		require.Len(t, server.conns, maxUnvalidated)
		require.Positive(t, server.stats.retries.Load())

		c, err := client.Dial(t.Context(), server.Addr(), cfg)
		require.NoError(t, err)
		s, err := ln.Accept(t.Context())
		require.NoError(t, err)
		require.Equal(t, c.State().ConnID, s.State().ConnID)
		require.EqualValues(t, 1, server.Stats().ConnsAccepted)
		require.EqualValues(t, maxUnvalidated, server.unvalidated.Load(), "it has no part in it")

		wg.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, server.unvalidated.Load())
		require.EqualValues(t, 0, flood.Stats().ConnsOpen)
		require.Empty(t, server.table.ids, "everything is forgotten, the idle connection too")
		require.Zero(t, server.servers)
		for _, e := range []*endpoint{flood, client, server} {
			require.NoError(t, e.Close())
		}
	})
}

func FuzzRoute(f *testing.F) {
	f.Add(longPacket(1, "12345678", "", minInitialSize), 0)
	f.Add(longPacket(1, "12345678", "token", minInitialSize), 600)
	f.Add(longPacket(0x1a2a3a4a, "12345678", "", minInitialSize), 0)
	f.Add(append([]byte{0x40}, make([]byte, 50)...), 25)
	f.Add([]byte{0xc0, 0, 0, 0, 1, 255}, 1)
	f.Fuzz(func(t *testing.T, data []byte, segment int) {
		e, o := newTestEndpoint(t, transport.Options{StatelessResetKey: [32]byte{1}})
		e.table.add(new(recorder), new(routes), keyOf([]byte("known...")), false)
		b := from(data, 1)
		b.segment = segment
		e.route(o, b)
		packets := 0
		for rest, size := len(data), segment; rest > 0; packets++ {
			if size <= 0 || size > len(data) {
				size = len(data)
			}
			rest -= size
		}
		require.LessOrEqual(t, len(o.sent), packets, "no packet has two answers")
		total := 0
		for _, s := range o.sent {
			total += len(s.data)
		}
		require.LessOrEqual(t, total, 3*len(data)) // RFC 9000, Section 8.1
		require.Len(t, e.table.ids, 1)
		require.Empty(t, e.conns)
	})
}

// What a connection asks for is bounded with what the loop does.
func TestRetriesThatConnectionsAskForAreLimitedToo(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{})
	c := newConn(e, o, nil)
	c.id, c.peerID = []byte("12345678"), []byte("scid")
	c.path.Store(&capi.Path{Local: o.localAddr(), Remote: somewhere})
	c.askRetry()
	require.Len(t, o.sent, 1)
	e.answers.retries.mu.Lock()
	e.answers.retries.n = maxRetriesPerSecond
	e.answers.retries.mu.Unlock()
	c.askRetry()
	require.Len(t, o.sent, 1)
	e.answers.retries.mu.Lock()
	e.answers.retries.n = 0
	e.answers.retries.mu.Unlock()
	c.retried = true // RFC 9000, Section 17.2.5.2: the client would ignore another
	c.askRetry()
	require.Len(t, o.sent, 1)
}

//go:build ngtcp2 && cgo

package capi

import (
	"bytes"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHandshakeAndAnEchoInBothDirections(t *testing.T) {
	checkMemory(t)
	w := connected(t)
	require.Equal(t, "test", w.client.state.ALPN)
	require.Equal(t, "test", w.server.state.ALPN)
	require.Equal(t, "localhost", w.server.state.ServerName)
	s := w.client.open(false)
	msg := payload(100_000)
	s.send(msg, true)
	w.until("request", func() bool { h := w.server.streams[s.ID()]; return h != nil && h.fin })
	require.True(t, bytes.Equal(msg, w.server.streams[s.ID()].got))
	w.server.streams[s.ID()].send(msg, true)
	w.until("answer", func() bool { return s.closed && w.server.streams[s.ID()].closed })
	require.True(t, s.fin)
	require.True(t, s.finished)
	require.True(t, bytes.Equal(msg, s.got))
	info := w.client.Info()
	require.True(t, info.Completed)
	require.True(t, info.Confirmed)
	require.GreaterOrEqual(t, info.MinRTT, 20*millisecond)
	require.Equal(t, uint32(1), info.Version)
}

func TestBulkSurvivesLossAndReordering(t *testing.T) {
	for _, cc := range []int{Reno, Cubic, BBR} {
		checkMemory(t)
		w := connected(t, func(w *world, s *Settings, _ *ClientOptions, _ *TLSConfig) {
			s.CongestionControl, w.serverSettings.CongestionControl = cc, cc
		})
		w.lose = func(*peer, []byte) bool { return w.rand.IntN(50) == 0 }
		w.jitter = 3 * millisecond
		msg := payload(3 << 20)
		up, down := w.client.open(true), w.client.open(false)
		up.send(msg, true)
		down.send([]byte("get"), true)
		w.until("request", func() bool { h := w.server.streams[down.ID()]; return h != nil && h.fin })
		w.server.streams[down.ID()].send(msg, true)
		w.until("transfer", func() bool {
			h := w.server.streams[up.ID()]
			return h != nil && h.fin && down.fin && up.closed && down.closed
		})
		require.True(t, bytes.Equal(msg, w.server.streams[up.ID()].got))
		require.True(t, bytes.Equal(msg, down.got))
		require.True(t, up.finished)
		require.Positive(t, w.client.Info().PacketsLost)
		w.close()
	}
}

func TestHandshakeSurvivesLoss(t *testing.T) {
	checkMemory(t)
	for seed := range 20 {
		w := newWorld(t)
		n := 0
		w.lose = func(*peer, []byte) bool { n++; return n < 12 && (seed>>(n%5))&1 == 1 && w.rand.IntN(2) == 0 }
		w.handshake()
		w.close()
	}
}

func TestCloseReachesThePeerWithCodeAndReason(t *testing.T) {
	for _, kind := range []CloseKind{CloseApplication, CloseTransport} {
		checkMemory(t)
		w := connected(t)
		out, err := w.client.WriteClose(w.buf, kind, 0x1234, "good bye", w.now)
		require.NoError(t, err)
		require.Positive(t, out.N)
		w.transmit(w.client, out, w.buf)
		_, err = w.client.WritePackets(w.buf, w.now)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, ErrClosing, e.Code)
		w.client.err = err
		w.until("close", func() bool { return w.server.err != nil })
		require.ErrorAs(t, w.server.err, &e)
		require.Equal(t, ErrDraining, e.Code)
		require.True(t, e.Fatal)
		k, code, _, reason := w.server.CloseInfo()
		require.Equal(t, kind, k)
		require.Equal(t, uint64(0x1234), code)
		require.Equal(t, "good bye", reason)
		require.True(t, w.server.Info().Draining)
		require.True(t, w.client.Info().InClosing)
		w.close()
	}
}

func TestAServerClosesDuringTheHandshake(t *testing.T) {
	checkMemory(t)
	w := newWorld(t)
	w.server.onEvent = nil
	w.step()
	w.step()
	require.NotNil(t, w.server.Conn)
	w.server.FailHandshake(40)
	out, err := w.server.WriteClose(w.buf, ClosePending, 0, "", w.now)
	require.NoError(t, err)
	require.Positive(t, out.N)
	w.server.err = errors.New("closed")
	w.transmit(w.server, out, w.buf)
	w.until("close", func() bool { return w.client.err != nil })
	_, code, _, _ := w.client.CloseInfo()
	require.Equal(t, uint64(0x100+40), code)
}

func TestALongReasonIsCutBetweenCharacters(t *testing.T) {
	w := connected(t)
	long := "x"
	for len(long) < 3000 {
		long += "ä"
	}
	out, err := w.client.WriteClose(w.buf, CloseApplication, 1, long, w.now)
	require.NoError(t, err)
	w.client.err = errFreed
	w.transmit(w.client, out, w.buf)
	w.until("close", func() bool { return w.server.err != nil })
	_, _, _, reason := w.server.CloseInfo()
	require.Greater(t, len(reason), 900)
	require.Equal(t, long[:len(reason)], reason)
	require.Equal(t, 1, len(reason)%2)
}

func TestIdleTimeoutAndKeepAlive(t *testing.T) {
	w := connected(t)
	start := w.now
	w.until("idle", func() bool { return w.client.err != nil && w.server.err != nil })
	var e *Error
	require.ErrorAs(t, w.client.err, &e)
	require.Equal(t, ErrIdleClose, e.Code)
	require.GreaterOrEqual(t, w.now-start, 29*second)
	out, err := w.client.WriteClose(w.buf, ClosePending, 0, "", w.now)
	require.NoError(t, err)
	require.Zero(t, out.N)

	w = connected(t, func(_ *world, s *Settings, _ *ClientOptions, _ *TLSConfig) { s.KeepAlive = 10 * second })
	w.wait(100 * second)
	require.NoError(t, w.client.err)
	require.NoError(t, w.server.err)
}

func TestHandshakeTimeout(t *testing.T) {
	w := newWorld(t, func(w *world, _ *Settings, _ *ClientOptions, _ *TLSConfig) { w.noServer = true })
	w.until("timeout", func() bool { return w.client.err != nil })
	var e *Error
	require.ErrorAs(t, w.client.err, &e)
	require.Equal(t, ErrHandshakeTimeout, e.Code)
	require.Equal(t, 11*second, w.now)
}

func TestRetryValidatesTheAddress(t *testing.T) {
	checkMemory(t)
	w := newWorld(t)
	w.key = &TokenKey{1}
	initials := 0
	w.tap = func(from *peer, pkt []byte) {
		if from == w.server && pkt[0]&0xf0 == 0xf0 {
			initials++
		}
	}
	w.handshake()
	require.Equal(t, 1, initials, "Retry packets")
}

func TestARefusalEndsTheClient(t *testing.T) {
	w := newWorld(t)
	w.noServer = true
	w.tap = func(from *peer, pkt []byte) {
		in, err := Accept(pkt)
		if from != w.client || err != nil {
			return
		}
		buf := make([]byte, 2000)
		n, err := WriteInitialClose(buf, &in, 2, "full")
		require.NoError(t, err)
		w.transmit(w.server, Output{N: n, Segment: n, Path: Path{serverAddr, clientAddr}}, buf)
	}
	w.until("refusal", func() bool { return w.client.err != nil })
	_, code, _, reason := w.client.CloseInfo()
	require.Equal(t, uint64(2), code)
	require.Equal(t, "full", reason)
}

func TestVersionNegotiationEndsTheClient(t *testing.T) {
	w := newWorld(t)
	w.noServer = true
	w.tap = func(from *peer, pkt []byte) {
		in, err := Accept(pkt)
		if from != w.client || err != nil {
			return
		}
		buf := make([]byte, 2000)
		n := WriteVersionNegotiation(buf, in.DCID, in.SCID)
		require.Positive(t, n)
		// What we support must not be in it, or the client ignores it.
		for i := 7 + len(in.DCID) + len(in.SCID); i < n; i += 4 {
			copy(buf[i:], []byte{0xba, 0xba, 0xba, 0xba})
		}
		w.transmit(w.server, Output{N: n, Segment: n, Path: Path{serverAddr, clientAddr}}, buf)
	}
	w.until("version negotiation", func() bool { return w.client.err != nil })
	var e *Error
	require.ErrorAs(t, w.client.err, &e)
	require.Equal(t, ErrVersionNegotiation, e.Code)
}

func TestStatelessResetEndsTheConnection(t *testing.T) {
	w := connected(t)
	require.Positive(t, w.client.count[ResetTokenAdded])
	token := w.client.tokens()[0]
	buf := make([]byte, 100)
	n := WriteStatelessReset(buf, &token, 60)
	require.Positive(t, n)
	require.Less(t, n, 60)
	w.client.err = w.client.ReadPackets(Path{clientAddr, serverAddr}, 0, buf[:n], 0, w.now)
	w.client.drain()
	require.Error(t, w.client.err)
	require.Equal(t, 1, w.client.count[StatelessReset])
}

func (p *peer) tokens() (tokens [][16]byte) {
	for _, ev := range p.events {
		if ev.Type == ResetTokenAdded {
			tokens = append(tokens, ev.Token)
		}
	}
	return tokens
}

func TestKeyUpdatesGoOnWhileDataFlows(t *testing.T) {
	w := connected(t)
	s := w.client.open(true)
	total := 0
	for i := range 4 {
		msg := payload(200_000)
		total += len(msg)
		s.send(msg, i == 3)
		w.until("data", func() bool { h := w.server.streams[s.ID()]; return h != nil && len(h.got) == total })
		w.wait(second)
		p := w.client
		if i%2 == 1 {
			p = w.server
		}
		require.NoError(t, p.InitiateKeyUpdate(w.now))
		var e *Error
		require.ErrorAs(t, p.InitiateKeyUpdate(w.now), &e)
		require.Equal(t, ErrInvalidState, e.Code)
		require.False(t, e.Fatal)
	}
	w.wait(second)
	require.NoError(t, w.client.err)
	require.NoError(t, w.server.err)
}

func TestAServerWithoutItsTLSObjectGoesOn(t *testing.T) {
	checkMemory(t)
	w := connected(t)
	state := w.server.state
	w.server.ReleaseTLS()
	w.server.ReleaseTLS()
	require.Equal(t, state, w.server.TLSState())
	s := w.client.open(false)
	s.send(payload(300_000), true)
	w.until("data", func() bool { h := w.server.streams[s.ID()]; return h != nil && h.fin })
	w.wait(second)
	require.NoError(t, w.server.InitiateKeyUpdate(w.now))
	w.server.streams[s.ID()].send(payload(300_000), true)
	w.until("answer", func() bool { return s.closed })
	require.Len(t, s.got, 300_000)
}

func TestAClientMigratesToAnotherPath(t *testing.T) {
	w := connected(t)
	w.wait(second)
	moved := netip.MustParseAddrPort("198.51.100.7:999")
	require.NoError(t, w.client.InitiateMigration(Path{moved, serverAddr}, w.now))
	w.until("validation", func() bool { return w.client.count[PathValidated] > 0 })
	require.Equal(t, Path{moved, serverAddr}, w.client.RemotePath())
	s := w.client.open(true)
	s.send(payload(100_000), true)
	w.until("data", func() bool { h := w.server.streams[s.ID()]; return h != nil && h.fin })
	require.Equal(t, Path{serverAddr, moved}, w.server.RemotePath())
}

func TestARebindingIsFollowed(t *testing.T) {
	w := connected(t)
	w.wait(second)
	rebound := netip.MustParseAddrPort("192.0.2.1:50000")
	w.rewrite = func(from *peer, p Path) (Path, bool) {
		if from == w.client {
			p.Remote = rebound
		} else if p.Local == rebound {
			p.Local = clientAddr
		} else {
			return p, false
		}
		return p, true
	}
	s := w.client.open(false)
	s.send(payload(50_000), true)
	w.until("data", func() bool { h := w.server.streams[s.ID()]; return h != nil && h.fin })
	w.wait(second)
	require.Equal(t, rebound, w.server.RemotePath().Remote)
	w.server.streams[s.ID()].send(payload(50_000), true)
	w.until("answer", func() bool { return s.closed })
}

func TestConnectionIDsComeFromTheEngine(t *testing.T) {
	w := newWorld(t)
	w.serverSettings.EngineConnIDs = true
	supplied := map[string]bool{}
	w.accepted = func() {
		require.Equal(t, 16, w.server.ConnIDsWanted())
		for w.server.ConnIDsWanted() > 0 {
			b := id(w.rand, 8)
			b[0] = 0xee
			supplied[string(b)] = true
			w.server.SupplyConnID(b)
		}
		w.server.SupplyConnID(id(w.rand, 8)) // there is no room
	}
	w.handshake()
	w.wait(second)
	require.GreaterOrEqual(t, len(w.server.cids), 2)
	for _, c := range w.server.cids {
		require.True(t, supplied[string(c)])
	}
	require.Equal(t, len(w.server.cids), w.server.ConnIDsWanted())
}

func TestQLogIsARecordPerEvent(t *testing.T) {
	w := newWorld(t, func(w *world, s *Settings, _ *ClientOptions, _ *TLSConfig) { s.QLog = true })
	w.handshake()
	b := w.client.QLogChunk()
	require.Greater(t, len(b), 1000)
	for rec := range bytes.SplitSeq(bytes.TrimPrefix(b, []byte{0x1e}), []byte{0x1e}) {
		require.Equal(t, byte('{'), rec[0])
		require.True(t, bytes.HasSuffix(rec, []byte("}\n")), "%q", rec)
	}
	require.Nil(t, w.client.QLogChunk())
	// More than there is room for: whole records are missing.
	s := w.client.open(true)
	s.discard = true
	s.send(payload(8<<20), true)
	w.until("data", func() bool { return s.closed })
	b = w.client.QLogChunk()
	require.LessOrEqual(t, len(b), 1<<20)
	require.Equal(t, byte(0x1e), b[0])
	require.True(t, bytes.HasSuffix(b, []byte("}\n")))
}

func TestNewTokensAreGivenToTheClient(t *testing.T) {
	w := connected(t)
	key := &TokenKey{9}
	token, err := NewRegularToken(key, clientAddr, w.now)
	require.NoError(t, err)
	require.NoError(t, w.server.SubmitNewToken(token))
	require.Error(t, w.client.SubmitNewToken(token))
	require.NoError(t, w.client.err)
	w.until("token", func() bool { return w.client.count[NewToken] > 0 })
	require.Equal(t, token, w.client.NewToken())
}

// resuming makes a world whose client has a session of another connection, for
// which the server's early data counts.
func resuming(t *testing.T, curve tls.CurveID, opts ...option) *world {
	keys := [][32]byte{{1, 2, 3}}
	early := func(w *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) {
		ct.Tickets, ct.EarlyData = true, true
		ct.Curves, w.serverTLS.Curves = []uint16{uint16(curve)}, []uint16{uint16(curve)}
		w.serverTLS.Tickets, w.serverTLS.EarlyData, w.serverTLS.TicketKeys = true, true, keys
	}
	w := connected(t, early)
	w.until("session", func() bool { return w.client.count[Session] > 0 })
	session, params := w.client.TakeSession(), w.client.EarlyTransportParams()
	require.NotEmpty(t, session)
	require.NotEmpty(t, params)
	w.close()
	return newWorld(t, append([]option{early, func(_ *world, _ *Settings, o *ClientOptions, ct *TLSConfig) {
		ct.Session, o.EarlyParams = session, params
	}}, opts...)...)
}

// The server's ngtcp2_conn that reads early data is not its first.
func TestAServersKeepAliveSurvivesEarlyData(t *testing.T) {
	for _, curve := range []tls.CurveID{tls.X25519, tls.X25519MLKEM768} {
		w := resuming(t, curve, func(w *world, s *Settings, _ *ClientOptions, _ *TLSConfig) {
			w.serverSettings.KeepAlive, s.KeepAlive = 2*second, NoExpiry
		})
		w.client.open(false).send([]byte("early"), true)
		w.handshake()
		require.True(t, w.server.state.EarlyAccepted)
		w.wait(second)
		kept := 0
		w.tap = func(from *peer, _ []byte) {
			if from == w.server {
				kept++
			}
		}
		w.wait(20 * second)
		require.Greater(t, kept, 5)
		w.close()
	}
}

func TestASessionResumesWithEarlyData(t *testing.T) {
	// With ML-KEM the ClientHello takes two datagrams.
	for _, curve := range []tls.CurveID{tls.X25519, tls.X25519MLKEM768} {
		for _, n := range []int{5, 9000} {
			for _, retry := range []bool{false, true} {
				checkMemory(t)
				w := resuming(t, curve)
				if retry {
					w.key = &TokenKey{1}
				}
				sent, received := 0, 0 // bytes, until the client's address is known
				w.tap = func(from *peer, pkt []byte) {
					if from == w.server && w.server.count[HandshakeCompleted] == 0 {
						sent += len(pkt)
						require.True(t, retry || sent <= 3*received, "RFC 9000, Section 8.1: %d, %d", sent, received)
					}
				}
				w.arrived = func(to *peer, pkt []byte) {
					if to == w.server {
						received += len(pkt)
					}
				}
				s := w.client.open(false)
				s.send(payload(n), true)
				u := w.client.open(true)
				u.send([]byte("and more"), true)
				done := func(id int64) bool { h := w.server.streams[id]; return h != nil && h.fin }
				w.until("early data", func() bool { return done(s.ID()) && done(u.ID()) })
				require.Zero(t, w.client.count[HandshakeCompleted], "before an answer came")
				require.True(t, bytes.Equal(payload(n), w.server.streams[s.ID()].got))
				w.handshake()
				require.True(t, w.client.state.EarlyAccepted)
				require.True(t, w.client.state.Resumed)
				require.Zero(t, w.client.count[EarlyDataRejected])
				require.Equal(t, 1, w.server.count[ClientHello])
				w.server.streams[s.ID()].send([]byte("answer"), true)
				w.until("answer", func() bool { return s.fin })
				require.Equal(t, "answer", string(s.got))
				w.close()
			}
		}
	}
}

func TestEarlyDataThatIsLostComesLater(t *testing.T) {
	checkMemory(t)
	for seed := range 40 {
		w := resuming(t, []tls.CurveID{tls.X25519, tls.X25519MLKEM768}[seed%2], func(w *world, s *Settings, _ *ClientOptions, _ *TLSConfig) {
			for _, s := range []*Settings{s, &w.serverSettings} {
				s.HandshakeTimeout, s.IdleTimeout = 100*second, 100*second
			}
		})
		w.rand = rand.New(rand.NewPCG(uint64(seed), 3))
		w.lose = func(*peer, []byte) bool { return w.rand.IntN(10) == 0 }
		w.jitter = uint64(seed%3) * 5 * millisecond
		var streams []*half
		for i := range 5 {
			s := w.client.open(i%2 == 0)
			s.send(payload(1000*i+1), true)
			streams = append(streams, s)
		}
		w.until("data", func() bool {
			for i, s := range streams {
				h := w.server.streams[s.ID()]
				if h == nil || !h.fin {
					return false
				}
				require.True(t, bytes.Equal(payload(1000*i+1), h.got))
			}
			return true
		})
		w.close()
	}
}

func TestAClientHelloInTwoDatagramsArrivesInAnyOrder(t *testing.T) {
	for _, early := range []bool{false, true} {
		for lost := range 3 {
			checkMemory(t)
			curve := func(w *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) {
				ct.Curves = []uint16{uint16(tls.X25519MLKEM768)}
				w.serverTLS.Curves = ct.Curves
			}
			var w *world
			if early {
				w = resuming(t, tls.X25519MLKEM768)
			} else {
				w = newWorld(t, curve)
			}
			var s *half
			if early {
				s = w.client.open(false)
				s.send(payload(5000), true)
			}
			n := 0
			w.lose = func(from *peer, _ []byte) bool {
				n++
				return n == lost // 0: none, but they change places
			}
			w.flush(w.client)
			if lost == 0 {
				w.queue[0].pkt, w.queue[1].pkt = w.queue[1].pkt, w.queue[0].pkt
			}
			began := w.now
			w.handshake()
			if early {
				w.until("data", func() bool { h := w.server.streams[s.ID()]; return h != nil && h.fin })
				require.True(t, w.client.state.EarlyAccepted)
			}
			require.Equal(t, 1, w.server.count[ClientHello])
			if lost == 0 {
				require.Less(t, w.now-began, second)
			} else {
				require.Less(t, w.now-began, 2*second, "one probe timeout")
			}
			w.close()
		}
	}
}

func TestAClientHelloThatIsTooLongIsRefused(t *testing.T) {
	for _, n := range []int{15_000, 17_000, 65_300} {
		checkMemory(t)
		was := Memory()
		w := newWorld(t, func(w *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) {
			for left := n; left > 256; left -= 256 {
				ct.NextProtos = append(ct.NextProtos, strings.Repeat("x", 255))
			}
		})
		done := func() bool { return w.server.err != nil || w.server.count[ClientHello] > 0 }
		w.until("end", done)
		require.Less(t, Memory()-was, int64(600_000))
		if n < 16_000 {
			require.NoError(t, w.server.err)
			require.Equal(t, 1, w.server.count[ClientHello])
		} else {
			var e *Error
			require.ErrorAs(t, w.server.err, &e)
			require.Equal(t, 47, e.Alert, "illegal_parameter")
			out, err := w.server.WriteClose(w.buf, ClosePending, 0, "", w.now)
			require.NoError(t, err)
			require.Positive(t, out.N)
		}
		w.close()
	}
}

func TestRejectedEarlyDataLeavesACleanConnection(t *testing.T) {
	for _, curve := range []tls.CurveID{tls.X25519, tls.X25519MLKEM768} {
		checkMemory(t)
		w := resuming(t, curve, func(w *world, _ *Settings, _ *ClientOptions, _ *TLSConfig) { w.serverTLS.EarlyData = false })
		var streams []*half
		for i := range 6 {
			s := w.client.open(i%2 == 0)
			s.send(payload(3000), i < 4)
			streams = append(streams, s)
		}
		streams[3].StopSending(1)
		streams[3].Reset(1)
		w.client.onEvent = func(ev Event) {
			if ev.Type == EarlyDataRejected {
				w.client.streams = map[int64]*half{}
			}
		}
		w.handshake()
		require.Equal(t, 1, w.client.count[EarlyDataRejected])
		require.True(t, w.client.Info().EarlyDataRejected)
		require.False(t, w.client.state.EarlyAccepted)
		require.True(t, w.client.state.Resumed)
		require.Empty(t, w.server.streams)
		for i, s := range streams {
			require.Zero(t, s.Write([]byte("x")))
			s.Finish()
			s.Reset(1)
			s.StopSending(1)
			s.Consumed(1)
			s.SetPriority(1, false)
			require.Nil(t, s.RecvChunks())
			require.False(t, s.SendDone())
			if i%2 == 0 {
				s.FreeStream()
			} // the others go with the connection
		}
		again := w.client.open(false)
		require.Equal(t, streams[1].ID(), again.ID(), "the IDs begin again")
		again.send([]byte("late"), true)
		w.until("data", func() bool { h := w.server.streams[again.ID()]; return h != nil && h.fin })
		require.Equal(t, "late", string(w.server.streams[again.ID()].got))
		streams[5].FreeStream()
		w.close()
	}
}

func TestMemoryThatIsNotThereEndsTheConnectionOnly(t *testing.T) {
	checkMemory(t)
	for n := int64(0); n < 400; n += 3 {
		func() {
			w := connected(t)
			defer w.close()
			defer failAllocation(-1)
			a, b := w.client.open(false), w.client.open(true)
			failAllocation(n)
			a.send(payload(60_000), true)
			b.send(payload(60_000), true)
			w.client.SendDatagram([]byte("x"))
			for i := 0; i < 200 && w.step(); i++ {
			}
			for _, p := range []*peer{w.client, w.server} {
				var e *Error
				if errors.As(p.err, &e) {
					require.Contains(t, []int{ErrNoMem, ErrDraining, ErrInternal, ErrIdleClose}, e.Code, e.Text)
				}
			}
		}()
	}
}

func TestNothingHappensAfterFree(t *testing.T) {
	w := connected(t)
	s := w.client.open(false)
	s.send(payload(1000), false)
	w.client.Free()
	w.client.Free()
	require.Zero(t, s.Write([]byte("x")))
	s.Finish()
	s.Reset(1)
	s.StopSending(1)
	s.Consumed(1)
	require.Nil(t, s.RecvChunks())
	s.FreeStream()
	require.Nil(t, w.client.Events())
	require.Equal(t, uint64(NoExpiry), w.client.Expiry())
	_, err := w.client.WritePackets(w.buf, w.now)
	require.Error(t, err)
	_, err = w.client.OpenStream(false)
	require.Error(t, err)
	require.False(t, w.client.SendDatagram(nil))
	w.client.err = errFreed
}

package webtransport_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/transport"
)

// roles runs f with a peer that is a hostile client, and with one that is a
// hostile server. cs is the CONNECT stream at the peer, s the session under test.
func roles(t *testing.T, f func(w *world, p *peer, cs transport.Stream, s *webtransport.Session)) {
	t.Helper()
	t.Run("client", func(t *testing.T) {
		simulate(t, func(w *world) {
			w.serve(nil, nil)
			p := w.peer(newest...)
			cs, s := w.session(p, "webtransport-h3")
			f(w, p, cs, s)
		})
	})
	t.Run("server", func(t *testing.T) {
		simulate(t, func(w *world) {
			accept := w.listenPeer(newest...)
			dialled := make(chan *webtransport.Session, 1)
			go func() {
				s, err := webtransport.Dial(w.Context(), w.tr, site, nil)
				require.NoError(w, err)
				dialled <- s
			}()
			p := accept()
			cs, _ := p.answer(":status", "200")
			f(w, p, cs, <-dialled)
		})
	})
}

func TestCapsulesThatBreakARuleEndTheSession(t *testing.T) {
	code := []byte{0, 0, 0, 1}
	for name, tt := range map[string]struct {
		send []byte
		fin  bool
	}{
		"a close without a code":         {send: capsule(capsuleClose, []byte{0, 0, 0})},
		"an empty close":                 {send: capsule(capsuleClose)},
		"too long a reason":              {send: capsule(capsuleClose, code, bytes.Repeat([]byte("x"), 1025))},
		"a length over all measure":      {send: frame(0, varints(capsuleClose, 1<<62-1))},
		"a reason that is no text":       {send: capsule(capsuleClose, code, []byte{0xff})},
		"a drain with content":           {send: capsule(capsuleDrain, []byte("x"))},
		"flow control of a stream":       {send: capsule(0x190b4d3e, varints(4, 5))},
		"a stream that says it is stuck": {send: capsule(0x190b4d42, varints(4, 5))},
		"an end within a type":           {send: frame(0, []byte{0xc0}), fin: true},
		"an end before a length":         {send: frame(0, varints(capsuleClose)), fin: true},
		"an end within a length":         {send: frame(0, varints(capsuleClose), []byte{0x40}), fin: true},
		"an end within a close":          {send: frame(0, varints(capsuleClose, 8), code), fin: true},
		"an end within an unknown":       {send: frame(0, varints(0x29*7+0x17, 8), code), fin: true},
		"an end within a datagram":       {send: frame(0, varints(0, 8), code), fin: true},
		"an end within a large datagram": {send: frame(0, varints(0, 1<<20), code), fin: true},
	} {
		t.Run(name, func(t *testing.T) {
			roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
				_, err := cs.Write(tt.send)
				require.NoError(w, err)
				if tt.fin {
					require.NoError(w, cs.Close())
				}
				e := ended(w, s)
				var he *http3.Error
				require.ErrorAs(w, e, &he)
				require.Equal(w, http3.ErrMessage, he.Code)
				if w.srv != nil { // a client's own connection ends with it
					require.Equal(w, http3.ErrMessage, p.cancelled(cs))
				}
			})
		})
	}
}

func TestNothingFollowsAClose(t *testing.T) {
	roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
		_, err := cs.Write(cat(closing(3, "bye"), capsule(capsuleDrain)))
		require.NoError(w, err)
		require.Equal(w, &webtransport.SessionError{Code: 3, Reason: "bye", Remote: true}, ended(w, s), "it has ended before")
		if w.srv != nil {
			require.Equal(w, http3.ErrMessage, p.cancelled(cs))
		}
		<-s.Finished()
	})
}

func TestCapsulesInPiecesAndUnknownOnes(t *testing.T) {
	roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
		b := cat(
			capsule(0x29*1000+0x17, bytes.Repeat([]byte("x"), 5000)),
			capsule(0x190b4d3d, varints(1)), capsule(0x190b4d3f, varints(1<<61)), capsule(0x190b4d40), // no flow control was agreed
			capsule(0x190b4d41, varints(1)), capsule(0x190b4d43, varints(1)), capsule(0x190b4d44, varints(1)),
			capsule(0, []byte("in a capsule")),
			capsule(0, make([]byte, 70_000)), // no datagram is that long
			frame(0x21, []byte("a frame of an unknown type")),
			closing(7, "after all"),
		)
		go func() {
			for i := range b {
				if _, err := cs.Write(b[i : i+1]); err != nil {
					return
				}
				if i > len(b)-500 {
					time.Sleep(time.Millisecond)
				}
			}
		}()
		d, err := s.ReceiveDatagram(w.Context())
		require.NoError(w, err)
		require.Equal(w, "in a capsule", string(d))
		require.Equal(w, &webtransport.SessionError{Code: 7, Reason: "after all", Remote: true}, ended(w, s))
	})
}

func TestAFloodOfCapsulesIsOnlyWork(t *testing.T) {
	roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
		go echo(s)
		flood := frame(0, bytes.Repeat(http3.AppendCapsule(nil, capsuleDrain, nil), 2000), bytes.Repeat(http3.AppendCapsule(nil, 0, []byte("x")), 2000))
		for range 20 {
			_, err := cs.Write(flood)
			require.NoError(w, err)
		}
		<-s.Draining()
		require.NoError(w, s.Context().Err())
		_, err := cs.Write(closing(0, "enough"))
		require.NoError(w, err)
		require.Equal(w, "enough", ended(w, s).Reason)
	})
}

func TestAFloodOfDatagramsKeepsTheNewest(t *testing.T) {
	roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
		for i := range 3000 {
			require.NoError(w, p.conn.SendDatagram(cat(varints(uint64(s.ID())/4), fmt.Appendf(nil, "%d", i))))
			if i%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(time.Second)
		n, last := 0, ""
		for {
			d, err := s.ReceiveDatagram(w.timeout(time.Second))
			if err != nil {
				require.ErrorIs(w, err, context.DeadlineExceeded)
				break
			}
			n, last = n+1, string(d)
		}
		require.Equal(w, 64, n)
		require.Equal(w, "2999", last)
		require.NoError(w, s.Close())
	})
}

func TestASessionIDThatIsNoRequestEndsTheConnection(t *testing.T) {
	for _, id := range []uint64{1, 2, 3, 5, 1<<62 - 1} {
		for _, typ := range []uint64{0x41, 0x54} {
			t.Run(fmt.Sprintf("%#x %d", typ, id), func(t *testing.T) {
				roles(t, func(w *world, p *peer, _ transport.Stream, s *webtransport.Session) {
					if typ == 0x41 {
						p.bidi(varints(typ, id))
					} else {
						p.uni(varints(typ, id))
					}
					require.Equal(w, http3.ErrID, p.ended())
					require.ErrorIs(w, ended(w, s), &transport.ApplicationError{Code: http3.ErrID})
				})
			})
		}
	}
}

func TestTheStartOfAStreamAnywhereElseEndsTheConnection(t *testing.T) {
	roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
		_, err := cs.Write(varints(0x41, uint64(cs.StreamID())))
		require.NoError(w, err)
		require.Equal(w, http3.ErrFrame, p.ended())
		ended(w, s)
	})
	simulate(t, func(w *world) {
		w.serve(nil, nil)
		c, err := w.client.Dial(w.Context(), w.server.Addr(), &transport.Config{TLS: w.ca.Client("localhost", http3.ALPN)})
		require.NoError(w, err)
		p := &peer{T: w.T, conn: c}
		p.uni(cat(varints(0), frame(0x4), varints(0x41, 0)))
		require.Equal(w, http3.ErrFrame, p.ended())
	})
}

func TestStreamsWithoutASessionAreRejected(t *testing.T) {
	roles(t, func(w *world, p *peer, _ transport.Stream, s *webtransport.Session) {
		start := time.Now()
		const unknown = 4000
		b := p.bidi(cat(varints(0x41, unknown), []byte("hello")))
		u := p.uni(cat(varints(0x54, unknown), []byte("hello")))
		require.EqualValues(w, codeRejected, p.cancelled(b))
		require.EqualValues(w, codeRejected, p.stopped(b))
		require.EqualValues(w, codeRejected, p.stopped(u))
		require.InDelta(w, 5, time.Since(start).Seconds(), 1, "after they have waited for it")
		require.Equal(w, 1, webtransport.Held(s.Conn()), "the session")
		require.NoError(w, s.Close())
	})
}

func TestStreamsWithoutAnIDAreRejected(t *testing.T) {
	for name, fin := range map[string]bool{"that end": true, "that stall": false} {
		t.Run(name, func(t *testing.T) {
			roles(t, func(w *world, p *peer, _ transport.Stream, s *webtransport.Session) {
				b := p.bidi(cat(varints(0x41), []byte{0x80, 0}))
				u := p.uni(cat(varints(0x54), []byte{0xc0}))
				if fin {
					require.NoError(w, b.Close())
					require.NoError(w, u.Close())
				} else {
					require.EqualValues(w, codeRejected, p.stopped(b))
					require.EqualValues(w, codeRejected, p.stopped(u))
				}
				require.EqualValues(w, codeRejected, p.cancelled(b))
				require.Equal(w, 1, webtransport.Held(s.Conn()))
				require.NoError(w, s.Close())
			})
		})
	}
}

func TestStreamsAndDatagramsThatComeBeforeTheirSessionWait(t *testing.T) {
	simulate(t, func(w *world) {
		w.serve(nil, nil)
		p := w.peer(newest...)
		cs, err := p.conn.OpenStream(w.Context()) // nothing is sent on it
		require.NoError(w, err)
		id := uint64(cs.StreamID())
		b := p.bidi(cat(varints(0x41, id), []byte("bidi")))
		u := p.uni(cat(varints(0x54, id), []byte("uni")))
		require.NoError(w, u.Close())
		require.NoError(w, p.conn.SendDatagram(cat(varints(id/4), []byte("datagram"))))
		time.Sleep(2 * time.Second)
		_, err = cs.Write(connect("webtransport-h3"))
		require.NoError(w, err)
		s := <-w.sessions
		in, err := s.AcceptStream(w.Context())
		require.NoError(w, err)
		got := make([]byte, 4)
		_, err = io.ReadFull(in, got)
		require.NoError(w, err)
		require.Equal(w, "bidi", string(got))
		require.Equal(w, b.StreamID(), in.StreamID())
		require.Equal(w, transport.DefaultPriority, in.Priority(), "not that of a request")
		one, err := s.AcceptUniStream(w.Context())
		require.NoError(w, err)
		all, err := io.ReadAll(one)
		require.NoError(w, err)
		require.Equal(w, "uni", string(all))
		d, err := s.ReceiveDatagram(w.Context())
		require.NoError(w, err)
		require.Equal(w, "datagram", string(d))
		require.NoError(w, in.SetReadDeadline(time.Now().Add(time.Minute)))
		time.Sleep(10 * time.Second) // nothing that waited for a session does so any more
		_, err = b.Write([]byte("more"))
		require.NoError(w, err)
		_, err = io.ReadFull(in, got)
		require.NoError(w, err)
		require.NoError(w, s.Close())
	})
}

func TestAServersStreamsMayComeBeforeItsAnswer(t *testing.T) {
	simulate(t, func(w *world) {
		accept := w.listenPeer(newest...)
		go func() {
			p := accept()
			cs, err := p.conn.AcceptStream(w.Context())
			require.NoError(w, err)
			p.head(cs)
			p.bidi(cat(varints(0x41, uint64(cs.StreamID())), []byte("early")))
			require.NoError(w, p.conn.SendDatagram(cat(varints(uint64(cs.StreamID())/4), []byte("early"))))
			time.Sleep(time.Second)
			_, err = cs.Write(headers(":status", "200"))
			require.NoError(w, err)
		}()
		s, err := webtransport.Dial(w.Context(), w.tr, site, nil)
		require.NoError(w, err)
		b, err := s.AcceptStream(w.Context())
		require.NoError(w, err)
		got := make([]byte, 5)
		_, err = io.ReadFull(b, got)
		require.NoError(w, err)
		require.Equal(w, "early", string(got))
		got, err = s.ReceiveDatagram(w.Context())
		require.NoError(w, err)
		require.Equal(w, "early", string(got))
		require.NoError(w, s.Close())
	})
}

func TestAFloodOfEarlyStreamsIsBounded(t *testing.T) {
	simulate(t, func(w *world) {
		w.serve(&webtransport.Config{MaxEarlyStreams: 10, MaxWaitingStreams: 7}, nil)
		p := w.peer(newest...)
		cs, err := p.conn.OpenStream(w.Context())
		require.NoError(w, err)
		id := uint64(cs.StreamID())
		var early []transport.SendStream
		for range 30 {
			early = append(early, p.uni(cat(varints(0x54, id), make([]byte, 1000))))
		}
		time.Sleep(time.Second)
		rejected := func() (n int) {
			for _, u := range early {
				if u.Context().Err() != nil {
					require.EqualValues(w, codeRejected, p.stopped(u))
					n++
				}
			}
			return n
		}
		require.Equal(w, 20, rejected(), "more than wait for a session")
		_, err = cs.Write(connect("webtransport-h3"))
		require.NoError(w, err)
		s := <-w.sessions
		time.Sleep(time.Second)
		require.Equal(w, 23, rejected(), "more than wait for AcceptUniStream")
		for range 7 {
			_, err := s.AcceptUniStream(w.Context())
			require.NoError(w, err)
		}
		_, err = s.AcceptUniStream(w.timeout(time.Second))
		require.ErrorIs(w, err, context.DeadlineExceeded)
		for range 9 {
			b := p.bidi(varints(0x41, id))
			defer b.CancelWrite(0)
		}
		time.Sleep(time.Second)
		for range 7 {
			_, err := s.AcceptStream(w.Context())
			require.NoError(w, err)
		}
		_, err = s.AcceptStream(w.timeout(time.Second))
		require.ErrorIs(w, err, context.DeadlineExceeded)
		require.NoError(w, s.Close())
		require.Zero(w, webtransport.Held(s.Conn()))
	})
}

func TestStreamsOfASessionThatIsGoneAreRejectedAtOnce(t *testing.T) {
	simulate(t, func(w *world) {
		w.serve(nil, nil)
		p := w.peer(newest...)
		cs, s := w.session(p, "webtransport-h3")
		open := p.uni(varints(0x54, uint64(cs.StreamID())))
		both := p.bidi(varints(0x41, uint64(cs.StreamID())))
		time.Sleep(time.Second)
		require.NoError(w, s.CloseWithError(1, ""))
		require.EqualValues(w, codeGone, p.stopped(open))
		require.EqualValues(w, codeGone, p.stopped(both))
		require.EqualValues(w, codeGone, p.cancelled(both))
		start := time.Now()
		late := p.bidi(varints(0x41, uint64(cs.StreamID())))
		require.EqualValues(w, codeGone, p.cancelled(late))
		require.Less(w, time.Since(start), time.Second)
		// It is not so hard to forget: many sessions later the same takes its time.
		require.NoError(w, cs.Close())
		for range 70 {
			c2, s2 := w.session(p, "webtransport")
			require.NoError(w, s2.Close())
			require.NoError(w, c2.Close())
			<-s2.Finished()
		}
		late = p.bidi(varints(0x41, uint64(cs.StreamID())))
		require.EqualValues(w, codeRejected, p.cancelled(late))
	})
}

func TestMoreSessionsThanAllowedAreRefused(t *testing.T) {
	simulate(t, func(w *world) {
		w.serve(&webtransport.Config{MaxSessions: 2}, nil)
		p := w.peer(newest...)
		cs, s := w.session(p, "webtransport")
		w.session(p, "webtransport")
		require.Equal(w, "429", p.head(p.bidi(connect("webtransport")))[":status"])
		require.ErrorIs(w, <-w.failures, webtransport.ErrSessionLimit)
		require.NoError(w, cs.Close())
		require.Equal(w, &webtransport.SessionError{Remote: true}, ended(w, s), "FIN is a close without an error")
		w.session(p, "webtransport")
	})
}

func TestTheAbruptEndOfTheConnectStream(t *testing.T) {
	t.Run("reset", func(t *testing.T) {
		roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
			cs.CancelWrite(http3.ErrRequestCancelled)
			e := ended(w, s)
			require.True(w, e.Remote)
			require.Zero(w, e.Code)
			require.ErrorIs(w, e, &transport.StreamError{Code: http3.ErrRequestCancelled})
			if w.srv != nil {
				require.EqualValues(w, codeGone, p.cancelled(cs))
			}
			<-s.Finished()
		})
	})
	t.Run("not read any more", func(t *testing.T) {
		roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
			start := time.Now()
			cs.CancelRead(codeGone)
			e := ended(w, s)
			require.InDelta(w, 1, time.Since(start).Seconds(), 0.5)
			require.True(w, e.Remote)
			require.ErrorContains(w, e, "stopped the CONNECT stream")
		})
	})
	t.Run("not read any more, with last words", func(t *testing.T) {
		roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
			cs.CancelRead(codeGone)
			time.Sleep(100 * time.Millisecond)
			_, err := cs.WriteLast(closing(9, "that was it"))
			require.NoError(w, err)
			require.Equal(w, &webtransport.SessionError{Code: 9, Reason: "that was it", Remote: true}, ended(w, s))
		})
	})
	t.Run("closed on both directions", func(t *testing.T) {
		roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
			require.NoError(w, cs.Close())
			require.Equal(w, &webtransport.SessionError{Remote: true}, ended(w, s))
			if w.srv != nil {
				_, err := io.Copy(io.Discard, cs)
				require.NoError(w, err, "the answer to FIN is FIN")
			}
		})
	})
}

func TestAPeerThatDoesNotAnswerACloseIsNotWaitedForLong(t *testing.T) {
	roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
		start := time.Now()
		require.NoError(w, s.CloseWithError(1, strings.Repeat("x", 1024)))
		require.Zero(w, time.Since(start), "Close waits for nobody")
		typ, payload := p.frame(cs)
		require.Zero(w, typ)
		require.Equal(w, http3.AppendCapsule(nil, capsuleClose, cat([]byte{0, 0, 0, 1}, bytes.Repeat([]byte("x"), 1024))), payload)
		_, err := cs.Read(make([]byte, 1))
		require.ErrorIs(w, err, io.EOF)
		<-s.Finished()
		require.InDelta(w, 5, time.Since(start).Seconds(), 0.5)
	})
	roles(t, func(w *world, p *peer, cs transport.Stream, s *webtransport.Session) {
		_, err := cs.Write(closing(1, "")) // and no FIN
		require.NoError(w, err)
		ended(w, s)
		start := time.Now()
		<-s.Finished()
		require.LessOrEqual(w, time.Since(start), 6*time.Second)
	})
}

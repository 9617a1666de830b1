package webtransport_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/transport"
)

// ends runs f with the client as one end and with the server as one end.
func ends(t *testing.T, f func(w *world, one, other *webtransport.Session)) {
	t.Helper()
	t.Run("client", func(t *testing.T) {
		simulate(t, func(w *world) {
			c, s := w.pair()
			f(w, c, s)
		})
	})
	t.Run("server", func(t *testing.T) {
		simulate(t, func(w *world) {
			c, s := w.pair()
			f(w, s, c)
		})
	})
}

func TestClosingTellsThePeerWhy(t *testing.T) {
	long := strings.Repeat("ä", 600) // of two bytes each
	for name, tt := range map[string]struct {
		code         uint32
		reason, want string
	}{
		"no error":         {},
		"code and reason":  {1<<32 - 1, "so be it", "so be it"},
		"a long reason":    {1, long, long[:1024]},
		"a code alone":     {2, "", ""},
		"a reason alone":   {0, "x", "x"},
		"no valid reason":  {3, "a\xffb", "a\ufffdb"},
		"cut in character": {4, "x" + long, ("x" + long)[:1023]},
	} {
		t.Run(name, func(t *testing.T) {
			ends(t, func(w *world, one, other *webtransport.Session) {
				require.NoError(w, one.CloseWithError(tt.code, tt.reason))
				require.NoError(w, one.CloseWithError(99, "too late"))
				require.Equal(w, &webtransport.SessionError{Code: tt.code, Reason: tt.want}, ended(w, one))
				require.Equal(w, &webtransport.SessionError{Code: tt.code, Reason: tt.want, Remote: true}, ended(w, other))
				start := time.Now()
				<-other.Finished()
				<-one.Finished()
				require.Less(w, time.Since(start), time.Second, "nobody waits for a time-out")
			})
		})
	}
}

func TestThePeersStreamsHearWhyTheSessionEnded(t *testing.T) {
	ends(t, func(w *world, one, other *webtransport.Session) {
		b, err := one.OpenStream(w.Context())
		require.NoError(w, err)
		a, err := other.AcceptStream(w.Context())
		require.NoError(w, err)
		blocked := make(chan error, 3)
		go func() { _, err := b.Read(make([]byte, 1)); blocked <- err }()
		go func() { _, err := a.Read(make([]byte, 1)); blocked <- err }()
		u, err := other.OpenUniStream(w.Context())
		require.NoError(w, err)
		go func() { _, err := u.Write(make([]byte, 64<<20)); blocked <- err }()
		time.Sleep(time.Second)
		start := time.Now()
		require.NoError(w, one.CloseWithError(5, "so"))
		require.Equal(w, error(&webtransport.SessionError{Code: 5, Reason: "so"}), <-blocked)
		require.Zero(w, time.Since(start), "nothing here waits for the peer")
		for range 2 {
			require.Equal(w, error(&webtransport.SessionError{Code: 5, Reason: "so", Remote: true}), <-blocked)
		}
		<-b.Context().Done()
		<-a.Context().Done()
	})
}

func TestBothSidesCloseAtOnce(t *testing.T) {
	simulate(t, func(w *world) {
		c, s := w.pair()
		require.NoError(w, c.CloseWithError(1, "client"))
		require.NoError(w, s.CloseWithError(2, "server"))
		require.Equal(w, &webtransport.SessionError{Code: 1, Reason: "client"}, ended(w, c))
		require.Equal(w, &webtransport.SessionError{Code: 2, Reason: "server"}, ended(w, s))
		<-c.Finished()
		<-s.Finished()
	})
}

func TestTheEndOfASessionEndsItsStreams(t *testing.T) {
	ends(t, func(w *world, one, other *webtransport.Session) {
		b1, err := one.OpenStream(w.Context())
		require.NoError(w, err)
		u1, err := one.OpenUniStream(w.Context())
		require.NoError(w, err)
		b2, err := other.AcceptStream(w.Context())
		require.NoError(w, err)
		u2, err := other.AcceptUniStream(w.Context())
		require.NoError(w, err)
		_, err = one.OpenStream(w.Context()) // nobody accepts it
		require.NoError(w, err)
		blocked := make(chan error, 4)
		go func() { _, err := b1.Read(make([]byte, 1)); blocked <- err }()
		go func() { _, err := b1.Write(make([]byte, 64<<20)); blocked <- err }()
		go func() { _, err := u1.Write(make([]byte, 64<<20)); blocked <- err }()
		go func() { _, err := one.AcceptStream(context.Background()); blocked <- err }()
		time.Sleep(time.Second)
		require.NoError(w, one.CloseWithError(42, "enough"))
		local := &webtransport.SessionError{Code: 42, Reason: "enough"}
		for range 4 {
			require.Equal(w, local, <-blocked)
		}
		remote := ended(w, other)
		time.Sleep(time.Second)
		for name, f := range map[string]func() error{
			"read":      func() error { _, err := io.Copy(io.Discard, b2); return err },
			"write":     func() error { _, err := b2.Write([]byte("x")); return err },
			"last":      func() error { _, err := b2.WriteLast([]byte("x")); return err },
			"close":     func() error { return b2.Close() },
			"read uni":  func() error { _, err := io.Copy(io.Discard, u2); return err },
			"open":      func() error { _, err := other.OpenStream(context.Background()); return err },
			"drain":     func() error { return other.Drain() },
			"deadline":  func() error { b2.SetDeadline(time.Now()); _, err := b2.Read(make([]byte, 1)); return err },
			"open uni":  func() error { _, err := other.OpenUniStream(context.Background()); return err },
			"datagram":  func() error { return other.SendDatagram(nil) },
			"datagrams": func() error { _, err := other.ReceiveDatagram(context.Background()); return err },
		} {
			require.Equal(w, error(remote), f(), name)
		}
		<-b1.Context().Done()
		<-b2.Context().Done()
		require.Zero(w, webtransport.Tracked(one))
		require.Zero(w, webtransport.Tracked(other))
	})
}

func TestASessionForgetsStreamsThatHaveEnded(t *testing.T) {
	simulate(t, func(w *world) {
		client, server := w.pair()
		for range 500 {
			b, err := client.OpenStream(w.Context())
			require.NoError(w, err)
			_, err = b.WriteLast([]byte("x"))
			require.NoError(w, err)
			a, err := server.AcceptStream(w.Context())
			require.NoError(w, err)
			_, err = io.ReadAll(a)
			require.NoError(w, err)
			a.CancelWrite(1)
			_, err = b.Read(make([]byte, 1))
			require.ErrorIs(w, err, &transport.StreamError{Code: 1})
			u, err := server.OpenUniStream(w.Context())
			require.NoError(w, err)
			v, err := client.AcceptUniStream(w.Context())
			require.NoError(w, err)
			u.CancelWrite(2)
			_, err = v.Read(make([]byte, 1))
			require.ErrorIs(w, err, &transport.StreamError{Code: 2})
		}
		require.Zero(w, webtransport.Tracked(client))
		require.Zero(w, webtransport.Tracked(server))
	})
}

func TestTheEndOfTheConnectionEndsItsSessions(t *testing.T) {
	ends(t, func(w *world, one, other *webtransport.Session) {
		require.NoError(w, one.Conn().Transport().CloseWithError(http3.ErrNoError, "bye"))
		for _, s := range []*webtransport.Session{one, other} {
			e := ended(w, s)
			require.ErrorIs(w, e, net.ErrClosed)
			require.ErrorIs(w, e, &transport.ApplicationError{Code: http3.ErrNoError})
			require.Equal(w, s == other, e.Remote)
			require.NotNil(w, e.Err)
			require.Contains(w, e.Error(), "bye")
			<-s.Finished()
		}
	})
}

func TestASilentPeerEndsTheSessionWithTheIdleTimeout(t *testing.T) {
	simulate(t, func(w *world) {
		client, server := w.pair()
		require.NoError(w, w.client.Close())
		e := ended(w, client)
		require.NotNil(w, e.Err)
		e = ended(w, server)
		require.NotNil(w, e.Err)
	})
}

func TestTheServersShutdownDrainsSessions(t *testing.T) {
	simulate(t, func(w *world) {
		client, server := w.pair()
		down := make(chan error, 1)
		go func() { down <- w.srv.Shutdown(w.Context()) }()
		<-client.Draining()
		<-server.Draining()
		time.Sleep(time.Second)
		require.NoError(w, client.Context().Err(), "it goes on")
		go echo(server)
		require.NoError(w, roundTrip(w.Context(), client, []byte("a stream after GOAWAY")))
		require.NoError(w, client.Close())
		require.NoError(w, <-down)
	})
}

func TestDrain(t *testing.T) {
	ends(t, func(w *world, one, other *webtransport.Session) {
		require.NoError(w, one.Drain())
		<-other.Draining()
		require.NoError(w, other.Drain())
		<-one.Draining()
		require.NoError(w, one.Context().Err())
		require.NoError(w, other.Close())
		require.True(w, ended(w, one).Remote)
	})
}

func TestResetsCarryTheApplicationsCode(t *testing.T) {
	ends(t, func(w *world, one, other *webtransport.Session) {
		for _, code := range []transport.ErrorCode{0, 1, 0x1d, 0x1e, 0x1f, 1<<32 - 1} {
			b1, err := one.OpenStream(w.Context())
			require.NoError(w, err)
			b2, err := other.AcceptStream(w.Context())
			require.NoError(w, err)
			b1.CancelWrite(code)
			_, err = b2.Read(make([]byte, 1))
			var se *webtransport.StreamError
			require.ErrorAs(w, err, &se)
			require.Equal(w, uint32(code), se.Code)
			require.True(w, se.Remote)
			require.Equal(w, b2.StreamID(), se.StreamID)
			require.ErrorIs(w, err, &transport.StreamError{Code: code})
			b1.CancelRead(code)
			<-b2.Context().Done()
			_, err = b2.Write([]byte("x"))
			require.ErrorAs(w, err, &se)
			require.Equal(w, uint32(code), se.Code)
			_, err = b1.Write([]byte("x"))
			require.ErrorAs(w, err, &se)
			require.False(w, se.Remote)
		}
		require.NoError(w, one.Close())
	})
}

func TestErrorsSayWhatHappened(t *testing.T) {
	gone := errors.New("it is gone")
	for want, err := range map[string]error{
		"webtransport: session closed by remote: code 3: \"so\"":                           &webtransport.SessionError{Code: 3, Reason: "so", Remote: true},
		"webtransport: session closed by local: code 0":                                    &webtransport.SessionError{},
		"webtransport: session lost: it is gone":                                           &webtransport.SessionError{Err: gone},
		"webtransport: stream 4 cancelled by remote: code 3":                               &webtransport.StreamError{StreamID: 4, Code: 3, Remote: true, HTTP3: webtransport.ToHTTP(3)},
		"webtransport: stream 4 cancelled by remote: the session is gone":                  &webtransport.StreamError{StreamID: 4, Remote: true, HTTP3: codeGone},
		"webtransport: stream 4 cancelled by local: HTTP/3 error 0x10c":                    &webtransport.StreamError{StreamID: 4, HTTP3: http3.ErrRequestCancelled},
		"webtransport: the server answered 403 Forbidden":                                  &webtransport.StatusError{StatusCode: 403},
		"webtransport: no wings":                                                           &webtransport.RequirementsError{Missing: "wings"},
		"webtransport: stream 8 cancelled by remote: no session, or too many streams wait": &webtransport.StreamError{StreamID: 8, Remote: true, HTTP3: codeRejected},
	} {
		require.EqualError(t, err, want)
	}
	require.ErrorIs(t, &webtransport.SessionError{Err: gone}, gone)
	require.ErrorIs(t, &webtransport.SessionError{Code: 3}, &webtransport.SessionError{Code: 3})
	require.NotErrorIs(t, &webtransport.SessionError{Code: 3}, &webtransport.SessionError{Code: 3, Err: gone})
	require.ErrorIs(t, &webtransport.RequirementsError{}, errors.ErrUnsupported)
}

func TestCodesSurviveTheirWayThroughHTTP(t *testing.T) {
	require.EqualValues(t, 0x52e4a40fa8db, webtransport.ToHTTP(0))
	require.EqualValues(t, 0x52e5ac983162, webtransport.ToHTTP(1<<32-1))
	for _, n := range []uint32{0, 1, 28, 29, 30, 31, 32, 59, 60, 61, 1 << 16, 1<<31 - 1, 1 << 31, 1<<32 - 2, 1<<32 - 1} {
		h := webtransport.ToHTTP(n)
		require.NotZero(t, (h-0x21)%0x1f, "code %#x is reserved", uint64(h))
		back, ok := webtransport.FromHTTP(h)
		require.True(t, ok)
		require.Equal(t, n, back)
	}
	for _, h := range []transport.ErrorCode{0, 0x10c, 0x52e4a40fa8da, 0x52e5ac983163, codeGone, 0x52e4a40fa8f9} {
		_, ok := webtransport.FromHTTP(h)
		require.False(t, ok, "%#x", uint64(h))
	}
}

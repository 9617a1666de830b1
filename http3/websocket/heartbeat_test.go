package websocket_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/websocket"
)

func TestAHeartbeatPingsEveryTwentySeconds(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{Heartbeat: &websocket.Heartbeat{}}, "")
		go func() { _ = echo(c) }() // ends with the connection
		last := time.Now()
		for range 5 {
			f := peer.next()
			require.Equal(l, byte(opPing), f.op)
			require.InDelta(l, 20, time.Since(last).Seconds(), 1)
			last = time.Now()
			peer.send(pong(f.content))
		}
		require.NoError(l, c.Context().Err())
	})
}

func TestAPeerThatIsSilentIsGone(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{Heartbeat: &websocket.Heartbeat{Interval: 10 * time.Second, Timeout: 25 * time.Second}}, "")
		start := time.Now()
		time.AfterFunc(5*time.Second, func() { peer.send(text("hello")) })
		err := echo(c)
		e := closeError(l, err)
		require.Equal(l, websocket.StatusAbnormal, e.Code)
		require.ErrorIs(l, e, websocket.ErrHeartbeat)
		var timeout net.Error
		require.ErrorAs(l, errors.Unwrap(&onlyErr{e.Err}), &timeout)
		require.True(l, timeout.Timeout())
		require.InDelta(l, 35, time.Since(start).Seconds(), 1)
		<-c.Context().Done()
	})
}

type onlyErr struct{ err error }

func (o *onlyErr) Error() string { return o.err.Error() }
func (o *onlyErr) Unwrap() error { return o.err }

// What comes shows that the peer is there, whether it is a pong or not.
func TestAnyFrameIsASignOfLife(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{Heartbeat: &websocket.Heartbeat{Interval: time.Second, Timeout: time.Second}}, "")
		go func() { // ends with the connection
			for {
				if _, _, err := c.Read(l.Context()); err != nil {
					return
				}
			}
		}()
		for range 100 {
			peer.send(text("busy"))
			time.Sleep(500 * time.Millisecond)
		}
		require.NoError(l, c.Context().Err())
	})
}

// Nobody can be called silent who is not listened to.
func TestAnApplicationThatDoesNotReadKeepsItsPeer(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{Heartbeat: &websocket.Heartbeat{Interval: time.Second, Timeout: time.Second}}, "")
		peer.send(text("one"))
		time.Sleep(20 * time.Second)
		require.NoError(l, c.Context().Err())
		_, p, err := c.Read(l.Context())
		require.NoError(l, err)
		require.Equal(l, "one", string(p))
		start := time.Now()
		_, _, err = c.Read(l.Context())
		require.ErrorIs(l, err, websocket.ErrHeartbeat)
		require.GreaterOrEqual(l, time.Since(start), time.Second)
		require.Less(l, time.Since(start), 3*time.Second)
	})
}

func TestWithoutAHeartbeatThereIsNoPing(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		ctx, cancel := context.WithTimeout(l.Context(), time.Hour)
		defer cancel()
		_, _, err := c.Read(ctx)
		require.ErrorIs(l, err, context.DeadlineExceeded)
		require.True(l, peer.silent())
	})
}

// The same once with the clock of the machine.
func TestAHeartbeatOnTheClock(t *testing.T) {
	ended := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			Heartbeat: &websocket.Heartbeat{Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond},
		})
		if err == nil {
			err = echo(c)
		}
		ended <- err
	}))
	defer srv.Close()
	start := time.Now()
	c, err := websocket.Dial(t.Context(), srv.URL, nil)
	require.NoError(t, err)
	defer c.CloseNow()
	require.ErrorIs(t, <-ended, websocket.ErrHeartbeat) // the client does not read
	require.GreaterOrEqual(t, time.Since(start), 200*time.Millisecond)
}

func TestPingWaitsForItsOwnPong(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		go func() { _ = echo(c) }() // ends with the connection
		done := make(chan error, 1)
		go func() { done <- c.Ping(l.Context()) }()
		f := peer.next()
		require.Equal(l, byte(opPing), f.op)
		peer.send(pong("other"), pong(""))
		require.True(l, peer.silent())
		require.Empty(l, done)
		peer.send(pong(f.content))
		require.NoError(l, <-done)

		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		require.ErrorIs(l, c.Ping(ctx), context.DeadlineExceeded)
		require.NoError(l, c.Context().Err(), "it is not for a Ping to end the connection")
	})
}

// A peer that pings and does not read costs a bounded amount of memory.
func TestPingsThatNobodyWaitsFor(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		go func() { _ = echo(c) }() // ends with the connection
		for range 1000 {
			peer.send(repeat(10, ping("are you there?"))...)
		}
		peer.send(text("after all"))
		pongs := 0
		for {
			f := peer.next()
			if f.op == opText {
				require.Equal(l, "after all", f.content)
				break
			}
			require.Equal(l, pong("are you there?"), f)
			pongs++
		}
		require.LessOrEqual(l, pongs, 10_000)
		require.Positive(l, pongs)
	})
}

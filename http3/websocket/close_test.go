package websocket_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/websocket"
	"github.com/anyquic/anyquic/transport"
)

func TestCloseSendsItsFrameAndTheEndOfTheStream(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		start := time.Now()
		require.NoError(l, c.Close(4321, "enough"))
		require.Equal(l, start, time.Now(), "Close waits for the peer")
		require.Equal(l, closing(4321, "enough"), peer.next())
		require.NoError(l, c.Close(websocket.StatusNormal, "again"))
		require.NoError(l, c.CloseNow())
		peer.send(text("too late"), closing(4321, "enough"))
		peer.finish()
		require.Empty(l, peer.rest())
		_, _, err := c.Read(l.Context())
		e := closeError(l, err)
		require.Equal(l, &websocket.CloseError{Code: 4321, Reason: "enough"}, e)
		require.ErrorIs(l, c.Write(l.Context(), websocket.Text, nil), e)
		require.ErrorIs(l, c.Ping(l.Context()), e)
		<-c.Context().Done()
		require.Equal(l, error(e), context.Cause(c.Context()))
		require.Less(l, time.Since(start), time.Second)
	})
}

func TestCloseInterruptsAReadAndAWaitingWrite(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		w, err := c.Writer(l.Context(), websocket.Text)
		require.NoError(l, err)
		results := make(chan error, 3)
		go func() { // ends with the connection
			_, _, err := c.Read(l.Context())
			results <- err
		}()
		go func() { results <- c.Write(l.Context(), websocket.Text, nil) }()
		go func() { results <- c.Ping(l.Context()) }()
		require.Equal(l, byte(opPing), peer.next().op)
		synctest.Wait()
		require.NoError(l, c.Close(websocket.StatusGoingAway, ""))
		for range 3 {
			require.Equal(l, websocket.StatusGoingAway, closeError(l, <-results).Code)
		}
		require.Error(l, w.Close())
	})
}

// What the peer has under way when we close is read over, wherever a Read was.
func TestAPeersAnswerIsFoundBehindItsMessages(t *testing.T) {
	roles(t, func(l *lab, us role) {
		sent := frames(parts(opText, "one ", "two ", "three"), ping(""), data("next"), text(""), closing(1000, ""))
		for cut := 0; ; cut++ {
			c, peer := l.connect(us, websocket.AcceptOptions{}, "")
			b := peer.encode(sent...)
			if cut > len(b)-8 {
				return
			}
			go func() { _ = discard(c) }() // ends with the connection
			peer.sendBytes(b[:cut], 0)
			time.Sleep(time.Second)
			start := time.Now()
			require.NoError(l, c.Close(websocket.StatusNormal, ""))
			peer.sendBytes(b[cut:], 0)
			if us == asClient {
				peer.finish()
			}
			<-c.Context().Done()
			if us == asClient || l.proto == "HTTP/1.1" {
				require.Less(l, time.Since(start), time.Second, "after %d bytes", cut)
			}
		}
	})
}

// discard reads messages.
func discard(c *websocket.Conn) error {
	for {
		if _, _, err := c.Read(context.Background()); err != nil {
			return err
		}
	}
}

func TestAPeerThatDoesNotAnswerACloseIsLeftAfterFiveSeconds(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		start := time.Now()
		require.NoError(l, c.Close(websocket.StatusNormal, ""))
		require.Equal(l, byte(opClose), peer.next().op)
		<-c.Context().Done()
		took := time.Since(start)
		require.GreaterOrEqual(l, took, 5*time.Second)
		require.Less(l, took, 6*time.Second)
	})
}

func TestCloseWithoutRoomGivesUpAfterFiveSeconds(t *testing.T) {
	versions(t, func(l *lab) {
		server, client := l.both(nil, nil)
		for _, c := range []*websocket.Conn{server, client} {
			if c == client && client.Context().Err() == nil {
				_, client = l.both(nil, nil)
				c = client
			}
			var wg sync.WaitGroup
			wg.Go(func() { _ = c.Write(l.Context(), websocket.Binary, make([]byte, 64<<20)) })
			time.Sleep(time.Second) // the write has begun
			start := time.Now()
			require.ErrorIs(l, c.Close(websocket.StatusNormal, ""), context.DeadlineExceeded)
			require.Equal(l, 5*time.Second, time.Since(start))
			wg.Wait()
			<-c.Context().Done()
		}
	})
}

func TestCodesThatMustNotBeSentAreNot(t *testing.T) {
	versions(t, func(l *lab) {
		for _, code := range []websocket.StatusCode{0, 999, 1004, websocket.StatusAbnormal, 1015, 1016, 2999, 5000, 65535} {
			server, client := l.both(nil, nil)
			require.Error(l, server.Close(code, "x"))
			_, _, err := client.Read(l.Context())
			require.Equal(l, &websocket.CloseError{Code: websocket.StatusInternalError, Remote: true}, closeError(l, err))
		}
		server, client := l.both(nil, nil)
		require.NoError(l, server.Close(websocket.StatusNoStatus, ""))
		_, _, err := client.Read(l.Context())
		require.Equal(l, &websocket.CloseError{Code: websocket.StatusNoStatus, Remote: true}, closeError(l, err))
	})
}

func TestALongReasonIsCutAtACharacter(t *testing.T) {
	versions(t, func(l *lab) {
		for _, reason := range []string{strings.Repeat("x", 124), strings.Repeat("\u2603", 60), "x" + strings.Repeat("\u00e9", 70), "caf\xe9"} {
			server, client := l.both(nil, nil)
			require.NoError(l, server.Close(websocket.StatusNormal, reason))
			_, _, err := client.Read(l.Context())
			got := closeError(l, err).Reason
			require.True(l, utf8.ValidString(got))
			require.LessOrEqual(l, len(got), 123)
			if utf8.ValidString(reason) {
				require.True(l, strings.HasPrefix(reason, got))
				require.Greater(l, len(got), 119)
			}
		}
	})
}

// Both ends may close at once, in any number of goroutines: each learns its own
// reason or the other's, and both end at once.
func TestClosesThatCross(t *testing.T) {
	versions(t, func(l *lab) {
		for range 20 {
			server, client := l.both(nil, nil)
			start := time.Now()
			var wg sync.WaitGroup
			for i, c := range []*websocket.Conn{server, client} {
				wg.Go(func() { _ = echo(c) })
				for range 3 {
					wg.Go(func() { _ = c.Close(websocket.StatusCode(3000+i), "") })
					wg.Go(func() { _ = c.Write(l.Context(), websocket.Text, []byte("x")) })
				}
			}
			wg.Wait()
			for _, c := range []*websocket.Conn{server, client} {
				<-c.Context().Done()
				var e *websocket.CloseError
				require.ErrorAs(l, context.Cause(c.Context()), &e)
				require.GreaterOrEqual(l, e.Code, websocket.StatusCode(3000), "%v", e)
			}
			require.Less(l, time.Since(start), time.Second)
		}
	})
}

func TestCloseNowResetsTheStream(t *testing.T) {
	versions(t, func(l *lab) {
		server, client := l.both(nil, nil)
		require.NoError(l, server.CloseNow())
		require.Error(l, server.Context().Err())
		_, _, err := client.Read(l.Context())
		e := closeError(l, err)
		require.Equal(l, websocket.StatusAbnormal, e.Code)
		if l.proto == "HTTP/3.0" {
			var h3 *http3.Error
			require.ErrorAs(l, e, &h3)
			require.Equal(l, http3.ErrRequestCancelled, h3.Code)
		}
	})
}

func TestTheEndOfTheConnectionBelowIsNoticedWithoutARead(t *testing.T) {
	versions(t, func(l *lab) {
		if l.proto == "HTTP/1.1" {
			return // nobody listens there but a Read
		}
		server, client := l.both(nil, nil)
		if l.proto == "HTTP/3.0" {
			require.NoError(l, client.HTTP3().Transport().CloseWithError(http3.ErrNoError, ""))
		} else {
			require.NoError(l, client.CloseNow())
		}
		<-server.Context().Done()
		var e *websocket.CloseError
		require.ErrorAs(l, context.Cause(server.Context()), &e)
		require.Equal(l, websocket.StatusAbnormal, e.Code)
		var ended *transport.ApplicationError
		require.Equal(l, l.proto == "HTTP/3.0", errors.As(e, &ended), "%v", e)
	})
}

func TestAGroupGoesAwayWithItsServer(t *testing.T) {
	versions(t, func(l *lab) {
		group := new(websocket.Group)
		var clients []*websocket.Conn
		for range 3 {
			_, c := l.both(&websocket.AcceptOptions{Group: group}, nil)
			clients = append(clients, c)
		}
		gone := make(chan error, len(clients))
		for _, c := range clients {
			go func() { gone <- echo(c) }() // ends with the connection
		}
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- group.Shutdown(l.Context()) }()
		require.NoError(l, l.shutdown(l.Context()))
		require.NoError(l, <-done)
		for range clients {
			e := closeError(l, <-gone)
			require.True(l, e.Remote)
			require.Equal(l, websocket.StatusGoingAway, e.Code)
		}
		require.Less(l, time.Since(start), 5*time.Second)
	})
}

func TestAGroupGivesUpWithItsContext(t *testing.T) {
	versions(t, func(l *lab) {
		group := new(websocket.Group)
		l.both(&websocket.AcceptOptions{Group: group}, nil) // whose client does not read
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		require.ErrorIs(l, group.Shutdown(ctx), context.DeadlineExceeded)
		_, err := l.dial("/accept", websocket.DialOptions{})
		var e *websocket.HandshakeError
		require.ErrorAs(l, err, &e)
		require.Equal(l, http.StatusServiceUnavailable, e.StatusCode)
		require.Error(l, (<-l.accepted).err)
	})
}

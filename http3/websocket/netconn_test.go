package websocket_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/websocket"
)

// pipe returns both ends of a connection as streams of bytes.
func pipe(l *lab) (server, client net.Conn, s, c *websocket.Conn) {
	l.Helper()
	s, c = l.both(&websocket.AcceptOptions{Compression: true}, nil)
	return websocket.NetConn(l.Context(), s, websocket.Binary), websocket.NetConn(l.Context(), c, websocket.Binary), s, c
}

func TestANetConnCarriesAnyNumberOfBytes(t *testing.T) {
	versions(t, func(l *lab) {
		server, client, _, _ := pipe(l)
		go func() { _, _ = io.Copy(server, server) }() // ends with the connection
		s := strings.Repeat("0123456789abcdef", 20<<10)
		go func() { _, _ = io.Copy(client, strings.NewReader(s)) }()
		got := make([]byte, len(s))
		_, err := io.ReadFull(client, got)
		require.NoError(l, err)
		require.True(l, s == string(got))
		require.NoError(l, client.Close())
		_, err = client.Read(got)
		require.ErrorIs(l, err, net.ErrClosed)
		_, err = client.Write(got)
		require.ErrorIs(l, err, net.ErrClosed)
	})
}

func TestANetConnEndsWithItsPeers(t *testing.T) {
	versions(t, func(l *lab) {
		for _, code := range []websocket.StatusCode{websocket.StatusNormal, websocket.StatusGoingAway, websocket.StatusInternalError} {
			server, _, _, c := pipe(l)
			closed := make(chan error, 1)
			go func() { closed <- c.Close(code, "") }()
			for range 2 {
				_, err := server.Read(make([]byte, 1))
				if code == websocket.StatusInternalError {
					require.Equal(l, code, closeError(l, err).Code)
					continue
				}
				require.Equal(l, io.EOF, err)
			}
			require.NoError(l, <-closed)
		}
	})
}

func TestDeadlinesOfANetConn(t *testing.T) {
	versions(t, func(l *lab) {
		server, client, s, _ := pipe(l)
		isTimeout := func(err error) {
			l.Helper()
			require.ErrorIs(l, err, os.ErrDeadlineExceeded)
			var ne net.Error
			require.True(l, errors.As(err, &ne) && ne.Timeout())
		}
		buf := make([]byte, 8)
		for range 2 { // a deadline that has passed may be set again
			require.NoError(l, client.SetReadDeadline(time.Now().Add(time.Second)))
			start := time.Now()
			_, err := client.Read(buf)
			isTimeout(err)
			require.Equal(l, time.Second, time.Since(start))
			_, err = client.Read(buf)
			isTimeout(err)
		}
		// One that comes while a Read waits, and one that goes.
		require.NoError(l, client.SetDeadline(time.Time{}))
		time.AfterFunc(time.Second, func() { require.NoError(l, client.SetReadDeadline(time.Unix(1, 0))) })
		_, err := client.Read(buf)
		isTimeout(err)
		require.NoError(l, client.SetReadDeadline(time.Now().Add(time.Second)))
		require.NoError(l, client.SetReadDeadline(time.Time{}))
		time.AfterFunc(time.Minute, func() { _, _ = server.Write([]byte("late")) })
		n, err := client.Read(buf)
		require.NoError(l, err)
		require.Equal(l, "late", string(buf[:n]))

		// A write that has not begun.
		require.NoError(l, client.SetWriteDeadline(time.Unix(1, 0)))
		_, err = client.Write(buf)
		isTimeout(err)
		require.NoError(l, client.SetWriteDeadline(time.Time{}))
		go func() { _, _ = client.Write([]byte("on time")) }()
		n, err = server.Read(buf)
		require.NoError(l, err)
		require.Equal(l, "on time", string(buf[:n]))

		// One that has.
		require.NoError(l, server.SetWriteDeadline(time.Now().Add(time.Second)))
		_, err = server.Write(make([]byte, 64<<20))
		isTimeout(err)
		<-s.Context().Done()
		require.NoError(l, server.SetWriteDeadline(time.Time{}))
		for _, f := range []func([]byte) (int, error){server.Write, server.Read} {
			_, err = f(buf)
			require.ErrorIs(l, err, net.ErrClosed)
			var ne net.Error
			require.False(l, errors.As(err, &ne) && ne.Timeout())
		}
	})
}

func TestANetConnRefusesOtherMessages(t *testing.T) {
	versions(t, func(l *lab) {
		server, _, _, c := pipe(l)
		go func() { _ = c.Write(l.Context(), websocket.Text, []byte("text")) }()
		_, err := server.Read(make([]byte, 10))
		require.Equal(l, websocket.StatusUnsupportedData, closeError(l, err).Code)
		_, _, err = c.Read(l.Context())
		e := closeError(l, err)
		require.Equal(l, websocket.StatusUnsupportedData, e.Code)
		require.True(l, e.Remote)
	})
}

func TestANetConnEndsWithItsContext(t *testing.T) {
	versions(t, func(l *lab) {
		s, c := l.both(nil, nil)
		ctx, cancel := context.WithCancel(l.Context())
		nc := websocket.NetConn(ctx, s, websocket.Binary)
		time.AfterFunc(time.Second, cancel)
		_, err := nc.Read(make([]byte, 1))
		require.Error(l, err)
		<-s.Context().Done()
		_, _, err = c.Read(l.Context())
		closeError(l, err)
	})
}

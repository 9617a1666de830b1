package pipenet_test

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/pipenet"
)

var at net.Addr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}

func TestBothEndsOfAConnectionTalk(t *testing.T) {
	for _, buffer := range []int{0, 1, 1000} {
		synctest.Test(t, func(t *testing.T) {
			l := pipenet.Listen(at, buffer)
			require.Equal(t, at, l.Addr())
			go func() { // ends with the client's Close
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = io.Copy(c, c) // the client says what is wrong
			}()
			c, err := l.Dial(t.Context())
			require.NoError(t, err)
			require.Equal(t, at, c.RemoteAddr())
			require.Equal(t, pipenet.ClientAddr, c.LocalAddr())
			go func() { _, _ = c.Write([]byte("hello")) }() // ends with Read
			p := make([]byte, 5)
			_, err = io.ReadFull(c, p)
			require.NoError(t, err)
			require.Equal(t, "hello", string(p))

			require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Second)))
			_, err = c.Read(p)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, c.Close())
		})
	}
}

func TestDropEndsBothEnds(t *testing.T) {
	for _, buffer := range []int{0, 10} {
		synctest.Test(t, func(t *testing.T) {
			l := pipenet.Listen(at, buffer)
			server := make(chan error, 1)
			go func() { // ends with the connection
				c, err := l.Accept()
				if err == nil {
					_, err = c.Read(make([]byte, 1))
				}
				server <- err
			}()
			c, err := l.Dial(t.Context())
			require.NoError(t, err)
			l.Drop()
			_, err = c.Read(make([]byte, 1))
			require.Error(t, err)
			require.Error(t, <-server)
		})
	}
}

func TestAWriteWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipenet.Listen(at, 10)
		go func() { _, _ = l.Accept() }() // nobody reads
		c, err := l.Dial(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := c.Write(make([]byte, 11))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 10, n)
		require.NoError(t, c.Close())
	})
}

func TestAClosedListenerRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipenet.Listen(at, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := l.Dial(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		_, err = l.Dial(t.Context())
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

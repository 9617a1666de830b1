package websocket_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/websocket"
)

// closeError returns err as a *CloseError.
func closeError(t require.TestingT, err error) *websocket.CloseError {
	var e *websocket.CloseError
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, net.ErrClosed)
	return e
}

func TestTextAndBinaryAreEchoed(t *testing.T) {
	versions(t, func(l *lab) {
		server, client := l.both(nil, nil)
		go func() { _ = echo(server) }() // ends with the connection
		for _, typ := range []websocket.MessageType{websocket.Text, websocket.Binary} {
			for _, s := range []string{"", "x", "Gr\u00fc\u00dfe", strings.Repeat("0123456789abcdef", 2<<10)} {
				require.NoError(l, client.Write(l.Context(), typ, []byte(s)))
				got, p, err := client.Read(l.Context())
				require.NoError(l, err)
				require.Equal(l, typ, got)
				require.Equal(l, s, string(p))
			}
		}
	})
}

func TestAMegabyteStreamsBothWays(t *testing.T) {
	versions(t, func(l *lab) {
		server, client := l.both(&websocket.AcceptOptions{ReadLimit: 1 << 20}, nil)
		client.SetReadLimit(1 << 20)
		s := strings.Repeat("0123456789abcdef", 64<<10)
		go func() { // ends with the message
			_, r, err := server.Reader(l.Context())
			if err != nil {
				return
			}
			w, err := server.Writer(l.Context(), websocket.Text)
			if err != nil {
				return
			}
			_, _ = io.Copy(w, r) // the client says it
			_ = w.Close()        // likewise
		}()
		go func() { _ = client.Write(l.Context(), websocket.Text, []byte(s)) }()
		_, p, err := client.Read(l.Context())
		require.NoError(l, err)
		require.True(l, s == string(p))
	})
}

func TestAMessageOverTheLimitEndsTheConnectionWith1009(t *testing.T) {
	roles(t, func(l *lab, us role) {
		for _, tc := range []struct {
			limit int64
			size  int
			piece int
			ok    bool
		}{
			{0, 32 << 10, 1 << 20, true}, {0, 32<<10 + 1, 1 << 20, false},
			{100, 100, 7, true}, {100, 101, 7, false}, {100, 1 << 16, 1 << 20, false},
			{-1, 200 << 10, 1 << 20, true},
		} {
			c, peer := l.connect(us, websocket.AcceptOptions{ReadLimit: tc.limit}, "")
			peer.send(parts(opBinary, split(strings.Repeat("x", tc.size), tc.piece)...)...)
			_, p, err := c.Read(l.Context())
			if tc.ok {
				require.NoError(l, err)
				require.Len(l, p, tc.size)
				continue
			}
			require.Equal(l, websocket.StatusMessageTooBig, closeError(l, err).Code)
			got := peer.rest()
			require.Len(l, got, 1)
			require.Equal(l, closing(1009, "").content, got[0].content[:2])
		}
	})
}

// A frame's length is an announcement, and no reason to set memory aside.
func TestAnAnnouncedLengthCostsNothing(t *testing.T) {
	versions(t, func(l *lab) {
		c, peer := l.connect(asClient, websocket.AcceptOptions{ReadLimit: -1}, "")
		peer.sendBytes([]byte{0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'x'}, 0)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		_, _, err := c.Read(ctx)
		require.ErrorIs(l, err, context.DeadlineExceeded)
		runtime.ReadMemStats(&after)
		require.Less(l, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
	})
}

func TestFramesWithAWrongHead(t *testing.T) {
	roles(t, func(l *lab, us role) {
		mask := byte(0)
		key := ""
		if us == asServer {
			mask, key = 0x80, "\x00\x00\x00\x00"
		}
		one := func(b byte) string { return string([]byte{b}) }
		for _, tc := range []struct{ name, bytes string }{
			{"wrong mask", "\x82" + one(0x81^mask) + "\x00\x00\x00\x00x"},
			{"control frame with wrong mask", "\x89" + one(0x80^mask) + "\x00\x00\x00\x00"},
			{"two bytes of length for one", "\x82" + one(126|mask) + "\x00\x7d" + key + strings.Repeat("x", 125)},
			{"eight bytes of length for two", "\x82" + one(127|mask) + "\x00\x00\x00\x00\x00\x00\xff\xff" + key},
			{"length over 63 bits", "\x82" + one(127|mask) + "\x80\x00\x00\x00\x00\x00\x00\x00" + key},
			{"long control frame", "\x8a" + one(126|mask) + "\x00\x7e" + key},
		} {
			c, peer := l.connect(us, websocket.AcceptOptions{}, "")
			peer.sendBytes([]byte(tc.bytes), 0)
			_, _, err := c.Read(l.Context())
			require.Equal(l, websocket.StatusProtocolError, closeError(l, err).Code, tc.name)
			got := peer.rest()
			require.Len(l, got, 1, tc.name)
			require.Equal(l, closing(1002, "").content, got[0].content[:2], tc.name)
		}
	})
}

// Autobahn's 6.4.3 and 6.4.4, where it is strict.
func TestInvalidTextEndsTheConnectionWithinTheFrame(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		go func() { _ = echo(c) }() // ends with the connection
		b := peer.encode(text(unhex("cebae1bdb9cf83cebcceb5") + unhex("f4908080") + "edited"))
		n := len(b) - len("edited")
		peer.sendBytes(b[:n-3], 0) // what is sent so far could go on well
		require.True(l, peer.silent())
		peer.sendBytes(b[n-3:n-2], 0)
		got := peer.next()
		require.Equal(l, byte(opClose), got.op)
		require.Equal(l, closing(1007, "").content, got.content[:2])
	})
}

func TestAReadThatIsInterruptedGoesOnInTheMessage(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		b := peer.encode(parts(opText, "one ", "two ", "three")...)
		for i := range b {
			ctx, cancel := context.WithTimeout(l.Context(), time.Second)
			_, _, err := c.Read(ctx)
			cancel()
			require.ErrorIs(l, err, context.DeadlineExceeded, i)
			peer.sendBytes(b[i:i+1], 0)
		}
		typ, p, err := c.Read(l.Context())
		require.NoError(l, err)
		require.Equal(l, websocket.Text, typ)
		require.Equal(l, "one two three", string(p))

		// What Read has begun, a Reader ends.
		peer.sendBytes(b[:len(b)-1], 0)
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		_, _, err = c.Read(ctx)
		require.ErrorIs(l, err, context.DeadlineExceeded)
		_, r, err := c.Reader(l.Context())
		require.NoError(l, err)
		peer.sendBytes(b[len(b)-1:], 0)
		p, err = io.ReadAll(r)
		require.NoError(l, err)
		require.Equal(l, "one two three", string(p))
		n, err := r.Read(make([]byte, 1))
		require.Zero(l, n)
		require.Equal(l, io.EOF, err)
	})
}

func TestAReaderSkipsWhatItsPredecessorLeft(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		peer.send(parts(opText, "one ", "two ", "three")...)
		peer.send(data("next"), data("last"))
		_, old, err := c.Reader(l.Context())
		require.NoError(l, err)
		_, err = io.ReadFull(old, make([]byte, 5))
		require.NoError(l, err)
		typ, r, err := c.Reader(l.Context())
		require.NoError(l, err)
		require.Equal(l, websocket.Binary, typ)
		_, err = old.Read(make([]byte, 1))
		require.Error(l, err)
		require.NotErrorIs(l, err, io.EOF)
		p, err := io.ReadAll(r)
		require.NoError(l, err)
		require.Equal(l, "next", string(p))
		_, p, err = c.Read(l.Context())
		require.NoError(l, err)
		require.Equal(l, "last", string(p))
	})
}

func TestAContextThatHasEndedWritesNothing(t *testing.T) {
	versions(t, func(l *lab) {
		server, client := l.both(nil, nil)
		ctx, cancel := context.WithCancel(l.Context())
		cancel()
		require.ErrorIs(l, client.Write(ctx, websocket.Text, []byte("x")), context.Canceled)
		_, err := client.Writer(ctx, websocket.Text)
		require.ErrorIs(l, err, context.Canceled)
		go func() { _ = client.Write(l.Context(), websocket.Text, []byte("y")) }()
		_, p, err := server.Read(l.Context())
		require.NoError(l, err)
		require.Equal(l, "y", string(p))
	})
}

func TestAContextThatEndsWithinAWriteEndsTheConnection(t *testing.T) {
	versions(t, func(l *lab) {
		server, client := l.both(nil, nil)
		for _, c := range []*websocket.Conn{server, client} {
			ctx, cancel := context.WithTimeout(l.Context(), time.Second)
			err := c.Write(ctx, websocket.Binary, make([]byte, 64<<20)) // which nobody reads
			cancel()
			if c == client {
				closeError(l, err) // or what the server's end has done to it
				continue
			}
			require.ErrorIs(l, err, context.DeadlineExceeded)
			e := closeError(l, err)
			require.Equal(l, websocket.StatusAbnormal, e.Code)
			require.False(l, e.Remote)
			_, _, err = c.Read(l.Context())
			require.Equal(l, e, closeError(l, err))
			<-c.Context().Done()
			require.Equal(l, error(e), context.Cause(c.Context()))
		}
	})
}

func TestASlowReaderHoldsABoundedAmountOfMemory(t *testing.T) {
	versions(t, func(l *lab) {
		server, client := l.both(nil, nil)
		sent := make(chan int, 1)
		go func() { // ends with the connection
			n := 0
			for server.Write(l.Context(), websocket.Binary, make([]byte, 16<<10)) == nil {
				n++
			}
			sent <- n
		}()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.NoError(l, client.CloseNow())
		require.Less(l, <-sent, 24<<20/(16<<10), "what the windows of the connection take")
	})
}

func TestConcurrentWritersDoNotMixTheirMessages(t *testing.T) {
	versions(t, func(l *lab) {
		server, client := l.both(nil, nil)
		const writers, each = 8, 25
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				for range each {
					s := strings.Repeat(string(rune('a'+i)), 1+i*900)
					if i%2 == 0 {
						require.NoError(l, client.Write(l.Context(), websocket.Text, []byte(s)))
						continue
					}
					w, err := client.Writer(l.Context(), websocket.Text)
					require.NoError(l, err)
					for _, p := range split(s, 1000) {
						_, err = w.Write([]byte(p))
						require.NoError(l, err)
					}
					require.NoError(l, w.Close())
				}
			})
		}
		wg.Go(func() {
			for range each {
				require.NoError(l, client.Ping(l.Context()))
			}
		})
		reading := make(chan error, 1)
		go func() { // ends with the connection
			_, _, err := client.Read(l.Context())
			reading <- err
		}()
		count := make(map[byte]int)
		for range writers * each {
			_, p, err := server.Read(l.Context())
			require.NoError(l, err)
			require.Equal(l, 1+int(p[0]-'a')*900, len(p))
			require.Equal(l, strings.Repeat(string(p[:1]), len(p)), string(p))
			count[p[0]]++
		}
		go func() { _, _, _ = server.Read(l.Context()) }() // answers pings; ends with the connection
		wg.Wait()
		require.Len(l, count, writers)
		for _, n := range count {
			require.Equal(l, each, n)
		}
		require.NoError(l, server.Close(websocket.StatusNormal, ""))
		require.True(l, closeError(l, <-reading).Remote)
	})
}

func TestAResetIsAnAbnormalEnd(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		read := make(chan error, 1)
		go func() { // ends with the connection
			_, _, err := c.Read(l.Context())
			read <- err
		}()
		peer.send(frame{op: opText, part: true, content: "cut"})
		synctest.Wait()
		peer.reset()
		e := closeError(l, <-read)
		require.Equal(l, websocket.StatusAbnormal, e.Code)
		require.False(l, e.Remote)
		require.Error(l, e.Err)
		if l.proto == "HTTP/3.0" {
			var h3 *http3.Error
			require.ErrorAs(l, e, &h3)
			require.True(l, h3.Remote)
			require.Equal(l, http3.ErrRequestCancelled, h3.Code)
		}
		require.ErrorIs(l, c.Write(l.Context(), websocket.Text, nil), e)
		<-c.Context().Done()
	})
}

func TestAnEndWithoutACloseFrameIsAbnormal(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{}, "")
		peer.send(text("last words"))
		if l.proto == "HTTP/1.1" {
			peer.out <- peer.reset // it has no other end
		} else {
			peer.finish()
		}
		_, p, err := c.Read(l.Context())
		require.NoError(l, err)
		require.Equal(l, "last words", string(p))
		_, _, err = c.Read(l.Context())
		e := closeError(l, err)
		require.Equal(l, websocket.StatusAbnormal, e.Code)
		require.True(l, errors.Is(e, io.ErrUnexpectedEOF) || l.proto == "HTTP/2.0" && us == asClient, "%v", e)
	})
}

func TestWritesThatAreTheCallersMistake(t *testing.T) {
	versions(t, func(l *lab) {
		server, client := l.both(nil, nil)
		require.Error(l, client.Write(l.Context(), websocket.Text, []byte("caf\xe9")))
		require.Error(l, client.Write(l.Context(), 8, nil))
		_, err := client.Writer(l.Context(), 0)
		require.Error(l, err)
		go func() { _ = echo(server) }() // ends with the connection
		require.NoError(l, client.Write(l.Context(), websocket.Binary, []byte("caf\xe9")))
		_, p, err := client.Read(l.Context())
		require.NoError(l, err)
		require.Equal(l, "caf\xe9", string(p))

		w, err := client.Writer(l.Context(), websocket.Text)
		require.NoError(l, err)
		_, err = w.Write([]byte("caf\xc3"))
		require.NoError(l, err)
		_, err = w.Write([]byte("caf"))
		require.Error(l, err)
		require.Error(l, w.Close())
		_, _, err = client.Read(l.Context())
		require.Equal(l, websocket.StatusInternalError, closeError(l, err).Code)
	})
}

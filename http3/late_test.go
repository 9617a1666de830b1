package http3

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// lateConns runs f with a Conn that was not started, so that all it writes is
// flushed by f, and with the other side of its connection. Afterwards nothing of the
// Conn runs.
func lateConns(t *testing.T, f func(t *testing.T, c *Conn, peer transport.Conn)) {
	t.Helper()
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const addr = "192.0.2.1:443"
				n := transporttest.NewNetwork(1)
				defer n.Close()
				open := func(addr string) transport.Endpoint {
					ep, err := e.Open(n.Socket(addr, transporttest.Link{}, transporttest.Link{}), nil)
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, ep.Close()) })
					return ep
				}
				server, client := testcert.New(ALPN)
				ln, err := open(addr).Listen(&transport.Config{TLS: server})
				require.NoError(t, err)
				qc, err := open("198.51.100.1:5000").Dial(t.Context(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)), &transport.Config{TLS: client})
				require.NoError(t, err)
				peer, err := ln.Accept(t.Context())
				require.NoError(t, err)
				c := newConn(qc, true, 1<<20, new(Extensions))
				f(t, c, peer)
				c.endLate()
				c.wg.Wait()
				c.codec.end()
				qc.CloseWithError(ErrNoError, "")
				peer.CloseWithError(ErrNoError, "")
			})
		})
	}
}

// arrived returns what the peer has of the control stream so far.
func arrived(t *testing.T, rs transport.ReceiveStream) []byte {
	t.Helper()
	require.NoError(t, rs.SetReadDeadline(time.Now().Add(time.Millisecond)))
	b, err := io.ReadAll(rs)
	require.Error(t, err) // the stream does not end
	return b
}

func TestWhatIsSaidLateWaitsForMore(t *testing.T) {
	lateConns(t, func(t *testing.T, c *Conn, peer transport.Conn) {
		c.flushLater() // the settings
		time.Sleep(lateFlush - time.Nanosecond)
		synctest.Wait()
		require.True(t, c.codec.isPending())
		c.codec.priorityUpdate(0, "u=1")
		c.flushLater() // does not wait anew
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.False(t, c.codec.isPending())
		rs, err := peer.AcceptUniStream(t.Context())
		require.NoError(t, err)
		first := arrived(t, rs)
		require.Equal(t, byte(streamControl), first[0])
		update := appendFrame(nil, framePriorityUpdate, []byte("\x00u=1"))
		require.Equal(t, update, first[len(first)-len(update):])

		c.flushLater() // there is nothing to be said
		require.False(t, c.late.armed)
		c.codec.priorityUpdate(4, "i")
		c.flushLater()
		time.Sleep(lateFlush)
		synctest.Wait()
		require.Equal(t, appendFrame(nil, framePriorityUpdate, []byte("\x04i")), arrived(t, rs), "the timer is used again")
	})
}

func TestTheEndOfAConnectionDoesNotWaitForWhatIsLate(t *testing.T) {
	lateConns(t, func(t *testing.T, c *Conn, _ transport.Conn) {
		c.flushLater()
		start := time.Now()
		c.endLate()
		c.endLate() // once more does no harm
		c.wg.Wait()
		require.Equal(t, start, time.Now())
		c.flushLater()
		c.wg.Wait()
		time.Sleep(10 * lateFlush)
		synctest.Wait()
		require.True(t, c.codec.isPending(), "nobody has written it")
	})
}

func TestTheEndOfAConnectionWaitsForALateFlushThatRuns(t *testing.T) {
	lateConns(t, func(t *testing.T, c *Conn, peer transport.Conn) {
		c.ownLock <- struct{}{} // somebody else writes
		c.flushLater()
		time.Sleep(lateFlush)
		synctest.Wait()
		ended := make(chan struct{})
		c.codec.priorityUpdate(0, "u=1") // comes while the flush is under way
		c.flushLater()
		require.True(t, c.late.armed)
		go func() { // ends with the flush
			c.endLate()
			c.wg.Wait()
			close(ended)
		}()
		synctest.Wait()
		select {
		case <-ended:
			require.Fail(t, "a flush is under way")
		default:
		}
		<-c.ownLock
		<-ended
		require.False(t, c.codec.isPending())
		_, err := peer.AcceptUniStream(t.Context())
		require.NoError(t, err)
	})
}

func TestALateFlushThatFailsEndsTheConnection(t *testing.T) {
	lateConns(t, func(t *testing.T, c *Conn, peer transport.Conn) {
		require.NoError(t, c.flush())
		rs, err := peer.AcceptUniStream(t.Context())
		require.NoError(t, err)
		rs.CancelRead(ErrNoError)
		time.Sleep(time.Second)
		c.codec.priorityUpdate(0, "u=1")
		c.flushLater()
		<-peer.Context().Done()
		var e *transport.ApplicationError
		require.ErrorAs(t, context.Cause(peer.Context()), &e)
		require.Equal(t, ErrClosedCriticalStream, e.Code)
	})
}

//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// works sends something from c to s.
func (r *rig) works(c, s *conn) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	w, err := c.OpenUniStream(ctx)
	require.NoError(r, err)
	_, err = w.Write([]byte("hello"))
	require.NoError(r, err)
	require.NoError(r, w.Close())
	a, err := s.AcceptUniStream(ctx)
	require.NoError(r, err)
	require.NoError(r, a.SetReadDeadline(time.Now().Add(20*time.Second)))
	b, err := io.ReadAll(a)
	require.NoError(r, err)
	require.Equal(r, "hello", string(b))
}

func (r *rig) socket(addr string) *transporttest.Socket {
	return r.network.Socket(addr, transporttest.Link{Latency: 10 * time.Millisecond}, transporttest.Link{})
}

func TestAMigrationThatWasGivenUpCanBeTriedAgain(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		time.Sleep(time.Second)
		pc := r.socket("198.51.100.9:6000")
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Millisecond)
		require.ErrorIs(t, c.Migrate(ctx, pc), context.DeadlineExceeded)
		cancel()
		r.works(c, s)
		time.Sleep(5 * time.Second)
		require.NoError(t, c.Migrate(r.Context(), pc))
		require.Equal(t, "198.51.100.9:6000", c.LocalAddr().String())
		r.works(c, s)
		time.Sleep(time.Second)
		require.Equal(t, "198.51.100.9:6000", s.RemoteAddr().String())
	})
}

func TestAConnectionMigratesToAPathOfBefore(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		time.Sleep(time.Second)
		for _, addr := range []string{"198.51.100.9:6000", "198.51.100.9:6001", "198.51.100.9:6000", "198.51.100.9:6001"} {
			ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
			require.NoError(t, c.Migrate(ctx, r.socket(addr)))
			cancel()
			require.Equal(t, addr, c.LocalAddr().String())
			r.works(c, s)
			time.Sleep(time.Second)
			require.Equal(t, addr, s.RemoteAddr().String())
		}
	})
}

// For some time after a change of port the server still asks the port of
// before. The client's next connection ID must not be too much for it then.
func TestAClientMigratesSoonAfterItsPortHasChanged(t *testing.T) {
	simulated(t, func(t *testing.T) {
		for _, pause := range []time.Duration{0, 20, 50, 100, 150, 300} {
			r := newRig(t, nil, nil)
			c, s := r.dial()
			time.Sleep(time.Second)
			r.client.socket.netConn().(*transporttest.Socket).Rebind("198.51.100.1:50001")
			r.works(c, s)
			time.Sleep(pause * time.Millisecond)
			for i, addr := range []string{"198.51.100.9:6000", "198.51.100.9:6001"} {
				require.NoError(t, c.Migrate(r.Context(), r.socket(addr)), "%v, %d", pause, i)
				r.works(c, s)
			}
			time.Sleep(time.Second)
			require.NoError(t, context.Cause(c.Context()), pause)
			require.Equal(t, "198.51.100.9:6001", s.RemoteAddr().String())
			r.works(c, s)
		}
	})
}

type outletAt struct {
	*outlet
	at netip.AddrPort
}

func (o *outletAt) localAddr() netip.AddrPort { return o.at }

// The answer to a path's challenge arrives when nobody waits for it any more.
func TestAnAnswerFromAPathThatWasGivenUpDoesNotMoveTheConnection(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		time.Sleep(time.Second)
		before := c.LocalAddr().String()
		given := netip.MustParseAddrPort("198.51.100.9:6000")
		var late []byte
		r.network.Filter(func(p transporttest.Packet) transporttest.Verdict {
			if p.To == given {
				late = append([]byte(nil), p.Data...)
			}
			return transporttest.Verdict{Drop: p.To == given}
		})
		pc := r.socket(given.String())
		ctx, cancel := context.WithTimeout(r.Context(), 30*time.Millisecond)
		require.ErrorIs(t, c.Migrate(ctx, pc), context.DeadlineExceeded)
		cancel()
		r.network.Filter(nil)
		require.NotEmpty(t, late)
		require.NoError(t, c.lock())
		c.read(&outletAt{newOutlet(), given}, capi.Path{Local: given, Remote: c.path.Load().Remote}, 0, late, 0, c.ep.now())
		c.flush(c.ep.now())
		now := c.cc.RemotePath().Local.String()
		c.unlock()
		require.Equal(t, before, now)
		r.works(c, s)
		require.Equal(t, before, c.LocalAddr().String())
	})
}

// The NAT gives the client another port, and the first one again: the server
// need not validate that for the second time.
func TestAServerKnowsThatItsClientIsBackWhereItWas(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		time.Sleep(time.Second)
		for _, addr := range []string{"198.51.100.1:50001", "198.51.100.1:50000", "198.51.100.1:50001"} {
			r.client.socket.netConn().(*transporttest.Socket).Rebind(addr)
			r.works(c, s)
			time.Sleep(time.Second)
			r.works(c, s)
			synctest.Wait()
			require.Equal(t, addr, s.RemoteAddr().String())
		}
	})
}

package transporttest

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	hereAddr  = "198.51.100.1:1"
	thereAddr = "192.0.2.1:2"
)

// link runs f in a bubble with two sockets; up is the link of the first.
func link(t *testing.T, up Link, f func(t *testing.T, n *Network, here, there *Socket)) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(7)
		defer n.Close()
		here, there := n.Socket(hereAddr, up, Link{}), n.Socket(thereAddr, Link{}, Link{})
		f(t, n, here, there)
	})
}

func send(t *testing.T, s *Socket, to string, b []byte) {
	t.Helper()
	n, err := s.WriteTo(b, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	require.NoError(t, err)
	require.Equal(t, len(b), n)
}

// drained returns what arrives at s within an hour.
func drained(t *testing.T, s *Socket) (got [][]byte) {
	t.Helper()
	require.NoError(t, s.SetReadDeadline(time.Now().Add(time.Hour)))
	for {
		b := make([]byte, 2000)
		n, _, err := s.ReadFrom(b)
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			return got
		}
		got = append(got, b[:n])
	}
}

func TestAPacketArrivesAfterTheLatencyOfBothLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		defer n.Close()
		here := n.Socket(hereAddr, Link{Latency: 20 * time.Millisecond}, Link{})
		there := n.Socket(thereAddr, Link{}, Link{Latency: 7 * time.Millisecond})
		start := time.Now()
		out := []byte("hello")
		send(t, here, thereAddr, out)
		clear(out) // the network has its own copy
		b := make([]byte, 10)
		k, from, err := there.ReadFrom(b)
		require.NoError(t, err)
		require.Equal(t, "hello", string(b[:k]))
		require.Equal(t, hereAddr, from.String())
		require.Equal(t, 27*time.Millisecond, time.Since(start))
	})
}

func TestALinkLosesItsShareOfPackets(t *testing.T) {
	counts := make([]int, 2)
	for i := range counts { // the same seed makes the same choices
		link(t, Link{Loss: 0.1}, func(t *testing.T, _ *Network, here, there *Socket) {
			for range 1000 {
				send(t, here, thereAddr, []byte("x"))
			}
			counts[i] = len(drained(t, there))
		})
	}
	require.InDelta(t, 900, counts[0], 30)
	require.Equal(t, counts[0], counts[1])
}

func TestALinkRepeatsDamagesAndReordersPackets(t *testing.T) {
	link(t, Link{Duplicate: 1}, func(t *testing.T, _ *Network, here, there *Socket) {
		send(t, here, thereAddr, []byte("x"))
		require.Len(t, drained(t, there), 2)
	})
	link(t, Link{Corrupt: 1}, func(t *testing.T, _ *Network, here, there *Socket) {
		send(t, here, thereAddr, []byte("xyz"))
		got := drained(t, there)
		require.Len(t, got, 1)
		require.NotEqual(t, "xyz", string(got[0]))
		require.Len(t, got[0], 3)
	})
	link(t, Link{Reorder: 0.2, ReorderBy: time.Millisecond}, func(t *testing.T, _ *Network, here, there *Socket) {
		for i := range 100 {
			send(t, here, thereAddr, []byte{byte(i)})
		}
		got := drained(t, there)
		require.Len(t, got, 100)
		require.False(t, slices.IsSortedFunc(got, bytes.Compare))
	})
	link(t, Link{Latency: time.Millisecond}, func(t *testing.T, _ *Network, here, there *Socket) {
		for i := range 100 {
			send(t, here, thereAddr, []byte{byte(i)})
		}
		got := drained(t, there)
		require.Len(t, got, 100)
		require.True(t, slices.IsSortedFunc(got, bytes.Compare), "in order unless told otherwise")
	})
}

func TestALinkDropsWhatIsLargerThanItsMTU(t *testing.T) {
	link(t, Link{MTU: 1300}, func(t *testing.T, n *Network, here, there *Socket) {
		seen := n.Capture()
		send(t, here, thereAddr, make([]byte, 1300))
		send(t, here, thereAddr, make([]byte, 1301))
		require.Len(t, drained(t, there), 1)
		require.Len(t, seen.Packets(), 2)
		require.False(t, seen.Packets()[0].Lost)
		require.True(t, seen.Packets()[1].Lost)
	})
}

func TestALinkSendsAtItsRateAndItsQueueIsBounded(t *testing.T) {
	link(t, Link{Rate: 10_000, Queue: 5_000}, func(t *testing.T, _ *Network, here, there *Socket) {
		start := time.Now()
		for range 20 {
			send(t, here, thereAddr, make([]byte, 1000))
		}
		require.NoError(t, there.SetReadDeadline(time.Now().Add(time.Hour)))
		got := 0
		for time.Since(start) < time.Minute {
			if _, _, err := there.ReadFrom(make([]byte, 1000)); err != nil {
				break
			}
			got++
			require.Equal(t, time.Duration(got)*100*time.Millisecond, time.Since(start))
		}
		require.Equal(t, 5, got)
	})
}

func TestARebindChangesTheAddressThatOthersSee(t *testing.T) {
	const moved = "203.0.113.5:5"
	link(t, Link{}, func(t *testing.T, _ *Network, here, there *Socket) {
		here.Rebind(moved)
		require.Equal(t, hereAddr, here.LocalAddr().String())
		send(t, here, thereAddr, []byte("x"))
		_, from, err := there.ReadFrom(make([]byte, 1))
		require.NoError(t, err)
		require.Equal(t, moved, from.String())
		send(t, there, hereAddr, []byte("to the old address"))
		send(t, there, moved, []byte("to the new one"))
		got := drained(t, here)
		require.Len(t, got, 1)
		require.Equal(t, "to the new one", string(got[0]))
	})
}

func TestAFilterDropsAndDelays(t *testing.T) {
	link(t, Link{}, func(t *testing.T, n *Network, here, there *Socket) {
		n.Filter(func(p Packet) Verdict {
			return Verdict{Drop: p.Data[0] == 'a', Delay: time.Duration('d'-p.Data[0]) * time.Second}
		})
		for _, b := range []string{"a", "b", "c", "d"} {
			send(t, here, thereAddr, []byte(b))
		}
		require.Equal(t, [][]byte{[]byte("d"), []byte("c"), []byte("b")}, drained(t, there))
	})
}

func TestAnInjectedPacketComesFromAnywhere(t *testing.T) {
	link(t, Link{}, func(t *testing.T, n *Network, _, there *Socket) {
		from := netip.MustParseAddrPort("203.0.113.9:9")
		n.Inject(from, netip.MustParseAddrPort(thereAddr), []byte("junk"))
		b := make([]byte, 10)
		k, got, err := there.ReadFrom(b)
		require.NoError(t, err)
		require.Equal(t, "junk", string(b[:k]))
		require.Equal(t, from.String(), got.String())
	})
}

func TestASocketsQueueIsBounded(t *testing.T) {
	link(t, Link{}, func(t *testing.T, _ *Network, here, there *Socket) {
		const n = receiveQueue/1000 + 100
		for range n {
			send(t, here, thereAddr, make([]byte, 1000))
		}
		time.Sleep(time.Second)
		require.Len(t, drained(t, there), receiveQueue/1000)
		require.EqualValues(t, n-receiveQueue/1000, there.dropped)
	})
}

func TestCloseAndDeadlinesEndAPendingReadFrom(t *testing.T) {
	link(t, Link{}, func(t *testing.T, n *Network, here, there *Socket) {
		read := func() <-chan error {
			return async(func() error { _, _, err := there.ReadFrom(make([]byte, 1)); return err })
		}
		pending := read()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, there.SetReadDeadline(start.Add(time.Second)))
		require.ErrorIs(t, <-pending, os.ErrDeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		require.NoError(t, there.SetDeadline(time.Time{}))
		pending = read()
		synctest.Wait()
		require.NoError(t, there.Close())
		require.ErrorIs(t, <-pending, net.ErrClosed)
		require.ErrorIs(t, there.Close(), net.ErrClosed)
		require.True(t, there.Closed())
		_, err := there.WriteTo([]byte("x"), here.LocalAddr())
		require.ErrorIs(t, err, net.ErrClosed)
		n.Socket(thereAddr, Link{}, Link{}) // the address is free
		require.NoError(t, here.SetWriteDeadline(time.Now()))
		_, err = here.WriteTo([]byte("x"), there.LocalAddr())
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

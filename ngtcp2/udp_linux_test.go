//go:build ngtcp2 && cgo

package ngtcp2

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInterfacesThatComeAndChangeAreFound(t *testing.T) {
	defer func() { interfaceByIndex, interfaceByName = net.InterfaceByIndex, net.InterfaceByName }()
	names := map[int]string{}
	asked := 0
	interfaceByIndex = func(i int) (*net.Interface, error) {
		asked++
		if name, ok := names[i]; ok {
			return &net.Interface{Index: i, Name: name}, nil
		}
		return nil, errors.New("no such interface")
	}
	interfaceByName = func(name string) (*net.Interface, error) {
		asked++
		for i, n := range names {
			if n == name {
				return &net.Interface{Index: i, Name: name}, nil
			}
		}
		return nil, errors.New("no such interface")
	}
	synctest.Test(t, func(t *testing.T) {
		z := new(zones)
		a := netip.MustParseAddr("fe80::1")
		require.Equal(t, "7", z.named(a, 7).Zone())
		require.Zero(t, z.index("wg0"))
		names[7] = "wg0" // it comes up
		require.Equal(t, "wg0", z.named(a, 7).Zone())
		require.EqualValues(t, 7, z.index("wg0"))
		before := asked
		for range 100 {
			z.named(a, 7)
			z.index("wg0")
		}
		require.Equal(t, before, asked, "what is known is not asked for with each packet")
		delete(names, 7)
		names[8] = "wg0" // it is made anew
		time.Sleep(zoneLifetime)
		require.EqualValues(t, 8, z.index("wg0"))
		require.Equal(t, "wg0", z.named(a, 8).Zone())
		require.Equal(t, "7", z.named(a, 7).Zone())
	})
}

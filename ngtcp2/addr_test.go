//go:build ngtcp2 && cgo

package ngtcp2

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// An elsewhere is an address that is not of UDP.
type elsewhere string

func (elsewhere) Network() string  { return "elsewhere" }
func (a elsewhere) String() string { return string(a) }

func TestAnIPv4AddressHasOneForm(t *testing.T) {
	want := netip.MustParseAddrPort("192.0.2.1:7")
	for _, a := range []net.Addr{
		&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7},
		&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1).To4(), Port: 7},
		net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[::ffff:192.0.2.1]:7")),
		udpNamed("192.0.2.1:7"),
	} {
		got, err := addrPort(a)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, "192.0.2.1:7", netAddr(got).String())
	}
	for _, a := range []net.Addr{nil, (*net.UDPAddr)(nil), &net.UDPAddr{Port: 7}, udpNamed("host:7"), elsewhere("x"), &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}} {
		_, err := addrPort(a)
		require.Error(t, err, "%v", a)
	}
	ll, err := addrPort(&net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth7", Port: 1})
	require.NoError(t, err)
	require.Equal(t, "[fe80::1%eth7]:1", netAddr(ll).String())
}

type udpNamed string

func (udpNamed) Network() string  { return "udp4" }
func (a udpNamed) String() string { return string(a) }

func TestAddressesThatAreNotOfUDPComeBack(t *testing.T) {
	var b addrBook
	one, err := b.addrPort(elsewhere("one"))
	require.NoError(t, err)
	two, err := b.addrPort(elsewhere("two"))
	require.NoError(t, err)
	require.NotEqual(t, one, two)
	again, err := b.addrPort(elsewhere("one"))
	require.NoError(t, err)
	require.Equal(t, one, again)
	require.Equal(t, elsewhere("two"), b.netAddr(two))
	for i := range maxAddrs {
		_, err := b.addrPort(elsewhere(fmt.Sprint(i)))
		require.NoError(t, err)
		require.Equal(t, elsewhere("one"), b.netAddr(one), "it is in use")
	}
	require.NotEqual(t, net.Addr(elsewhere("two")), b.netAddr(two), "it is forgotten")
	require.Len(t, b.byName, maxAddrs)
	require.Len(t, b.byAddr, maxAddrs)
	_, err = b.addrPort(net.UDPAddrFromAddrPort(one))
	require.Error(t, err, "nobody can pretend to be such a peer")
	_, err = b.addrPort((*net.UDPAddr)(nil))
	require.Error(t, err)
	_, err = b.addrPort(nil)
	require.Error(t, err)
}

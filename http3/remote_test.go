package http3

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheTextOfARemoteAddressFollowsIt(t *testing.T) {
	var r remoteText
	for _, a := range []net.Addr{
		&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1},
		&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1},
		&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2},
		&net.UDPAddr{IP: net.IPv6loopback, Port: 2},
		&net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: 2, Zone: "eth0"},
		&net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: 2},
		&net.UnixAddr{Name: "x", Net: "unixgram"},
		&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1},
	} {
		require.Equal(t, a.String(), r.string(a))
	}
}

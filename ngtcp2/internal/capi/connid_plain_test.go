//go:build ngtcp2 && cgo && fuzzplain

package capi

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const connIDLimitError = 9 // RFC 9000, Section 20.1

// newConnIDs are NEW_CONNECTION_ID frames (RFC 9000, Section 19.15) with the
// sequence numbers from on.
func newConnIDs(from byte, n int) (b []byte) {
	for ; n > 0; n-- {
		b = append(b, 0x18, from, 0, 8, 0xee, 1, 2, 3, 4, 5, 6, from)
		b = append(b, make([]byte, 15)...)
		b = append(b, from) // its token is its own
		from++
	}
	return b
}

// RFC 9000, Section 5.1.1: an endpoint that gets more connection IDs than it has
// said it takes MUST close the connection with CONNECTION_ID_LIMIT_ERROR.
func TestAPeerWithTooManyConnectionIDsIsStopped(t *testing.T) {
	for _, limit := range []uint32{2, 4, 8} {
		for _, role := range []string{"client", "server", "server whose client has moved"} {
			moved := role == "server whose client has moved"
			// How many more than the limit a peer can send.
			spare := 0
			if moved {
				spare = 1
			}
			for _, more := range []int{0, 1, 2, 3} {
				w := plainWorldWith(t, true, func(s *Settings) { s.ActiveConnIDs = limit })
				w.wait(second)
				to, path := w.client, Path{clientAddr, serverAddr}
				if role != "client" {
					to, path = w.server, Path{serverAddr, clientAddr}
				}
				number := uint32(1000)
				if moved {
					path.Remote = otherAddr
					number++
					require.NoError(t, to.ReadPackets(path, 0, plainPacket(w, to, 0, number, []byte{1}), 0, w.now))
					w.flush(to)
				}
				// The peer has sent all that it may: those from 0 to limit-1.
				number++
				err := to.ReadPackets(path, 0, plainPacket(w, to, 0, number, newConnIDs(byte(limit), more)), 0, w.now)
				if more <= spare {
					require.NoError(t, err, "%s, limit %d, %d more", role, limit, more)
				} else {
					var e *Error
					require.ErrorAs(t, err, &e, "%s, limit %d, %d more", role, limit, more)
					require.EqualValues(t, connIDLimitError, e.Transport)
				}
				w.close()
			}
		}
	}
}

package http3

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

func streamID(n int) transport.StreamID { return transport.StreamID(n) }

// A pair is a client's and a server's codec, and between them the streams that they
// open by themselves.
type pair struct {
	client, server codec
}

func newPair(t testing.TB, k codecKind) *pair {
	var p pair
	var err error
	p.client, err = k.make(testConfig(true))
	require.NoError(t, err)
	p.server, err = k.make(testConfig(false))
	require.NoError(t, err)
	p.flush(t)
	return &p
}

func (p *pair) end() {
	p.client.end()
	p.server.end()
}

// flush carries what is pending, in both directions, until nothing is.
func (p *pair) flush(t testing.TB) {
	var buf [256]byte
	for p.client.isPending() || p.server.isPending() {
		for own := range ownStreams {
			deliver(t, p.client, p.server, own, buf[:0])
			deliver(t, p.server, p.client, own, buf[:0])
		}
	}
}

func deliver(t testing.TB, from, to codec, own ownStream, buf []byte) {
	b := from.pending(own, buf)
	if len(b) == 0 {
		return
	}
	if _, err := to.receiveUni(transport.StreamID(own), b, false, nil); err != nil {
		require.NoError(t, err)
	}
}

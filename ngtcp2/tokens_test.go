//go:build ngtcp2 && cgo

package ngtcp2

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

func TestTokensAreUsedOnceTheNewestFirst(t *testing.T) {
	var k tokens
	require.Nil(t, k.take("a"))
	for i := range tokensForServer + 2 {
		token := []byte{byte(i)}
		k.put("a", token)
		token[0] = 0xff // the callee has a copy
	}
	for i := tokensForServer + 1; i >= 2; i-- {
		require.Equal(t, []byte{byte(i)}, k.take("a"))
	}
	require.Nil(t, k.take("a"), "the oldest were forgotten")
}

func TestTokensOfServersUnusedForLongAreForgotten(t *testing.T) {
	var k tokens
	for i := range tokenServers {
		k.put(fmt.Sprint(i), []byte{1})
	}
	k.put("0", []byte{2}) // is used again
	k.put("new", []byte{1})
	require.Nil(t, k.take("1"))
	require.Equal(t, []byte{2}, k.take("0"))
	require.Equal(t, []byte{1}, k.take("0"))
	require.NotNil(t, k.take("new"))
	require.Equal(t, tokenServers-2, k.recent.Len())
	require.Len(t, k.byName, tokenServers-2)
	k.put("long", make([]byte, maxToken+1))
	require.Nil(t, k.take("long"))
	k.put("", []byte{1})
	require.Nil(t, k.take(""), "a server without a name")
}

func TestADialWhoseTokenIsRefusedForgetsThoseOfTheServer(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		// It begins as those of a Retry do here, but another server has made it.
		for range tokensForServer {
			r.client.tokens.put("localhost", append([]byte{0xb7}, make([]byte, 60)...))
		}
		_, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
		var refused *transport.ProtocolError
		require.ErrorAs(t, err, &refused)
		require.EqualValues(t, invalidToken, refused.Code)
		c, s := r.dial()
		r.works(c, s)
	})
}

func TestTokensOfServersThatWereNotVerifiedAreKeptApart(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, func(c *transport.Config) { c.TLS.InsecureSkipVerify = true })
		r.dial()
		time.Sleep(time.Second)
		require.Nil(t, r.client.tokens.take("localhost"))
		r.cfg.TLS.InsecureSkipVerify = false
		r.dial()
		time.Sleep(time.Second)
		require.NotNil(t, r.client.tokens.take("localhost"))
	})
}

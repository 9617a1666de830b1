//go:build ngtcp2 && cgo

package ngtcp2

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/transporttest"
)

func TestPacketsThatOvertakeTheirInitialWaitAWhile(t *testing.T) {
	var o overtaking
	k, other := keyOf([]byte("12345678")), keyOf([]byte("87654321"))
	put := func(k cidKey, data string, now uint64) {
		b := []byte(data)
		o.keep(k, &batch{path: capi.Path{Remote: somewhere}, ecn: 1, data: b, now: now})
		clear(b)
	}
	take := func(k cidKey, now uint64) (got []string) {
		o.take(k, now, func(b *batch) {
			require.Equal(t, somewhere, b.path.Remote)
			require.EqualValues(t, 1, b.ecn)
			require.Equal(t, now, b.now)
			got = append(got, string(b.data))
		})
		return got
	}
	at := uint64(time.Hour)
	put(k, "one", at)
	put(other, "another's", at)
	put(k, "two", at+1)
	put(k, strings.Repeat("x", overtakingSize+1), at)
	require.Equal(t, []string{"one", "two"}, take(k, at+2))
	require.Empty(t, take(k, at+2))
	require.Empty(t, take(other, at+overtakingTime+1), "too late")
	require.Zero(t, o.n)
	for i := range 3 * maxOvertaking {
		put(k, strings.Repeat("x", 1+i), at)
	}
	got := take(k, at)
	require.Len(t, got, maxOvertaking, "the newest")
	require.Len(t, got[0], 2*maxOvertaking+1)
	require.Len(t, got[maxOvertaking-1], 3*maxOvertaking)
	require.Zero(t, o.n)
}

func TestPacketsThatOvertakeAreKeptOnlyForAServerWithEarlyData(t *testing.T) {
	for _, early := range []bool{false, true} {
		simulated(t, func(t *testing.T) {
			r := newRig(t, func(c *transport.Config) { c.EarlyData = early }, nil)
			pc := r.network.Socket("203.0.113.1:1", transporttest.Link{}, transporttest.Link{})
			p := longPacket(version1, "12345678", "", minInitialSize)
			p[0] |= type0RTT << 4
			_, err := pc.WriteTo(p, r.server.Addr())
			require.NoError(t, err)
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, early, r.server.overtaking.n == 1)
			require.NoError(t, pc.Close())
		})
	}
}

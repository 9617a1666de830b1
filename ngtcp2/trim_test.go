//go:build ngtcp2 && cgo

package ngtcp2

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// waits returns how much is to be looked at, and whether a timer runs.
func (t *trimmer) waits() (count int, armed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count, t.armed
}

func TestMemoryIsTrimmedWhenNoMoreHandshakesCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g group
		trim := trimmer{group: &g}
		wants := func(count int, armed bool) {
			t.Helper()
			synctest.Wait()
			gotCount, gotArmed := trim.waits()
			require.Equal(t, count, gotCount)
			require.Equal(t, armed, gotArmed)
		}
		free := func(n int) {
			for range n {
				trim.freed()
			}
		}
		free(trimCount - 1)
		wants(trimCount-1, false)
		for i := range 5 { // the rush goes on
			free(1)
			wants(trimCount+i, true)
			time.Sleep(trimQuiet - time.Millisecond)
		}
		time.Sleep(trimQuiet + time.Millisecond)
		wants(0, false)

		free(trimCount)
		time.Sleep(trimEvery - 2*trimQuiet)
		wants(trimCount, true)
		time.Sleep(2 * trimQuiet)
		wants(0, false)

		time.Sleep(trimEvery)
		free(trimCount)
		trim.stop()
		time.Sleep(trimEvery)
		free(trimCount)
		require.Equal(t, 2*trimCount, trim.count, "after the end nobody looks")
		g.wait()
	})
}

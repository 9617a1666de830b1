package http3

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestWorkersAreUsedAgainUntilNobodyHoldsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
		var w workers
		w.hold()
		w.hold()
		ran := 0
		for range 3 {
			w.run(func() { ran++ })
			synctest.Wait()
			require.Len(t, w.idle, 1)
		}
		require.Equal(t, 3, ran)
		w.release()
		require.Len(t, w.idle, 1)
		w.release()
		w.run(func() { ran++ })
		synctest.Wait()
		require.Equal(t, 4, ran)
		require.Empty(t, w.idle)
	})
}

func TestOnlySoManyWorkersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w workers
		w.hold()
		defer w.release()
		blocked := make(chan struct{})
		var wg sync.WaitGroup
		for range maxIdleWorkers + 5 {
			wg.Add(1)
			w.run(func() { defer wg.Done(); <-blocked })
		}
		close(blocked)
		wg.Wait()
		synctest.Wait()
		require.Len(t, w.idle, maxIdleWorkers)
	})
}

// A worker whose function ends its goroutine is lost, and nothing else.
func TestAHandlerMayEndItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w workers
		w.hold()
		defer w.release()
		w.run(runtime.Goexit)
		synctest.Wait()
		require.Empty(t, w.idle)
		done := false
		w.run(func() { done = true })
		synctest.Wait()
		require.True(t, done)
	})
}

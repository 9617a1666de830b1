package store_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/store"
)

func put(g *store.Group, key string) {
	g.Update(func(b *store.Batch) { b.Put([]byte(key), []byte("v")) })
}

func keys(t testing.TB, s store.Store) []string {
	t.Helper()
	var all []string
	require.NoError(t, s.Load(func(k, _ []byte) error { all = append(all, string(k)); return nil }))
	return all
}

func TestWhatWasWaitedForOutlivesTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := slow{store.NewMemory(nil)}
		g := store.NewGroup(m, store.GroupConfig{})
		began := time.Now()
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for i := range 50 {
					put(g, fmt.Sprintf("%02d-%02d", w, i))
					if err := g.Wait(g.Mark()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		require.Len(t, keys(t, m.Restart(nil)), 16*50)
		require.LessOrEqual(t, g.Stats().Commits, uint64(101), "one write serves many")
		require.LessOrEqual(t, time.Since(began), 101*time.Second)
		m.Close()
		g.Close()
	})
}

func TestAUnitIsInOneBatch(t *testing.T) {
	var n atomic.Int32
	m := store.NewMemory(nil)
	g := store.NewGroup(m, store.GroupConfig{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 500 {
				g.Begin()
				put(g, fmt.Sprintf("a%d-%d", w, i))
				put(g, fmt.Sprintf("b%d-%d", w, i))
				g.End()
				n.Add(1)
				if i%8 == 0 {
					g.Wait(g.Mark())
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { // ends with the writers
		defer close(written)
		wg.Wait()
	}()
	for looking := true; looking; {
		select {
		case <-written:
			looking = false
		default:
		}
		var a, b int
		for _, k := range keys(t, m) {
			if k[0] == 'a' {
				a++
			} else {
				b++
			}
		}
		require.Equal(t, a, b)
	}
	require.NoError(t, g.Close())
	require.EqualValues(t, 4*500, n.Load())
	require.Len(t, keys(t, m), 2*4*500)
}

func TestAGroupTriesAgainUntilTheStoreTakesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("full")
		var until time.Time
		m := store.NewMemory(func(int) store.Fault {
			if time.Now().Before(until) {
				return store.Fault{Err: full}
			}
			return store.Fault{}
		})
		var told []error
		g := store.NewGroup(m, store.GroupConfig{MaxBytes: 100, Failed: func(err error) { told = append(told, err) }})
		put(g, "a")
		require.NoError(t, g.Wait(g.Mark()))
		until = time.Now().Add(time.Minute)
		put(g, "b")
		require.ErrorIs(t, g.Wait(g.Mark()), full)
		require.ErrorIs(t, g.Err(), full)
		for i := range 100 {
			put(g, fmt.Sprint("c", i))
			g.Throttle() // does not wait
		}
		require.True(t, g.Overfull())
		require.Equal(t, []string{"a"}, keys(t, m))
		time.Sleep(2 * time.Minute)
		require.NoError(t, g.Wait(g.Mark()))
		require.NoError(t, g.Err())
		require.Len(t, keys(t, m.Restart(nil)), 102)
		require.Equal(t, []error{full, nil}, told)
		require.False(t, g.Overfull())
		require.Error(t, closeAfter(m, g), "the memory was stopped by Restart")
	})
}

func closeAfter(m *store.Memory, g *store.Group) error {
	put(g, "late")
	m.Close()
	return g.Close()
}

func TestAnIntervalBoundsWhatTheMachineMayLose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory(nil)
		g := store.NewGroup(m, store.GroupConfig{Interval: 100 * time.Millisecond})
		put(g, "a")
		require.NoError(t, g.Wait(g.Mark()))
		synctest.Wait()
		require.Equal(t, []string{"a"}, keys(t, m), "the system has it")
		time.Sleep(50 * time.Millisecond)
		put(g, "b")
		time.Sleep(60 * time.Millisecond)
		synctest.Wait()
		put(g, "c")
		synctest.Wait()
		require.Equal(t, []string{"a", "b", "c"}, keys(t, m))
		after := m.Restart(nil)
		require.Equal(t, []string{"a", "b"}, keys(t, after), "younger than an interval")
		m.Close()
		g.Close()
	})
}

func TestThrottleWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := slow{store.NewMemory(nil)}
		g := store.NewGroup(m, store.GroupConfig{MaxBytes: 1000})
		put(g, "first")
		synctest.Wait() // being written
		for i := range 100 {
			put(g, fmt.Sprint("k", i))
		}
		require.True(t, g.Full())
		began := time.Now()
		g.Throttle()
		require.Equal(t, time.Second, time.Since(began))
		require.False(t, g.Full())
		require.NoError(t, g.Close())
	})
}

// A slow store takes a second for every batch.
type slow struct{ *store.Memory }

func (s slow) Apply(b *store.Batch, sync bool) error {
	time.Sleep(time.Second)
	return s.Memory.Apply(b, sync)
}

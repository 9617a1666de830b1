//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

func TestADeadlineInThePastHasPassedAtOnce(t *testing.T) {
	var d deadline
	var w waiter
	require.NoError(t, d.err())
	d.set(time.Now().Add(-time.Second), &w)
	require.Equal(t, os.ErrDeadlineExceeded, d.err())
	d.set(time.Time{}, &w)
	require.NoError(t, d.err())
}

func TestADeadlineWakesWhoWaitsWhenItPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadline
		var w waiter
		start := time.Now()
		d.set(start.Add(3*time.Second), &w)
		<-w.wait()
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, os.ErrDeadlineExceeded, d.err())
	})
}

func TestADeadlineThatMovesPassesAtItsLastTimeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadline
		var w waiter
		start := time.Now()
		d.set(start.Add(time.Second), &w)
		time.Sleep(500 * time.Millisecond)
		d.set(start.Add(5*time.Second), &w)
		time.Sleep(3 * time.Second)
		require.NoError(t, d.err())
		<-w.wait()
		require.Equal(t, 5*time.Second, time.Since(start))
		d.set(start.Add(6*time.Second), &w)
		d.set(time.Time{}, &w)
		time.Sleep(10 * time.Second)
		require.NoError(t, d.err())
	})
}

func TestAWakeIsNotLostToWhoLooksForItsChannelFirst(t *testing.T) {
	var w waiter
	w.wake() // nobody waits
	ch := w.wait()
	select {
	case <-ch:
		t.Fatal("woken by what came before")
	default:
	}
	w.wake()
	w.wake()
	<-ch
	select {
	case <-ch:
		t.Fatal("two wakes without a waiter are one")
	default:
	}
}

func TestAWaiterThatNobodyUsesTakesNoMemory(t *testing.T) {
	var w waiter
	require.Zero(t, testing.AllocsPerRun(100, w.wake))
}

func TestAWorkerRunsOneFunctionAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w worker
		var g group
		var order []int
		var running atomic.Int32
		for i := range workQueue {
			require.True(t, w.run(&g, func() {
				require.EqualValues(t, 1, running.Add(1))
				time.Sleep(time.Second)
				order = append(order, i)
				running.Add(-1)
			}))
		}
		g.wait()
		require.Len(t, order, workQueue)
		require.IsIncreasing(t, order)
		require.False(t, w.run(&g, func() {}), "after the end of the group")
	})
}

func TestAWorkerRefusesWhatIsTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w worker
		var g group
		block := make(chan struct{})
		require.True(t, w.run(&g, func() { <-block }))
		synctest.Wait()
		for range workQueue {
			require.True(t, w.run(&g, func() {}))
		}
		require.False(t, w.run(&g, func() {}))
		close(block)
		g.wait()
	})
}

func TestStreamIDsCountEachKindAndSideFromZero(t *testing.T) {
	require.EqualValues(t, 0, streamID(0, bidi, false))
	require.EqualValues(t, 1, streamID(0, bidi, true))
	require.EqualValues(t, 2, streamID(0, uni, false))
	require.EqualValues(t, 3, streamID(0, uni, true))
	require.EqualValues(t, 4*7+3, streamID(7, uni, true))
}

func TestWritesAtOnceTakeTurns(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		w, err := c.OpenStream(r.Context())
		require.NoError(t, err)
		const writers, size = 3, 4 << 20
		results := make(chan error, writers)
		for i := range writers {
			go func() { // ends with the connection
				n, err := w.Write(bytes.Repeat([]byte{byte(i)}, size))
				results <- errors.Join(err, lengthError(n, size))
			}()
		}
		a, err := s.AcceptStream(r.Context())
		require.NoError(t, err)
		require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Minute)))
		b := make([]byte, size)
		for range writers {
			_, err = io.ReadFull(a, b)
			require.NoError(t, err)
			require.True(t, bytes.Count(b, b[:1]) == size, "the data of one is not mixed with another's")
			require.NoError(t, <-results)
		}
	})
}

func lengthError(n, want int) error {
	if n != want {
		return fmt.Errorf("%d of %d", n, want)
	}
	return nil
}

func TestTheEndOfADirectionEndsAllWrites(t *testing.T) {
	for name, end := range map[string]func(transport.Stream){
		"deadline": func(w transport.Stream) { w.SetWriteDeadline(time.Now().Add(time.Second)) },
		"cancel":   func(w transport.Stream) { w.CancelWrite(1) },
		"close":    func(w transport.Stream) { w.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T) {
				r := newRig(t, nil, nil)
				c, _ := r.dial()
				w, err := c.OpenStream(r.Context())
				require.NoError(t, err)
				results := make(chan error, 5)
				for range cap(results) {
					go func() { // ends with end
						_, err := w.Write(make([]byte, 64<<20)) // nobody reads
						results <- err
					}()
				}
				time.Sleep(time.Second)
				end(w)
				for range cap(results) {
					select {
					case err := <-results:
						require.Error(t, err)
					case <-time.After(10 * time.Second):
						require.Fail(t, "a Write hangs")
					}
				}
			})
		})
	}
}

func TestACallWhoseContextIsDoneReturnsItsError(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		for range 2 {
			w, err := c.OpenStream(r.Context())
			require.NoError(t, err)
			_, err = w.Write([]byte("x"))
			require.NoError(t, err)
			u, err := c.OpenUniStream(r.Context())
			require.NoError(t, err)
			_, err = u.Write([]byte("x"))
			require.NoError(t, err)
		}
		time.Sleep(time.Second)
		done, cancel := context.WithCancel(r.Context())
		cancel()
		for _, side := range []*conn{c, s} {
			_, err := side.OpenStream(done)
			require.ErrorIs(t, err, context.Canceled)
			_, err = side.OpenUniStream(done)
			require.ErrorIs(t, err, context.Canceled)
			_, err = side.AcceptStream(done)
			require.ErrorIs(t, err, context.Canceled)
			_, err = side.AcceptUniStream(done)
			require.ErrorIs(t, err, context.Canceled)
		}
	})
}

//go:build ngtcp2 && cgo

package ngtcp2

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// A sleepy is a sleeper that counts.
type sleepy struct {
	timer
	fired []uint64
}

func (s *sleepy) expired(now uint64) { s.fired = append(s.fired, now) }

func sleepyAt(at uint64) *sleepy {
	s := new(sleepy)
	s.expiry.Store(at)
	return s
}

func TestTimersExpireInTheOrderOfTheirTimes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	q := &timers{kick: func() {}}
	all := make([]*sleepy, 200)
	for i := range all {
		all[i] = sleepyAt(capi.NoExpiry)
	}
	want := map[*sleepy]uint64{} // what is armed
	for round := range 20000 {
		s := all[rng.IntN(len(all))]
		switch rng.IntN(10) {
		case 0:
			q.forget(s)
			delete(want, s)
		case 1:
			s.expiry.Store(capi.NoExpiry)
			q.set(s)
			delete(want, s)
		case 2: // time passes
			now := rng.Uint64N(1000)
			var due []uint64
			for c := q.due(now); c != nil; c = q.due(now) {
				s := c.(*sleepy)
				require.Contains(t, want, s)
				due = append(due, want[s])
				delete(want, s)
			}
			require.True(t, slices.IsSorted(due))
			for _, at := range want {
				require.Greater(t, at, now)
			}
		default:
			at := 1 + rng.Uint64N(1000)
			s.expiry.Store(at)
			q.set(s)
			want[s] = at
		}
		if round%100 == 0 {
			earliest := uint64(capi.NoExpiry)
			for _, at := range want {
				earliest = min(earliest, at)
			}
			require.Equal(t, earliest, q.sleep())
			q.awake()
			require.Len(t, q.heap, len(want))
		}
	}
}

func TestOnlyATimerThatIsEarlierWakesTheLoop(t *testing.T) {
	kicks := 0
	q := &timers{kick: func() { kicks++ }}
	a, b := sleepyAt(100), sleepyAt(50)
	q.set(a)
	require.Zero(t, kicks, "the loop is awake")
	require.EqualValues(t, 100, q.sleep())
	q.set(b)
	require.Equal(t, 1, kicks)
	b.expiry.Store(60)
	q.set(b)
	require.Equal(t, 1, kicks, "it wakes at 50 anyway")
	b.expiry.Store(40)
	q.set(b)
	require.Equal(t, 2, kicks)
	q.awake()
	b.expiry.Store(1)
	q.set(b)
	require.Equal(t, 2, kicks, "the loop is awake")
	require.Same(t, b, q.due(1))
	require.Nil(t, q.due(1), "once for each time that it was armed")
	require.EqualValues(t, 100, q.sleep())
}

func TestATimerIsInOneHeapAtATime(t *testing.T) {
	p, q := &timers{kick: func() {}}, &timers{kick: func() {}}
	s := sleepyAt(5)
	p.set(s)
	q.set(s)
	require.Nil(t, p.due(10))
	p.forget(s) // where it is not
	require.Same(t, s, q.due(10))
	q.set(s)
	q.close()
	require.Nil(t, q.due(10))
	q.set(s) // after the end
	require.Nil(t, q.due(10))
	p.set(s)
	require.Same(t, s, p.due(10))
}

func TestTimersDoNotAllocate(t *testing.T) {
	q := &timers{kick: func() {}}
	s := make([]*sleepy, 100)
	for i := range s {
		s[i] = sleepyAt(uint64(i + 1))
		q.set(s[i])
	}
	n := uint64(1)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		n = n*7%1001 + 1
		s[n%100].expiry.Store(n)
		q.set(s[n%100])
		q.sleep()
		q.awake()
		q.due(0)
	}))
}

package timerwheel_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/timerwheel"
)

const tick = 100 * time.Millisecond

func TestATimerFiresWithinATickAfterItsDeadlineAndNeverBefore(t *testing.T) {
	for _, d := range []time.Duration{
		1, tick - 1, tick, tick + 1, 63 * tick, 64 * tick, 64*tick + 1, 90 * time.Second,
		4095 * tick, 4096 * tick, 4097 * tick, 1 << 18 * tick, 7 * 24 * time.Hour, 0xfffffffe * time.Second,
	} {
		t.Run(d.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := timerwheel.New(tick)
				defer w.Close()
				time.Sleep(12345 * time.Microsecond) // not on a tick
				var fired time.Time
				var timer timerwheel.Timer
				timer.Init(w, func() { fired = time.Now() })
				deadline := time.Now().Add(d)
				timer.Reset(deadline)
				time.Sleep(d + tick)
				synctest.Wait()
				require.False(t, fired.IsZero(), "did not fire")
				require.False(t, fired.Before(deadline), "fired %v early", deadline.Sub(fired))
				require.Less(t, fired.Sub(deadline), tick)
			})
		})
	}
}

func TestADeadlineInThePastIsDueWithTheNextTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := timerwheel.New(tick)
		defer w.Close()
		time.Sleep(time.Hour + tick/2)
		n := 0
		var timer timerwheel.Timer
		timer.Init(w, func() { n++ })
		for i, at := range []time.Time{time.Now().Add(-time.Minute), {}, time.Now().Add(-24 * time.Hour)} {
			timer.Reset(at)
			require.Equal(t, 1, w.Len())
			time.Sleep(tick)
			synctest.Wait()
			require.Equal(t, i+1, n)
			require.Zero(t, w.Len())
		}
	})
}

func TestADeadlineBeyondAllMeasureDoesNotFire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := timerwheel.New(tick)
		defer w.Close()
		var timer timerwheel.Timer
		timer.Init(w, func() { t.Error("fired") })
		timer.Reset(time.Now().AddDate(5000, 0, 0))
		time.Sleep(100 * 365 * 24 * time.Hour)
		require.True(t, timer.Stop())
	})
}

func TestAPostponedTimerFiresOnceAtItsLastDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := timerwheel.New(tick)
		defer w.Close()
		var fired []time.Time
		var timer timerwheel.Timer
		timer.Init(w, func() { fired = append(fired, time.Now()) })
		var deadline time.Time
		for range 1000 {
			deadline = time.Now().Add(90 * time.Second)
			timer.Reset(deadline)
			time.Sleep(1700 * time.Millisecond)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, fired, 1)
		require.False(t, fired[0].Before(deadline))
		require.Less(t, fired[0].Sub(deadline), tick)
	})
}

func TestATimerMayBeBroughtForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := timerwheel.New(tick)
		defer w.Close()
		n := 0
		var timer timerwheel.Timer
		timer.Init(w, func() { n++ })
		timer.Reset(time.Now().Add(time.Hour))
		time.Sleep(time.Second)
		timer.Reset(time.Now().Add(time.Second))
		time.Sleep(time.Second + tick)
		synctest.Wait()
		require.Equal(t, 1, n)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Equal(t, 1, n)
	})
}

func TestStopSaysWhetherItKeptTheFunctionFromRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := timerwheel.New(tick)
		defer w.Close()
		n := 0
		var timer timerwheel.Timer
		timer.Init(w, func() { n++ })
		require.False(t, timer.Stop())
		timer.Reset(time.Now().Add(time.Second))
		require.True(t, timer.Stop())
		require.False(t, timer.Stop())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, n)
		timer.Reset(time.Now().Add(time.Second))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, n)
		require.False(t, timer.Stop())
	})
}

func TestACallbackMayResetAndStopAnyTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := timerwheel.New(tick)
		defer w.Close()
		var every, a, b timerwheel.Timer
		ticks, ran := 0, ""
		every.Init(w, func() {
			ticks++
			every.Reset(time.Now().Add(time.Second))
		})
		// a and b are due in the same tick; whichever runs first keeps the other from it.
		a.Init(w, func() { ran += "a"; require.True(t, b.Stop()) })
		b.Init(w, func() { ran += "b"; require.True(t, a.Stop()) })
		every.Reset(time.Now().Add(time.Second))
		at := time.Now().Add(5 * time.Second)
		a.Reset(at)
		b.Reset(at)
		time.Sleep(10*time.Second + tick/2)
		synctest.Wait()
		require.Len(t, ran, 1)
		require.Equal(t, 10, ticks) // on ticks, so nothing is lost to rounding
	})
}

func TestTwoTimersOfOneTickMayPostponeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := timerwheel.New(tick)
		defer w.Close()
		start := time.Now()
		var timers [2]timerwheel.Timer
		var fired []time.Duration
		for i := range timers {
			timers[i].Init(w, func() {
				if len(fired) == 0 {
					timers[1-i].Reset(start.Add(time.Minute))
				}
				fired = append(fired, time.Since(start))
			})
			timers[i].Reset(start.Add(time.Second))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, []time.Duration{time.Second, time.Minute}, fired)
	})
}

func TestCloseEndsTheGoroutineAndAllTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		w := timerwheel.New(tick)
		var timers [100]timerwheel.Timer
		for i := range timers {
			timers[i].Init(w, func() { t.Error("fired after Close") })
			timers[i].Reset(time.Now().Add(time.Duration(i+1) * time.Second))
		}
		w.Close()
		w.Close()
		for i := range timers {
			require.False(t, timers[i].Stop())
			timers[i].Reset(time.Now().Add(time.Second))
		}
		time.Sleep(time.Hour)
	})
}

func TestCloseWaitsForTheCallbackAndRunsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := timerwheel.New(tick)
		var timers [10]timerwheel.Timer
		var started, ended atomic.Int32
		for i := range timers {
			timers[i].Init(w, func() {
				started.Add(1)
				time.Sleep(time.Second)
				ended.Add(1)
			})
			timers[i].Reset(time.Now().Add(tick))
		}
		time.Sleep(tick + tick/2)
		synctest.Wait()
		w.Close()
		require.EqualValues(t, 1, started.Load())
		require.EqualValues(t, 1, ended.Load())
	})
}

// An idle wheel's goroutine sleeps for ever, which synctest sees as a deadlock of
// time: nothing but the sleeper below moves the clock, and a hundred
// years of it cost no work. A wheel that woke with each tick would wake 3e10 times.
func TestAnIdleWheelDoesNotWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := timerwheel.New(tick)
		defer w.Close()
		var timer timerwheel.Timer
		timer.Init(w, func() {})
		time.Sleep(50 * 365 * 24 * time.Hour)
		timer.Reset(time.Now().Add(40 * 365 * 24 * time.Hour)) // nor does one that waits
		time.Sleep(30 * 365 * 24 * time.Hour)
		require.True(t, timer.Stop())
		time.Sleep(50 * 365 * 24 * time.Hour)
	})
}

// randN returns a random duration from 0 to less than d.
func randN(rng *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(d)))
}

// Random resets, stops and sleeps; a plain list of deadlines says what must fire, and when.
func TestTheWheelFiresWhatAListOfDeadlinesWould(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				var mu sync.Mutex // what the callbacks share with this goroutine
				mu.Lock()
				w := timerwheel.New(tick)
				defer w.Close()
				const n = 200
				var timers [n]timerwheel.Timer
				var deadlines [n]time.Time // zero: not armed
				var last time.Time
				for i := range timers {
					timers[i].Init(w, func() {
						mu.Lock()
						defer mu.Unlock()
						now := time.Now()
						if deadlines[i].IsZero() || now.Before(deadlines[i]) || now.Sub(deadlines[i]) >= tick {
							t.Errorf("timer %d fired at %v, deadline %v", i, now, deadlines[i])
						}
						if now.Before(last) {
							t.Error("fired out of order")
						}
						last = now
						deadlines[i] = time.Time{}
						if rng.IntN(4) == 0 {
							deadlines[i] = now.Add(1 + randN(rng, time.Hour))
							timers[i].Reset(deadlines[i])
						}
					})
				}
				for range 3000 {
					i := rng.IntN(n)
					switch rng.IntN(8) {
					case 0:
						if got := timers[i].Stop(); got == deadlines[i].IsZero() {
							t.Fatalf("Stop of timer %d: %v, deadline %v", i, got, deadlines[i])
						}
						deadlines[i] = time.Time{}
					case 1:
						d := randN(rng, time.Duration(1)<<rng.IntN(42)) // up to 73 min
						mu.Unlock()
						time.Sleep(d)
						synctest.Wait()
						mu.Lock()
						for i, d := range deadlines {
							if !d.IsZero() && time.Since(d) >= tick {
								t.Fatalf("timer %d is overdue by %v", i, time.Since(d))
							}
						}
					default:
						deadlines[i] = time.Now().Add(1 + randN(rng, time.Duration(1)<<(20+rng.IntN(26)))) // up to 19 h
						timers[i].Reset(deadlines[i])
					}
				}
				mu.Unlock()
				time.Sleep(20 * time.Hour)
				synctest.Wait()
				mu.Lock() // no callback is under way, and after the stops none will be
				for i := range timers {
					require.Equal(t, !deadlines[i].IsZero(), timers[i].Stop())
				}
			})
		})
	}
}

// Owners race with the wheel in real time: a deadline is a tick away when they stop or postpone.
func TestEveryArmingEndsInOneCallOrOneSuccessfulStop(t *testing.T) {
	w := timerwheel.New(time.Millisecond)
	defer w.Close()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 2))
			var timer timerwheel.Timer
			fired := make(chan struct{}, 1)
			calls, stopped := 0, 0
			timer.Init(w, func() { calls++; fired <- struct{}{} })
			for i := range 1000 {
				timer.Reset(time.Now().Add(randN(rng, 2*time.Millisecond)))
				for range rng.IntN(100) {
					runtime.Gosched()
				}
				if timer.Stop() {
					stopped++
				} else {
					<-fired
				}
				if calls+stopped != i+1 {
					t.Errorf("%d armed, %d called, %d stopped", i+1, calls, stopped)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Whatever several goroutines do to the same timers at once, an armed timer fires and a
// stopped one does not.
func TestNoTimerIsLostWhenManyGoroutinesUseIt(t *testing.T) {
	w := timerwheel.New(time.Millisecond)
	defer w.Close()
	var timers [50]timerwheel.Timer
	var calls [50]atomic.Int64
	fired := make(chan int, 1000)
	var hammering atomic.Bool
	hammering.Store(true)
	for i := range timers {
		timers[i].Init(w, func() {
			calls[i].Add(1)
			if !hammering.Load() {
				fired <- i
			} else if calls[i].Load()%3 == 0 {
				timers[(i+1)%50].Reset(time.Now())
			}
		})
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 3))
			for range 50_000 {
				timer := &timers[rng.IntN(len(timers))]
				if rng.IntN(5) == 0 {
					timer.Stop()
				} else {
					timer.Reset(time.Now().Add(randN(rng, 5*time.Millisecond)))
				}
			}
		})
	}
	wg.Wait()
	hammering.Store(false)
	for i := range timers {
		timers[i].Reset(time.Now().Add(time.Hour))
	}
	// A callback that was under way has now nothing left to do but perhaps to
	// report itself, or to reset another that does so with a tick to come; two rounds
	// of a timer of our own, of some ticks, are behind it.
	var barrier timerwheel.Timer
	passed := make(chan struct{})
	barrier.Init(w, func() { passed <- struct{}{} })
	for range 2 {
		barrier.Reset(time.Now().Add(3 * time.Millisecond))
		<-passed
	}
	for len(fired) > 0 {
		<-fired
	}
	for i := range timers {
		if i%2 == 0 {
			timers[i].Reset(time.Now().Add(time.Millisecond))
		} else {
			timers[i].Stop()
		}
	}
	seen := map[int]int{}
	for range len(timers) / 2 {
		seen[<-fired]++
	}
	for range 2 {
		barrier.Reset(time.Now().Add(3 * time.Millisecond))
		<-passed
	}
	require.Empty(t, fired)
	for i := range timers {
		require.Equal(t, 1-i%2, seen[i], "timer %d", i)
	}
}

func TestATimerIsSmall(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(timerwheel.Timer{}), uintptr(48))
}

func TestResetAndStopAllocateNothing(t *testing.T) {
	w := timerwheel.New(tick)
	defer w.Close()
	var timer timerwheel.Timer
	timer.Init(w, func() {})
	now := time.Now()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		timer.Reset(now.Add(time.Hour))
		timer.Reset(now.Add(time.Minute))
		timer.Stop()
	}))
}

// wheelOf returns a wheel with armed timers, as many connections have.
func wheelOf(b *testing.B, n int) []timerwheel.Timer {
	w := timerwheel.New(tick)
	b.Cleanup(w.Close)
	timers := make([]timerwheel.Timer, n)
	now := time.Now()
	for i := range timers {
		timers[i].Init(w, func() {})
		timers[i].Reset(now.Add(time.Minute + time.Duration(i)*time.Millisecond))
	}
	return timers
}

func BenchmarkPostpone(b *testing.B) {
	timers := wheelOf(b, 100_000)
	at := time.Now().Add(time.Hour)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at = at.Add(time.Microsecond)
		timers[i%len(timers)].Reset(at)
	}
}

func BenchmarkBringForward(b *testing.B) {
	timers := wheelOf(b, 100_000)
	at := time.Now().Add(10 * time.Hour)
	for i := range timers {
		timers[i].Reset(at)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at = at.Add(-time.Microsecond)
		timers[i%len(timers)].Reset(at)
	}
}

func BenchmarkResetAndStop(b *testing.B) {
	timers := wheelOf(b, 100_000)
	at := time.Now().Add(time.Hour)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		t := &timers[i%len(timers)]
		t.Stop()
		t.Reset(at)
	}
}

func BenchmarkPostponeInParallel(b *testing.B) {
	timers := wheelOf(b, 100_000)
	at := time.Now().Add(time.Hour)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		at, i := at, rand.IntN(len(timers))
		for pb.Next() {
			i++
			at = at.Add(time.Microsecond)
			timers[i%len(timers)].Reset(at)
		}
	})
}

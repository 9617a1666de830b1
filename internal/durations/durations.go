// Package durations counts how long things take, in classes, for metrics.
package durations

import (
	"sync/atomic"
	"time"
)

// Bounds are the upper ends of the classes, from a message that waits for nobody
// to a peer that is given up. What is longer than the last is in one more class.
var Bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// A Counter counts durations. The zero value is ready; its methods may be called
// from any goroutine.
type Counter struct {
	classes [len(Bounds) + 1]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

// Add counts d once. It does not allocate.
func (c *Counter) Add(d time.Duration) {
	i := 0
	for i < len(Bounds) && d > Bounds[i] {
		i++
	}
	c.classes[i].Add(1)
	c.sum.Add(int64(d))
}

// A Histogram is what a Counter has counted. Count is the sum of Classes, the last
// of which is above the last of [Bounds].
type Histogram struct {
	Count   uint64
	Sum     time.Duration
	Classes [len(Bounds) + 1]uint64
}

// Histogram returns what has been counted.
func (c *Counter) Histogram() (h Histogram) {
	h.Sum = time.Duration(c.sum.Load())
	for i := range c.classes {
		h.Classes[i] = c.classes[i].Load()
		h.Count += h.Classes[i]
	}
	return h
}

package auth

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// UsersLimits bound what the checking of passwords takes. Hashing is slow, and
// argon2id takes much memory, on purpose: without bounds whoever can connect
// could have the broker do nothing else. Zero is the default of each.
type UsersLimits struct {
	// Checks is how many processors check passwords at the same time: half of
	// them, at least 1. A hash of argon2id with several threads takes as many.
	Checks int
	// Waiting is how many passwords may wait for that: 32. It should be less than
	// broker.Config.MaxHooks, so that clients without a password are not held up.
	Waiting int
	// Patience is how long one waits, at most: 2 s.
	Patience time.Duration
}

const (
	defaultWaiting  = 32
	defaultPatience = 2 * time.Second
)

func (l *UsersLimits) complete() error {
	if l.Checks < 0 || l.Waiting < 0 || l.Patience < 0 {
		return fmt.Errorf("auth: UsersLimits %+v: a limit is negative", *l)
	}
	if l.Checks == 0 {
		l.Checks = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if l.Waiting == 0 {
		l.Waiting = defaultWaiting
	}
	if l.Patience == 0 {
		l.Patience = defaultPatience
	}
	return nil
}

// UsersStats are figures of the checking of passwords.
type UsersStats struct {
	Checked uint64 // passwords
	Refused uint64 // because too many waited, or one waited too long
	Running int    // being checked now
	Waiting int    // for their turn
}

// errBusy refuses a client whose password cannot be checked now.
var errBusy error = &broker.Denied{Code: packet.ServerBusy, Reason: "too many passwords to check"}

// turns give passwords their turn to be checked, in the order in which they came.
type turns struct {
	limits UsersLimits
	places *semaphore.Weighted // of limits.Checks

	checked, refused atomic.Uint64
	running, waiting atomic.Int64
}

func newTurns(l UsersLimits) *turns {
	return &turns{limits: l, places: semaphore.NewWeighted(int64(l.Checks))}
}

// take waits for a turn of so many processors. After nil the caller calls give,
// with the same number.
func (t *turns) take(ctx context.Context, processors int) error {
	n := t.weight(processors)
	if !t.places.TryAcquire(n) {
		if err := t.wait(ctx, n); err != nil {
			return err
		}
	}
	t.running.Add(1)
	return nil
}

func (t *turns) wait(ctx context.Context, n int64) error {
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > int64(t.limits.Waiting) {
		t.refused.Add(1)
		return errBusy
	}
	patient, cancel := context.WithTimeout(ctx, t.limits.Patience)
	defer cancel()
	if t.places.Acquire(patient, n) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("auth: waiting to check a password: %w", err)
	}
	t.refused.Add(1)
	return errBusy
}

func (t *turns) give(processors int) {
	t.running.Add(-1)
	t.checked.Add(1)
	t.places.Release(t.weight(processors))
}

func (t *turns) weight(processors int) int64 {
	return int64(min(max(processors, 1), t.limits.Checks, math.MaxInt32))
}

func (t *turns) stats() UsersStats {
	return UsersStats{
		Checked: t.checked.Load(), Refused: t.refused.Load(),
		Running: int(t.running.Load()), Waiting: int(t.waiting.Load()),
	}
}

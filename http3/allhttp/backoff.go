package allhttp

import (
	"sync"
	"time"
)

// What failed is left alone for backoffMin, and twice as long each time it fails
// again, up to backoffMax. After that it is tried beside TCP, which costs
// requests no time.
const (
	backoffMin = time.Minute
	backoffMax = 4 * time.Hour
)

// A backoff remembers where HTTP/3 failed, by origin and alternative.
type backoff struct {
	mu     sync.Mutex
	failed map[string]failure // guarded by mu
}

type failure struct {
	times int       // since it last worked
	until time.Time // when it may be tried again
}

// A health is what is known about a place with HTTP/3.
type health int

const (
	healthy  health = iota // as far as is known
	doubtful               // it failed, a while ago
	broken
)

func (b *backoff) health(key string, now time.Time) health {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.failed[key]
	switch {
	case !ok:
		return healthy
	case now.Before(f.until):
		return broken
	}
	return doubtful
}

func (b *backoff) fail(key string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.failed[key]
	if now.Before(f.until) {
		return // the same failure, seen by somebody else
	}
	if !ok && len(b.failed) >= maxOrigins {
		b.evict()
	}
	d := backoffMax
	if f.times < 16 { // 2^16 minutes are more than backoffMax
		d = min(backoffMin<<f.times, backoffMax)
	}
	f.times++
	f.until = now.Add(d)
	if b.failed == nil {
		b.failed = make(map[string]failure)
	}
	b.failed[key] = f
}

func (b *backoff) succeed(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failed, key)
}

// forgive lets what failed be tried again at once.
func (b *backoff) forgive(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f, ok := b.failed[key]; ok {
		f.until = time.Time{}
		b.failed[key] = f
	}
}

func (b *backoff) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.failed)
}

// evict forgets the failure that counts least. mu is held.
func (b *backoff) evict() {
	var first string
	var at time.Time
	for key, f := range b.failed {
		if first == "" || f.until.Before(at) {
			first, at = key, f.until
		}
	}
	delete(b.failed, first)
}

package allhttp

import (
	"slices"
	"sync"
	"time"
)

// maxOrigins bounds what is remembered, in origins.
const maxOrigins = 1000

// An altCache remembers what origins, as "host:port", have said about where
// their HTTP/3 is.
type altCache struct {
	// allow reports what a file may say; nil: everything. It is not changed after
	// the first use.
	allow func(origin string, a alternative) bool

	mu      sync.Mutex
	origins map[string]altEntry // guarded by mu
	changes int                 // that are not in the file; guarded by mu

	saving sync.Mutex // held while the file is written
}

// An altEntry is what an origin has said.
type altEntry struct {
	alts []alternative
	said time.Time // when it was said, according to the response's age
}

// expires returns when nothing of it counts any more.
func (e altEntry) expires() (t time.Time) {
	for _, a := range e.alts {
		if end := e.said.Add(a.maxAge); end.After(t) {
			t = end
		}
	}
	return t
}

// set replaces what was known about an origin; no alternatives: it is forgotten.
// It reports whether others than before are known now.
func (c *altCache) set(origin string, alts []alternative, said, now time.Time) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, known := c.origins[origin]
	e := altEntry{alts: alts, said: said}
	same := known && slices.Equal(old.alts, alts)
	switch {
	case !e.expires().After(now):
		delete(c.origins, origin)
		if known {
			c.changes++
		}
		return known
	case same && said.Sub(old.said) < alts[0].maxAge/100:
		return false // each response says it again: it need not be kept each time
	case !known && len(c.origins) >= maxOrigins:
		c.evict()
	}
	if c.origins == nil {
		c.origins = make(map[string]altEntry)
	}
	c.origins[origin] = e
	c.changes++
	return !same
}

// changed reports whether there is something that a file does not have.
func (c *altCache) changed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes > 0
}

// evict forgets the origin whose word ends first. mu is held.
func (c *altCache) evict() {
	var first string
	var at time.Time
	for origin, e := range c.origins {
		if end := e.expires(); first == "" || end.Before(at) {
			first, at = origin, end
		}
	}
	delete(c.origins, first)
}

// get returns the alternatives of an origin, the one it prefers first.
func (c *altCache) get(origin string, now time.Time) []alternative {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.origins[origin]
	if !ok {
		return nil
	}
	for _, a := range e.alts {
		if !e.said.Add(a.maxAge).After(now) {
			return e.fresh(now)
		}
	}
	return e.alts
}

// fresh returns the alternatives that still count.
func (e altEntry) fresh(now time.Time) (alts []alternative) {
	for _, a := range e.alts {
		if e.said.Add(a.maxAge).After(now) {
			alts = append(alts, a)
		}
	}
	return alts
}

// changeNetwork forgets what is not said to persist.
//
// https://www.rfc-editor.org/rfc/rfc7838#section-2.2
func (c *altCache) changeNetwork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for origin, e := range c.origins {
		kept := slices.DeleteFunc(slices.Clone(e.alts), func(a alternative) bool { return !a.persist })
		if len(kept) == len(e.alts) {
			continue
		}
		c.changes++
		if e.alts = kept; len(kept) == 0 {
			delete(c.origins, origin)
			continue
		}
		c.origins[origin] = e
	}
}

package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt"
)

// A route is where a Client connects to.
type route struct {
	targets []*target            // in the order in which they are preferred
	avoid   map[string]time.Time // those that were too slow, by URL: until when they come last
	last    *target              // of the latest link
	detour  []*target            // for the next attempt alone
	hops    int                  // how often in a row a server has named another
	racers  sync.WaitGroup       // attempts that are under way or being undone
}

func parseURLs(cfg *Config) ([]*target, error) {
	urls := cfg.URLs
	if cfg.URL != "" || len(urls) == 0 {
		urls = append([]string{cfg.URL}, urls...)
	}
	targets := make([]*target, len(urls))
	for i, u := range urls {
		t, err := parseURL(u, cfg.Dialers)
		if err != nil {
			if len(urls) > 1 {
				err = fmt.Errorf("%w (URL %d of %d)", err, i+1, len(urls))
			}
			return nil, err
		}
		targets[i] = t
	}
	return targets, nil
}

// candidates returns the targets of the next attempt, in order.
func (r *route) candidates(now time.Time) []*target {
	if d := r.detour; d != nil {
		r.detour = nil
		return d
	}
	targets := slices.Clone(r.targets)
	slices.SortStableFunc(targets, func(a, b *target) int {
		return late(r.avoid, a, now) - late(r.avoid, b, now)
	})
	return targets
}

func late(avoid map[string]time.Time, t *target, now time.Time) int {
	if now.Before(avoid[t.String()]) {
		return 1
	}
	return 0
}

// won notes that t was the first to connect, and that others, which had started
// before it, were not.
func (r *route) won(t *target, slower []*target, until time.Time) {
	delete(r.avoid, t.String())
	for _, s := range slower {
		r.avoid[s.String()] = until
	}
}

// openLink connects to the target that is the first to be there.
func (c *Client) openLink(ctx context.Context) (mqtt.Link, *target, error) {
	targets := c.route.candidates(time.Now())
	if len(targets) == 1 {
		link, err := c.open(ctx, targets[0])
		return link, targets[0], err
	}
	return c.race(ctx, targets)
}

// A finish is how one of a race has ended.
type finish struct {
	lane int // which of the targets
	link mqtt.Link
	err  error
}

// race connects to one target after another until one is there, in the manner of
// RFC 8305, Section 5.
func (c *Client) race(ctx context.Context, targets []*target) (mqtt.Link, *target, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	finishes := make(chan finish, len(targets))
	started := 0
	start := func() {
		lane := started
		started++
		c.route.racers.Go(func() { // ends with ctx at the latest
			link, err := c.openWhole(ctx, targets[lane])
			finishes <- finish{lane, link, err}
		})
	}
	start()
	timer := time.NewTimer(max(c.cfg.RaceDelay, 0))
	defer timer.Stop()
	errs := make([]error, len(targets))
	for failed := 0; failed < len(targets); {
		select {
		case <-timer.C:
			if started < len(targets) {
				start()
				timer.Reset(max(c.cfg.RaceDelay, 0))
			}
		case f := <-finishes:
			if f.err != nil {
				failed++
				errs[f.lane] = fmt.Errorf("%s: %w", targets[f.lane], f.err)
				if started < len(targets) {
					start()
					timer.Reset(max(c.cfg.RaceDelay, 0))
				}
				continue
			}
			c.closeLosers(finishes, started-failed-1)
			c.route.won(targets[f.lane], targets[:f.lane], time.Now().Add(c.cfg.RaceMemory))
			return f.link, targets[f.lane], nil
		}
	}
	return nil, nil, errors.Join(errs...)
}

// openWhole is open up to a handshake that is complete also on a carrier that can be
// used before: what does not reach the server wins no race.
func (c *Client) openWhole(ctx context.Context, t *target) (mqtt.Link, error) {
	link, err := c.open(ctx, t)
	if err != nil {
		return nil, err
	}
	// A link whose early data was refused is as good as new.
	if err := link.Handshake(ctx); err != nil && !errors.Is(err, mqtt.ErrEarlyDataRejected) {
		return nil, errors.Join(err, link.CloseWithCode(mqtt.LinkNormal))
	}
	return link, nil
}

// closeLosers closes the links of n that are still on their way, which the race's
// context tells to end.
func (c *Client) closeLosers(finishes <-chan finish, n int) {
	if n == 0 {
		return
	}
	c.route.racers.Go(func() {
		for range n {
			if f := <-finishes; f.link != nil {
				_ = f.link.CloseWithCode(mqtt.LinkNormal)
			}
		}
	})
}

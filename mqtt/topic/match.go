package topic

import (
	"iter"
	"sync/atomic"
)

// A Result is what [Tree.Match] found. The zero value is ready; used again and
// again by one goroutine, it makes Match free of allocations. It keeps what
// it found alive until the next Match or Reset.
type Result[K comparable, V any] struct {
	// Plain has one element for each filter that matched and has plain
	// subscriptions. A key is in one element at most once; so if there is one
	// element, no key appears twice, and if there are more, one may.
	Plain []Set[K, V]

	// Shared has one element for each group of each filter that matched. The
	// message goes to one member of each, and to a subscriber once for each
	// group that chose it and once for its plain subscriptions (Section 4.8.2).
	Shared []Group[K, V]

	todo []visit[K, V] // branches of the tree to go back to; empty between calls
}

// A visit is a node whose path matched the name up to a position.
type visit[K comparable, V any] struct {
	n *node[filterSubs[K, V]]
	p int
}

// Reset forgets what was found and keeps the memory.
func (r *Result[K, V]) Reset() {
	clear(r.Plain)
	clear(r.Shared)
	r.Plain, r.Shared = r.Plain[:0], r.Shared[:0]
}

// Empty reports whether nothing was found.
func (r *Result[K, V]) Empty() bool { return len(r.Plain) == 0 && len(r.Shared) == 0 }

// A Set is the plain subscriptions of one filter. It costs nothing to make,
// however many they are: it is a view of the tree, and a subscription that is
// removed after the Match may be missing from it.
type Set[K comparable, V any] struct {
	places []atomic.Pointer[Sub[K, V]]
}

// All iterates over the subscriptions, oldest first. Range over it in a function
// rather than in a function literal: the compiler then inlines it, and nothing is
// allocated.
func (s Set[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i := range s.places {
			if e := s.places[i].Load(); e != nil && !yield(e.Key, e.Value) {
				return
			}
		}
	}
}

// Cap returns how many subscriptions All yields at most, to size a buffer.
func (s Set[K, V]) Cap() int { return len(s.places) }

// A Group is the members of one shared subscription.
type Group[K comparable, V any] struct {
	Name   string // the share name
	places []atomic.Pointer[Sub[K, V]]
	first  int
}

// All iterates over the members, beginning with the one whose turn it is. The turn
// goes around with every Match. As for [Set.All], range over it in a function. Take the first member that can have the message.
func (g Group[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, part := range [2][]atomic.Pointer[Sub[K, V]]{g.places[g.first:], g.places[:g.first]} {
			for i := range part {
				if e := part[i].Load(); e != nil && !yield(e.Key, e.Value) {
					return
				}
			}
		}
	}
}

// Match finds the subscriptions whose filter matches name and puts them into r
// in place of what was there. The name must be valid.
func (t *Tree[K, V]) Match(name string, r *Result[K, V]) {
	r.Reset()
	n, p := &t.trie.root, 0
	// [MQTT-4.7.2-1]: no wildcard in the first level matches $SYS and the like.
	wild := name == "" || name[0] != '$'
	for {
		k := n.kids.Load()
		if p > len(name) {
			r.add(n)
			if k != nil {
				if m := k.multi.Load(); m != nil && m.edge == "#" { // a/# matches a
					r.add(m)
				}
			}
		} else if k != nil {
			if wild {
				if m := k.multi.Load(); m != nil && m.edge == "#" {
					r.add(m)
				}
				if m := k.plus.Load(); m != nil {
					if q, ok := follow(m.edge, name, p); ok != matchedNot {
						r.todo = append(r.todo, visit[K, V]{m, q})
					}
				}
			}
			wild = true
			if len(k.slots) > 0 {
				level, _, _ := nextLevel(name, p)
				if m, _ := t.trie.literal(k, level); m != nil {
					if q, ok := follow(m.edge, name, p); ok != matchedNot {
						n, p = m, q
						continue
					}
				}
			}
		}
		last := len(r.todo) - 1
		if last < 0 {
			return
		}
		n, p = r.todo[last].n, r.todo[last].p
		r.todo[last] = visit[K, V]{}
		r.todo = r.todo[:last]
	}
}

// add notes the subscriptions of n, whose filter matches.
func (r *Result[K, V]) add(n *node[filterSubs[K, V]]) {
	if places := n.val.plain.Load().entries(); len(places) > 0 {
		r.Plain = append(r.Plain, Set[K, V]{places})
	}
	groups := n.val.groups.Load().entries()
	for i := range groups {
		g := groups[i].Load()
		if g == nil {
			continue
		}
		if places := g.members.Load().entries(); len(places) > 0 {
			r.Shared = append(r.Shared, Group[K, V]{g.name, places, g.turn(places)})
		}
	}
}

// turn returns the place of the member whose turn it is. It passes over holes, so that
// the member behind one is not served twice as often.
func (g *group[K, V]) turn(places []atomic.Pointer[Sub[K, V]]) int {
	n := uint32(len(places))
	for range n {
		if i := (g.next.Add(1) - 1) % n; places[i].Load() != nil {
			return int(i)
		}
	}
	return 0
}

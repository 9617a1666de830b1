package topic

import (
	"strings"
	"sync"
	"sync/atomic"
)

// A Tree holds subscriptions, plain and shared, and finds those that match a
// name. K names the subscriber, one subscription per filter and key; V is
// whatever the subscription has besides, its options. Make one with [NewTree].
//
// All methods may be called from any goroutine at any time. Match takes no lock
// and is never held up, so that it scales with the cores; Subscribe and
// Unsubscribe exclude each other, and take as long as a look-up but for the few that make a
// node's table of children larger or smaller, which take time in proportion to it. A Match finds every subscription that was made
// before it began and has not been removed by its end, each once. Of the others it may find some.
type Tree[K comparable, V any] struct {
	mu   sync.Mutex
	trie trie[filterSubs[K, V], *filterSubs[K, V]] // written under mu
	size atomic.Int64

	groups atomic.Int64 // shared subscriptions with a name and a filter of their own
}

// A Sub is one subscription.
type Sub[K comparable, V any] struct {
	Key   K
	Value V
}

func (s *Sub[K, V]) key() K { return s.Key }

type (
	subList[K comparable, V any]   = list[K, Sub[K, V], *Sub[K, V]]
	groupList[K comparable, V any] = list[string, group[K, V], *group[K, V]]
)

// filterSubs are the subscriptions of one filter.
type filterSubs[K comparable, V any] struct {
	plain  atomic.Pointer[subList[K, V]]
	groups atomic.Pointer[groupList[K, V]]
}

func (f *filterSubs[K, V]) share(from *filterSubs[K, V]) {
	f.plain.Store(from.plain.Load())
	f.groups.Store(from.groups.Load())
}

func (f *filterSubs[K, V]) empty() bool {
	return f.plain.Load() == nil && f.groups.Load() == nil
}

// A group is the shared subscriptions of one filter with one share name.
type group[K comparable, V any] struct {
	name    string
	members atomic.Pointer[subList[K, V]]
	next    atomic.Uint32 // counts up with every Match: whose turn it is
}

func (g *group[K, V]) key() string { return g.name }

// NewTree returns an empty Tree.
func NewTree[K comparable, V any]() *Tree[K, V] {
	t := new(Tree[K, V])
	t.trie.init()
	return t
}

// Len returns the number of subscriptions.
func (t *Tree[K, V]) Len() int { return int(t.size.Load()) }

// Groups returns the number of groups that share a subscription: different pairs of
// a share name and a filter.
func (t *Tree[K, V]) Groups() int { return int(t.groups.Load()) }

// splitShare returns the group and the filter to store a subscription under.
// The filter is valid, or else it may be stored as whatever it looks like.
func splitShare(filter string) (group, rest string, shared bool) {
	group, rest, shared, err := ParseShare(filter)
	if err != nil || !shared {
		return "", filter, false
	}
	return group, rest, true
}

// Subscribe makes the subscription of k to a filter, plain or shared, or
// replaces it, and returns the value it had before. The filter must be valid
// (an invalid one is kept, matches nothing of use and does no other harm); the Tree
// keeps no part of the string.
func (t *Tree[K, V]) Subscribe(filter string, k K, v V) (previous V, replaced bool) {
	name, filter, shared := splitShare(filter)
	e := &Sub[K, V]{k, v}

	t.mu.Lock()
	defer t.mu.Unlock()
	fs := &t.trie.insert(filter).val
	at := &fs.plain
	if shared {
		g, made := fs.group(name)
		if made {
			t.groups.Add(1)
		}
		at = &g.members
	}
	l, old := at.Load().put(e)
	at.Store(l)
	if old != nil {
		return old.Value, true
	}
	t.size.Add(1)
	return previous, false
}

// group returns the group of a name; it makes it if there is none.
func (f *filterSubs[K, V]) group(name string) (g *group[K, V], made bool) {
	l := f.groups.Load()
	if g := l.get(name); g != nil {
		return g, false
	}
	g = &group[K, V]{name: strings.Clone(name)}
	l, _ = l.put(g)
	f.groups.Store(l)
	return g, true
}

// Unsubscribe removes the subscription of k to a filter and returns its value;
// false if there was none.
func (t *Tree[K, V]) Unsubscribe(filter string, k K) (v V, ok bool) {
	name, filter, shared := splitShare(filter)

	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.trie.find(filter)
	if n == nil {
		return v, false
	}
	fs := &n.val
	at := &fs.plain
	var g *group[K, V]
	if shared {
		if g = fs.groups.Load().get(name); g == nil {
			return v, false
		}
		at = &g.members
	}
	l, old := at.Load().delete(k)
	if old == nil {
		return v, false
	}
	at.Store(l)
	if shared && l == nil {
		groups, _ := fs.groups.Load().delete(name)
		fs.groups.Store(groups)
		t.groups.Add(-1)
	}
	if fs.empty() {
		t.trie.remove(filter)
	}
	t.size.Add(-1)
	return old.Value, true
}

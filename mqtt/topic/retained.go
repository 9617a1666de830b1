package topic

import (
	"strings"
	"sync"
	"sync/atomic"
)

// A Retained maps topic names to values, and finds those whose name matches a
// filter. Make one with [NewRetained].
//
// All methods may be called from any goroutine at any time. Get and Match take no
// lock and hold nobody up, however long they take.
type Retained[V any] struct {
	mu   sync.Mutex
	trie trie[retained[V], *retained[V]] // written under mu
	size atomic.Int64
}

// retained is the value of a name. Copies of a node share the entry: a Match
// that walks nodes which are out of date still yields values that are not.
type retained[V any] struct {
	entry atomic.Pointer[entry[V]]
}

type entry[V any] struct {
	name string
	v    atomic.Pointer[V] // nil: deleted
}

func (r *retained[V]) share(from *retained[V]) { r.entry.Store(from.entry.Load()) }
func (r *retained[V]) empty() bool             { return r.entry.Load() == nil }

// NewRetained returns an empty Retained.
func NewRetained[V any]() *Retained[V] {
	r := new(Retained[V])
	r.trie.init()
	return r
}

// Len returns the number of names.
func (r *Retained[V]) Len() int { return int(r.size.Load()) }

// Set gives a name a value and returns the value it had before. The name must
// be valid; the string is kept.
func (r *Retained[V]) Set(name string, v V) (previous V, replaced bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := &r.trie.insert(name).val.entry
	if e := at.Load(); e != nil {
		return *e.v.Swap(&v), true
	}
	e := &entry[V]{name: name}
	e.v.Store(&v)
	at.Store(e)
	r.size.Add(1)
	return previous, false
}

// Get returns the value of a name; false if it has none.
func (r *Retained[V]) Get(name string) (v V, ok bool) {
	if n := r.trie.find(name); n != nil {
		if e := n.val.entry.Load(); e != nil {
			if p := e.v.Load(); p != nil {
				return *p, true
			}
		}
	}
	return v, false
}

// Delete removes a name and returns its value; false if it had none.
func (r *Retained[V]) Delete(name string) (v V, ok bool) {
	p := r.delete(name, nil)
	if p == nil {
		return v, false
	}
	return *p, true
}

// DeleteIf removes a name if cond is true of its value, and reports whether
// it did. A value set after cond was asked stays. No lock is held while cond runs.
func (r *Retained[V]) DeleteIf(name string, cond func(V) bool) bool {
	n := r.trie.find(name)
	if n == nil {
		return false
	}
	e := n.val.entry.Load()
	if e == nil {
		return false
	}
	p := e.v.Load()
	return p != nil && cond(*p) && r.delete(name, p) != nil
}

// delete removes a name if its value is only, or whatever it is if only is
// nil, and returns the value.
func (r *Retained[V]) delete(name string, only *V) *V {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.trie.find(name)
	if n == nil {
		return nil
	}
	e := n.val.entry.Load()
	if e == nil || only != nil && e.v.Load() != only {
		return nil
	}
	n.val.entry.Store(nil)
	p := e.v.Swap(nil)
	r.trie.remove(name)
	r.size.Add(-1)
	return p
}

// Match calls yield for each name that matches filter, in no order, with the
// value that it has at that moment, until yield returns false. The filter must be valid;
// the filter of a shared subscription gets no retained messages (MQTT 5,
// Section 3.8.3.1), so none is looked for under "$share/".
//
// Match yields every name that had a value all the time from its beginning to its
// end, once. Others it may yield or not; one that is deleted and set again
// meanwhile, twice. No lock is held while yield runs: it may call Set and Delete.
func (r *Retained[V]) Match(filter string, yield func(name string, v V) bool) {
	w := walk[V]{trie: &r.trie, filter: filter, yield: yield}
	// [MQTT-4.7.2-1]: no wildcard in the first level matches $SYS and the like.
	hide := startsWild(filter)
	w.arrive(&r.trie.root, 0)
	for len(w.todo) > 0 && !w.stopped {
		top := len(w.todo) - 1
		b := &w.todo[top]
		if len(b.slots) == 0 {
			w.todo[top] = branch[V]{}
			w.todo = w.todo[:top]
			continue
		}
		n := b.slots[0].n.Load()
		b.slots = b.slots[1:]
		if n == nil || n == r.trie.gone || hide && b.root && strings.HasPrefix(n.edge, "$") {
			continue
		}
		if p, ok := along(filter, b.p, n.edge); ok {
			w.arrive(n, p)
		}
	}
}

// A walk is one Match under way.
type walk[V any] struct {
	trie    *trie[retained[V], *retained[V]]
	filter  string
	yield   func(string, V) bool
	stopped bool
	todo    []branch[V] // innermost last; not longer than the tree is deep
}

// A branch is the children of a node that are yet to be looked at, with the position of the
// filter's level that their first level must match.
type branch[V any] struct {
	slots []slot[retained[V]]
	p     int
	root  bool
}

// arrive deals with n, whose path matches the filter's levels up to p: it yields its
// value, follows literal levels, and notes the children to look at.
func (w *walk[V]) arrive(n *node[retained[V]], p int) {
	for p <= len(w.filter) {
		level, _, more := nextLevel(w.filter, p)
		rest := level == "#" && !more
		if rest {
			w.show(n) // a/# matches a
		}
		if rest || level == "+" {
			if k := n.kids.Load(); k != nil {
				w.todo = append(w.todo, branch[V]{k.slots, p, n == &w.trie.root})
			}
			return
		}
		n, _ = w.trie.child(n, level)
		if n == nil {
			return
		}
		var ok bool
		if p, ok = along(w.filter, p, n.edge); !ok {
			return
		}
	}
	w.show(n)
}

// show yields the value of n, if it has one.
func (w *walk[V]) show(n *node[retained[V]]) {
	e := n.val.entry.Load()
	if e == nil {
		return
	}
	if v := e.v.Load(); v != nil {
		w.stopped = !w.yield(e.name, *v)
	}
}

// along matches the levels of filter from position p with all levels of a piece of a name. It
// returns the position behind the last level used; that of #, if the piece has come under it.
func along(filter string, p int, piece string) (int, bool) {
	for at := 0; at <= len(piece); {
		if p > len(filter) {
			return p, false
		}
		fl, next, more := nextLevel(filter, p)
		if fl == "#" && !more {
			return p, true
		}
		var pl string
		pl, at, _ = nextLevel(piece, at)
		if fl != "+" && fl != pl {
			return p, false
		}
		p = next
	}
	return p, true
}

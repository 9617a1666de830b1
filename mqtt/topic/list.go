package topic

import "sync/atomic"

// A list is a set of entries by key, in the order of their arrival, for readers
// without a lock. One writer at a time; the rules for readers are the trie's
// (trie.go): an entry keeps its place, a removal leaves a hole, and a list
// that is full or mostly holes is replaced by another.
type list[K comparable, E any, P keyed[K, E]] struct {
	n     atomic.Int32        // places in use, holes included
	live  int32               // writer only: entries
	slots []atomic.Pointer[E] // nil: a hole
	index map[K]int32         // writer only: where a key is; nil while slots is short

	// first is the place of a single entry, which most lists have: one
	// allocation and one cache line less.
	first [1]atomic.Pointer[E]
}

type keyed[K comparable, E any] interface {
	*E
	key() K
}

// indexFrom is the number of places from which on a list has an index.
const indexFrom = 16

// newList returns an empty list with room for n entries.
func newList[K comparable, E any, P keyed[K, E]](n int) *list[K, E, P] {
	l := new(list[K, E, P])
	switch {
	case n <= 1:
		l.slots = l.first[:]
	default:
		l.slots = make([]atomic.Pointer[E], n)
	}
	if n >= indexFrom {
		l.index = make(map[K]int32, n)
	}
	return l
}

// entries returns the places in use. Any goroutine may call it on a list that
// it loaded; nil lists have none.
func (l *list[K, E, P]) entries() []atomic.Pointer[E] {
	if l == nil {
		return nil
	}
	return l.slots[:l.n.Load()]
}

// at returns where k's entry is, -1 if there is none. Writer only.
func (l *list[K, E, P]) at(k K) int32 {
	if l == nil {
		return -1
	}
	if l.index != nil {
		if i, ok := l.index[k]; ok {
			return i
		}
		return -1
	}
	for i := range l.n.Load() {
		if e := l.slots[i].Load(); e != nil && P(e).key() == k {
			return i
		}
	}
	return -1
}

// get returns the entry of k, nil if there is none. Writer only.
func (l *list[K, E, P]) get(k K) *E {
	if i := l.at(k); i >= 0 {
		return l.slots[i].Load()
	}
	return nil
}

// put adds e, or replaces the entry with e's key. It returns the list that holds e, which
// the caller publishes if it is another, and the entry replaced.
func (l *list[K, E, P]) put(e *E) (*list[K, E, P], *E) {
	if i := l.at(P(e).key()); i >= 0 {
		return l, l.slots[i].Swap(e)
	}
	switch {
	case l == nil:
		l = newList[K, E, P](1)
	case int(l.n.Load()) == len(l.slots):
		// Double the entries, not the places: holes are not carried along.
		l = l.copied(int(l.live) * 2)
	}
	l.push(e)
	return l, nil
}

func (l *list[K, E, P]) push(e *E) {
	i := l.n.Load()
	l.slots[i].Store(e)
	if l.index != nil {
		l.index[P(e).key()] = i
	}
	l.live++
	l.n.Store(i + 1)
}

// delete removes the entry of k. It returns the list that holds the others, nil
// if there are none, and the entry removed, nil if there was none.
func (l *list[K, E, P]) delete(k K) (*list[K, E, P], *E) {
	i := l.at(k)
	if i < 0 {
		return l, nil
	}
	e := l.slots[i].Swap(nil)
	l.live--
	delete(l.index, k)
	switch {
	case l.live == 0:
		return nil, e
	case len(l.slots) > 2 && int(l.live)*4 <= len(l.slots):
		return l.copied(int(l.live) * 2), e
	}
	return l, e
}

// copied returns a copy of l without holes and with room for n entries.
func (l *list[K, E, P]) copied(n int) *list[K, E, P] {
	c := newList[K, E, P](max(n, 2))
	for i := range l.slots {
		if e := l.slots[i].Load(); e != nil {
			c.push(e)
		}
	}
	return c
}

package topic

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// A trie has a node for each topic, name or filter, that has a value. The value is
// a T in the node, made of atomic pointers; see [content].
//
// # Shape
//
// It is a radix tree over levels: a node's edge is a run of one or more levels,
// so that a chain of nodes without branches or values is one node. A topic costs
// at most two nodes whatever the number of its levels, and the tree is never
// deeper than a topic's levels; every walk is a loop.
//
// "+" and "#" have children's places of their own, so that a match finds them
// without a look-up. Other children are in an array that is searched from end to
// end while it is small and is a hash table after that. The hash is seeded:
// whoever chooses the topics cannot choose the collisions.
//
// # Concurrency
//
// Writers exclude each other (the owner's mutex). Readers take no lock and are
// never held up. What they may rely on:
//
//   - edge never changes. A split or a merge makes new nodes, which share the
//     children and the value with the old ones, and stores the topmost new node
//     in the place where the topmost old one was.
//   - kids' array grows and shrinks by being replaced. In one array, a child keeps
//     its place for life; an insertion takes a free place, a removal leaves a
//     mark that a search passes over.
//
// So a reader may walk nodes that are no longer in the tree, but from there it
// finds everything that was there before the walk began and has stayed since. What comes
// or goes meanwhile it may or may not see.
type trie[T any, P content[T]] struct {
	seed maphash.Seed
	root node[T]
	gone *node[T] // marks a removed child in a hash table

	nodes int // guarded by the owner's mutex; without the root
}

// content is what a trie must be able to do with a node's value. Writers only.
type content[T any] interface {
	*T
	share(from *T) // become what from is; readers go on using from
	empty() bool   // nothing keeps the node
}

type node[T any] struct {
	edge string // levels joined by "/"; owned: it pins no packet
	kids atomic.Pointer[kids[T]]
	val  T
}

// kids are a node's children. A node without children has none.
type kids[T any] struct {
	plus  atomic.Pointer[node[T]] // the edge starts with level +
	multi atomic.Pointer[node[T]] // the edge is #
	slots []slot[T]               // the others; the length is a power of two
	live  int                     // guarded by the owner's mutex: children in slots
	used  int                     // guarded by the owner's mutex: live and gone
}

type slot[T any] struct {
	n    atomic.Pointer[node[T]]
	hash atomic.Uint32 // of the first level; in hash tables only
}

// smallKids is the size up to which slots are searched from end to end.
const smallKids = 8

func (t *trie[T, P]) init() {
	t.seed = maphash.MakeSeed()
	t.gone = new(node[T])
}

func (t *trie[T, P]) hash(level string) uint32 {
	return uint32(maphash.String(t.seed, level))
}

// firstLevel returns the first level of a run.
func firstLevel(run string) string {
	if i := strings.IndexByte(run, '/'); i >= 0 {
		return run[:i]
	}
	return run
}

// startsWith reports whether level is the first level of run.
func startsWith(run, level string) bool {
	return len(run) >= len(level) && run[:len(level)] == level &&
		(len(run) == len(level) || run[len(level)] == '/')
}

// commonLevels returns how many bytes of a and b the levels take that they have
// in common from the start on. The first level must be equal.
func commonLevels(a, b string) int {
	end := 0
	for i := 0; ; i++ {
		if i == len(a) || i == len(b) {
			if (i == len(a) || a[i] == '/') && (i == len(b) || b[i] == '/') {
				end = i
			}
			return end
		}
		if a[i] != b[i] {
			return end
		}
		if a[i] == '/' {
			end = i
		}
	}
}

// literal returns the child whose edge starts with level, which is no wildcard,
// and its place; nil if there is none.
func (t *trie[T, P]) literal(k *kids[T], level string) (*node[T], *slot[T]) {
	if len(k.slots) <= smallKids {
		for i := range k.slots {
			s := &k.slots[i]
			if n := s.n.Load(); n != nil && startsWith(n.edge, level) {
				return n, s
			}
		}
		return nil, nil
	}
	h := t.hash(level)
	mask := uint32(len(k.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		s := &k.slots[i]
		n := s.n.Load()
		if n == nil {
			return nil, nil
		}
		if s.hash.Load() == h && n != t.gone && startsWith(n.edge, level) {
			return n, s
		}
	}
}

// child returns the child of n whose edge starts with level and its place; nil
// if there is none.
func (t *trie[T, P]) child(n *node[T], level string) (*node[T], *atomic.Pointer[node[T]]) {
	k := n.kids.Load()
	if k == nil {
		return nil, nil
	}
	switch level {
	case "+":
		return k.plus.Load(), &k.plus
	case "#":
		return k.multi.Load(), &k.multi
	}
	c, s := t.literal(k, level)
	if c == nil {
		return nil, nil
	}
	return c, &s.n
}

// find returns the node whose path is topic, nil if there is none.
func (t *trie[T, P]) find(topic string) *node[T] {
	n := &t.root
	for p := 0; p <= len(topic); p += len(n.edge) + 1 {
		rest := topic[p:]
		n, _ = t.child(n, firstLevel(rest))
		if n == nil || !isPrefix(n.edge, rest) {
			return nil
		}
	}
	return n
}

// isPrefix reports whether the levels of run are the first levels of topic.
func isPrefix(run, topic string) bool {
	return strings.HasPrefix(topic, run) && (len(topic) == len(run) || topic[len(run)] == '/')
}

// insert returns the node whose path is topic; it makes it if there is none.
// The caller excludes other writers and gives it a value before it lets them in.
func (t *trie[T, P]) insert(topic string) *node[T] {
	n := &t.root
	for p := 0; ; {
		rest := topic[p:]
		c, at := t.child(n, firstLevel(rest))
		if c == nil {
			return t.attach(n, t.newNode(rest))
		}
		common := commonLevels(c.edge, rest)
		if common < len(c.edge) {
			// Split: the levels in common, and below them what was here.
			upper := t.newNode(c.edge[:common])
			lower := t.newNode(c.edge[common+1:])
			t.nodes-- // c goes
			lower.kids.Store(c.kids.Load())
			P(&lower.val).share(&c.val)
			t.attach(upper, lower)
			target := upper
			if common < len(rest) {
				target = t.attach(upper, t.newNode(rest[common+1:]))
			}
			at.Store(upper)
			return target
		}
		if common == len(rest) {
			return c
		}
		n, p = c, p+common+1
	}
}

func (t *trie[T, P]) newNode(edge string) *node[T] {
	t.nodes++
	return &node[T]{edge: strings.Clone(edge)}
}

// attach makes c, whose first level no child of n has, a child of n.
func (t *trie[T, P]) attach(n, c *node[T]) *node[T] {
	k := n.kids.Load()
	fresh := k == nil
	if fresh {
		k = new(kids[T])
	}
	switch level := firstLevel(c.edge); level {
	case "+":
		k.plus.Store(c)
	case "#":
		k.multi.Store(c)
	default:
		if full(k) {
			k = t.resized(k, k.live+1)
			fresh = true
		}
		t.put(k, c, level)
	}
	if fresh {
		n.kids.Store(k)
	}
	return c
}

// full reports whether k's slots take no more. A hash table is full at three
// quarters, marks counted, so that a search ends soon.
func full[T any](k *kids[T]) bool {
	if len(k.slots) <= smallKids {
		return k.live == len(k.slots)
	}
	return (k.used+1)*4 > len(k.slots)*3
}

// tableSize returns how many slots live children get: two thirds of a table at most
// are in use when it is new, so that the next rebuild is far.
func tableSize(live int) int {
	if live > smallKids {
		live += live / 2
	}
	size := 1
	for size < live {
		size *= 2
	}
	return size
}

// resized returns a copy of k with slots for live literal children.
func (t *trie[T, P]) resized(k *kids[T], live int) *kids[T] {
	c := &kids[T]{}
	c.plus.Store(k.plus.Load())
	c.multi.Store(k.multi.Load())
	if live == 0 {
		return c
	}
	c.slots = make([]slot[T], tableSize(live))
	hashed := len(k.slots) > smallKids && len(c.slots) > smallKids
	for i := range k.slots {
		s := &k.slots[i]
		n := s.n.Load()
		switch {
		case n == nil || n == t.gone:
		case hashed: // the hash is at hand, the node need not be looked at
			t.putHash(c, n, s.hash.Load())
		default:
			t.put(c, n, firstLevel(n.edge))
		}
	}
	return c
}

// put stores c, which is not in k, in a free slot of k.
func (t *trie[T, P]) put(k *kids[T], c *node[T], level string) {
	if len(k.slots) > smallKids {
		t.putHash(k, c, t.hash(level))
		return
	}
	for i := range k.slots {
		if s := &k.slots[i]; s.n.Load() == nil {
			s.n.Store(c)
			k.live++
			return
		}
	}
	panic("topic: no free slot")
}

func (t *trie[T, P]) putHash(k *kids[T], c *node[T], h uint32) {
	mask := uint32(len(k.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		s := &k.slots[i]
		old := s.n.Load()
		if old != nil && old != t.gone {
			continue
		}
		if old == nil {
			k.used++
		}
		k.live++
		s.hash.Store(h) // before the node: who sees the node sees its hash
		s.n.Store(c)
		return
	}
}

// remove takes a node without a value and whatever it kept alive out of the
// tree: the nodes above it that now lead nowhere, and those that have become a
// link of a chain. It does nothing if the node of topic has a value.
// The caller excludes other writers.
func (t *trie[T, P]) remove(topic string) {
	// Down, noting the way.
	var short [16]*node[T]
	way := append(short[:0], &t.root)
	for p := 0; p <= len(topic); {
		rest := topic[p:]
		c, _ := t.child(way[len(way)-1], firstLevel(rest))
		if c == nil || !isPrefix(c.edge, rest) {
			return
		}
		way = append(way, c)
		p += len(c.edge) + 1
	}
	// Up, as long as something goes.
	for i := len(way) - 1; i > 0; i-- {
		n, parent := way[i], way[i-1]
		if !P(&n.val).empty() {
			return
		}
		k := n.kids.Load()
		if k == nil {
			t.detach(parent, n)
			continue
		}
		if only := t.only(k); only != nil {
			merged := t.newNode(n.edge + "/" + only.edge)
			t.nodes -= 2
			merged.kids.Store(only.kids.Load())
			P(&merged.val).share(&only.val)
			_, at := t.child(parent, firstLevel(n.edge))
			at.Store(merged)
		}
		return
	}
}

// only returns the one child in k, nil if there are more.
func (t *trie[T, P]) only(k *kids[T]) *node[T] {
	plus, multi := k.plus.Load(), k.multi.Load()
	switch {
	case k.live == 0 && multi == nil:
		return plus
	case k.live == 0 && plus == nil:
		return multi
	case k.live == 1 && plus == nil && multi == nil:
		for i := range k.slots {
			if n := k.slots[i].n.Load(); n != nil && n != t.gone {
				return n
			}
		}
	}
	return nil
}

// detach removes the child c from n.
func (t *trie[T, P]) detach(n, c *node[T]) {
	t.nodes--
	k := n.kids.Load()
	switch level := firstLevel(c.edge); level {
	case "+":
		k.plus.Store(nil)
	case "#":
		k.multi.Store(nil)
	default:
		_, s := t.literal(k, level)
		if len(k.slots) > smallKids {
			s.n.Store(t.gone)
		} else {
			s.n.Store(nil)
		}
		k.live--
	}
	switch {
	case k.live == 0 && k.plus.Load() == nil && k.multi.Load() == nil:
		n.kids.Store(nil)
	case len(k.slots) > smallKids && k.live*8 <= len(k.slots):
		n.kids.Store(t.resized(k, k.live))
	}
}

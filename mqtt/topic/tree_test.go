package topic

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// found returns what Match finds, as sorted lines: "key" for plain subscriptions,
// "group:key" for the members of groups.
func found(t *Tree[string, int], name string) []string {
	var r Result[string, int]
	t.Match(name, &r)
	lines := []string{}
	for _, s := range r.Plain {
		for k, v := range s.All() {
			lines = append(lines, fmt.Sprint(k, "=", v))
		}
	}
	for _, g := range r.Shared {
		for k, v := range g.All() {
			lines = append(lines, fmt.Sprint(g.Name, ":", k, "=", v))
		}
	}
	slices.Sort(lines)
	return lines
}

func TestASubscriptionIsReplacedByTheSameKeyOnTheSameFilterOnly(t *testing.T) {
	tree := NewTree[string, int]()
	_, replaced := tree.Subscribe("a/+", "k", 1)
	require.False(t, replaced)
	tree.Subscribe("a/b", "k", 2)
	tree.Subscribe("a/+", "l", 3)
	old, replaced := tree.Subscribe("a/+", "k", 4)
	require.True(t, replaced)
	require.Equal(t, 1, old)
	require.Equal(t, 3, tree.Len())
	require.Equal(t, []string{"k=2", "k=4", "l=3"}, found(tree, "a/b"))
	require.Equal(t, []string{"k=4", "l=3"}, found(tree, "a/c"))

	v, ok := tree.Unsubscribe("a/+", "k")
	require.True(t, ok)
	require.Equal(t, 4, v)
	for _, filter := range []string{"a/+", "a", "a/b/c", "+", "#", "$share/g/a/b"} {
		_, ok = tree.Unsubscribe(filter, "k")
		require.False(t, ok, filter)
	}
	require.Equal(t, []string{"k=2", "l=3"}, found(tree, "a/b"))
}

func TestOneSetMeansThatNoKeyAppearsTwice(t *testing.T) {
	tree := NewTree[string, int]()
	for i := range 100 {
		tree.Subscribe("a/b", fmt.Sprint(i), i)
	}
	var r Result[string, int]
	tree.Match("a/b", &r)
	require.Len(t, r.Plain, 1)
	require.Equal(t, 100, r.Plain[0].Cap())
	tree.Subscribe("a/#", "1", 1)
	tree.Match("a/b", &r)
	require.Len(t, r.Plain, 2)
	r.Reset()
	require.True(t, r.Empty())
}

func TestIterationStopsWhenToldTo(t *testing.T) {
	tree := NewTree[string, int]()
	for i := range 3 {
		tree.Subscribe("a", fmt.Sprint(i), i)
		tree.Subscribe("$share/g/a", fmt.Sprint(i), i)
	}
	var r Result[string, int]
	tree.Match("a", &r)
	n := 0
	for range r.Plain[0].All() {
		n++
		break
	}
	for range r.Shared[0].All() {
		n++
		break
	}
	require.Equal(t, 2, n)
}

func TestTheMembersOfAGroupTakeTurns(t *testing.T) {
	tree := NewTree[string, int]()
	for i := range 6 {
		tree.Subscribe("$share/g/a/+", fmt.Sprint(i), i)
	}
	tree.Unsubscribe("$share/g/a/+", "1")
	tree.Unsubscribe("$share/g/a/+", "2")
	var r Result[string, int]
	turns := map[string]int{}
	for range 400 {
		tree.Match("a/b", &r)
		require.Empty(t, r.Plain)
		require.Len(t, r.Shared, 1)
		require.Equal(t, "g", r.Shared[0].Name)
		var order []string
		for k := range r.Shared[0].All() {
			order = append(order, k)
		}
		turns[order[0]]++
		// In order around the ring, whoever is first.
		i := slices.Index(order, "0")
		require.Equal(t, []string{"0", "3", "4", "5"}, append(slices.Clone(order[i:]), order[:i]...))
	}
	require.Equal(t, map[string]int{"0": 100, "3": 100, "4": 100, "5": 100}, turns)
}

func TestAGroupIsOneOfItsFilterAlone(t *testing.T) {
	tree := NewTree[string, int]()
	tree.Subscribe("$share/g/a", "k", 1)
	tree.Subscribe("$share/g/#", "k", 2)
	tree.Subscribe("$share/h/a", "k", 3)
	tree.Subscribe("a", "k", 4)
	require.Equal(t, 4, tree.Len())
	require.Equal(t, []string{"g:k=1", "g:k=2", "h:k=3", "k=4"}, found(tree, "a"))
	require.Equal(t, []string{"g:k=2"}, found(tree, "b"))
	require.Empty(t, found(tree, "$SYS")) // the $-rule is for the filter behind the share name
	_, ok := tree.Unsubscribe("$share/g/a", "k")
	require.True(t, ok)
	require.Equal(t, []string{"g:k=2", "h:k=3", "k=4"}, found(tree, "a"))
	require.Equal(t, 2, tree.Groups())
	tree.Subscribe("$share/g/#", "another", 5)
	require.Equal(t, 2, tree.Groups(), "a member more")
}

func TestATreeIsEmptyAfterAllSubscriptionsCameAndWent(t *testing.T) {
	tree := NewTree[int, int]()
	const n = 200_000
	filter := func(i int) string {
		switch i % 4 {
		case 0:
			return fmt.Sprintf("device/%d/temp/+", i)
		case 1:
			return fmt.Sprintf("device/%d/#", i)
		case 2:
			return fmt.Sprintf("$share/g%d/device/+/%d", i%10, i)
		}
		return fmt.Sprintf("%d/a/b/c/%d", i%100, i)
	}
	for i := range n {
		tree.Subscribe(filter(i), i%7, i)
	}
	require.Equal(t, n, tree.Len())
	require.Greater(t, tree.trie.nodes, n)
	for i := range n {
		_, ok := tree.Unsubscribe(filter(i), i%7)
		require.True(t, ok)
	}
	require.Zero(t, tree.Len())
	require.Zero(t, tree.Groups())
	require.Zero(t, tree.trie.nodes)
	require.Nil(t, tree.trie.root.kids.Load())
}

func TestAHundredThousandSubscribersOfOneFilterComeAndGo(t *testing.T) {
	tree := NewTree[int, int]()
	const n = 100_000
	for i := range n {
		tree.Subscribe("news", i, i)
		tree.Subscribe("$share/g/news", i, i)
		tree.Subscribe(fmt.Sprintf("$share/g%d/news", i), i, i)
	}
	var r Result[int, int]
	tree.Match("news", &r)
	require.Equal(t, n, r.Plain[0].Cap())
	require.Len(t, r.Shared, n+1)
	for i := range n {
		k := i * 7919 % n
		for _, f := range []string{"news", "$share/g/news", fmt.Sprintf("$share/g%d/news", k)} {
			v, ok := tree.Unsubscribe(f, k)
			require.True(t, ok)
			require.Equal(t, k, v)
		}
	}
	require.Zero(t, tree.trie.nodes)
}

// Ten thousand levels cost memory for their bytes and no stack; wildcards on all of them cost no blow-up.
func TestATopicOfTenThousandLevelsIsNothingSpecial(t *testing.T) {
	tree := NewTree[string, int]()
	name := strings.Repeat("a/", 10_000) + "a"
	plus := strings.Repeat("+/", 10_000) + "+"
	tree.Subscribe(name, "k", 1)
	tree.Subscribe(plus, "k", 2)
	tree.Subscribe(plus+"/#", "k", 3)
	tree.Subscribe(name+"/b", "k", 4)
	require.LessOrEqual(t, tree.trie.nodes, 6)
	require.Equal(t, []string{"k=1", "k=2", "k=3"}, found(tree, name))

	retained := NewRetained[int]()
	retained.Set(name, 1)
	retained.Match(plus, func(n string, v int) bool {
		require.Equal(t, name, n)
		require.Equal(t, 1, v)
		return true
	})
	// A filter at every tenth level: as many nodes, and as deep.
	for i := range 1_000 {
		tree.Subscribe(name[:20*i+1], "d", i)
		retained.Set(name[:20*i+1], i)
	}
	require.Equal(t, []string{"d=500"}, found(tree, name[:10_001])[:1])
	n := 0
	retained.Match("#", func(string, int) bool { n++; return true })
	require.Equal(t, 1_001, n)
	for i := range 1_000 {
		tree.Unsubscribe(name[:20*i+1], "d")
	}
	require.LessOrEqual(t, tree.trie.nodes, 6)
}

// model is the list of subscriptions that a Tree stands for.
type model map[[2]string]int // filter, key

func (m model) found(name string) []string {
	lines := []string{}
	for fk, v := range m {
		filter, line := fk[0], fmt.Sprint(fk[1], "=", v)
		if group, rest, ok, _ := ParseShare(filter); ok {
			filter, line = rest, group+":"+line
		}
		if Matches(filter, name) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

var levelNames = []string{"a", "b", "", "$s", "ab", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"}

// topicOf makes a topic of up to five levels of choice's numbers.
func topicOf(filter bool, choice func(n int) int) string {
	var levels []string
	for range 1 + choice(5) {
		c := choice(len(levelNames) + 6)
		switch {
		case c < len(levelNames):
			levels = append(levels, levelNames[c])
		case filter && c < len(levelNames)+4:
			levels = append(levels, "+")
		case filter:
			levels = append(levels, "#")
			return strings.Join(levels, "/")
		default:
			levels = append(levels, "a")
		}
	}
	return strings.Join(levels, "/")
}

// program does what choice's numbers say with a Tree, a Retained and their
// models, and compares them on the way and at the end.
func program(t *testing.T, steps int, choice func(n int) int) {
	tree, subs := NewTree[string, int](), model{}
	retained, values := NewRetained[int](), map[string]int{}
	check := func(name, filter string) {
		require.Equal(t, subs.found(name), found(tree, name), "name %q", name)
		want, got := map[string]int{}, map[string]int{}
		for n, v := range values {
			if Matches(filter, n) {
				want[n] = v
			}
		}
		retained.Match(filter, func(n string, v int) bool {
			require.NotContains(t, got, n)
			got[n] = v
			return true
		})
		require.Equal(t, want, got, "filter %q", filter)
	}
	for i := range steps {
		filter, name := topicOf(true, choice), topicOf(false, choice)
		if choice(4) == 0 {
			filter = "$share/" + string(rune('g'+choice(2))) + "/" + filter
		}
		key := string(rune('A' + choice(3)))
		fk := [2]string{filter, key}
		switch choice(5) {
		case 0, 1:
			old, ok := tree.Subscribe(filter, key, i)
			want, there := subs[fk]
			require.Equal(t, there, ok)
			require.Equal(t, want, old)
			subs[fk] = i
		case 2:
			if len(subs) > 0 && choice(2) == 0 { // one that is there
				all := make([][2]string, 0, len(subs))
				for fk := range subs {
					all = append(all, fk)
				}
				slices.SortFunc(all, func(a, b [2]string) int { return strings.Compare(a[0]+"\x00"+a[1], b[0]+"\x00"+b[1]) })
				fk = all[choice(len(all))]
			}
			old, ok := tree.Unsubscribe(fk[0], fk[1])
			want, there := subs[fk]
			require.Equal(t, there, ok)
			require.Equal(t, want, old)
			delete(subs, fk)
		case 3:
			old, ok := retained.Set(name, i)
			want, there := values[name]
			require.Equal(t, there, ok)
			require.Equal(t, want, old)
			values[name] = i
		case 4:
			got, ok := retained.Get(name)
			want, there := values[name]
			require.Equal(t, there, ok)
			require.Equal(t, want, got)
			if choice(3) == 0 {
				got, ok = retained.Delete(name)
				require.Equal(t, there, ok)
				require.Equal(t, want, got)
				delete(values, name)
			}
		}
		require.Equal(t, len(subs), tree.Len())
		require.Equal(t, len(values), retained.Len())
		if i%8 == 0 || i == steps-1 {
			check(topicOf(false, choice), topicOf(true, choice))
		}
	}
	check("a/b", "#")
	for fk := range subs {
		tree.Unsubscribe(fk[0], fk[1])
	}
	for name := range values {
		retained.Delete(name)
	}
	require.Zero(t, tree.trie.nodes)
	require.Zero(t, retained.trie.nodes)
}

func TestATreeAndARetainedDoWhatAListOfThemWould(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 1))
		program(t, 1500, rng.IntN)
	}
}

func FuzzTree(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x04"))
	for seed := range uint64(8) {
		b := make([]byte, 400)
		rng := rand.New(rand.NewPCG(seed, 2))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), 4000)]
		program(t, len(b)/12+1, func(n int) int {
			if len(b) == 0 {
				return 0
			}
			c := int(b[0]) % n
			b = b[1:]
			return c
		})
	})
}

// Matchers must find what stays, whatever comes and goes around it: nodes split and merge, tables
// grow and shrink, lists are rewritten.
func TestMatchersFindWhatStaysWhileOthersSubscribe(t *testing.T) {
	tree := NewTree[int, int]()
	retained := NewRetained[int]()
	stay := []string{"a/b/c/d", "a/+/c/d", "a/#", "a/b/c/#", "+/b/+/d", "$share/g/a/b/c/d", "#", "a/b/+/+"}
	for i, f := range stay {
		tree.Subscribe(f, -1-i, i)
	}
	retained.Set("a/b/c/d", -1)
	var done atomic.Bool
	var readers, writers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			var r Result[int, int]
			for !done.Load() {
				tree.Match("a/b/c/d", &r)
				seen := map[int]int{}
				for _, s := range r.Plain {
					for k := range s.All() {
						seen[k]++
					}
				}
				for _, g := range r.Shared {
					for k := range g.All() {
						seen[k]++
					}
				}
				for i := range stay {
					if seen[-1-i] != 1 {
						t.Errorf("%s found %d times", stay[i], seen[-1-i])
						return
					}
				}
				n := 0
				retained.Match("a/+/#", func(name string, v int) bool {
					if name == "a/b/c/d" && v == -1 {
						n++
					}
					return true
				})
				if v, ok := retained.Get("a/b/c/d"); n != 1 || v != -1 || !ok {
					t.Errorf("retained value found %d times; %d, %v", n, v, ok)
					return
				}
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 3))
			var names []string
			for range 100 {
				for range 60 {
					name := topicOf(false, rng.IntN)
					switch rng.IntN(4) {
					case 0:
						name = fmt.Sprintf("a/%d/c", rng.IntN(100))
					case 1:
						name = "a/b/c/d"[:1+2*rng.IntN(4)] // splits and merges
					}
					names = append(names, name)
				}
				for i, name := range names {
					tree.Subscribe(name, w, i)
					tree.Subscribe("$share/g/a/b/c/d", 1000+w*1000+i, i)
					tree.Subscribe(name+"/#", w, i)
					if name != "a/b/c/d" {
						retained.Set(name, i)
					}
				}
				for i, name := range names {
					tree.Unsubscribe(name, w)
					tree.Unsubscribe("$share/g/a/b/c/d", 1000+w*1000+i)
					tree.Unsubscribe(name+"/#", w)
					if name != "a/b/c/d" {
						retained.Delete(name)
					}
				}
				names = names[:0]
			}
		})
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
	require.Equal(t, len(stay), tree.Len())
	require.Equal(t, 1, retained.Len())
}

func sumOf(r *Result[int, int]) (sum int) {
	for _, s := range r.Plain {
		for _, v := range s.All() {
			sum += v
		}
	}
	for _, g := range r.Shared {
		for _, v := range g.All() {
			sum += v
		}
	}
	return sum
}

func TestMatchAllocatesNothing(t *testing.T) {
	tree := NewTree[int, int]()
	for i := range 1000 {
		tree.Subscribe(fmt.Sprintf("device/%d/temp/+", i), i, i)
		tree.Subscribe(fmt.Sprintf("$share/g/device/%d/+/in", i), i, i)
	}
	tree.Subscribe("device/#", 1, 1)
	var r Result[int, int]
	sum := 0
	require.Zero(t, testing.AllocsPerRun(100, func() {
		tree.Match("device/77/temp/in", &r)
		sum += sumOf(&r)
	}))
	require.Len(t, r.Plain, 2)
	require.Len(t, r.Shared, 1)
}

func TestAFilterCostsLessThan250Bytes(t *testing.T) {
	filters := make([]string, 200_000)
	for i := range filters {
		filters[i] = fmt.Sprintf("device/%d/temp/+", i)
	}
	type session struct{ _ [64]byte }
	s := new(session)
	tree := NewTree[*session, [2]uint32]()
	before := heap()
	for i, f := range filters {
		tree.Subscribe(f, s, [2]uint32{uint32(i)})
	}
	per := float64(heap()-before) / float64(len(filters))
	t.Logf("%.0f bytes per filter", per)
	require.Less(t, per, 250.0)
	runtime.KeepAlive(tree)
	runtime.KeepAlive(filters)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

var sink atomic.Int64

func BenchmarkMatch(b *testing.B) {
	for _, size := range []int{1e3, 1e4, 1e5, 1e6} {
		tree := NewTree[int, int]()
		for i := range size {
			tree.Subscribe(fmt.Sprintf("device/%d/temp/+", i), i, i)
		}
		names := make([]string, 1<<16)
		for i := range names {
			names[i] = fmt.Sprintf("device/%d/temp/in", rand.IntN(size))
		}
		run := func(name string, names []string) {
			mask := len(names) - 1
			b.Run(fmt.Sprintf("%s/filters=%d", name, size), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					var r Result[int, int]
					sum, i := 0, rand.IntN(len(names))
					for pb.Next() {
						i++
						tree.Match(names[i&mask], &r)
						sum += sumOf(&r)
						if len(r.Plain) != 1 {
							b.Fatalf("%d results", len(r.Plain))
						}
					}
					sink.Store(int64(sum))
				})
			})
		}
		run("hot", names[:256])
		run("random", names)
	}
}

func BenchmarkSubscribe(b *testing.B) {
	tree := NewTree[int, int]()
	filters := make([]string, 1<<17)
	for i := range filters {
		filters[i] = fmt.Sprintf("device/%d/temp/+", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f := filters[i%len(filters)]
		if i/len(filters)%2 == 0 {
			tree.Subscribe(f, 1, 1)
		} else {
			tree.Unsubscribe(f, 1)
		}
	}
}

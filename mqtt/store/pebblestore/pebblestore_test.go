package pebblestore

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/store"
)

func open(t testing.TB, dir string, fs vfs.FS) *Store {
	t.Helper()
	s, err := Open(dir, &Config{fs: fs, retry: time.Millisecond, MemTableBytes: 1 << 20})
	require.NoError(t, err)
	return s
}

// faulty is errorfs.Wrap, whose files that are used again are not wrapped.
func faulty(fs vfs.FS, inj errorfs.Injector) vfs.FS { return faultyFS{errorfs.Wrap(fs, inj), inj} }

type faultyFS struct {
	*errorfs.FS
	inj errorfs.Injector
}

func (fs faultyFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(oldname, newname, c)
	if err != nil {
		return nil, err
	}
	return errorfs.WrapFile(f, fs.inj), nil
}

func contents(t testing.TB, s store.Store) map[string]string {
	t.Helper()
	all := make(map[string]string)
	last := ""
	require.NoError(t, s.Load(func(k, v []byte) error {
		require.Less(t, last, string(k), "in order")
		last = string(k)
		all[last] = string(v)
		return nil
	}))
	return all
}

func TestItIsTheMapThatTheMemoryIs(t *testing.T) {
	dir := t.TempDir()
	m, s := store.NewMemory(nil), open(t, dir, nil)
	rng := rand.New(rand.NewPCG(3, 4))
	once := 0
	for round := range 300 {
		var b store.Batch
		for range rng.IntN(20) {
			k := fmt.Appendf(nil, "S%c%d", 'a'+rune(rng.IntN(3)), rng.IntN(30))
			switch rng.IntN(8) {
			case 0:
				b.Delete(k)
			case 1:
				b.DeletePrefix(k[:2])
			case 2: // a key that is put once and deleted once
				once++
				b.Put(fmt.Appendf(nil, "once%d", once), []byte("x"))
			case 3:
				if once > 10 {
					b.DeleteOnce(fmt.Appendf(nil, "once%d", once-10))
				}
			default:
				b.Put(k, fmt.Append(nil, rng.IntN(1000)))
			}
		}
		require.NoError(t, m.Apply(&b, true))
		require.NoError(t, s.Apply(&b, rng.IntN(10) == 0))
		if round%60 == 59 {
			require.Equal(t, contents(t, m), contents(t, s))
			require.NoError(t, s.Close())
			s = open(t, dir, nil)
		}
		if round == 150 {
			require.NoError(t, s.Compact())
		}
	}
	require.Equal(t, contents(t, m), contents(t, s))
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Close(), store.ErrClosed)
}

func TestWhatWasSyncedOutlivesTheMachine(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	fs := vfs.NewCrashableMem()
	synced := 0
	for round := range 12 {
		s := open(t, "db", fs)
		all := contents(t, s)
		for i := range synced {
			require.Contains(t, all, fmt.Sprintf("%06d", i), "round %d", round)
		}
		next := len(all)
		for i := range next {
			require.Contains(t, all, fmt.Sprintf("%06d", i), "nothing without what was before it")
		}
		for range 20 + rng.IntN(60) {
			var b store.Batch
			b.Put(fmt.Appendf(nil, "%06d", next), make([]byte, 1000))
			next++
			sync := rng.IntN(4) == 0
			require.NoError(t, s.Apply(&b, sync))
			if sync {
				synced = next
			}
		}
		clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
		require.NoError(t, s.Close())
		fs = clone
	}
}

func TestAFullDiskIsWaitedFor(t *testing.T) {
	for _, why := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		var full atomic.Bool
		mem := vfs.NewCrashableMem()
		fs := faulty(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpCreate, errorfs.OpReuseForWrite, errorfs.OpFilePreallocate, errorfs.OpLink:
				if full.Load() {
					return why
				}
			}
			return nil
		}))
		s := open(t, "db", fs)
		n := 0
		apply := func(sync bool) (*store.Batch, error) {
			b := new(store.Batch)
			n++
			b.Put(fmt.Appendf(nil, "%06d", n), make([]byte, 10000))
			return b, s.Apply(b, sync)
		}
		for range 300 { // several flushes of the memory table
			_, err := apply(false)
			require.NoError(t, err)
		}
		full.Store(true)
		b, err := apply(true)
		require.ErrorIs(t, err, why)
		for range 3 {
			require.ErrorIs(t, s.Apply(b, true), why, "at once, without waiting for room")
		}
		_, err = apply(true)
		require.ErrorContains(t, err, "under way")
		full.Store(false)
		require.Eventually(t, func() bool { return s.Apply(b, true) == nil }, time.Minute, time.Millisecond)
		for range 300 {
			// What waits in the background has its own turn to find out.
			if b, err := apply(false); err != nil {
				require.Eventually(t, func() bool { return s.Apply(b, false) == nil }, time.Minute, time.Millisecond)
			}
		}
		// Full at the end as well: Close does not wait for room.
		full.Store(true)
		_, err = apply(true)
		require.ErrorIs(t, err, why)
		clone := mem.CrashClone(vfs.CrashCloneCfg{})
		s.Close()
		s = open(t, "db", clone)
		require.GreaterOrEqual(t, len(contents(t, s)), 301)
		require.NoError(t, s.Close())
	}
}

func TestNothingIsAcknowledgedAfterAnFsyncFailed(t *testing.T) {
	var fail atomic.Bool
	mem := vfs.NewCrashableMem()
	fs := faulty(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData:
			if fail.Load() && strings.HasSuffix(op.Path, ".log") {
				return syscall.EIO
			}
		}
		return nil
	}))
	s := open(t, "db", fs)
	var a, b store.Batch
	a.Put([]byte("a"), nil)
	require.NoError(t, s.Apply(&a, true))
	fail.Store(true)
	b.Put([]byte("b"), nil)
	require.ErrorIs(t, s.Apply(&b, true), syscall.EIO)
	fail.Store(false)
	for range 10 {
		require.ErrorIs(t, s.Apply(&b, true), syscall.EIO, "a second fsync would say nothing")
	}
	clone := mem.CrashClone(vfs.CrashCloneCfg{})
	s.Close()
	s = open(t, "db", clone)
	require.Contains(t, contents(t, s), "a")
	require.NoError(t, s.Close())
}

func TestDiskUseIsBoundedHoweverMuchPassesThrough(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	const message, rounds, waiting = 1000, 60, 500
	for round := range rounds {
		for i := range waiting {
			var b store.Batch
			n := round*waiting + i
			b.Put(fmt.Appendf(nil, "M%08d", n), make([]byte, message))
			if n >= waiting {
				b.DeleteOnce(fmt.Appendf(nil, "M%08d", n-waiting))
			}
			b.Put([]byte("T/the/same/topic"), make([]byte, message))
			require.NoError(t, s.Apply(&b, false))
		}
	}
	before := s.Stats()
	require.Greater(t, before.WrittenUser, int64(50<<20))
	require.Less(t, before.DiskBytes, int64(16<<20), "logs, memory tables and what waits")
	require.NoError(t, s.Compact())
	after := s.Stats()
	require.Less(t, after.DiskBytes, int64(6<<20), "%+v", after)
	require.Len(t, contents(t, s), waiting+1)
	t.Logf("%d MB through it: %d KB on disk, %d KB compacted", before.WrittenUser>>20, before.DiskBytes>>10, after.DiskBytes>>10)
	require.NoError(t, s.Close())
}

func TestAFolderHasOneUser(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	_, err := Open(dir, nil)
	require.ErrorContains(t, err, dir)
	require.NoError(t, s.Close())
	require.NoError(t, open(t, dir, nil).Close())
}

package pebblestore

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/store"
)

// filled makes a store in dir whose records are in tables.
func filled(t *testing.T, dir string) {
	t.Helper()
	s := open(t, dir, nil)
	var b store.Batch
	for i := range 2000 {
		b.Put(fmt.Appendf(nil, "%06d", i), bytes.Repeat([]byte{byte(i)}, 100))
	}
	require.NoError(t, s.Apply(&b, true))
	require.NoError(t, s.Compact())
	require.NoError(t, s.Close())
}

func TestDamageToTheFilesIsSaidWithWhereItIsAndWhatToDo(t *testing.T) {
	remove := func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }
	change := func(t *testing.T, path string) {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for i := range min(len(b), 4096) {
			b[i] ^= 0x55
		}
		require.NoError(t, os.WriteFile(path, b, 0o600))
	}
	for _, c := range []struct {
		name, files string
		damage      func(*testing.T, string)
	}{
		{"a table is missing", "*.sst", remove},
		{"a table has changed", "*.sst", change},
		{"the manifest is missing", "MANIFEST-*", remove},
		{"the manifest has changed", "MANIFEST-*", change},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			filled(t, dir)
			files, err := filepath.Glob(filepath.Join(dir, c.files))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			for _, f := range files {
				c.damage(t, f)
			}
			s, err := Open(dir, nil)
			if err == nil {
				err = s.Load(func(_, _ []byte) error { return nil })
				_ = s.Close() // it may say the same
			}
			var damaged *DamagedError
			require.ErrorAs(t, err, &damaged)
			require.Equal(t, dir, damaged.Dir)
			require.ErrorContains(t, err, dir)
			require.ErrorContains(t, err, "move the folder aside")
		})
	}
}

func TestCloseDoesNotWaitForADeviceThatDoesNotAnswer(t *testing.T) {
	var mu sync.RWMutex // held: every fsync hangs
	hanging := make(chan struct{}, 1)
	fs := faulty(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
			if !mu.TryRLock() {
				select {
				case hanging <- struct{}{}:
				default:
				}
				mu.RLock()
			}
			mu.RUnlock()
		}
		return nil
	}))
	s, err := Open("db", &Config{fs: fs, close: 50 * time.Millisecond})
	require.NoError(t, err)
	mu.Lock()
	applied := make(chan error)
	go func() {
		var b store.Batch
		b.Put([]byte("k"), nil)
		applied <- s.Apply(&b, true)
	}()
	<-hanging
	require.ErrorContains(t, s.Close(), "db: not closed within 50ms")
	require.ErrorIs(t, <-applied, store.ErrClosed)
	mu.Unlock()
	<-s.stopped
}

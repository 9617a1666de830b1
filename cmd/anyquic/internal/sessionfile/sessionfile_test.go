package sessionfile_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/sessionfile"
	"github.com/anyquic/anyquic/transport"
)

var _ transport.SessionCache = (*sessionfile.Cache)(nil)

func TestASessionIsTakenOnceByTheNextRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "when needed")
	sessionfile.New(dir, "engine").Put("example.com", []byte("first"))
	sessionfile.New(dir, "engine").Put("example.com", []byte("newest"))
	sessionfile.New(dir, "engine").Put("../evil/host", []byte("other"))
	next := sessionfile.New(dir, "engine")
	require.Nil(t, sessionfile.New(dir, "another engine").Take("example.com"))
	require.Equal(t, "newest", string(next.Take("example.com")))
	require.Nil(t, next.Take("example.com"))
	require.Equal(t, "other", string(next.Take("../evil/host")))
	require.Nil(t, next.Take("never seen"))
}

func TestOnlyTheUserCanReadASession(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions are not in the mode there")
	}
	dir := filepath.Join(t.TempDir(), "sessions")
	sessionfile.New(dir, "").Put("example.com", []byte("secret"))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	for _, name := range []string{dir, filepath.Join(dir, entries[0].Name())} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, name)
	}
}

func TestWhatCannotBeWrittenIsAsIfItWereNotThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	c := sessionfile.New(filepath.Join(file, "below a file"), "")
	c.Put("example.com", []byte("session"))
	require.Nil(t, c.Take("example.com"))
}

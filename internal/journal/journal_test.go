package journal_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/journal"
)

func record(s journal.Salt, dst []byte, body string) []byte {
	start := len(dst)
	return s.End(append(journal.Begin(dst), body...), start)
}

func open(t *testing.T, path string) (*journal.File, []string, journal.Report) {
	t.Helper()
	var got []string
	j, r, err := journal.Open(path, func(b []byte) { got = append(got, string(b)) })
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j, got, r
}

func TestRecordsAreThereAfterTheFileIsOpenedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, got, _ := open(t, path)
	require.Empty(t, got)
	require.Error(t, j.Append(record(j.Salt(), nil, "too early"), false), "there is no file yet")
	require.NoError(t, j.Replace(record(j.Salt(), nil, "one")))
	require.NoError(t, j.Append(record(j.Salt(), record(j.Salt(), nil, "two"), "three"), true))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, info.Size(), j.Size())
	if runtime.GOOS != "windows" {
		require.Zero(t, info.Mode().Perm()&0o077, "others cannot read it")
	}
	require.NoError(t, j.Close())

	j, got, r := open(t, path)
	require.Equal(t, []string{"one", "two", "three"}, got)
	require.Equal(t, journal.Report{Records: 3}, r)
	require.NoError(t, j.Replace(record(j.Salt(), nil, "only")))
	require.NoError(t, j.Close())
	_, got, _ = open(t, path)
	require.Equal(t, []string{"only"}, got)
}

func TestAFileHasOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _, _ := open(t, path)
	_, _, err := journal.Open(path, nil)
	require.ErrorIs(t, err, journal.ErrLocked)
	require.NoError(t, j.Close())
	open(t, path)
}

func TestAFileHasOneOwnerUnderAllItsNames(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege")
	}
	dir := t.TempDir()
	path, link, folder := filepath.Join(dir, "j"), filepath.Join(dir, "link"), filepath.Join(t.TempDir(), "folder")
	require.NoError(t, os.Symlink(dir, folder))
	require.NoError(t, os.Symlink("j", link))
	_, _, err := journal.Open(link, nil)
	require.ErrorContains(t, err, "a link to a file that does not exist")
	j, _, _ := open(t, filepath.Join(folder, "j"))
	_, _, err = journal.Open(path, nil)
	require.ErrorIs(t, err, journal.ErrLocked, "before it exists")
	require.NoError(t, j.Replace(record(j.Salt(), nil, "one")))
	hard := filepath.Join(dir, "hard")
	require.NoError(t, os.Link(path, hard))
	for _, name := range []string{link, path, hard} {
		_, _, err = journal.Open(name, nil)
		require.ErrorIs(t, err, journal.ErrLocked, name)
	}
	require.ErrorIs(t, journal.Update(link, nil), journal.ErrLocked)
	require.NoError(t, j.Close())

	// What replaces the file leaves the link as it is.
	j, got, _ := open(t, link)
	require.Equal(t, []string{"one"}, got)
	require.NoError(t, j.Replace(record(j.Salt(), nil, "two")))
	require.NoError(t, j.Close())
	_, err = os.Readlink(link)
	require.NoError(t, err)
	_, got, _ = open(t, path)
	require.Equal(t, []string{"two"}, got)
}

func TestAFileThatOthersCanWriteIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it has no such modes")
	}
	path := filepath.Join(t.TempDir(), "j")
	j, _, _ := open(t, path)
	require.NoError(t, j.Replace(record(j.Salt(), nil, "one")))
	require.NoError(t, j.Close())
	for _, mode := range []os.FileMode{0o620, 0o602, 0o666} {
		require.NoError(t, os.Chmod(path, mode))
		_, _, err := journal.Open(path, nil)
		require.ErrorIs(t, err, journal.ErrShared)
		require.ErrorIs(t, journal.Update(path, nil), journal.ErrShared)
	}
	require.NoError(t, os.Chmod(path, 0o644))
	_, got, _ := open(t, path)
	require.Equal(t, []string{"one"}, got)
}

func TestAFileThatIsNoJournalIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.txt")
	require.NoError(t, os.WriteFile(path, []byte("what I must not forget, in more than 16 bytes"), 0o600))
	_, _, err := journal.Open(path, nil)
	require.ErrorIs(t, err, journal.ErrForeign)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(b), "forget")
}

func TestAFailedReplaceLeavesTheFileAsItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _, _ := open(t, path)
	require.NoError(t, j.Replace(record(j.Salt(), nil, "old")))
	require.NoError(t, os.MkdirAll(filepath.Join(path+".new", "in the way"), 0o700))
	require.Error(t, j.Replace(record(j.Salt(), nil, "new")))
	require.NoError(t, j.Append(record(j.Salt(), nil, "more"), false))
	require.NoError(t, j.Close())
	require.NoError(t, os.RemoveAll(path+".new"))
	_, got, _ := open(t, path)
	require.Equal(t, []string{"old", "more"}, got)
}

func TestWhatAnInterruptedWriteLeavesIsFoundAtEveryByte(t *testing.T) {
	s := journal.Salt{1, 2, 3}
	var all []byte
	var ends []int
	for i := range 5 {
		all = record(s, all, fmt.Sprintf("record %d", i))
		ends = append(ends, len(all))
	}
	for n := range len(all) + 1 {
		whole := 0
		for whole < len(ends) && ends[whole] <= n {
			whole++
		}
		last := 0
		if whole > 0 {
			last = ends[whole-1]
		}
		for _, tail := range [][]byte{nil, make([]byte, 100), bytes.Repeat([]byte{0xff}, 100)} {
			var got []string
			r := s.Scan(append(bytes.Clone(all[:n]), tail...), func(b []byte) { got = append(got, string(b)) })
			require.Len(t, got, whole, "%d bytes", n)
			require.Equal(t, journal.Report{Records: whole, Torn: n - last + len(tail)}, r)
		}
	}
}

func TestADamagedRecordLosesItselfAlone(t *testing.T) {
	s := journal.Salt{9}
	var all []byte
	for i := range 5 {
		all = record(s, all, fmt.Sprintf("record %d", i))
	}
	size := len(all) / 5
	all[2*size+10] ^= 1
	var got []string
	r := s.Scan(all, func(b []byte) { got = append(got, string(b)) })
	require.Equal(t, []string{"record 0", "record 1", "record 3", "record 4"}, got)
	require.Equal(t, journal.Report{Records: 4, Damaged: 1}, r)
}

func TestBytesOfSomebodyElseNeverPassForARecord(t *testing.T) {
	ours, theirs := journal.Salt{1}, journal.Salt{2}
	evil := record(theirs, nil, "forged")
	b := record(ours, nil, string(evil))
	// The length is damaged such that the body is taken for records.
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	r := ours.Scan(b[8:], func([]byte) { t.Error("a forged record") })
	require.Equal(t, len(b)-8, r.Torn)
}

func TestUpdateChangesTheRecordsAsAWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	add := func(body string) error {
		return journal.Update(path, func(records [][]byte) ([][]byte, bool) { return append(records, []byte(body)), body != "" })
	}
	require.NoError(t, add("a"))
	require.NoError(t, add("b"))
	require.NoError(t, add(""), "nothing is written")
	var got []string
	r, err := journal.ReadFile(path, func(b []byte) { got = append(got, string(b)) })
	require.NoError(t, err)
	require.Equal(t, journal.Report{Records: 2}, r)
	require.Equal(t, []string{"a", "b"}, got)
	_, err = journal.ReadFile(path+"?", nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte("something else of somebody"), 0o600))
	require.ErrorIs(t, add("c"), journal.ErrForeign)
}

func FuzzScan(f *testing.F) {
	s := journal.Salt{7}
	f.Add([]byte{}, uint16(0))
	f.Add(record(s, record(s, nil, "one"), "two"), uint16(12))
	f.Add(bytes.Repeat([]byte{0, 0, 0, 1}, 20), uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, flip uint16) {
		bodies := 0
		r := s.Scan(b, func(body []byte) {
			if len(body) == 0 {
				t.Error("an empty record")
			}
			bodies += len(body)
		})
		if r.Torn < 0 || bodies+8*r.Records+r.Torn > len(b) {
			t.Errorf("%+v and %d bytes of %d", r, bodies, len(b))
		}
		// One bit of a record costs that record at most, or its length what follows.
		whole := record(s, record(s, nil, string(b)+"."), "last")
		whole[int(flip)%len(whole)] ^= 1 << (flip % 8)
		r = s.Scan(whole, func([]byte) {})
		if r.Records > 1 || r.Records == 1 && r.Damaged+r.Torn == 0 {
			t.Errorf("%+v after a bit was changed", r)
		}
	})
}

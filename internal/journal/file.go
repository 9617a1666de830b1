package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// magic begins every file; the digit is the version of the format.
const magic = "AQJRNL1\n"

const fileHeader = len(magic) + len(Salt{})

// ErrForeign means that a file is there that is no journal. It is left alone.
var ErrForeign = errors.New("journal: the file is something else: give the name of another")

// ErrLocked means that another process, or another user in this one, has the file.
var ErrLocked = errors.New("journal: the file is in use")

// errBroken is what Append returns after one that was not complete.
var errBroken = errors.New("journal: the last write was not complete")

// A File is a journal that is open. Only this process has it, where the system has
// locks. Its methods are for one goroutine at a time.
type File struct {
	path   string
	salt   Salt
	f      *os.File
	lock   *os.File // path with ".lock"; nil where the system has none
	size   int64    // bytes that were written as a whole
	broken bool     // what follows size is not known
}

// Open opens the journal at path, or makes one, which only the user can read, and
// calls f for each record in it. What is torn at its end is cut off with the first
// Replace, which must come before the first Append.
func Open(path string, f func(body []byte)) (*File, Report, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, Report{}, err
	}
	j := &File{path: path, lock: lock, broken: true}
	var r Report
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(b) == 0:
		_, _ = rand.Read(j.salt[:]) // never fails
		err = nil
	case err == nil:
		var records []byte
		if j.salt, records, err = split(b); err == nil {
			r = j.salt.Scan(records, f)
		}
	}
	if err != nil {
		return nil, Report{}, errors.Join(err, j.Close())
	}
	return j, r, nil
}

func split(b []byte) (Salt, []byte, error) {
	if len(b) < fileHeader || string(b[:len(magic)]) != magic {
		return Salt{}, nil, ErrForeign
	}
	return Salt(b[len(magic):fileHeader]), b[fileHeader:], nil
}

// Salt returns what the records of this file are made with.
func (j *File) Salt() Salt { return j.salt }

// Size returns the length of the file in bytes.
func (j *File) Size() int64 { return j.size }

// Append writes records at the end, and waits until the device has them if sync is
// set. After an error nothing can be appended until Replace has succeeded.
func (j *File) Append(records []byte, sync bool) error {
	if j.broken {
		return errBroken
	}
	n, err := j.f.Write(records)
	if err == nil && sync {
		err = j.f.Sync()
	}
	if err != nil {
		j.broken = true
		return fmt.Errorf("journal: %w", err)
	}
	j.size += int64(n)
	return nil
}

// Replace puts records in the place of everything in the file, or, if it returns an
// error, leaves the file as it was. It waits until the device has them.
func (j *File) Replace(records []byte) error {
	f, err := replace(j.path, j.salt, records, true)
	if err != nil {
		return err
	}
	if j.f != nil {
		_ = j.f.Close() // nothing depends on it any more
	}
	j.f, j.size, j.broken = f, int64(fileHeader+len(records)), false
	return nil
}

// Close lets others open the file.
func (j *File) Close() error {
	var err error
	if j.f != nil {
		err = j.f.Close()
	}
	j.broken = true
	return errors.Join(err, unlockFile(j.lock))
}

// Update replaces the records of the file at path, which is made if it does not exist,
// by what change makes of them, for those who never append. It has the file alone
// meanwhile, or fails with ErrLocked, and does not wait for the device: when the power
// fails, records may be lost. If change returns false nothing is written.
func Update(path string, change func(records [][]byte) ([][]byte, bool)) (err error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlockFile(lock)) }()
	var records [][]byte
	_, err = ReadFile(path, func(body []byte) { records = append(records, body) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	records, ok := change(records)
	if !ok {
		return nil
	}
	var s Salt
	_, _ = rand.Read(s[:]) // never fails
	var b []byte
	for _, body := range records {
		start := len(b)
		b = s.End(append(Begin(b), body...), start)
	}
	f, err := replace(path, s, b, false)
	if err != nil {
		return err
	}
	return f.Close()
}

// ReadFile calls f for each record in the file at path. A file that is empty has none.
func ReadFile(path string, f func(body []byte)) (Report, error) {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return Report{}, err
	}
	s, records, err := split(b)
	if err != nil {
		return Report{}, err
	}
	return s.Scan(records, f), nil
}

// replace makes a file at path that only the user can read, in the place of another,
// and returns it open. Whoever opens path gets the old file or all of the new one.
// The lock is held.
func replace(path string, s Salt, records []byte, sync bool) (_ *os.File, err error) {
	dir := filepath.Dir(path)
	name := path + ".new"
	// What a process left behind that was killed. O_EXCL follows no link of
	// somebody else's.
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("journal: %w", err)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name()) // nothing more can be done
			err = fmt.Errorf("journal: %w", err)
		}
	}()
	if _, err := f.Write(append([]byte(magic), s[:]...)); err != nil {
		return nil, err
	}
	if _, err := f.Write(records); err != nil {
		return nil, err
	}
	if sync {
		if err := f.Sync(); err != nil {
			return nil, err
		}
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, err
	}
	if sync {
		syncDir(dir)
	}
	return f, nil
}

// syncDir makes a rename last. Not every system and file system can; those that
// cannot lose no more than the rename when the power fails.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

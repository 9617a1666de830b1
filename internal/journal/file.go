package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// magic begins every file; the digit is the version of the format.
const magic = "AQJRNL1\n"

const fileHeader = len(magic) + len(Salt{})

// ErrForeign means that a file is there that is no journal. It is left alone.
var ErrForeign = errors.New("journal: the file is something else: give the name of another")

// ErrLocked means that another process, or another user in this one, has the file.
var ErrLocked = errors.New("journal: the file is in use")

// ErrShared means that others than the user can write the file.
var ErrShared = errors.New("journal: others can write the file: see what is in it, and chmod go-w")

// errBroken is what Append returns after one that was not complete.
var errBroken = errors.New("journal: the last write was not complete")

// A File is a journal that is open. Only this process has it, where the system has
// locks. Its methods are for one goroutine at a time.
type File struct {
	path   string // of the file itself, not of a link
	salt   Salt
	f      *os.File // nil: it does not exist, or could not be opened again
	lock   *os.File // path with ".lock"; nil where the system has none
	size   int64    // bytes that were written as a whole
	broken bool     // what follows size is not known
}

// Open opens the journal at path, or makes one, which only the user can read, and
// calls f for each record in it. What is torn at its end is cut off with the first
// Replace, which must come before the first Append.
func Open(path string, f func(body []byte)) (*File, Report, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, Report{}, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, Report{}, err
	}
	j := &File{path: path, lock: lock, broken: true}
	var r Report
	var b []byte
	if j.f, err = open(path); err == nil {
		if err = lockOpened(j.f); err == nil {
			b, err = io.ReadAll(j.f)
		}
	}
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
	f, err := write(j.path, j.salt, records, true)
	if err != nil {
		return err
	}
	if err = j.exchange(f); err != nil {
		return err
	}
	j.size, j.broken = int64(fileHeader+len(records)), false
	syncDir(filepath.Dir(j.path))
	return nil
}

// exchange puts f, which write has made, in the place of the file.
func (j *File) exchange(f *os.File) error {
	if renameOpen {
		if err := rename(f, j.path); err != nil {
			_ = f.Close()
			return err
		}
		if j.f != nil {
			_ = j.f.Close() // nothing depends on it any more
		}
		j.f = f
		return nil
	}
	// Both are closed for that. The lock keeps others away.
	err := f.Close()
	if j.f != nil {
		_ = j.f.Close()
		j.f = nil
	}
	if err == nil {
		err = rename(f, j.path)
	}
	// The new one, or the old one, to which may be appended if that was possible before.
	again, openErr := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0)
	if openErr != nil {
		j.broken = true
		return errors.Join(err, openErr)
	}
	j.f = again
	return err
}

// Close lets others open the file.
func (j *File) Close() error {
	var err error
	if j.f != nil {
		err = j.f.Close()
	}
	j.broken = true
	if j.lock != nil {
		err = errors.Join(err, j.lock.Close())
	}
	return err
}

// Update replaces the records of the file at path, which is made if it does not exist,
// by what change makes of them, for those who never append. It has the file alone
// meanwhile, or fails with ErrLocked, and does not wait for the device: when the power
// fails, records may be lost. If change returns false nothing is written.
func Update(path string, change func(records [][]byte) ([][]byte, bool)) (err error) {
	if path, err = resolve(path); err != nil {
		return err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return err
	}
	if lock != nil {
		defer func() { err = errors.Join(err, lock.Close()) }()
	}
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
	f, err := write(path, s, b, false)
	if err != nil {
		return err
	}
	err = f.Close()
	if err == nil {
		err = rename(f, path)
	}
	return err
}

// resolve returns the name of the file itself, behind whatever links: who opens it under
// another name is to find it locked, and what replaces it must not replace a link.
func resolve(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		return real, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("journal: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return "", fmt.Errorf("journal: %s is a link to a file that does not exist: make that, or remove the link", path)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("journal: %w", err)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// open opens a file for reading that nobody else can write. Windows says who may by other
// means than its mode.
func open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("%w: %s", ErrShared, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ReadFile calls f for each record in the file at path. A file that is empty has none.
func ReadFile(path string, f func(body []byte)) (Report, error) {
	file, err := open(path)
	if err != nil {
		return Report{}, err
	}
	b, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil || len(b) == 0 {
		return Report{}, err
	}
	s, records, err := split(b)
	if err != nil {
		return Report{}, err
	}
	return s.Scan(records, f), nil
}

// write makes a file beside path that only the user can read, which rename puts in its
// place, and returns it open and locked. The lock of path is held.
func write(path string, s Salt, records []byte, sync bool) (_ *os.File, err error) {
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
	if err := lockOpened(f); err != nil {
		return nil, err
	}
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
	return f, nil
}

// rename puts f in the place of the file at path, or removes it. Whoever opens path
// gets the old file or all of the new one.
func rename(f *os.File, path string) error {
	if err := os.Rename(f.Name(), path); err != nil {
		_ = os.Remove(f.Name()) // nothing more can be done
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// syncDir makes a rename last. Not every system and file system can; those that
// cannot lose no more than the rename when the power fails.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

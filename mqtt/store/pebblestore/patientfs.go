package pebblestore

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A patientFS stands between pebble and the files. To pebble an error of its log
// is the end of the process; so it is not told of those that pass. A write
// that finds no room waits and goes on from the byte where it stopped when there
// is some; whoever waits for it learns meanwhile that it waits, and why.
//
// An fsync that failed is another matter: the system may have dropped what it could
// not write, and a second fsync that succeeds says nothing about it. Such a call
// does not return until Close. Nothing after it is acknowledged, and the next
// start finds what was before it.
type patientFS struct {
	vfs.FS
	state *patience
}

// patience is what a patientFS and its files share.
type patience struct {
	mu      sync.Mutex
	waiting int           // guarded by mu: calls that wait
	err     error         // guarded by mu: why
	broken  bool          // guarded by mu: an fsync has failed
	changed chan struct{} // guarded by mu: closed and replaced when err changes
	closing chan struct{} // closed by Close: nobody waits any more
	retry   time.Duration
}

func newPatience() *patience {
	return &patience{changed: make(chan struct{}), closing: make(chan struct{}), retry: 50 * time.Millisecond}
}

// now returns why calls wait, nil if none does, and a channel that the next change closes.
func (p *patience) now() (changed <-chan struct{}, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed, p.err
}

func (p *patience) set(err error) {
	if p.broken {
		return
	}
	p.err = err
	close(p.changed)
	p.changed = make(chan struct{})
}

// passes reports whether an error may go away by itself.
func passes(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// try calls f until it returns nil or an error that does not pass, or the store
// is closed.
func (p *patience) try(f func() error) error {
	err := f()
	if err == nil || !passes(err) {
		return err
	}
	p.mu.Lock()
	p.waiting++
	p.set(err)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		if p.waiting--; p.waiting == 0 {
			p.set(nil)
		}
		p.mu.Unlock()
	}()
	t := time.NewTicker(p.retry)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-p.closing:
			return err
		}
		if err = f(); err == nil || !passes(err) {
			return err
		}
	}
}

// synced deals with the result of an fsync.
func (p *patience) synced(err error) error {
	if err == nil {
		return nil
	}
	p.mu.Lock()
	p.set(err)
	p.broken = true
	p.mu.Unlock()
	<-p.closing
	return err
}

func (fs patientFS) file(open func() (vfs.File, error)) (vfs.File, error) {
	var f vfs.File
	err := fs.state.try(func() (err error) {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return patientFile{f, fs.state}, nil
}

func (fs patientFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.file(func() (vfs.File, error) { return fs.FS.Create(name, c) })
}

func (fs patientFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.file(func() (vfs.File, error) { return fs.FS.OpenReadWrite(name, c, opts...) })
}

func (fs patientFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.file(func() (vfs.File, error) { return fs.FS.ReuseForWrite(oldname, newname, c) })
}

func (fs patientFS) OpenDir(name string) (vfs.File, error) {
	return fs.file(func() (vfs.File, error) { return fs.FS.OpenDir(name) })
}

func (fs patientFS) Link(oldname, newname string) error {
	return fs.state.try(func() error { return fs.FS.Link(oldname, newname) })
}

func (fs patientFS) Rename(oldname, newname string) error {
	return fs.state.try(func() error { return fs.FS.Rename(oldname, newname) })
}

func (fs patientFS) MkdirAll(dir string, perm os.FileMode) error {
	return fs.state.try(func() error { return fs.FS.MkdirAll(dir, perm) })
}

// Unwrap implements [vfs.FS].
func (fs patientFS) Unwrap() vfs.FS { return fs.FS }

// A patientFile is a file of a patientFS.
type patientFile struct {
	vfs.File
	state *patience
}

func (f patientFile) Write(b []byte) (n int, err error) {
	err = f.state.try(func() error {
		m, err := f.File.Write(b[n:])
		n += m
		return err
	})
	return n, err
}

func (f patientFile) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.state.try(func() error {
		m, err := f.File.WriteAt(b[n:], at+int64(n))
		n += m
		return err
	})
	return n, err
}

// Preallocate asks for room in advance, which is help and not a need.
func (f patientFile) Preallocate(offset, length int64) error {
	if err := f.File.Preallocate(offset, length); err != nil && !passes(err) {
		return err
	}
	return nil
}

func (f patientFile) Sync() error     { return f.state.synced(f.File.Sync()) }
func (f patientFile) SyncData() error { return f.state.synced(f.File.SyncData()) }

func (f patientFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.state.synced(err)
}

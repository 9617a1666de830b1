// Package pebblestore is a [store.Store] in a folder, on
// github.com/cockroachdb/pebble: a log-structured merge tree with a write-ahead
// log. A queue that is filled and emptied between two flushes leaves nothing on disk but
// the log, which is used again.
package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/anyquic/anyquic/mqtt/store"
)

// A Config says how a Store works. Its zero value is good.
type Config struct {
	// Logger gets what an operator must know: damage, a full disk. Nil discards.
	Logger *slog.Logger
	// CacheBytes is for blocks that are read: 8 MiB. The broker reads at
	// start only.
	CacheBytes int64
	// MemTableBytes is what is gathered in memory before it goes to a sorted file:
	// 32 MiB. The write-ahead log takes two to three times as much on disk.
	MemTableBytes int

	fs    vfs.FS        // of tests
	retry time.Duration // of tests
	close time.Duration // of tests
}

// closeTimeout is how long Close waits for the device.
const closeTimeout = 30 * time.Second

// A Store is a [store.Store] on pebble.
type Store struct {
	db       *pebble.DB
	dir      string
	timeout  time.Duration // of Close
	log      *slog.Logger
	patience *patience
	fatal    atomic.Pointer[error] // what pebble thinks nobody survives

	mu     sync.Mutex
	closed bool // guarded by mu

	work    chan work // to the applying goroutine
	stopped chan struct{}

	// Of Apply, which is called by one goroutine at a time.
	underWay *work // an Apply that returned an error and goes on
	written  atomic.Int64
}

// A work is one batch to be written.
type work struct {
	b    *pebble.Batch
	sync bool
	of   *store.Batch
	done chan error // of capacity 1
}

// Open opens or makes the store in dir, which no other process may have open. If its
// files are damaged the error is a [*DamagedError], here or from Load.
func Open(dir string, cfg *Config) (*Store, error) {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.CacheBytes <= 0 {
		c.CacheBytes = 8 << 20
	}
	if c.MemTableBytes <= 0 {
		c.MemTableBytes = 32 << 20
	}
	if c.fs == nil {
		c.fs = vfs.Default
	}
	if c.close <= 0 {
		c.close = closeTimeout
	}
	s := &Store{dir: dir, timeout: c.close, log: c.Logger, patience: newPatience(), work: make(chan work), stopped: make(chan struct{})}
	if c.retry > 0 {
		s.patience.retry = c.retry
	}
	cache := pebble.NewCache(c.CacheBytes)
	defer cache.Unref()
	opts := &pebble.Options{
		Cache:                       cache,
		FS:                          patientFS{c.fs, s.patience},
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      logger{s},
		MemTableSize:                uint64(c.MemTableBytes),
		MemTableStopWritesThreshold: 3,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
	}
	l := pebble.EventListener{
		BackgroundError: func(err error) { s.log.Error("mqtt store: background work failed", "err", err) },
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.log.Error("mqtt store: damaged file", "path", i.Path, "err", i.Details)
		},
	}
	l.EnsureDefaults(logger{s})
	opts.EventListener = &l
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, explain(dir, err)
	}
	s.db = db
	go s.run() // ends with Close
	return s, nil
}

// logger is what pebble logs to. Its news is of no use to an operator.
type logger struct{ s *Store }

func (logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) {
	l.s.log.Error("mqtt store: " + fmt.Sprintf(format, args...))
}

// Fatalf would end the process. Instead nothing is acknowledged any more; the files
// are as a process that ended would have left them.
func (l logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("pebblestore: "+format, args...)
	if l.s.fatal.CompareAndSwap(nil, &err) && !l.s.isClosed() {
		l.s.log.Error("mqtt store: cannot go on; restart the broker when the cause is removed", "err", err)
	}
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// run writes one batch after the other. It is a goroutine of its own so that
// Apply can return when the disk is full.
func (s *Store) run() {
	defer close(s.stopped)
	for {
		select {
		case w := <-s.work:
			w.done <- s.write(&w)
		case <-s.patience.closing:
			return
		}
	}
}

func (s *Store) write(w *work) error {
	defer w.b.Close()
	if err := s.fatal.Load(); err != nil {
		return *err
	}
	sync := pebble.NoSync
	if w.sync {
		sync = pebble.Sync
	}
	var err error
	if w.b.Empty() {
		err = s.db.LogData(nil, sync)
	} else {
		err = w.b.Commit(sync)
	}
	// Pebble goes on after a Fatalf that returns, and knows of no error.
	if fatal := s.fatal.Load(); err == nil && fatal != nil {
		err = *fatal
	}
	return err
}

// Apply implements [store.Store]. When there is no room on the disk it returns
// an error that says so, while the write goes on waiting for some.
func (s *Store) Apply(b *store.Batch, sync bool) error {
	w := s.underWay
	if w == nil || w.of != b {
		if w != nil {
			return errors.New("pebblestore: another batch is under way")
		}
		pb := s.db.NewBatchWithSize(b.Size() + 64)
		if err := translate(pb, b); err != nil {
			pb.Close()
			return fmt.Errorf("pebblestore: %w", err)
		}
		w = &work{b: pb, sync: sync, of: b, done: make(chan error, 1)}
		s.written.Add(int64(b.Size()))
		select {
		case s.work <- *w:
		case <-s.patience.closing:
			pb.Close()
			return store.ErrClosed
		}
	}
	for {
		changed, why := s.patience.now()
		select {
		case err := <-w.done:
			s.underWay = nil
			if err != nil {
				return fmt.Errorf("pebblestore: %w", err)
			}
			return nil
		default:
		}
		if why != nil {
			s.underWay = w
			return fmt.Errorf("pebblestore: %w", why)
		}
		select {
		case err := <-w.done:
			w.done <- err // for the turn above
		case <-changed:
		case <-s.patience.closing:
			s.underWay = w
			return store.ErrClosed
		}
	}
}

// translate puts b's changes into pb.
func translate(pb *pebble.Batch, b *store.Batch) (err error) {
	b.Each(func(op store.Op, key, value []byte) {
		if err != nil {
			return
		}
		switch op {
		case store.Put:
			err = pb.Set(key, value, nil)
		case store.Delete:
			err = pb.Delete(key, nil)
		case store.DeleteOnce:
			err = pb.SingleDelete(key, nil)
		case store.DeletePrefix:
			err = pb.DeleteRange(key, store.PrefixEnd(key), nil)
		}
	})
	return err
}

// Load implements [store.Store].
func (s *Store) Load(f func(key, value []byte) error) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return explain(s.dir, err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			it.Close()
			return explain(s.dir, err)
		}
		if err := f(it.Key(), value); err != nil {
			it.Close()
			return err
		}
	}
	if err := it.Close(); err != nil {
		return explain(s.dir, err)
	}
	return nil
}

// Compact implements [store.Store].
func (s *Store) Compact() error {
	if err := s.db.Flush(); err != nil {
		return fmt.Errorf("pebblestore: %w", err)
	}
	if err := s.db.Compact(context.Background(), []byte{0}, []byte{0xFF}, false); err != nil {
		return fmt.Errorf("pebblestore: %w", err)
	}
	return nil
}

// Stats implements [store.Store].
func (s *Store) Stats() store.Stats {
	m := s.db.Metrics()
	st := store.Stats{
		DiskBytes:   int64(m.DiskSpaceUsage()),
		WrittenUser: s.written.Load(),
		WrittenDisk: int64(m.WAL.BytesWritten),
		Compactions: m.Compact.Count,
	}
	for _, l := range m.Levels {
		st.WrittenDisk += int64(l.TableBytesFlushed + l.TableBytesCompacted)
	}
	return st
}

// Close implements [store.Store]. It waits for the files to be closed, not for room on
// the disk, and at most 30 s for a device that does not answer: the error then says
// so, the process keeps the folder, and what was synced is in it.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return store.ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	close(s.patience.closing)
	closed := make(chan error, 1)
	go func() { // ends when the device answers
		<-s.stopped
		closed <- s.db.Close()
	}()
	t := time.NewTimer(s.timeout)
	defer t.Stop()
	select {
	case err := <-closed:
		if err != nil {
			return fmt.Errorf("pebblestore: %w", err)
		}
		return nil
	case <-t.C:
		return fmt.Errorf("pebblestore: %s: not closed within %v: a write or fsync does not return: see whether the device answers; what was acknowledged is there", s.dir, s.timeout)
	}
}

package client

import (
	"fmt"
	"sync"

	"github.com/anyquic/anyquic/internal/journal"
	"github.com/anyquic/anyquic/mqtt"
)

// A storeFile is where a store writes to: a *journal.File.
type storeFile interface {
	Append(records []byte, sync bool) error
	Replace(records []byte) error
	Size() int64
	Close() error
}

// A store writes the session log of a Client to a file. Those who need a record to
// be there call commit, and whoever comes first writes for all.
type store struct {
	c    *Client
	file storeFile
	sync bool

	mu      sync.Mutex // taken before Client.mu
	written uint64     // guarded by mu; the records that are in the file, as sessionLog.noted counts them
	spare   []byte     // guarded by mu; a buffer to give to the log
	failed  bool       // guarded by mu; the file does not have all that the log has noted
	closed  bool       // guarded by mu
}

// slack is how many bytes of records that are not needed any more a file may have
// beyond as much as those that are.
const slack = 1 << 20

// keepRecords is the largest buffer for records that is kept.
const keepRecords = 1 << 20

// openStore opens the file of cfg.Queue and restores the machine from it.
func (c *Client) openStore() error {
	l := &sessionLog{version: c.cfg.Version}
	r := newRestorer(c.m, l)
	file, report, err := journal.Open(c.cfg.Queue.File, r.add)
	if err != nil {
		return fmt.Errorf("client: Config.Queue.File: %w", err)
	}
	l.salt = file.Salt()
	c.m.cutInbound(mqtt.ControlStream) // the data streams are gone
	err = r.err
	if err == nil {
		err = c.restored(l)
	}
	if err == nil {
		c.store = newStore(c, l, file)
		err = c.store.commit(l.noted)
	}
	if err != nil {
		_ = file.Close() // it was only read
		return err
	}
	if report.Damaged+report.Torn+r.bad > 0 {
		c.log.Warn("the queue's file was damaged: what it lost is lost", "file", c.cfg.Queue.File,
			"records", report.Damaged+r.bad, "bytes at the end", report.Torn)
	}
	if n := c.m.flights; n > 0 {
		c.log.Info("messages from the queue's file", "file", c.cfg.Queue.File, "messages", n)
	}
	return nil
}

func newStore(c *Client, l *sessionLog, file storeFile) *store {
	c.m.log = l
	l.snapshot(c.m)
	return &store{c: c, file: file, sync: c.cfg.Queue.Sync}
}

// restored continues the session of an earlier process.
func (c *Client) restored(l *sessionLog) error {
	if l.known {
		if c.cfg.ClientID != "" && c.cfg.ClientID != l.clientID {
			return fmt.Errorf("client: Config.Queue.File has the session of client %q, not %q", l.clientID, c.cfg.ClientID)
		}
		c.clientID = l.clientID
		c.m.epoch = 1 // the next connection is not the session's first
	}
	if c.cfg.Queue.Restored == nil {
		return nil
	}
	for f := c.m.outbound.first; f != nil; f = f.next {
		f.done = c.restoredDone(f)
	}
	return nil
}

// commit returns when the file has every record up to the noted-th, which a process
// that ends now leaves behind; with sync also a machine that does.
func (s *store) commit(noted uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written >= noted {
		return nil
	}
	return s.write(false)
}

// write writes what is noted; what comes after the last time is not. s.mu is held.
func (s *store) write(last bool) error {
	if s.closed {
		return ErrClosed
	}
	c := s.c
	c.mu.Lock()
	l := c.m.log
	live := int64(c.m.queued + 32*len(c.m.received))
	if !l.whole && (s.failed || s.file.Size()+int64(len(l.buf)) > 2*live+slack) {
		// Also after a failure: what the file has of the last write is not
		// known, so everything is written again. Until then it has what it had,
		// and nothing that came later has gone to the network.
		l.snapshot(c.m)
	}
	records, whole, upTo := l.buf, l.whole, l.noted
	l.buf, l.whole = s.spare[:0], false
	s.spare = nil
	if last {
		l.frozen, c.m.kept = true, Kept
	}
	c.mu.Unlock()

	var err error
	switch {
	case whole:
		err = s.file.Replace(records)
	case len(records) > 0:
		err = s.file.Append(records, s.sync)
	}
	if cap(records) <= keepRecords {
		s.spare = records
	}
	s.failed = err != nil
	if err != nil {
		return fmt.Errorf("client: queue: %w", err)
	}
	s.written = upTo
	return nil
}

// close writes what is noted and closes the file.
func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.write(true)
	s.closed = true
	if cerr := s.file.Close(); err == nil {
		err = cerr
	}
	return err
}

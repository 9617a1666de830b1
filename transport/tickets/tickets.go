// Package tickets keeps TLS sessions in a file, so that the next run of a program
// resumes them, over TLS and over QUIC.
//
//	f, err := tickets.Open("/var/lib/meter/tickets", "")
//	quic := &mqttquic.Dialer{Transport: e, Sessions: f.QUIC(e.Name())}
//	config := &tls.Config{ClientSessionCache: f.TLS()}
//
// A session contains secrets: the file can be read by its owner alone. Whatever is
// damaged in it, and what cannot be read or written, is as if it were not there.
package tickets

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/anyquic/anyquic/internal/journal"
)

const (
	maxSession  = 256 << 10          // bytes: a ticket, which the server chooses, and a certificate chain
	maxSessions = 64                 // in a file; the oldest make room
	maxAge      = 7 * 24 * time.Hour // the longest life of a ticket (RFC 8446, Section 4.6.1)
)

// A File keeps sessions, the newest of each server. Its methods may be called from
// any goroutine; several processes may have the same file.
type File struct {
	path string
	key  string
	mu   sync.Mutex // held while the file is used
}

// Open returns the sessions in the file at path, which is made when there is one. Only
// sessions with the same key are seen: it must differ with everything that servers are
// verified by, such as the roots, or a session of a server that was trusted for
// another reason would be resumed. It fails if the file is something else or others can
// read or write it, or if the folder does not exist.
func Open(path, key string) (*File, error) {
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("tickets: %s is in no folder that exists", path)
	}
	if _, err := journal.ReadFile(path, func([]byte) {}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("tickets: %s: %w", path, err)
	}
	// Whoever has read a session can pass for this client, and whoever writes one for the
	// server. Windows says who may by other means.
	if info, err := os.Stat(path); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("tickets: %s: others can read or write it (mode %#o), and it has secrets: remove it, or chmod 600 if nobody has", path, info.Mode().Perm())
	}
	return &File{path: path, key: key}, nil
}

// QUIC returns the sessions of a QUIC engine, for the Sessions of a
// [transport.Config]. Each is used once.
//
// [transport.Config]: https://pkg.go.dev/github.com/anyquic/anyquic/transport#Config
func (f *File) QUIC(engine string) *Sessions { return &Sessions{f, "quic " + engine} }

// TLS returns the sessions of crypto/tls, for the ClientSessionCache of a tls.Config
// for TCP.
func (f *File) TLS() tls.ClientSessionCache { return tlsCache{&Sessions{f, "tls"}} }

// Sessions are those of one implementation of TLS.
type Sessions struct {
	f    *File
	kind string
}

// A session is a record of the file.
type session struct {
	name string // of key, implementation and server
	at   time.Time
	data []byte
}

func (s *session) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(len(s.name)))
	b = append(b, s.name...)
	b = binary.AppendUvarint(b, uint64(max(s.at.Unix(), 0)))
	return append(b, s.data...)
}

func decode(b []byte) (s session, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return s, false
	}
	s.name, b = string(b[k:k+int(n)]), b[k+int(n):]
	at, k := binary.Uvarint(b)
	if k <= 0 || at > 1<<40 || len(b) == k || len(b)-k > maxSession {
		return s, false
	}
	s.at, s.data = time.Unix(int64(at), 0), b[k:]
	return s, true
}

func (s *Sessions) name(server string) string {
	return fmt.Sprintf("%q %q %q", s.kind, s.f.key, server)
}

// update changes the sessions that are fresh. It reports whether that is in the file.
func (f *File) update(change func([]session) ([]session, bool)) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := false
	err := journal.Update(f.path, func(records [][]byte) ([][]byte, bool) {
		var sessions []session
		now := time.Now()
		for _, r := range records {
			if s, ok := decode(r); ok && now.Sub(s.at) < maxAge && now.Sub(s.at) > -time.Minute {
				sessions = append(sessions, s)
			}
		}
		if sessions, changed = change(sessions); !changed {
			return nil, false
		}
		if extra := len(sessions) - maxSessions; extra > 0 {
			sessions = sessions[extra:]
		}
		records = nil
		for i := range sessions {
			records = append(records, sessions[i].encode())
		}
		return records, true
	})
	return err == nil && changed
}

// find returns where the session with a name is, or -1.
func find(sessions []session, name string) int {
	return slices.IndexFunc(sessions, func(s session) bool { return s.name == name })
}

// Take removes and returns the session for the server, or nil.
func (s *Sessions) Take(server string) []byte {
	var data []byte
	ok := s.f.update(func(sessions []session) ([]session, bool) {
		i := find(sessions, s.name(server))
		if i < 0 {
			return nil, false
		}
		data = sessions[i].data
		return slices.Delete(sessions, i, i+1), true
	})
	if !ok {
		return nil // another process may take it
	}
	return data
}

// Put stores a session in the place of an older one.
func (s *Sessions) Put(server string, data []byte) {
	if len(data) == 0 || len(data) > maxSession {
		return
	}
	s.f.update(func(sessions []session) ([]session, bool) {
		if i := find(sessions, s.name(server)); i >= 0 {
			sessions = slices.Delete(sessions, i, i+1)
		}
		return append(sessions, session{s.name(server), time.Now(), data}), true
	})
}

// remove forgets the session of a server.
func (s *Sessions) remove(server string) { s.Take(server) }

// peek returns the session of a server, or nil.
func (s *Sessions) peek(server string) []byte {
	var data []byte
	s.f.update(func(sessions []session) ([]session, bool) {
		if i := find(sessions, s.name(server)); i >= 0 {
			data = sessions[i].data
		}
		return nil, false
	})
	return data
}

// A tlsCache is a tls.ClientSessionCache. A session is the ticket, after its length,
// and the state that crypto/tls has made of it.
type tlsCache struct{ *Sessions }

// Get returns the session of a server. On TLS 1.2 it may be used again: such a server
// need not send another.
func (c tlsCache) Get(server string) (*tls.ClientSessionState, bool) {
	b := c.peek(server)
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, false
	}
	ticket, state := b[k:k+int(n)], b[k+int(n):]
	parsed, err := tls.ParseSessionState(state)
	if err != nil {
		return nil, false
	}
	cs, err := tls.NewResumptionState(ticket, parsed)
	return cs, err == nil
}

// Put stores a session, or forgets that of the server if it is nil.
func (c tlsCache) Put(server string, cs *tls.ClientSessionState) {
	if cs == nil {
		c.remove(server)
		return
	}
	ticket, state, err := cs.ResumptionState()
	if err != nil || state == nil {
		return
	}
	data, err := state.Bytes()
	if err != nil {
		return
	}
	b := binary.AppendUvarint(nil, uint64(len(ticket)))
	c.Sessions.Put(server, append(append(b, ticket...), data...))
}

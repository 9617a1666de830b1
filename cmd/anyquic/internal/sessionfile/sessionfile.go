// Package sessionfile keeps QUIC sessions in a folder, so that the next run of a
// program can resume them and send early data.
package sessionfile

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"sync"
)

// maxSession bounds a file that is read, in bytes. Sessions hold a ticket, which the
// server chooses, and a certificate chain.
const maxSession = 256 << 10

// A Cache is a transport.SessionCache with a file for each server, which only the
// user can read: a session contains secrets. What cannot be read or written is as if
// it were not there.
type Cache struct {
	dir string
	key string

	mu sync.Mutex // two goroutines of this program do not take one session
}

// New returns a Cache in dir, which is made when it is needed. Sessions of
// different keys are kept apart: a session belongs to the engine that wrote it, and
// to the settings with which the server was verified.
func New(dir, key string) *Cache { return &Cache{dir: dir, key: key} }

// file is the file of a server, whose name may have any characters.
func (c *Cache) file(server string) string {
	h := sha256.Sum256([]byte(c.key + "\x00" + server))
	return filepath.Join(c.dir, hex.EncodeToString(h[:16]))
}

// Take removes and returns the session for the server, or nil.
func (c *Cache) Take(server string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := c.file(server)
	info, err := os.Stat(name)
	if err != nil || info.Size() > maxSession {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil || os.Remove(name) != nil {
		return nil // another program may take it
	}
	return b
}

// Put stores a session in the place of an older one.
func (c *Cache) Put(server string, session []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if os.MkdirAll(c.dir, 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(c.dir, "new-*") // with permissions for the user alone
	if err != nil {
		return
	}
	_, err = f.Write(session)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), c.file(server))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // nothing more can be done
	}
}

package pebblestore

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
)

// A DamagedError says that files of the store, rather than records in it, cannot be
// used: one has changed or is missing.
type DamagedError struct {
	Dir string // of the store
	Err error  // what is known, with the name of the file
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("pebblestore: %s: the store's files are damaged: %v: move the folder aside, and put a backup in its place "+
		"or begin with an empty one; docs/durability.md says what else can be done", e.Dir, e.Err)
}

// Unwrap returns what is known.
func (e *DamagedError) Unwrap() error { return e.Err }

// explain says where an error of opening or reading was, and what to do if that is damage.
func explain(dir string, err error) error {
	if pebble.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) {
		return &DamagedError{dir, err}
	}
	return fmt.Errorf("pebblestore: %s: %w", dir, err)
}

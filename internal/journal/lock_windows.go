package journal

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// renameOpen says that a file can be renamed, and be replaced, while it is open. The
// handles that package os makes do not share deletion, so here neither can be.
const renameOpen = false

// lockFile takes the lock at path, which ends with the process at the latest. The
// file stays: one that is removed could be locked by two.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if err != nil {
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("%w: %s", err, path), f.Close())
	}
	return f, nil
}

// lockOpened does nothing: a lock on the file itself would keep others from reading it.
func lockOpened(*os.File) error { return nil }

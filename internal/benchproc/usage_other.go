//go:build !linux

package benchproc

import (
	"errors"
	"time"
)

// UsageOf and MemoryOf cannot tell elsewhere.
func UsageOf(pid int) (Usage, error) { return Usage{}, errors.ErrUnsupported }

func MemoryOf(pid int) (Memory, error) { return Memory{}, errors.ErrUnsupported }

// ownCPU and ownRSS are 0, which is not known, elsewhere.
func ownCPU() (time.Duration, error) { return 0, nil }

func ownRSS() (uint64, error) { return 0, nil }

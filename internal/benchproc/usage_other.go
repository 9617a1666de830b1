//go:build !linux

package benchproc

import (
	"errors"
	"time"
)

// CPU is known on Linux only.
func (p *Process) CPU() (time.Duration, error) { return 0, errors.ErrUnsupported }

// ownCPU and ownRSS are 0, which is not known, elsewhere.
func ownCPU() (time.Duration, error) { return 0, nil }

func ownRSS() (uint64, error) { return 0, nil }

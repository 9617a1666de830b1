//go:build !linux

package benchproc

import (
	"errors"
	"time"
)

// CPU is known on Linux only.
func (p *Process) CPU() (time.Duration, error) { return 0, errors.ErrUnsupported }

// PeakRSS is known on Linux only.
func (p *Process) PeakRSS() (uint64, error) { return 0, errors.ErrUnsupported }

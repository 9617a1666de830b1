// Package engine lists the QUIC transports compiled into the program.
//
// The engine on quic-go is always there. The one on ngtcp2 is there, and
// preferred, in a build with the tag ngtcp2 and with cgo. Only programs and tests
// use this package: libraries are handed a transport.
package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anyquic/anyquic/purego"
	"github.com/anyquic/anyquic/transport"
)

// transports is in order of preference.
var transports = append(slices.Clip(native), purego.Transport)

// All returns the compiled-in transports, preferred first.
func All() []transport.Transport { return slices.Clone(transports) }

// Default returns the preferred engine.
func Default() transport.Transport { return transports[0] }

// Lookup returns the engine with the given name. The empty name means Default.
func Lookup(name string) (transport.Transport, error) {
	if name == "" {
		return Default(), nil
	}
	names := make([]string, len(transports))
	for i, e := range transports {
		if e.Name() == name {
			return e, nil
		}
		names[i] = e.Name()
	}
	return nil, fmt.Errorf("engine: %q is not compiled in (have %s)", name, strings.Join(names, ", "))
}

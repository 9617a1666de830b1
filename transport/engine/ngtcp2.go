//go:build ngtcp2 && cgo

package engine

import (
	"github.com/anyquic/anyquic/ngtcp2"
	"github.com/anyquic/anyquic/transport"
)

// native is the engine on ngtcp2.
var native = []transport.Transport{ngtcp2.Transport}

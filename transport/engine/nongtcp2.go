//go:build !ngtcp2 || !cgo

package engine

import "github.com/anyquic/anyquic/transport"

// native is empty: this build has no native engine.
var native []transport.Transport

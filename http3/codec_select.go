package http3

import (
	"maps"
	"slices"
	"sync/atomic"
)

// A CodecInfo says what a codec can do: the framing and the field compression of
// connections. Whatever it is, a connection can have every setting and extension.
type CodecInfo struct {
	// Name is what [Conn.Codec] returns: "nghttp3", "go".
	Name string

	// DynamicTable: field lines that were sent before are sent as references, in
	// both directions (RFC 9204).
	DynamicTable bool

	// Versions are the libraries inside.
	Versions map[string]string
}

// A codecKind is a codec of this build.
type codecKind struct {
	info CodecInfo
	make func(codecConfig) (codec, error)
}

var goKind = codecKind{
	info: CodecInfo{Name: "go"},
	make: func(cfg codecConfig) (codec, error) { return newGoCodec(cfg), nil },
}

// Codecs returns the codecs of this build, the preferred one first: connections have
// that one, unless its memory cannot be had. The one in Go is in every build; with
// the build tag ngtcp2 and cgo, libnghttp3's comes first.
func Codecs() []CodecInfo {
	var all []CodecInfo
	for _, k := range codecs {
		info := k.info
		info.Versions = maps.Clone(info.Versions)
		all = append(all, info)
	}
	return slices.Clip(all)
}

// Codec returns the name of the codec that serves the connection, one of those that
// [Codecs] returns.
func (c *Conn) Codec() string { return c.codecName }

// newCodec makes a codec and returns its name.
func newCodec(cfg codecConfig) (codec, string) {
	for _, k := range codecs {
		if c, err := k.make(cfg); err == nil {
			return c, k.info.Name
		}
	}
	return newGoCodec(cfg), goKind.info.Name
}

// newGoCodec makes the codec that is Go alone.
func newGoCodec(cfg codecConfig) codec {
	return newFraming(cfg, new(atomic.Bool), new(staticTable))
}

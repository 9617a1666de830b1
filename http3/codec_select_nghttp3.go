//go:build ngtcp2 && cgo

package http3

var codecs = []codecKind{nghttp3Kind, goKind}

// Package ngtcp2 is QUIC on libngtcp2, with OpenSSL or wolfSSL for TLS 1.3: an
// engine for package transport.
//
// It needs the build tag ngtcp2, cgo, and the libraries that "make deps" builds;
// the tag wolfssl chooses that library, the tag system those of the
// distribution. Without the tag the package is empty and links nothing.
package ngtcp2

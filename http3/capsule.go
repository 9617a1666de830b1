package http3

import (
	"bufio"
	"errors"
	"io"
)

// CapsuleDatagram is the type of the capsule that carries an HTTP datagram.
//
// https://www.rfc-editor.org/rfc/rfc9297#section-3.5
const CapsuleDatagram = 0x0

// AppendCapsule appends a capsule (RFC 9297, Section 3.2).
func AppendCapsule(dst []byte, typ uint64, value []byte) []byte { return appendFrame(dst, typ, value) }

// AppendVarint appends an integer of up to 62 bits in QUIC's encoding (RFC 9000,
// Section 16), which capsules and the heads of streams consist of. It panics if v
// is larger.
func AppendVarint(dst []byte, v uint64) []byte { return appendVarint(dst, v) }

// ReadVarint reads an integer in QUIC's encoding. Where the bytes end within it
// the error is io.ErrUnexpectedEOF.
func ReadVarint(r io.ByteReader) (uint64, error) { return readVarint(r) }

// ReadCapsule reads the head of the next capsule; what follows is its value,
// which must be read before the next call. At the end of the stream, between
// two capsules, it returns io.EOF.
func ReadCapsule(r *bufio.Reader) (typ uint64, value *io.LimitedReader, err error) {
	if typ, err = readVarint(r); err != nil {
		return 0, nil, err
	}
	n, err := readVarint(r)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, nil, err
	}
	return typ, &io.LimitedReader{R: r, N: int64(n)}, nil
}

func readVarint(r io.ByteReader) (uint64, error) {
	var num varintReader
	for {
		b, err := r.ReadByte()
		if errors.Is(err, io.EOF) && num.partial() {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		if v, _, ok := num.read([]byte{b}); ok {
			return v, nil
		}
	}
}

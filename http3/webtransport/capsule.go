package webtransport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"github.com/anyquic/anyquic/http3"
)

// Types of capsules.
//
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-9.6
const (
	capsuleClose = 0x2843
	capsuleDrain = 0x78ae

	// Flow control by session is not negotiated, so that what is said about it is
	// ignored, but for what is about single streams: that must not be said.
	capsuleMaxStreamData     = 0x190b4d3e
	capsuleStreamDataBlocked = 0x190b4d42
)

// maxCapsuleDatagram limits the datagrams in capsules, in bytes, to what a QUIC
// packet might hold, of an Ethernet with jumbo frames. Longer ones are dropped, as a
// network would: those that wait for ReceiveDatagram take no flow control.
const maxCapsuleDatagram = 16 << 10

// malformed is the error of a capsule, or an order of capsules, that breaks a
// rule.
func malformed(what string) *http3.Error {
	return &http3.Error{Code: http3.ErrMessage, Reason: what}
}

// readCapsules obeys the peer's capsules. It returns io.EOF at the end of the
// CONNECT stream, a *SessionError joined with io.EOF if the peer has said why, or
// what went wrong.
func (s *Session) readCapsules() error {
	r := bufio.NewReaderSize(s.connect, 512)
	for {
		end, err := s.readCapsule(r)
		if err != nil {
			return s.capsuleError(err)
		}
		if end == nil {
			continue
		}
		s.end(end)
		// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-6
		s.boundLinger()
		if _, err := r.ReadByte(); err == nil {
			return malformed("bytes after a CLOSE_SESSION capsule")
		} else if !errors.Is(err, io.EOF) {
			return err
		}
		return io.EOF
	}
}

// capsuleError names what reading a capsule ended with.
func (s *Session) capsuleError(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("the CONNECT stream ends within a capsule")
	case errors.Is(err, os.ErrDeadlineExceeded) && s.cause() == nil:
		return errNotHeard
	}
	return err
}

// readCapsule obeys a capsule. end: the peer has closed the session.
func (s *Session) readCapsule(r *bufio.Reader) (end *SessionError, _ error) {
	typ, value, err := http3.ReadCapsule(r)
	if err != nil {
		return nil, err
	}
	switch typ {
	case capsuleClose:
		return readClose(value)
	case capsuleDrain:
		if value.N != 0 {
			return nil, malformed("DRAIN_SESSION capsule with content")
		}
		s.drained()
	case capsuleMaxStreamData, capsuleStreamDataBlocked:
		// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-5.4
		return nil, malformed("capsule about the flow control of a stream")
	case http3.CapsuleDatagram:
		if value.N <= maxCapsuleDatagram {
			p, err := readValue(value)
			if err != nil {
				return nil, err
			}
			s.connect.PutDatagram(p)
		}
	}
	// https://www.rfc-editor.org/rfc/rfc9297#section-3.2: what is unknown is
	// skipped.
	return nil, skip(value)
}

// readClose reads a CLOSE_SESSION capsule.
func readClose(value *io.LimitedReader) (*SessionError, error) {
	switch {
	case value.N < 4:
		return nil, malformed("CLOSE_SESSION capsule without a code")
	case value.N > 4+maxReason:
		return nil, malformed("CLOSE_SESSION capsule with too long a reason")
	}
	p, err := readValue(value)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(p[4:]) {
		return nil, malformed("CLOSE_SESSION capsule whose reason is not UTF-8")
	}
	return &SessionError{Code: binary.BigEndian.Uint32(p), Reason: string(p[4:]), Remote: true}, nil
}

// readValue reads all of a value, whose length was checked.
func readValue(value *io.LimitedReader) ([]byte, error) {
	p := make([]byte, value.N)
	if _, err := io.ReadFull(value, p); err != nil {
		return nil, within(err)
	}
	return p, nil
}

// skip reads what is left of a value.
func skip(value *io.LimitedReader) error {
	if _, err := io.Copy(io.Discard, value); err != nil {
		return err
	}
	if value.N > 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// within is the error of a Read within a capsule.
func within(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// boundLinger gives the peer time to finish what it has to say.
func (s *Session) boundLinger() {
	_ = s.connect.SetReadDeadline(time.Now().Add(lingerTimeout)) // Read says so
}

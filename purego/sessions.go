package purego

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"

	"github.com/anyquic/anyquic/transport"
)

// A session is stored as sessionMagic, a checksum of the rest, the length of
// the ticket (2 bytes, big endian), the ticket, and what
// tls.SessionState.Bytes returns. quic-go keeps the server's transport
// parameters, which 0-RTT needs, in SessionState.Extra.
//
// The checksum is there because a wrong secret would make the server end the
// handshake: a damaged session must cost no more than resumption.
const (
	sessionMagic = "anyquic/purego\x01"
	sumLen       = 8 // of SHA-256
)

var errNoSession = errors.New("purego: not a session of this engine")

// sessions is a tls.ClientSessionCache on a transport.SessionCache.
type sessions struct{ cache transport.SessionCache }

// Get implements tls.ClientSessionCache. What it cannot read it ignores: the
// handshake is then a full one.
func (s *sessions) Get(server string) (*tls.ClientSessionState, bool) {
	b := s.cache.Take(server)
	if len(b) == 0 {
		return nil, false
	}
	cs, err := decodeSession(b)
	return cs, err == nil
}

// Put implements tls.ClientSessionCache. crypto/tls calls it with nil to
// discard a session; Get has removed it already.
func (s *sessions) Put(server string, cs *tls.ClientSessionState) {
	if cs == nil {
		return
	}
	if b, err := encodeSession(cs); err == nil {
		s.cache.Put(server, b)
	}
}

func encodeSession(cs *tls.ClientSessionState) ([]byte, error) {
	ticket, state, err := cs.ResumptionState()
	if err != nil {
		return nil, err
	}
	if state == nil || len(ticket) > 1<<16-1 {
		return nil, errNoSession
	}
	rest, err := state.Bytes()
	if err != nil {
		return nil, err
	}
	head := len(sessionMagic) + sumLen
	b := make([]byte, head, head+2+len(ticket)+len(rest))
	copy(b, sessionMagic)
	b = binary.BigEndian.AppendUint16(b, uint16(len(ticket)))
	b = append(b, ticket...)
	b = append(b, rest...)
	sum := sha256.Sum256(b[head:])
	copy(b[len(sessionMagic):head], sum[:])
	return b, nil
}

func decodeSession(b []byte) (*tls.ClientSessionState, error) {
	b, ok := bytes.CutPrefix(b, []byte(sessionMagic))
	if !ok || len(b) < sumLen+2 {
		return nil, errNoSession
	}
	sum := sha256.Sum256(b[sumLen:])
	if !bytes.Equal(b[:sumLen], sum[:sumLen]) {
		return nil, errNoSession
	}
	return decodeTicket(b[sumLen:])
}

// decodeTicket reads what follows the checksum.
func decodeTicket(b []byte) (*tls.ClientSessionState, error) {
	// crypto/tls keeps the certificates in it, for all connections of the
	// program, without copying them: whoever gave us b must not be able to
	// change them.
	b = bytes.Clone(b)
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if n == 0 || n > len(b) {
		return nil, errNoSession
	}
	state, err := tls.ParseSessionState(b[n:])
	if err != nil {
		return nil, err
	}
	return tls.NewResumptionState(b[:n], state)
}

//go:build ngtcp2 && cgo && fuzzplain

package capi

// #cgo CFLAGS: -DAQ_PLAIN
// #include "shim.h"
// #include "guard.h"
// extern int aq_plain;
// void aq_plain_leaks(int on);
// int aq_plain_unwinds(void);
// int aq_plain_crypto(aq_conn *c, const uint8_t *p, size_t n);
import "C"

// setPlain makes connections without TLS and without encryption, or ends that.
// Only the build that fuzzes frames has it.
func setPlain(on bool) {
	C.aq_plain = C.int(cBool(on))
}

// newPlainClient is NewClient while setPlain is on.
func newPlainClient(s *Settings, o *ClientOptions) (*Conn, error) {
	settings := s.c()
	var options C.aq_client_options
	options.path = o.Path.c()
	putCID(&options.dcid, o.DCID)
	putCID(&options.scid, o.SCID)
	var cerr C.aq_error
	c := &Conn{c: C.aq_client_new(&settings, &options, nil, 0, &cerr)}
	if c.c == nil {
		return nil, goError(&cerr)
	}
	return c, nil
}

// sendCrypto sends CRYPTO data that no TLS library would.
func (c *Conn) sendCrypto(p []byte) error {
	return c.result(C.aq_plain_crypto(c.c, bytesPtr(p), C.size_t(len(p))))
}

// Places where a test lets an assertion fail, once.
const (
	failReading   = C.AQ_FAIL_READING
	failWriting   = C.AQ_FAIL_WRITING
	failInTLS     = C.AQ_FAIL_IN_TLS
	failFreeing   = C.AQ_FAIL_FREEING
	failMaking    = C.AQ_FAIL_MAKING
	failAsking    = C.AQ_FAIL_ASKING
	failAccepting = C.AQ_FAIL_ACCEPTING
)

// failEvent makes the n-th event from now on one that there is no memory for. It
// returns the number before, which is 0 if that event has come.
func failEvent(n int) int {
	was := int(C.aq_fail_event)
	C.aq_fail_event = C.int64_t(n)
	return was
}

func failAt(where C.int) { C.aq_fail_at = where }

// unwinds is called by a callback that panics: AddressSanitizer takes what C's frames
// leave on the stack for theirs otherwise.
func unwinds() { C.aq_plain_unwinds() }

// allowLeaks is for what one thread allocates.
func allowLeaks(on bool) { C.aq_plain_leaks(C.int(cBool(on))) }

func failing() bool { return C.aq_fail_at != 0 }

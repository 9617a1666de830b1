package websocket

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// maxReason is the length of the longest reason, in bytes.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-5.5
const maxReason = ws.MaxControlFramePayloadSize - 2

type invalidCodeError struct{ code StatusCode }

func (e *invalidCodeError) Error() string {
	return fmt.Sprintf("websocket: close code %d must not be sent", uint16(e.code))
}

// cutReason makes a text fit into a Close frame.
func cutReason(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxReason {
		return s
	}
	n := maxReason
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// appendClose appends the content of a Close frame.
func appendClose(dst []byte, e *CloseError) []byte {
	if e.Code == StatusNoStatus {
		return dst
	}
	return append(binary.BigEndian.AppendUint16(dst, uint16(e.Code)), e.Reason...)
}

// parseClose reads the content of the peer's Close frame. If it breaks a rule,
// the code is what to answer and ok is false.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-5.5.1
func parseClose(p []byte) (code StatusCode, reason string, ok bool) {
	if len(p) == 0 {
		return StatusNoStatus, "", true
	}
	if len(p) == 1 {
		return StatusProtocolError, "Close frame with half a code", false
	}
	code = StatusCode(binary.BigEndian.Uint16(p))
	switch {
	case !code.onWire():
		return StatusProtocolError, fmt.Sprintf("Close frame with code %d", uint16(code)), false
	case !utf8.Valid(p[2:]):
		return StatusInvalidPayload, "Close frame with invalid UTF-8", false
	}
	return code, string(p[2:]), true
}

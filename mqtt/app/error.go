package app

import (
	"errors"
	"fmt"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// An Error is an error of a handler that chooses the reason code of the
// acknowledgement.
type Error struct {
	Code packet.ReasonCode // 0x80 or above, of those that PUBACK can have
	Text string            // for the log; may be empty
}

// Reason returns an [*Error] with a reason code.
func Reason(code packet.ReasonCode) error { return &Error{Code: code} }

// Reasonf returns an [*Error] with a reason code and a text for the log.
func Reasonf(code packet.ReasonCode, format string, args ...any) error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string {
	s := fmt.Sprintf("app: refused: %v (0x%02x)", e.Code, uint8(e.Code))
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// ErrNoSubscribers is what a request returns if the broker says that nobody has
// subscribed to its topic.
var ErrNoSubscribers = client.ErrNoSubscribers

// ErrNoReply is what a reply returns if the message asks for none, or for one on a
// topic that Config.MayReply refuses.
var ErrNoReply = errors.New("app: reply: no response topic, or one that may not be replied to")

// codeOf returns the reason code that says err in an acknowledgement.
func codeOf(err error) packet.ReasonCode {
	if err == nil {
		return packet.Success
	}
	if e, ok := errors.AsType[*Error](err); ok {
		switch e.Code {
		case packet.UnspecifiedError, packet.ImplementationSpecificError, packet.NotAuthorized,
			packet.TopicNameInvalid, packet.QuotaExceeded, packet.PayloadFormatInvalid:
			return e.Code
		}
		return packet.UnspecifiedError
	}
	return packet.ImplementationSpecificError
}

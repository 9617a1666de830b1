package packet

import "fmt"

// A ReasonCode says how an operation ended; 0x80 and above are failures (MQTT 5,
// Section 2.4). The same value may have several names, for different packets.
type ReasonCode uint8

// The reason codes, named as in the table of MQTT 5, Section 2.4.
const (
	Success                           ReasonCode = 0x00 // CONNACK, acknowledgements, UNSUBACK, AUTH
	NormalDisconnection               ReasonCode = 0x00 // DISCONNECT
	GrantedQoS0                       ReasonCode = 0x00 // SUBACK
	GrantedQoS1                       ReasonCode = 0x01
	GrantedQoS2                       ReasonCode = 0x02
	DisconnectWithWill                ReasonCode = 0x04
	NoMatchingSubscribers             ReasonCode = 0x10
	NoSubscriptionExisted             ReasonCode = 0x11
	ContinueAuthentication            ReasonCode = 0x18
	ReAuthenticate                    ReasonCode = 0x19
	UnspecifiedError                  ReasonCode = 0x80
	MalformedPacket                   ReasonCode = 0x81
	ProtocolError                     ReasonCode = 0x82
	ImplementationSpecificError       ReasonCode = 0x83
	UnsupportedProtocolVersion        ReasonCode = 0x84
	ClientIDNotValid                  ReasonCode = 0x85
	BadUserNameOrPassword             ReasonCode = 0x86
	NotAuthorized                     ReasonCode = 0x87
	ServerUnavailable                 ReasonCode = 0x88
	ServerBusy                        ReasonCode = 0x89
	Banned                            ReasonCode = 0x8A
	ServerShuttingDown                ReasonCode = 0x8B
	BadAuthenticationMethod           ReasonCode = 0x8C
	KeepAliveTimeout                  ReasonCode = 0x8D
	SessionTakenOver                  ReasonCode = 0x8E
	TopicFilterInvalid                ReasonCode = 0x8F
	TopicNameInvalid                  ReasonCode = 0x90
	PacketIDInUse                     ReasonCode = 0x91
	PacketIDNotFound                  ReasonCode = 0x92
	ReceiveMaximumExceeded            ReasonCode = 0x93
	TopicAliasInvalid                 ReasonCode = 0x94
	PacketTooLarge                    ReasonCode = 0x95
	MessageRateTooHigh                ReasonCode = 0x96
	QuotaExceeded                     ReasonCode = 0x97
	AdministrativeAction              ReasonCode = 0x98
	PayloadFormatInvalid              ReasonCode = 0x99
	RetainNotSupported                ReasonCode = 0x9A
	QoSNotSupported                   ReasonCode = 0x9B
	UseAnotherServer                  ReasonCode = 0x9C
	ServerMoved                       ReasonCode = 0x9D
	SharedSubscriptionsNotSupported   ReasonCode = 0x9E
	ConnectionRateExceeded            ReasonCode = 0x9F
	MaximumConnectTime                ReasonCode = 0xA0
	SubscriptionIDsNotSupported       ReasonCode = 0xA1
	WildcardSubscriptionsNotSupported ReasonCode = 0xA2
)

// reasons holds the specification's text for each reason code and the packets
// that may carry it: the table of MQTT 5, Section 2.4.
var reasons = [256]struct {
	text string
	in   packets
}{
	Success:                           {"Success", in(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)},
	GrantedQoS1:                       {"Granted QoS 1", in(SUBACK)},
	GrantedQoS2:                       {"Granted QoS 2", in(SUBACK)},
	DisconnectWithWill:                {"Disconnect with Will Message", in(DISCONNECT)},
	NoMatchingSubscribers:             {"No matching subscribers", in(PUBACK, PUBREC)},
	NoSubscriptionExisted:             {"No subscription existed", in(UNSUBACK)},
	ContinueAuthentication:            {"Continue authentication", in(AUTH)},
	ReAuthenticate:                    {"Re-authenticate", in(AUTH)},
	UnspecifiedError:                  {"Unspecified error", in(CONNACK, PUBACK, PUBREC, SUBACK, UNSUBACK, DISCONNECT)},
	MalformedPacket:                   {"Malformed Packet", in(CONNACK, DISCONNECT)},
	ProtocolError:                     {"Protocol Error", in(CONNACK, DISCONNECT)},
	ImplementationSpecificError:       {"Implementation specific error", in(CONNACK, PUBACK, PUBREC, SUBACK, UNSUBACK, DISCONNECT)},
	UnsupportedProtocolVersion:        {"Unsupported Protocol Version", in(CONNACK)},
	ClientIDNotValid:                  {"Client Identifier not valid", in(CONNACK)},
	BadUserNameOrPassword:             {"Bad User Name or Password", in(CONNACK)},
	NotAuthorized:                     {"Not authorized", in(CONNACK, PUBACK, PUBREC, SUBACK, UNSUBACK, DISCONNECT)},
	ServerUnavailable:                 {"Server unavailable", in(CONNACK)},
	ServerBusy:                        {"Server busy", in(CONNACK, DISCONNECT)},
	Banned:                            {"Banned", in(CONNACK)},
	ServerShuttingDown:                {"Server shutting down", in(DISCONNECT)},
	BadAuthenticationMethod:           {"Bad authentication method", in(CONNACK, DISCONNECT)},
	KeepAliveTimeout:                  {"Keep Alive timeout", in(DISCONNECT)},
	SessionTakenOver:                  {"Session taken over", in(DISCONNECT)},
	TopicFilterInvalid:                {"Topic Filter invalid", in(SUBACK, UNSUBACK, DISCONNECT)},
	TopicNameInvalid:                  {"Topic Name invalid", in(CONNACK, PUBACK, PUBREC, DISCONNECT)},
	PacketIDInUse:                     {"Packet Identifier in use", in(PUBACK, PUBREC, SUBACK, UNSUBACK)},
	PacketIDNotFound:                  {"Packet Identifier not found", in(PUBREL, PUBCOMP)},
	ReceiveMaximumExceeded:            {"Receive Maximum exceeded", in(DISCONNECT)},
	TopicAliasInvalid:                 {"Topic Alias invalid", in(DISCONNECT)},
	PacketTooLarge:                    {"Packet too large", in(CONNACK, DISCONNECT)},
	MessageRateTooHigh:                {"Message rate too high", in(DISCONNECT)},
	QuotaExceeded:                     {"Quota exceeded", in(CONNACK, PUBACK, PUBREC, SUBACK, DISCONNECT)},
	AdministrativeAction:              {"Administrative action", in(DISCONNECT)},
	PayloadFormatInvalid:              {"Payload format invalid", in(CONNACK, PUBACK, PUBREC, DISCONNECT)},
	RetainNotSupported:                {"Retain not supported", in(CONNACK, DISCONNECT)},
	QoSNotSupported:                   {"QoS not supported", in(CONNACK, DISCONNECT)},
	UseAnotherServer:                  {"Use another server", in(CONNACK, DISCONNECT)},
	ServerMoved:                       {"Server moved", in(CONNACK, DISCONNECT)},
	SharedSubscriptionsNotSupported:   {"Shared Subscriptions not supported", in(SUBACK, DISCONNECT)},
	ConnectionRateExceeded:            {"Connection rate exceeded", in(CONNACK, DISCONNECT)},
	MaximumConnectTime:                {"Maximum connect time", in(DISCONNECT)},
	SubscriptionIDsNotSupported:       {"Subscription Identifiers not supported", in(SUBACK, DISCONNECT)},
	WildcardSubscriptionsNotSupported: {"Wildcard Subscriptions not supported", in(SUBACK, DISCONNECT)},
}

// String returns the specification's name of c.
func (c ReasonCode) String() string {
	if text := reasons[c].text; text != "" {
		return text
	}
	return fmt.Sprintf("Reason Code %#02x", uint8(c))
}

// Failed reports whether c is a failure.
func (c ReasonCode) Failed() bool { return c >= 0x80 }

// AllowedIn reports whether a packet of type t may carry c in MQTT 5.
func (c ReasonCode) AllowedIn(t Type) bool { return reasons[c].in.has(t) }

// codeNotAllowed is the error for a reason code that the packet does not have in
// the table of Section 2.4 ([MQTT-3.4.2-1], [MQTT-3.9.3-2], [MQTT-3.14.2-1] and
// their like).
func codeNotAllowed(t Type, c ReasonCode) *Error {
	return violation("%v: reason code %#02x is not allowed", t, uint8(c))
}

// ReturnCode translates c to the return code of a CONNACK of MQTT 3.1 or 3.1.1.
// It is false if there is none for c: then the server closes the connection
// without a CONNACK (MQTT 3.1.1, [MQTT-3.2.2-6]).
func (c ReasonCode) ReturnCode() (byte, bool) {
	switch c {
	case Success:
		return 0, true
	case UnsupportedProtocolVersion:
		return 1, true
	case ClientIDNotValid:
		return 2, true
	case UnspecifiedError, ImplementationSpecificError, ServerUnavailable, ServerBusy, ServerShuttingDown,
		QuotaExceeded, UseAnotherServer, ServerMoved, ConnectionRateExceeded:
		return 3, true
	case BadUserNameOrPassword, BadAuthenticationMethod:
		return 4, true
	case NotAuthorized, Banned:
		return 5, true
	}
	return 0, false
}

// returnCodes are the return codes of a CONNACK of MQTT 3.1 and 3.1.1 (Section
// 3.2.2.3) as reason codes.
var returnCodes = [...]ReasonCode{
	Success,
	UnsupportedProtocolVersion,
	ClientIDNotValid,
	ServerUnavailable,
	BadUserNameOrPassword,
	NotAuthorized,
}

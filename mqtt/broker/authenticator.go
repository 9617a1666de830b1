package broker

import (
	"context"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// An Authenticator decides who a client is, from its CONNECT and from what its
// carrier knows of it. It is called without any lock, from many goroutines at
// once, at most Config.MaxHooks at a time. It must return soon after ctx is
// done; one that does not is given up, but keeps its place until it returns.
//
// A nil error admits the client with the Identity. A [*Denied] refuses it with
// its code; any other error, a panic and a call that takes longer than
// Config.HookTimeout are logged and refuse it with Server unavailable (0x88).
type Authenticator interface {
	Authenticate(ctx context.Context, c *Credentials) (Identity, error)
}

// An EnhancedAuthenticator is an Authenticator that knows methods of enhanced
// authentication (MQTT 5, Section 4.12).
type EnhancedAuthenticator interface {
	Authenticator
	// NewExchange begins an exchange by the method that CONNECT names, or the
	// method of the connection when a client authenticates again. It does not
	// block. It returns nil if it does not know the method.
	NewExchange(method string, c *Credentials) Exchange
}

// An Exchange is one enhanced authentication. Its calls follow each other.
type Exchange interface {
	// Next takes the Authentication Data of CONNECT or AUTH, nil if it had none,
	// which it may keep, and returns what to answer. A nil Identity asks the
	// client for more; with an Identity the client is admitted and the data goes
	// with CONNACK or the last AUTH. Errors are those of an [Authenticator].
	Next(ctx context.Context, data []byte) (reply []byte, id *Identity, err error)
}

// Credentials are what a client shows of itself. An Authenticator must not
// change them, and must never log the password.
type Credentials struct {
	// Client is who the client claims to be: Username is that of CONNECT. If
	// it authenticates again, it is who it has proven to be.
	Client ClientInfo

	HasUsername bool   // else Client.Username is empty because there is none
	Password    []byte // nil: none
}

// An Identity is who a client has proven to be.
type Identity struct {
	// Username is what ClientInfo says from then on, access control decides by,
	// and a session belongs to. Empty: anonymous.
	Username string

	// Expires ends the connection with Maximum connect time (0xA0), unless the
	// client authenticates again before. Zero: it does not.
	Expires time.Time
}

// Denied refuses a client.
type Denied struct {
	Code   packet.ReasonCode // of CONNACK, or of DISCONNECT where that has it
	Reason string            // for the log; without secrets
}

func (d *Denied) Error() string { return "broker: denied: " + d.Reason }

// An Action is what a client wants to do with a topic.
type Action uint8

// The actions that an Authorizer decides on.
const (
	ActionPublish   Action = iota + 1 // also a will
	ActionSubscribe                   // the topic is a filter, without the prefix of a shared subscription
)

func (a Action) String() string {
	switch a {
	case ActionPublish:
		return "publish"
	case ActionSubscribe:
		return "subscribe"
	}
	return "unknown"
}

// An Authorizer decides what a client may do. It is called as an Authenticator
// is, with the same bounds. An error, a panic and a call that takes too long
// are logged and deny.
//
// Its decisions on publishing are remembered for a while, by connection. A
// decision on a filter holds for as long as the subscription, and is taken
// again when the session is resumed and by [Broker.Reauthorize], which is to be
// called after Revision has changed. Wills and delayed messages are decided on when
// they are due as well, when their client may have gone: see ClientInfo.Offline. A
// failure denies a will then as well, but never a delayed message, which waits.
// Topics and filters are those that the client names, before they are rewritten.
type Authorizer interface {
	Authorize(ctx context.Context, c *ClientInfo, a Action, topic string) (bool, error)
	// Revision changes when decisions may be other than before. It does not
	// block and allocates nothing: each PUBLISH asks.
	Revision() uint64
}

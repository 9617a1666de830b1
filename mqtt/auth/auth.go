// Package auth says who may use a broker, and for what: authenticators for
// broker.Config.Auth, and a file of rules for broker.Config.ACL.
//
//	Users        a file of names and password hashes; SCRAM-SHA-256 by AUTH
//	Tokens       JSON Web Tokens, checked with a file of public keys
//	Certificate  the client's certificate, on TLS and QUIC alike
//	Web          a question to an HTTPS server
//	Chain        one after the other
//	Rules        access control by user, client identifier, address and topic
//
// What is read from files has a method Reload, which reads the file again and
// replaces what was read before all at once, or leaves it as it is and returns
// what is wrong, with the lines; and a method PrepareReload, which does the
// first half of it and returns the second. Clients that are connected stay
// connected.
//
// Passwords and tokens are never logged and never part of an error. The time
// that a refusal takes does not say whether the user exists.
package auth

import (
	"context"
	"errors"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// ErrNotMine is returned by an authenticator that knows nothing of what the
// client shows, so that the next of a [Chain] is asked. At the end of the
// chain, and without one, it refuses the client.
var ErrNotMine error = &broker.Denied{Code: packet.BadUserNameOrPassword, Reason: "unknown user, or no credentials"}

// errPassword refuses a user that is known.
var errPassword error = &broker.Denied{Code: packet.BadUserNameOrPassword, Reason: "wrong password"}

// A Chain asks its authenticators in their order. The first that does not answer
// with [ErrNotMine] decides.
type Chain []broker.Authenticator

// Authenticate implements [broker.Authenticator].
func (c Chain) Authenticate(ctx context.Context, creds *broker.Credentials) (broker.Identity, error) {
	for _, a := range c {
		id, err := a.Authenticate(ctx, creds)
		if !errors.Is(err, ErrNotMine) {
			return id, err
		}
	}
	return broker.Identity{}, ErrNotMine
}

// NewExchange implements [broker.EnhancedAuthenticator] with the first that
// knows the method.
func (c Chain) NewExchange(method string, creds *broker.Credentials) broker.Exchange {
	for _, a := range c {
		if e, ok := a.(broker.EnhancedAuthenticator); ok {
			if x := e.NewExchange(method, creds); x != nil {
				return x
			}
		}
	}
	return nil
}

// PrepareReload reads the files of all that have some, and returns what puts what
// was read in force, for all of them. If there is a mistake in any it returns that.
func (c Chain) PrepareReload() (commit func(), err error) {
	var commits []func()
	var mistakes []error
	for _, a := range c {
		if r, ok := a.(interface{ PrepareReload() (func(), error) }); ok {
			commit, err := r.PrepareReload()
			commits, mistakes = append(commits, commit), append(mistakes, err)
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return func() {
		for _, commit := range commits {
			commit()
		}
	}, nil
}

// Reload reloads all of them or, if there is a mistake, none.
func (c Chain) Reload() error { return reload(c.PrepareReload()) }

// reload puts what was read in force.
func reload(commit func(), err error) error {
	if err == nil {
		commit()
	}
	return err
}

// Anonymous admits, as the user with the empty name, clients that show neither
// user name nor password, or Everyone, whatever they claim. It belongs at the
// end of a [Chain].
type Anonymous struct{ Everyone bool }

// Authenticate implements [broker.Authenticator].
func (a Anonymous) Authenticate(_ context.Context, c *broker.Credentials) (broker.Identity, error) {
	if a.Everyone || !c.HasUsername && c.Password == nil {
		return broker.Identity{}, nil
	}
	return broker.Identity{}, ErrNotMine
}

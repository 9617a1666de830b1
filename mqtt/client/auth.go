package client

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// An Authenticator is the client's side of a method of enhanced authentication
// (MQTT 5, Section 4.12), such as auth.SCRAM. It may be used by several goroutines
// at once.
type Authenticator interface {
	// Method is the Authentication Method.
	Method() string

	// Start begins an exchange. It returns the first Authentication Data, nil
	// for none, and the function that takes each of the server's answers, valid
	// during the call. With done the server has accepted, and next says by an
	// error if it should not have; otherwise next returns what to answer.
	Start() (first []byte, next func(data []byte, done bool) ([]byte, error), err error)
}

// An AuthError is an authentication that the client did not complete, because the
// Authenticator failed or does not trust the server.
type AuthError struct{ Err error }

func (e *AuthError) Error() string { return "client: authentication: " + e.Err.Error() }
func (e *AuthError) Unwrap() error { return e.Err }

// An exchange is the authentication of one CONNECT, or one re-authentication.
type exchange struct {
	method string
	next   func([]byte, bool) ([]byte, error)
}

// startAuth begins an exchange and puts its beginning into props. It returns nil
// if there is no Authenticator.
func (c *Client) startAuth(props *packet.Properties) (*exchange, error) {
	a := c.cfg.Auth
	if a == nil {
		return nil, nil
	}
	first, next, err := a.Start()
	if err != nil {
		return nil, &AuthError{err}
	}
	x := &exchange{a.Method(), next}
	props.AuthMethod, props.AuthData = x.method, first
	return x, nil
}

// answer returns the AUTH that answers one of the server [MQTT-4.12.0-3].
func (x *exchange) answer(p *packet.Auth) (*packet.Auth, error) {
	if p.Code != packet.ContinueAuthentication {
		return nil, &ProtocolError{packet.ProtocolError, "AUTH with the reason code of another step"}
	}
	if err := x.check(p.Properties); err != nil {
		return nil, err
	}
	data, err := x.next(p.Properties.AuthData, false)
	if err != nil {
		return nil, &AuthError{err}
	}
	return &packet.Auth{
		Code:       packet.ContinueAuthentication,
		Properties: &packet.Properties{AuthMethod: x.method, AuthData: data},
	}, nil
}

// accepted ends an exchange with the properties of CONNACK or the last AUTH.
func (x *exchange) accepted(props *packet.Properties) error {
	if err := x.check(props); err != nil {
		return err
	}
	if _, err := x.next(props.AuthData, true); err != nil {
		return &AuthError{err}
	}
	return nil
}

// check refuses another method than that of CONNECT [MQTT-4.12.0-5].
func (x *exchange) check(props *packet.Properties) error {
	if props == nil || props.AuthMethod != x.method {
		return &ProtocolError{packet.ProtocolError, "not the authentication method of CONNECT"}
	}
	return nil
}

// authenticate answers the server until CONNACK, which it returns. Nothing but
// AUTH is sent meanwhile [MQTT-3.1.2-30].
func (c *Client) authenticate(in *mqtt.Reader, out io.Writer, x *exchange) (*packet.Connack, error) {
	for {
		p, err := c.readAnswer(in)
		if err != nil {
			return nil, err
		}
		switch p := p.(type) {
		case *packet.Connack:
			if x != nil {
				if err := x.accepted(p.Properties); err != nil {
					return nil, err
				}
			}
			return p, nil
		case *packet.Auth:
			if x == nil {
				return nil, &ProtocolError{packet.BadAuthenticationMethod, "AUTH without an authentication method"}
			}
			reply, err := x.answer(p)
			if err != nil {
				return nil, err
			}
			b, err := reply.Append(nil, c.cfg.Version)
			if err != nil {
				return nil, err
			}
			if _, err := out.Write(b); err != nil {
				return nil, err
			}
		}
	}
}

// A reauth is a re-authentication that is going on.
type reauth struct {
	steps chan *packet.Auth // of the server; capacity 1
	lost  chan struct{}     // closed when the connection is
}

// receiveAuth hands a step of the server to who waits for it.
func (m *machine) receiveAuth(p *packet.Auth) error {
	if m.reauth == nil {
		// [MQTT-4.12.0-6]: no AUTH to a client that named no method, and none
		// that the client did not begin.
		return &ProtocolError{packet.BadAuthenticationMethod, "AUTH without an authentication method"}
	}
	q := &packet.Auth{Code: p.Code}
	if p.Properties != nil {
		q.Properties = &packet.Properties{AuthMethod: p.Properties.AuthMethod, AuthData: bytes.Clone(p.Properties.AuthData)}
	}
	select {
	case m.reauth.steps <- q:
		return nil
	default:
		return &ProtocolError{packet.ProtocolError, "AUTH before the client has answered the last"}
	}
}

// endReauth tells who waits that the connection is gone.
func (m *machine) endReauth() {
	if m.reauth != nil {
		close(m.reauth.lost)
		m.reauth = nil
	}
}

var errNotConnected = errors.New("client: not connected")

// Reauthenticate proves again, with Config.Auth, who the client is, while the
// connection goes on: for servers that admit a client for a time only. If it
// fails, or ctx is done before it is complete, the connection is ended, and made
// again as Config.Reconnect says. One call at a time; others get an error.
// It must not be called from a handler, which would keep it from its answer.
func (c *Client) Reauthenticate(ctx context.Context) error {
	if c.cfg.Auth == nil {
		return errors.New("client: Reauthenticate needs Config.Auth")
	}
	p := &packet.Auth{Code: packet.ReAuthenticate, Properties: new(packet.Properties)}
	x, err := c.startAuth(p.Properties) // [MQTT-4.12.1-1]: the method of CONNECT
	if err != nil {
		return err
	}
	c.mu.Lock()
	cn := c.conn
	switch {
	case c.unusable() != nil:
		err = c.unusable()
	case cn == nil:
		err = errNotConnected
	case c.m.reauth != nil:
		err = errors.New("client: a re-authentication is going on")
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	r := &reauth{make(chan *packet.Auth, 1), make(chan struct{})}
	c.m.reauth = r
	c.m.send(outgoing{packet: p})
	c.flush()
	c.unlock()

	err = c.reauthenticate(ctx, r, x)
	c.mu.Lock()
	if c.m.reauth == r {
		c.m.reauth = nil
	}
	c.mu.Unlock()
	if err != nil {
		cn.fail(err)
	}
	return err
}

func (c *Client) reauthenticate(ctx context.Context, r *reauth, x *exchange) error {
	for {
		var p *packet.Auth
		select {
		case p = <-r.steps:
		case <-r.lost:
			return &AuthError{errors.New("the connection was lost")}
		case <-ctx.Done():
			return &AuthError{ctx.Err()}
		}
		if p.Code == packet.Success {
			return x.accepted(p.Properties)
		}
		reply, err := x.answer(p)
		if err != nil {
			return err
		}
		c.mu.Lock()
		if c.m.reauth == r {
			c.m.send(outgoing{packet: reply})
			c.flush()
		}
		c.unlock()
	}
}

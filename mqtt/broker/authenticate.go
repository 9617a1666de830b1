package broker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/anyquic/anyquic/internal/timerwheel"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A standing is what authentication knows of a connection. There is one if the
// broker has an Authenticator.
type standing struct {
	method   string // of an enhanced authentication; empty: none
	data     []byte // of CONNACK
	exchange Exchange
	claims   bool             // the client shows something that may be wrong
	expiry   timerwheel.Timer // ends the connection with the identity

}

// maxAuthSteps bounds an exchange: no method that is in use has more than three.
const maxAuthSteps = 16

// authenticate decides on CONNECT before anything is done with it. It reports
// false if the client was refused.
func (cn *conn) authenticate(p *packet.Connect) bool {
	method, data := "", []byte(nil)
	if p.Properties != nil {
		method, data = p.Properties.AuthMethod, p.Properties.AuthData
	}
	cn.username = p.Username.Or("")
	if cn.b.cfg.Auth == nil {
		if method != "" { // [MQTT-4.12.0-1]
			cn.refuse(p.Version, &packet.Connack{Code: packet.BadAuthenticationMethod}, p.ClientID, "no authentication method is supported")
			return false
		}
		return cn.mayHaveWill(p)
	}
	cn.standing = new(standing)
	creds := &Credentials{Client: cn.info(), HasUsername: p.Username.Set, Password: p.Password}
	cn.standing.claims = creds.HasUsername || creds.Password != nil || method != ""
	if !cn.mayLogIn() {
		cn.refuse(p.Version, &packet.Connack{Code: quotaLogins.code}, p.ClientID, quotaLogins.text)
		return false
	}
	var id Identity
	var err error
	if method == "" {
		id, err = logIn(cn, func(ctx context.Context) (Identity, error) {
			return cn.b.cfg.Auth.Authenticate(ctx, creds)
		})
	} else {
		id, err = cn.exchange(p, method, data, creds)
	}
	if err == nil && !id.Expires.IsZero() && !id.Expires.After(time.Now()) {
		err = &Denied{packet.NotAuthorized, "what was shown has expired"}
	}
	if err != nil {
		cn.deny(p, err)
		return false
	}
	cn.username = id.Username
	if !cn.mayHaveWill(p) {
		return false
	}
	cn.standing.expiry.Init(cn.b.wheel, cn.expired)
	if !id.Expires.IsZero() {
		cn.standing.expiry.Reset(id.Expires)
	}
	return true
}

// mayHaveWill refuses a client whose will access control forbids: it could not
// be told later.
func (cn *conn) mayHaveWill(p *packet.Connect) bool {
	if p.Will == nil || cn.b.cfg.ACL == nil {
		return true
	}
	info := cn.info()
	_, name := splitDelayed(p.Will.Topic)
	ok, err := cn.b.authorize(cn.link.Context(), &info, ActionPublish, name)
	if ok {
		return true
	}
	if err == nil {
		err = &Denied{packet.NotAuthorized, "the will's topic is not allowed"}
	}
	cn.deny(p, err)
	return false
}

// deny answers CONNECT for an error of a hook.
func (cn *conn) deny(p *packet.Connect, err error) {
	if bad, ok := errors.AsType[*packet.Error](err); ok {
		code := bad.Code
		if !code.AllowedIn(packet.CONNACK) {
			code = packet.ProtocolError
		}
		cn.refuse(p.Version, &packet.Connack{Code: code}, p.ClientID, bad.Reason)
		return
	}
	if errors.Is(err, errLeft) {
		cn.refused(p.ClientID, packet.UnspecifiedError, err.Error())
		return
	}
	code, reason := cn.b.verdict(p.ClientID, err)
	if !code.AllowedIn(packet.CONNACK) || !code.Failed() {
		code = packet.NotAuthorized
	}
	cn.b.count.denied.Add(1)
	cn.refuse(p.Version, &packet.Connack{Code: code}, p.ClientID, reason)
}

// verdict returns what the client and the log are told about an error of a hook.
func (b *Broker) verdict(client string, err error) (packet.ReasonCode, string) {
	if d, ok := errors.AsType[*Denied](err); ok {
		return d.Code, d.Reason
	}
	b.count.hookFailed.Add(1)
	b.log.Warn("mqtt: hook failed: denied", "client", client, "err", err)
	return packet.ServerUnavailable, "hook failed"
}

// errLeft is for a client that has gone in the middle of an exchange.
var errLeft = errors.New("connection ended during authentication")

// newExchange returns an exchange by a method, or the refusal of it.
func (b *Broker) newExchange(method string, creds *Credentials) (Exchange, error) {
	if e, ok := b.cfg.Auth.(EnhancedAuthenticator); ok {
		if x := e.NewExchange(method, creds); x != nil {
			return x, nil
		}
	}
	return nil, &Denied{packet.BadAuthenticationMethod, "unknown authentication method"} // [MQTT-4.12.0-1]
}

// An authStep is what became of one step of an exchange.
type authStep struct {
	reply []byte
	id    *Identity
}

func (cn *conn) step(x Exchange, data []byte) (authStep, error) {
	return logIn(cn, func(ctx context.Context) (authStep, error) {
		reply, id, err := x.Next(ctx, data)
		return authStep{reply, id}, err
	})
}

// exchange is the enhanced authentication between CONNECT and CONNACK. Nothing
// but AUTH is sent and nothing but AUTH and DISCONNECT taken meanwhile:
// [MQTT-3.1.2-30], [MQTT-4.12.0-2].
func (cn *conn) exchange(p *packet.Connect, method string, data []byte, creds *Credentials) (Identity, error) {
	x, err := call(cn.link.Context(), &cn.b.authHooks, "authenticator", func(context.Context) (Exchange, error) {
		return cn.b.newExchange(method, creds)
	})
	if err != nil {
		return Identity{}, err
	}
	cn.standing.method = method
	for range maxAuthSteps {
		s, err := cn.step(x, bytes.Clone(data))
		if err != nil {
			return Identity{}, err
		}
		if s.id != nil {
			cn.standing.data = s.reply
			return *s.id, nil
		}
		if err := cn.sendAuth(p, s.reply); err != nil {
			return Identity{}, err
		}
		if data, err = cn.readAuth(method); err != nil {
			return Identity{}, err
		}
	}
	return Identity{}, &Denied{packet.NotAuthorized, "too many steps of an authentication"}
}

func (cn *conn) sendAuth(p *packet.Connect, data []byte) error {
	out, err := (&packet.Auth{
		Code:       packet.ContinueAuthentication, // [MQTT-4.12.0-2]
		Properties: &packet.Properties{AuthMethod: cn.standing.method, AuthData: data},
	}).Append(nil, p.Version)
	if err != nil {
		return err
	}
	if most := p.Properties.MaximumPacketSize; most.Set && int64(len(out)) > int64(most.Value) {
		return &Denied{packet.PacketTooLarge, "AUTH is larger than the client's maximum packet size"}
	}
	if _, err := cn.out.stream.Write(out); err != nil {
		return errLeft
	}
	f := flow{bytes: uint64(len(out))}
	f.packets[packet.AUTH]++
	f.tell(&cn.b.count.out)
	return nil
}

// readAuth returns the data of the client's answer, valid until the next read.
func (cn *conn) readAuth(method string) ([]byte, error) {
	in := &cn.in
	h, body, err := in.reader.Next()
	if err != nil {
		if _, ok := errors.AsType[*packet.Error](err); ok {
			return nil, err
		}
		return nil, errLeft
	}
	in.flow.bytes += uint64(len(body)) + headerSize(len(body))
	in.flow.packets[h.Type]++
	in.tell()
	pk, err := packet.Decode(h, body, packet.V5)
	if err != nil {
		return nil, err
	}
	switch a := pk.(type) {
	case *packet.Disconnect:
		return nil, errLeft
	case *packet.Auth:
		if a.Code != packet.ContinueAuthentication || a.Properties == nil || a.Properties.AuthMethod != method { // [MQTT-4.12.0-3], [MQTT-4.12.0-5]
			return nil, &packet.Error{Code: packet.ProtocolError, Reason: "AUTH: not the method of CONNECT, or not a continuation"}
		}
		return a.Properties.AuthData, nil
	}
	return nil, &packet.Error{Code: packet.ProtocolError, Reason: h.Type.String() + " before CONNACK"}
}

// reauthenticate takes a step of a re-authentication (MQTT 5, Section 4.12.1),
// beside what else the connection does. No lock is held.
func (b *Broker) reauthenticate(c *client, p *packet.Auth) {
	c.mu.Lock()
	cn := c.conn
	if cn == nil || cn.closing || cn.standing == nil {
		c.mu.Unlock()
		return
	}
	cn.goroutines.Add(1)
	c.mu.Unlock()
	data := bytes.Clone(p.Properties.AuthData)
	begins := p.Code == packet.ReAuthenticate
	go func() { // ends with the hook, its time-out or the link, which finish waits for
		defer cn.goroutines.Done()
		code, s, reason := cn.reauthStep(begins, data)
		var src source
		src.init(b, nil)
		src.now = time.Now()
		c.mu.Lock()
		if c.conn != cn {
			c.mu.Unlock()
			return
		}
		if code == packet.Success {
			cn.standing.expiry.Stop()
			if at := s.id.Expires; !at.IsZero() {
				cn.standing.expiry.Reset(at)
			}
		}
		fx := c.s.Authenticated(nil, code, s.reply, reason)
		c.kick(src.now)
		c.mu.Unlock()
		b.apply(&src, c, fx)
		src.flush()
	}()
}

// reauthStep asks the authenticator. Steps follow each other, as the machine sees to.
func (cn *conn) reauthStep(begins bool, data []byte) (packet.ReasonCode, authStep, string) {
	x := cn.standing.exchange
	var err error
	if begins {
		creds := &Credentials{Client: cn.info(), HasUsername: true}
		x, err = call(cn.link.Context(), &cn.b.authHooks, "authenticator", func(context.Context) (Exchange, error) {
			return cn.b.newExchange(cn.standing.method, creds)
		})
	}
	var s authStep
	if err == nil {
		s, err = cn.step(x, data)
	}
	cn.standing.exchange = x
	switch {
	case err != nil:
	case s.id == nil:
		return packet.ContinueAuthentication, s, ""
	case s.id.Username != cn.username:
		err = &Denied{packet.NotAuthorized, "re-authentication as another user"}
	case !s.id.Expires.IsZero() && !s.id.Expires.After(time.Now()):
		err = &Denied{packet.NotAuthorized, "what was shown has expired"}
	}
	cn.standing.exchange = nil
	if err == nil {
		return packet.Success, s, ""
	}
	cn.b.count.denied.Add(1)
	code, reason := cn.b.verdict(cn.id, err)
	cn.b.log.LogAttrs(context.Background(), slog.LevelInfo, "mqtt: re-authentication failed",
		slog.String("client", cn.id), slog.String("remote", addrString(cn.link)), slog.String("reason", reason))
	if !code.AllowedIn(packet.DISCONNECT) || !code.Failed() {
		code = packet.NotAuthorized
	}
	return code, authStep{}, "re-authentication failed"
}

// expired runs on the wheel's goroutine when the client's identity has expired.
func (cn *conn) expired() {
	c := cn.attached()
	if c == nil {
		cn.link.CloseWithCode(mqtt.LinkControlDown) // still at its CONNECT
		return
	}
	var src source
	src.init(cn.b, nil)
	src.now = time.Now()
	c.mu.Lock()
	current := c.conn == cn
	c.mu.Unlock()
	if current {
		c.disconnect(&src, packet.MaximumConnectTime, "authorization has expired", mqtt.LinkNormal)
		src.flush()
	}
}

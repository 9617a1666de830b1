package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Tokens accept JSON Web Tokens (RFC 7519) as the password of CONNECT, or as the
// user name, or as the Authentication Data of AUTH with method JWT. A
// token is signed by a key of a JWKS file with RS, PS, ES or EdDSA, and has a
// time at which it expires. The connection ends then, unless the client has
// authenticated again with a newer one, which the method JWT allows.
//
// What CONNECT has as the user name beside a token is ignored: the token says
// who the client is.
type Tokens struct {
	cfg  TokensConfig
	keys atomic.Pointer[keySet]
}

// A TokensConfig says which tokens are accepted.
type TokensConfig struct {
	Keys     string        // file with a JSON Web Key Set (RFC 7517) of public keys
	Issuer   string        // the claim iss must be; empty: any
	Audience string        // the claim aud must contain; empty: any
	User     string        // the claim that names the user; empty: sub
	Leeway   time.Duration // by which clocks may differ: 30 s; negative: none
}

// MethodJWT is the Authentication Method with which a client shows a token. One
// step is all it has.
const MethodJWT = "JWT"

// maxToken bounds a token, in bytes.
const maxToken = 16 << 10

// OpenTokens reads the keys.
func OpenTokens(cfg TokensConfig) (*Tokens, error) {
	if cfg.User == "" {
		cfg.User = "sub"
	}
	switch {
	case cfg.Leeway == 0:
		cfg.Leeway = 30 * time.Second
	case cfg.Leeway < 0:
		cfg.Leeway = 0
	}
	t := &Tokens{cfg: cfg}
	return t, t.Reload()
}

// Reload reads the keys again. On an error they stay as they were.
func (t *Tokens) Reload() error { return reload(t.PrepareReload()) }

// PrepareReload reads the keys and returns what puts them in force.
func (t *Tokens) PrepareReload() (commit func(), err error) {
	keys, err := readKeys(t.cfg.Keys)
	if err != nil {
		return nil, err
	}
	return func() { t.keys.Store(&keys) }, nil
}

// looksLike reports whether s could be a token: three parts of base64url.
func looksLike(s string) bool {
	if strings.Count(s, ".") != 2 || !strings.HasPrefix(s, "ey") { // {"
		return false
	}
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

// Authenticate implements [broker.Authenticator].
func (t *Tokens) Authenticate(_ context.Context, c *broker.Credentials) (broker.Identity, error) {
	for _, s := range []string{string(c.Password), c.Client.Username} {
		if looksLike(s) {
			return t.check(s, time.Now())
		}
	}
	return broker.Identity{}, ErrNotMine
}

// NewExchange implements [broker.EnhancedAuthenticator] with [MethodJWT].
func (t *Tokens) NewExchange(method string, _ *broker.Credentials) broker.Exchange {
	if method != MethodJWT {
		return nil
	}
	return tokenExchange{t}
}

type tokenExchange struct{ t *Tokens }

// Next implements [broker.Exchange].
func (x tokenExchange) Next(_ context.Context, data []byte) ([]byte, *broker.Identity, error) {
	id, err := x.t.check(string(data), time.Now())
	if err != nil {
		return nil, nil, err
	}
	return nil, &id, nil
}

// check returns whom a token names.
func (t *Tokens) check(token string, now time.Time) (broker.Identity, error) {
	deny := func(reason string) (broker.Identity, error) {
		return broker.Identity{}, &broker.Denied{Code: packet.NotAuthorized, Reason: "token: " + reason}
	}
	if len(token) > maxToken {
		return deny("too long")
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return deny("malformed, or signed with an algorithm that is not accepted")
	}
	var claims jwt.Claims
	var more map[string]any
	signed := false
	for _, k := range t.keys.Load().candidates(parsed.Headers[0]) {
		if parsed.Claims(k.Key, &claims, &more) == nil {
			signed = true
			break
		}
	}
	if !signed {
		return deny("signed by none of the keys, or its claims are malformed")
	}
	if claims.Expiry == nil {
		return deny("has no time at which it expires (exp)")
	}
	want := jwt.Expected{Issuer: t.cfg.Issuer, Time: now}
	if t.cfg.Audience != "" {
		want.AnyAudience = jwt.Audience{t.cfg.Audience}
	}
	if err := claims.ValidateWithLeeway(want, t.cfg.Leeway); err != nil {
		return deny(claimError(err))
	}
	name, ok := more[t.cfg.User].(string)
	if !ok || name == "" {
		return deny(fmt.Sprintf("its claim %s names no user", t.cfg.User))
	}
	return broker.Identity{Username: name, Expires: claims.Expiry.Time().Add(t.cfg.Leeway)}, nil
}

func claimError(err error) string {
	for _, e := range []struct {
		err  error
		text string
	}{
		{jwt.ErrExpired, "has expired (exp)"},
		{jwt.ErrNotValidYet, "is not valid yet (nbf)"},
		{jwt.ErrIssuedInTheFuture, "was issued in the future (iat)"},
		{jwt.ErrInvalidIssuer, "is of another issuer (iss)"},
		{jwt.ErrInvalidAudience, "is for another audience (aud)"},
	} {
		if errors.Is(err, e.err) {
			return e.text
		}
	}
	return "its claims are not valid"
}

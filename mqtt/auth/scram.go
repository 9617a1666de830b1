package auth

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// SCRAMSHA256 is the Authentication Method of SCRAM-SHA-256 (RFC 7677).
const SCRAMSHA256 = "SCRAM-SHA-256"

// maxSCRAM bounds a message of SCRAM, in bytes.
const maxSCRAM = 4096

// NewExchange implements [broker.EnhancedAuthenticator] with SCRAM-SHA-256, if
// there are users whose hash is for it.
func (u *Users) NewExchange(method string, c *broker.Credentials) broker.Exchange {
	if method != SCRAMSHA256 || len(u.list.Load().scram) == 0 {
		return nil
	}
	server, err := scram.SHA256.NewServer(u.stored)
	if err != nil {
		return nil
	}
	return &scramExchange{conv: server.NewConversation(), claimed: c.Client.Username, hasClaim: c.HasUsername, u: u}
}

// stored returns the keys of a user. An unknown user has some too, always the
// same, of which nobody knows the password: who asks learns nothing.
func (u *Users) stored(name string) (scram.StoredCredentials, error) {
	list := u.list.Load()
	if h, ok := list.byName[name].(*scramHash); ok {
		return h.StoredCredentials, nil
	}
	like := list.scram
	if len(like) == 0 {
		return scram.StoredCredentials{}, errors.New("auth: no users of SCRAM") // removed meanwhile
	}
	model := like[u.pick(name, len(like))]
	salt := append(u.mac("salt", name), u.mac("more salt", name)...)
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(salt[:len(model.Salt)]), Iters: model.Iters},
		StoredKey:  u.mac("stored", name), ServerKey: u.mac("server", name),
	}, nil
}

// known reports whether a user exists.
func (u *Users) known(name string) bool {
	_, ok := u.list.Load().byName[name].(*scramHash)
	return ok
}

// A scramExchange is the server's side (RFC 5802, Section 5).
type scramExchange struct {
	u        *Users
	conv     *scram.ServerConversation
	claimed  string // user name of CONNECT
	hasClaim bool
}

// Next implements [broker.Exchange].
func (x *scramExchange) Next(_ context.Context, data []byte) ([]byte, *broker.Identity, error) {
	deny := func(reason string) ([]byte, *broker.Identity, error) {
		return nil, nil, &broker.Denied{Code: packet.NotAuthorized, Reason: "SCRAM: " + reason}
	}
	if len(data) > maxSCRAM {
		return deny("message too long")
	}
	reply, err := x.conv.Step(string(data))
	if err != nil {
		// What the library says may quote the client.
		return deny("malformed message, wrong password or unknown user")
	}
	if !x.conv.Done() {
		return []byte(reply), nil, nil
	}
	name := x.conv.Username()
	switch {
	case !x.conv.Valid() || !x.u.known(name):
		return deny("wrong password or unknown user")
	case x.conv.AuthzID() != "" && x.conv.AuthzID() != name:
		return deny("acting for another user")
	case x.hasClaim && x.claimed != name:
		return deny("not the user of CONNECT")
	}
	return []byte(reply), &broker.Identity{Username: name}, nil
}

// A SCRAM is the client's side of SCRAM-SHA-256, for client.Config.Auth. It may
// be used for any number of connections.
type SCRAM struct {
	client *scram.Client
}

// NewSCRAM returns the client's side for a user. It fails for names and
// passwords that SASLprep (RFC 4013) forbids.
func NewSCRAM(username, password string) (*SCRAM, error) {
	c, err := scram.SHA256.NewClient(username, password, "")
	if err != nil {
		return nil, errors.New("auth: SCRAM: the user name or password has characters that SASLprep (RFC 4013) forbids")
	}
	return &SCRAM{c.WithMinIterations(minRounds)}, nil
}

// Method returns [SCRAMSHA256].
func (*SCRAM) Method() string { return SCRAMSHA256 }

// Start begins an exchange. It returns the Authentication Data of CONNECT, or of
// the AUTH that begins a re-authentication, and what answers the server: with
// done, after the server's last word, which it checks.
func (s *SCRAM) Start() (first []byte, next func(data []byte, done bool) ([]byte, error), err error) {
	conv := s.client.NewConversation()
	text, err := conv.Step("")
	if err != nil {
		return nil, nil, fmt.Errorf("auth: SCRAM: %w", err)
	}
	return []byte(text), func(data []byte, done bool) ([]byte, error) {
		if len(data) > maxSCRAM {
			return nil, errors.New("auth: SCRAM: the server's message is too long")
		}
		if err := checkRounds(string(data)); err != nil {
			return nil, err
		}
		reply, err := conv.Step(string(data))
		switch {
		case err != nil:
			return nil, fmt.Errorf("auth: SCRAM: %w", err)
		case done && !conv.Valid():
			return nil, errors.New("auth: SCRAM: the server did not prove that it knows the password")
		case !done && conv.Done():
			return nil, errors.New("auth: SCRAM: the server asks for more than the method has")
		}
		return []byte(reply), nil
	}, nil
}

// checkRounds refuses a number of iterations that would keep the client busy for
// minutes.
func checkRounds(serverFirst string) error {
	for field := range strings.SplitSeq(serverFirst, ",") {
		if text, ok := strings.CutPrefix(field, "i="); ok {
			if n, err := strconv.Atoi(text); err != nil || n > clientRounds {
				return fmt.Errorf("auth: SCRAM: the server asks for more than %d iterations", clientRounds)
			}
		}
	}
	return nil
}

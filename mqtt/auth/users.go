package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/anyquic/anyquic/mqtt/broker"
)

// Users are names and password hashes from a file. They authenticate user name
// and password of CONNECT, and, for those whose hash is for it, SCRAM-SHA-256 by
// AUTH (RFC 7677; MQTT 5, Section 4.12).
//
// Hashing takes memory and time on purpose, so that few passwords are checked at
// once and few wait for it, see [UsersLimits]; others are refused with Server busy
// (0x89).
type Users struct {
	file   string
	list   atomic.Pointer[userList]
	turns  *turns
	secret [32]byte // of this process: chooses what an unknown user looks like
}

type userList struct {
	byName map[string]hash
	all    []hash
	scram  []*scramHash
}

// OpenUsers reads a file with lines of the form
//
//	name:hash
//
// where the hash is argon2id or bcrypt in the form that PHC, crypt(3) and
// htpasswd use, or SCRAM-SHA-256 as PostgreSQL writes it. A name is anything
// without a colon. Lines that begin with # are comments.
func OpenUsers(file string) (*Users, error) { return OpenUsersLimited(file, UsersLimits{}) }

// OpenUsersLimited is [OpenUsers] with limits other than the default.
func OpenUsersLimited(file string, limits UsersLimits) (*Users, error) {
	if err := limits.complete(); err != nil {
		return nil, err
	}
	u := &Users{file: file, turns: newTurns(limits)}
	if _, err := rand.Read(u.secret[:]); err != nil {
		return nil, err
	}
	return u, u.Reload()
}

// Stats returns the figures of the passwords that were checked.
func (u *Users) Stats() UsersStats { return u.turns.stats() }

// Reload reads the file again. On an error the users stay as they were.
func (u *Users) Reload() error { return reload(u.PrepareReload()) }

// PrepareReload reads the file and returns what puts it in force.
func (u *Users) PrepareReload() (commit func(), err error) {
	text, err := readFile(u.file)
	if err != nil {
		return nil, err
	}
	list, err := parseUsers(u.file, text)
	if err != nil {
		return nil, err
	}
	return func() { u.list.Store(list) }, nil
}

func parseUsers(file string, text []byte) (*userList, error) {
	list := &userList{byName: make(map[string]hash)}
	first := make(map[string]int)
	err := eachLine(file, text, func(n int, line string) error {
		name, text, ok := strings.Cut(line, ":")
		switch {
		case !ok:
			return errors.New("no colon: a line is name:hash") // not quoted: it may be a password
		case name == "":
			return errors.New("the name is empty")
		case !utf8.ValidString(name) || strings.ContainsRune(name, 0) || len(name) > 65535:
			return errors.New("the name is not one that MQTT can carry")
		case first[name] != 0:
			return fmt.Errorf("user %q was on line %d already", name, first[name])
		}
		h, err := parseHash(text)
		if err != nil {
			return fmt.Errorf("user %q: %w", name, err)
		}
		first[name] = n
		list.byName[name] = h
		list.all = append(list.all, h)
		if s, ok := h.(*scramHash); ok {
			list.scram = append(list.scram, s)
		}
		return nil
	})
	if err == nil && len(list.all) == 0 {
		err = fmt.Errorf("auth: %s: no users in it", file)
	}
	return list, err
}

// Authenticate implements [broker.Authenticator]. For an unknown user it computes
// what it would for one that is known, so that it takes the same time.
func (u *Users) Authenticate(ctx context.Context, c *broker.Credentials) (broker.Identity, error) {
	if !c.HasUsername || c.Password == nil {
		return broker.Identity{}, ErrNotMine
	}
	h, known, err := u.turn(ctx, c.Client.Username)
	if err != nil {
		return broker.Identity{}, err
	}
	defer u.turns.give(h.processors())
	ok := h.verify(c.Password)
	switch {
	case !known:
		return broker.Identity{}, ErrNotMine
	case !ok:
		return broker.Identity{}, errPassword
	}
	return broker.Identity{Username: c.Client.Username}, nil
}

// turn waits until a password may be checked, and returns the hash to check it with,
// which is the user's, if known, at that time: the file may be read again meanwhile.
func (u *Users) turn(ctx context.Context, name string) (h hash, known bool, err error) {
	for {
		list := u.list.Load()
		if h, known = list.byName[name]; !known {
			h = list.all[u.pick(name, len(list.all))]
		}
		if err := u.turns.take(ctx, h.processors()); err != nil {
			return nil, false, err
		}
		if u.list.Load() == list {
			return h, known, nil
		}
		u.turns.give(h.processors())
	}
}

// pick chooses one of n for an unknown user, always the same.
func (u *Users) pick(name string, n int) int {
	return int(binary.BigEndian.Uint64(u.mac("pick", name)) % uint64(n))
}

func (u *Users) mac(what, name string) []byte {
	m := hmac.New(sha256.New, u.secret[:])
	m.Write([]byte(what))
	m.Write([]byte{0})
	m.Write([]byte(name))
	return m.Sum(nil)
}

//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

var (
	errMigrating    = errors.New("ngtcp2: another migration is under way")
	errNotValidated = fmt.Errorf("ngtcp2: the new path was not validated: %w", os.ErrDeadlineExceeded)
)

// A migration is a path that is being validated.
type migration struct {
	sock socket
	path capi.Path
	done chan error // of one element
}

// Migrate implements transport.Conn.
func (c *conn) Migrate(ctx context.Context, pc net.PacketConn) error {
	if !c.client {
		return unsupported("migration by a server")
	}
	if pc == nil {
		return errors.New("ngtcp2: no socket to migrate to")
	}
	if err := c.waitConfirmed(ctx); err != nil {
		return err
	}
	if !c.ep.group.enter() { // until the socket is the caller's again, or the connection's
		return errEndpointClosed
	}
	defer c.ep.group.leave()
	s, err := c.ep.newSocket(pc)
	if err != nil {
		return err
	}
	m := &migration{sock: s, done: make(chan error, 1)}
	if err := c.startMigration(m); err != nil {
		s.release()
		return err
	}
	select {
	case err = <-m.done:
	case <-ctx.Done():
		err = c.giveUp(m, ctx.Err())
	}
	if err != nil {
		s.release()
		if p, ok := s.(*plainSocket); ok {
			err = errors.Join(err, p.stuck)
		}
	} else {
		s.own()
	}
	return err
}

// waitConfirmed waits until the handshake is confirmed. RFC 9000, Section 9: an
// endpoint MUST NOT initiate connection migration before.
func (c *conn) waitConfirmed(ctx context.Context) error {
	if err := c.lockFor(ctx); err != nil {
		return err
	}
	var wait chan struct{}
	if !c.confirmed {
		if c.confirming == nil {
			c.confirming = make(chan struct{})
		}
		wait = c.confirming
	}
	c.unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-c.ctx.Done():
			return c.reason()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (c *conn) startMigration(m *migration) error {
	if err := c.lock(); err != nil {
		return err
	}
	defer c.unlock()
	if c.cc.PeerParams().DisableActiveMigration {
		// RFC 9000, Section 18.2: disable_active_migration.
		return unsupported("migration away from a server that disables it")
	}
	if c.extra != nil {
		return errMigrating
	}
	remote := c.path.Load().Remote
	m.path = capi.Path{Local: localFor(m.sock, remote), Remote: remote}
	if c.abandoned == m.path.Local {
		c.abandoned = netip.AddrPort{}
	}
	c.extra = m
	now := c.ep.now()
	err := c.cc.InitiateMigration(m.path, now)
	c.events()
	if err != nil {
		if c.extra == m {
			c.extra = nil
		}
		return fmt.Errorf("ngtcp2: migrate: %w", err)
	}
	if c.extra == m && c.cc.RemotePath() == m.path {
		// It was in use not long ago, so that the library does not validate it
		// again (RFC 9000, Section 9.3).
		c.pathValidated(true)
	}
	c.flush(now)
	return nil
}

// giveUp ends a migration, unless it has come to an end by itself.
func (c *conn) giveUp(m *migration, err error) error {
	c.mu.Lock()
	defer c.unlock()
	select {
	case err = <-m.done:
	default:
		// What the library still sends to the path is lost, and with it the
		// validation fails.
		if c.extra == m {
			c.abandoned = m.path.Local
			c.extra = nil
		}
		c.blocked = false
	}
	return err
}

// pathValidated is called when a path was validated, or was not. The caller
// holds mu.
func (c *conn) pathValidated(ok bool) {
	m := c.extra
	switch {
	case m != nil && ok:
		old := c.sock
		c.sock, c.extra = m.sock, nil
		c.path.Store(&capi.Path{Local: m.sock.localAddr(), Remote: c.path.Load().Remote})
		if c.own == old {
			c.dropSocket(old)
		}
		c.own = m.sock
		c.blocked = false
		c.armed = 0
		m.done <- nil
	case m != nil:
		c.extra = nil
		c.blocked = false
		m.done <- errNotValidated
	case ok && !c.client:
		c.followPath()
	}
}

// followPath takes the path that the peer has moved to, if it was validated.
// The caller holds mu.
func (c *conn) followPath() {
	if p, validated := c.cc.CurrentPath(); validated {
		c.path.Store(&p)
	}
}

// dropSocket closes a socket that was the connection's alone. The caller holds
// mu and may be the socket's loop, for whose end close waits.
func (c *conn) dropSocket(s socket) {
	if c.ep.group.run(func() { s.close() }) { // ends with the loop
		return
	}
	c.ep.mu.Lock()
	c.ep.leftover = append(c.ep.leftover, s)
	c.ep.mu.Unlock()
}

// abort ends a migration with its connection. The caller holds conn.mu.
func (m *migration) abort(reason error) { m.done <- reason }

// socketFailed is called when a socket has ended by itself.
func (c *conn) socketFailed(s socket, err error) {
	c.mu.Lock()
	defer c.unlock()
	if m := c.extra; m != nil && m.sock == s {
		c.extra = nil
		m.done <- err
		return
	}
	if c.sock == s {
		c.end(&ending{reason: &transport.ProtocolError{Code: codeInternalError, Reason: err.Error(), Err: err}, silent: true})
	}
}

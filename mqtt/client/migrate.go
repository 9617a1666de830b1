package client

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/anyquic/anyquic/mqtt"
)

// Migrate moves the present connection to pc, or to a new UDP socket if pc is nil,
// which uses the network that the system prefers now, and returns when the server has
// answered there. The server sees the same client on the same connection: there is no
// CONNECT, and what is in flight goes on. The Client then owns pc. If Migrate fails,
// pc stays the caller's and the connection stays where it was.
//
// It is for the carriers of QUIC, on engines that can (transport.Features); with
// others the error matches [errors.ErrUnsupported], and connecting again is left. If
// there is no connection it matches [net.ErrClosed]. The context bounds the wait for
// the server.
func (c *Client) Migrate(ctx context.Context, pc net.PacketConn) error {
	link := c.Link()
	if link == nil {
		return fmt.Errorf("client: migrate: there is no connection: %w", net.ErrClosed)
	}
	m, ok := link.(mqtt.Migrator)
	if !ok {
		return fmt.Errorf("client: migrate: a connection on %s stays where it is: %w", link.Carrier(), errors.ErrUnsupported)
	}
	if err := m.Migrate(ctx, pc); err != nil {
		return fmt.Errorf("client: migrate: %w", err)
	}
	c.log.Info("migrated", "to", link.LocalAddr())
	return nil
}

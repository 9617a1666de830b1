package mqttquic

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// Migrate moves a client's connection to pc, as [mqtt.Migrator] says. On a server it
// returns an error matching [errors.ErrUnsupported], and so does an engine that
// cannot.
func (l *Link) Migrate(ctx context.Context, pc net.PacketConn) error {
	if l.server {
		return fmt.Errorf("mqttquic: a server does not migrate: %w", errors.ErrUnsupported)
	}
	own := pc == nil
	if own {
		var err error
		if pc, err = l.newSocket(ctx); err != nil {
			return fmt.Errorf("mqttquic: migrate: %w", err)
		}
	}
	err := l.conn.Migrate(ctx, pc)
	if err != nil && own {
		err = errors.Join(err, pc.Close())
	}
	return err
}

// newSocket opens a socket from which the system routes to the server as it sees fit
// now.
func (l *Link) newSocket(ctx context.Context) (net.PacketConn, error) {
	local := "[::]:0"
	if a, ok := l.conn.RemoteAddr().(*net.UDPAddr); ok && a.IP.To4() != nil {
		local = "0.0.0.0:0"
	}
	var c net.ListenConfig
	return c.ListenPacket(ctx, "udp", local)
}

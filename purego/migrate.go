package purego

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/transport"
)

const (
	// kInitialRTT of RFC 9002, Section 6.2.2 gives a PTO of this length. RFC
	// 9000, Section 8.2.4 recommends to give a new path three of the larger of
	// that and the current one.
	initialPTO = 999 * time.Millisecond
	probePTOs  = 3

	// maxFailedPaths bounds what paths that were probed in vain leave behind.
	maxFailedPaths = 8
)

// A path is a socket that a client's connection has probed or moved to.
type path struct {
	tr     *quic.Transport
	socket socket
	pc     net.PacketConn // nil if the socket was given back
	ended  chan struct{}  // closed at the connection's end
}

// Migrate implements transport.Conn.
func (c *conn) Migrate(ctx context.Context, pc net.PacketConn) error {
	if !c.client {
		return unsupported("migration by a server")
	}
	if pc == nil {
		return errors.New("purego: no socket to migrate to")
	}
	// RFC 9000, Section 9: an endpoint MUST NOT initiate connection migration
	// before the handshake is confirmed.
	if err := c.Handshake(ctx); err != nil && !errors.Is(err, transport.ErrEarlyDataRejected) {
		return err
	}
	c.mu.Lock()
	c.tlsState() // is not asked of quic-go again
	failed := 0
	for _, p := range c.paths {
		if p.pc == nil {
			failed++
		}
	}
	c.mu.Unlock()
	if failed >= maxFailedPaths {
		return fmt.Errorf("purego: migration has failed %d times", failed)
	}

	if _, udp := pc.(quic.OOBCapablePacketConn); udp {
		if _, ok := c.remote.(*net.UDPAddr); !ok {
			return fmt.Errorf("purego: %s cannot be reached from a UDP socket", c.remote)
		}
	}
	p := &path{socket: newSocket(pc), pc: pc, ended: make(chan struct{})}
	p.tr = &quic.Transport{Conn: p.socket, ConnectionIDLength: defaultConnIDLen}
	if ids := c.ep.ids; ids != nil {
		p.tr.ConnectionIDGenerator = ids
	}
	qp, err := c.qc.AddPath(p.tr)
	if err != nil {
		// Nothing has been started on the socket.
		return c.addPathError(err)
	}
	if err = c.probe(ctx, qp); err == nil {
		err = qp.Switch()
		if err == nil && c.keep(p) {
			c.local.Store(&localAddr{pc.LocalAddr()})
			c.wake(p.tr)
			return nil
		}
		err = c.orReason(fmt.Errorf("purego: migrate: %w", err))
	}
	// The connection remains registered with the Transport, whose Close would
	// end it. So the Transport stays until then, without its socket.
	qp.Close()
	p.socket.release()
	p.pc = nil
	if !c.keep(p) {
		p.stop()
	}
	return err
}

// addPathError translates an error of AddPath.
func (c *conn) addPathError(err error) error {
	if strings.Contains(err.Error(), "disabled connection migration") {
		// RFC 9000, Section 18.2: disable_active_migration.
		return unsupported("migration away from a server that disables it")
	}
	return c.orReason(fmt.Errorf("purego: migrate: %w", err))
}

// probe validates a path.
func (c *conn) probe(ctx context.Context, qp *quic.Path) error {
	pto := c.qc.ConnectionStats().SmoothedRTT + 4*c.qc.ConnectionStats().MeanDeviation
	pctx, cancel := context.WithTimeout(ctx, probePTOs*max(pto, initialPTO))
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	err := qp.Probe(pctx)
	switch {
	case err == nil:
		return nil
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("purego: the new path was not validated: %w", os.ErrDeadlineExceeded)
}

// wake makes quic-go notice the switch now and not at the next packet. Closing
// a path that was never probed does nothing else.
func (c *conn) wake(tr *quic.Transport) {
	if qp, err := c.qc.AddPath(tr); err == nil {
		qp.Close()
	}
}

// keep makes p the connection's until its end. It returns false if that has
// come.
func (c *conn) keep(p *path) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished || !c.ep.group.run(p.close) {
		return false
	}
	c.paths = append(c.paths, p)
	return true
}

// close frees the path at the connection's end.
func (p *path) close() {
	<-p.ended
	p.stop()
}

func (p *path) stop() {
	p.socket.end()
	p.tr.Close()
	if p.pc != nil {
		p.pc.Close()
	}
}

package purego

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/transport"
)

// A conn is a *quic.Conn.
//
// quic-go's calls fail before its context is done, and with errors of its own.
// So a conn has its own context, which every call that learns of the end
// finishes before it returns.
type conn struct {
	ep  *endpoint
	cfg *transport.Config
	qc  *quic.Conn
	id  quic.ConnectionID // the client's first destination connection ID

	ctx    context.Context
	cancel context.CancelCauseFunc

	client   bool
	incoming *incoming   // a server's
	gate     *answerGate // of a client for whom early data was possible when Dial began
	timed    atomic.Bool // closed by expire

	// A client's addresses are kept here: quic-go replaces its socket during
	// Migrate while others may ask for it.
	remote net.Addr
	local  atomic.Pointer[localAddr]

	streamsOpened, streamsAccepted atomic.Uint64 // streams
	streams                        atomic.Pointer[streamCount]

	datagrams atomic.Pointer[datagrams] // nil unless both sides enable them

	mu            sync.Mutex
	finished      bool
	state         *tls.ConnectionState // once the handshake is complete
	earlyUsed     bool                 // 0-RTT was used and accepted; valid with state
	peerDatagrams bool                 // the peer accepts datagrams; valid with state
	paths         []*path              // made by Migrate

	next     sync.Once // the switch after a rejection
	rejected error     // ErrEarlyDataRejected or nil; set in next
}

type localAddr struct{ net.Addr }

func newConn(e *endpoint, cfg *transport.Config) *conn {
	c := &conn{ep: e, cfg: cfg}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.streams.Store(new(streamCount))
	return c
}

// attach gives c its connection. It returns false, and closes qc, if the
// endpoint is closed.
func (c *conn) attach(qc *quic.Conn) bool {
	c.qc = qc
	if c.ep.add(c) {
		return true
	}
	qc.CloseWithError(0, "")
	c.finish(context.Cause(qc.Context()))
	return false
}

// ended is called when quic-go's context is done. A server's is derived from
// that of the incoming, which is done first, and may not have the cause yet.
func (c *conn) ended() {
	ctx := c.qc.Context()
	if c.incoming != nil {
		ctx = c.incoming
	}
	c.finish(context.Cause(ctx))
}

// finish ends c with the reason that err, of quic-go, stands for, unless it has
// one already. It returns c's reason.
func (c *conn) finish(err error) error {
	reason := endReason(err, c.complete())
	if app, ok := errors.AsType[*transport.ApplicationError](reason); ok && c.timed.Load() && !app.Remote && app.Reason == timeoutReason {
		reason = transport.ErrHandshakeTimeout
	}
	c.cancel(reason) // the first one counts

	c.mu.Lock()
	first := !c.finished
	c.finished = true
	paths := c.paths
	c.paths = nil
	c.mu.Unlock()
	if first {
		c.ep.remove(c)
		if c.incoming != nil {
			c.incoming.release()
		} else {
			c.ep.stats.outgoing.Add(-1)
		}
		if d := c.datagrams.Load(); d != nil {
			d.close()
		}
		for _, p := range paths {
			close(p.ended)
		}
	}
	return context.Cause(c.ctx)
}

// timeoutReason marks a connection that expire has closed.
const timeoutReason = "handshake timeout"

// expire ends c if the handshake is not complete.
func (c *conn) expire() {
	if c.complete() || c.ctx.Err() != nil {
		return
	}
	c.timed.Store(true)
	c.qc.CloseWithError(0, timeoutReason)
	c.ended()
}

// complete reports whether the handshake is.
func (c *conn) complete() bool {
	select {
	case <-c.qc.HandshakeComplete():
		return true
	default:
		return false
	}
}

func (c *conn) OpenStream(ctx context.Context) (transport.Stream, error) {
	qs, err := openStream(ctx, c, c.qc.OpenStream, c.qc.OpenStreamSync)
	if err != nil {
		return nil, err
	}
	c.streamsOpened.Add(1)
	return newStream(c, qs), nil
}

func (c *conn) OpenUniStream(ctx context.Context) (transport.SendStream, error) {
	qs, err := openStream(ctx, c, c.qc.OpenUniStream, c.qc.OpenUniStreamSync)
	if err != nil {
		return nil, err
	}
	c.streamsOpened.Add(1)
	return newSendStream(c, qs), nil
}

func (c *conn) AcceptStream(ctx context.Context) (transport.Stream, error) {
	qs, err := c.qc.AcceptStream(ctx)
	if err != nil {
		return nil, c.err(err)
	}
	c.streamsAccepted.Add(1)
	return newStream(c, qs), nil
}

func (c *conn) AcceptUniStream(ctx context.Context) (transport.ReceiveStream, error) {
	qs, err := c.qc.AcceptUniStream(ctx)
	if err != nil {
		return nil, c.err(err)
	}
	c.streamsAccepted.Add(1)
	return newReceiveStream(c, qs), nil
}

func (c *conn) Handshake(ctx context.Context) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if err := c.answered(ctx); err != nil {
		return err
	}
	c.next.Do(c.nextConnection)
	return c.rejected
}

// nextConnection finds out whether early data was rejected, and leaves the
// streams that carried it behind.
func (c *conn) nextConnection() {
	if c.gate == nil {
		return
	}
	// quic-go tells it only by refusing to open streams. With a context that
	// is done it opens none in the other case either.
	done, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.qc.OpenUniStreamSync(done)
	if !errors.Is(err, quic.Err0RTTRejected) {
		return
	}
	c.streams.Store(new(streamCount))
	// It fails only before the handshake is complete.
	_, _ = c.qc.NextConnection(context.Background())
	if !c.datagramsUsable() {
		c.datagrams.Store(nil) // the session promised them
	}
	c.rejected = transport.ErrEarlyDataRejected
}

func (c *conn) State() transport.ConnState {
	c.mu.Lock()
	t, early, _ := c.tlsState()
	c.mu.Unlock()
	s := transport.ConnState{
		TLS:               t,
		ConnID:            c.id.Bytes(),
		Version:           uint32(quic.Version1),
		HandshakeComplete: c.complete(),
		EarlyData:         early,
		CongestionControl: congestionControl,
	}
	if c.datagramsUsable() {
		s.MaxDatagram = c.maxDatagram()
	}
	return s
}

// tlsState returns what TLS negotiated, whether early data was accepted, and
// whether the peer takes datagrams. The caller holds mu.
//
// It is kept when the handshake is complete and does not change any more:
// quic-go's ConnectionState must not be called while a client migrates.
func (c *conn) tlsState() (t tls.ConnectionState, early, datagrams bool) {
	if c.state != nil {
		return *c.state, c.earlyUsed, c.peerDatagrams
	}
	complete := c.complete()
	if c.gate != nil && !complete {
		return tls.ConnectionState{ServerName: c.cfg.TLS.ServerName}, false, c.gate.datagrams
	}
	s := c.qc.ConnectionState()
	early = s.Used0RTT && (complete || !c.client)
	if complete {
		c.state, c.earlyUsed, c.peerDatagrams = &s.TLS, early, s.SupportsDatagrams.Remote
	}
	return s.TLS, early, s.SupportsDatagrams.Remote
}

func (c *conn) Stats() transport.Stats {
	s := c.qc.ConnectionStats()
	st := transport.Stats{
		MinRTT: s.MinRTT, LatestRTT: s.LatestRTT, SmoothedRTT: s.SmoothedRTT, RTTVar: s.MeanDeviation,
		CongestionWindow: s.CongestionWindow,
		PacketsSent:      s.PacketsSent, PacketsReceived: s.PacketsReceived, PacketsLost: s.PacketsLost,
		BytesSent: s.BytesSent, BytesReceived: s.BytesReceived, BytesLost: s.BytesLost,
		StreamsOpened: c.streamsOpened.Load(), StreamsAccepted: c.streamsAccepted.Load(),
	}
	if c.ctx.Err() == nil {
		st.StreamsOpen = uint64(max(0, c.streams.Load().open.Load()))
	}
	if d := c.datagrams.Load(); d != nil {
		st.DatagramsSent, st.DatagramsReceived, st.DatagramsDropped = d.stats()
	}
	return st
}

func (c *conn) Context() context.Context { return c.ctx }

func (c *conn) LocalAddr() net.Addr {
	if a := c.local.Load(); a != nil {
		return a.Addr
	}
	return c.qc.LocalAddr()
}

func (c *conn) RemoteAddr() net.Addr {
	if c.client {
		return c.remote
	}
	return c.qc.RemoteAddr()
}

// CloseWithError implements transport.Conn. A reason that does not fit into a
// packet is shortened, on both sides alike.
func (c *conn) CloseWithError(code transport.ErrorCode, reason string) error {
	c.qc.CloseWithError(quic.ApplicationErrorCode(wireCode(code)), shorten(reason))
	c.ended()
	return nil
}

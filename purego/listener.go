package purego

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/internal/acceptqueue"
	"github.com/anyquic/anyquic/transport"
)

// A listener takes connections from quic-go as soon as it has read the
// client's first message, so that it can bound the rest of the handshake, and
// hands them to Accept when they are ready.
type listener struct {
	ep  *endpoint
	cfg *transport.Config
	ql  *quic.EarlyListener

	queue   *acceptqueue.Queue[*conn] // ready, not accepted
	drained chan struct{}             // closed when accept has ended
}

// Listen implements transport.Endpoint.
func (e *endpoint) Listen(cfg *transport.Config) (transport.Listener, error) {
	tlsConf, qconf, err := serverConfig(cfg)
	if err != nil {
		return nil, err
	}
	e.listenMu.Lock()
	defer e.listenMu.Unlock()
	if e.isClosed() {
		return nil, errEndpointClosed
	}
	if e.current.Load() != nil {
		return nil, errors.New("purego: the endpoint has a listener already")
	}
	if e.refuser != nil {
		e.refuser.Close()
		e.refuser = nil
	}
	l := &listener{
		ep:      e,
		cfg:     cfg,
		queue:   acceptqueue.New(e.turnAway),
		drained: make(chan struct{}),
	}
	qconf.Tracer = e.tracer(cfg, func(ctx context.Context, id quic.ConnectionID) { incomingFrom(ctx).id = id })
	e.current.Store(l)
	l.ql, err = e.tr.ListenEarly(tlsConf, qconf)
	if err != nil {
		e.current.Store(nil)
		return nil, err
	}
	e.group.run(l.accept) // until stop
	return l, nil
}

// An incoming is a connection attempt. It is the context that quic-go derives
// the connection's from, which is how its parts are told apart.
type incoming struct {
	context.Context
	ep    *endpoint
	start time.Time
	id    quic.ConnectionID // the client's first destination connection ID

	released atomic.Bool // its place among Options.MaxConns
	told     atomic.Bool // Options.HandshakeDone was called

	mu   sync.Mutex
	conn *conn // nil until quic-go hands it over
}

type incomingKey struct{}

func (i *incoming) Value(key any) any {
	if key == (incomingKey{}) {
		return i
	}
	return i.Context.Value(key)
}

// incomingFrom returns what ctx was derived from.
func incomingFrom(ctx context.Context) *incoming { return ctx.Value(incomingKey{}).(*incoming) }

var errRefused = errors.New("purego: connection refused")

// incoming decides whether quic-go takes a connection attempt or sends
// CONNECTION_REFUSED. Its context is done when the connection has ended.
func (e *endpoint) incoming(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	l := e.current.Load()
	if l == nil || l.queue.Full() || !e.stats.admit(e.opts.MaxConns) {
		return nil, errRefused // and counted when CONNECTION_REFUSED is sent
	}
	if e.ids != nil {
		if err := e.ids.reserve(); err != nil {
			e.stats.release()
			return nil, err
		}
	}
	i := &incoming{Context: ctx, ep: e, start: time.Now()}
	context.AfterFunc(ctx, i.ended)
	return i, nil
}

// release gives the connection's place to another, once.
func (i *incoming) release() {
	if !i.released.Swap(true) {
		i.ep.stats.release()
	}
}

func (i *incoming) ended() {
	i.release()
	i.mu.Lock()
	c := i.conn
	i.mu.Unlock()
	if c == nil {
		i.handshakeDone(endReason(context.Cause(i), false))
		return
	}
	c.ended()
	if c.complete() {
		i.handshakeDone(nil) // handshake was about to say so
	} else {
		i.handshakeDone(context.Cause(c.ctx))
	}
}

// handshakeDone tells what the handshake has come to. Only the first call counts.
func (i *incoming) handshakeDone(reason error) {
	if f := i.ep.opts.HandshakeDone; f != nil && !i.told.Swap(true) {
		f(time.Since(i.start), reason)
	}
}

// accept takes connections until the listener is closed.
func (l *listener) accept() {
	defer close(l.drained)
	for {
		qc, err := l.ql.Accept(context.Background())
		if err != nil {
			return
		}
		l.take(qc)
	}
}

func (l *listener) take(qc *quic.Conn) {
	c := newConn(l.ep, l.cfg)
	i := incomingFrom(qc.Context())
	c.id, c.incoming = i.id, i
	if !c.attach(qc) {
		return
	}
	i.mu.Lock()
	i.conn = c
	i.mu.Unlock()
	if i.Err() != nil {
		c.ended() // i.ended may have run without seeing c
	}
	if !l.ep.group.run(func() { l.handshake(c, i.start) }) { // until the handshake is over, or out of time
		c.CloseWithError(0, "")
	}
}

// handshake waits for c's handshake and delivers c when the configuration says.
func (l *listener) handshake(c *conn, start time.Time) {
	if l.cfg.EarlyData {
		c.startDatagrams()
		l.queue.Deliver(c)
	}
	timeout := time.NewTimer(handshakeTimeout(l.cfg) - time.Since(start))
	defer timeout.Stop()
	select {
	case <-c.qc.HandshakeComplete():
	case <-c.qc.Context().Done():
		return
	case <-timeout.C:
		c.expire()
		return
	}
	l.ep.stats.accepted.Add(1)
	c.incoming.handshakeDone(nil)
	if !l.cfg.EarlyData {
		c.startDatagrams()
		l.queue.Deliver(c)
	}
}

// turnAway ends a connection that nobody accepts.
func (e *endpoint) turnAway(c *conn, why acceptqueue.Reason) {
	if why == acceptqueue.Full {
		e.stats.refused.Add(1)
	}
	c.CloseWithError(0, string(why))
}

// Accept implements transport.Listener.
func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.queue.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (l *listener) Addr() net.Addr { return l.ep.Addr() }

// Close implements transport.Listener. The endpoint goes on refusing attempts.
func (l *listener) Close() error {
	e := l.ep
	e.listenMu.Lock()
	defer e.listenMu.Unlock()
	if !e.current.CompareAndSwap(l, nil) {
		return nil
	}
	l.stop()
	// quic-go answers nobody without a listener: this one never accepts, and
	// the endpoint refuses what it brings.
	e.refuser, _ = e.tr.ListenEarly(&tls.Config{}, &quic.Config{Versions: []quic.Version{quic.Version1}})
	return nil
}

// stop ends Accept and closes what nobody accepted. It is called once.
func (l *listener) stop() {
	l.queue.Close()
	l.ql.Close()
	<-l.drained
}

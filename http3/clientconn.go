package http3

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/anyquic/anyquic/transport"
)

// A clientConn is a connection of a Transport.
type clientConn struct {
	*Conn
	t      *Transport
	retire func() // takes it from the pool; may be called at any time, without mu

	handshaken chan struct{} // closed when the handshake is complete

	mu      sync.Mutex
	active  map[*exchange]struct{}           // guarded by mu
	opening map[*exchange]context.CancelFunc // requests that wait for a stream; guarded by mu
	goneAt  uint64                           // requests from this stream on are not processed; guarded by mu
	retired bool                             // takes no request any more; guarded by mu
	ended   bool                             // run waits for the goroutines that there are; guarded by mu
	idle    *time.Timer                      // guarded by mu; nil: no timeout

	used      bool      // a request has had it; guarded by mu
	idleSince time.Time // the last request ended; guarded by mu
}

func newClientConn(t *Transport, qc transport.Conn, retire func()) *clientConn {
	cc := &clientConn{
		Conn:       newConn(qc, true, t.maxHeaderBytes(), &t.Extensions),
		t:          t,
		retire:     retire,
		handshaken: make(chan struct{}),
		active:     make(map[*exchange]struct{}),
		opening:    make(map[*exchange]context.CancelFunc),
		goneAt:     maxVarint,
	}
	if qc.State().HandshakeComplete {
		close(cc.handshaken)
	}
	cc.onGoAway = cc.goAway
	return cc
}

// run runs the connection to its end.
func (cc *clientConn) run() {
	cc.start()
	if len(cc.ext.BidiStreams) > 0 {
		cc.wg.Go(cc.acceptBidi)
	}
	if !cc.isHandshaken() {
		cc.wg.Go(func() { // ends with the connection
			err := cc.qc.Handshake(cc.qc.Context())
			if errors.Is(err, transport.ErrEarlyDataRejected) {
				// The control stream went with the other early data. The
				// requests are sent again on a new connection.
				cc.goAway(0)
				return
			}
			if err == nil {
				close(cc.handshaken)
			}
		})
	}
	cc.mu.Lock()
	cc.armIdle()
	cc.mu.Unlock()
	<-cc.qc.Context().Done()
	cc.mu.Lock()
	cc.retired, cc.ended = true, true
	if cc.idle != nil {
		cc.idle.Stop()
	}
	cc.mu.Unlock()
	cc.wg.Wait()
}

// spawn runs f, which ends with the connection, in a goroutine of its own. It
// reports false, and f is not run, if the connection has ended already.
func (cc *clientConn) spawn(f func()) bool {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.ended {
		return false
	}
	cc.wg.Go(f)
	return true
}

// acceptBidi hands over the streams that the server opens. It ends with the
// connection.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-6.1
func (cc *clientConn) acceptBidi() {
	for {
		qs, err := cc.qc.AcceptStream(cc.qc.Context())
		if err != nil {
			return
		}
		cc.wg.Go(func() { // ends with the stream or the connection
			s := cc.newStream(qs)
			e, err := s.readHead()
			switch {
			case err == nil && e.kind == eventTaken:
				cc.ext.BidiStreams[e.id](cc.Conn, &restStream{qs, append([]byte(nil), e.data...)})
			case err == nil:
				cc.fail(connError(ErrStreamCreation, "request from a server"))
			default:
				s.abort(ErrStreamCreation)
			}
		})
	}
}

func (cc *clientConn) isHandshaken() bool {
	select {
	case <-cc.handshaken:
		return true
	default:
		return false
	}
}

// goAway obeys a GOAWAY: requests from the stream on were not processed.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-5.2
func (cc *clientConn) goAway(id uint64) {
	cc.retire()
	cc.mu.Lock()
	cc.retired = true
	cc.goneAt = id
	var rejected []*exchange
	for x := range cc.active {
		if uint64(x.s.StreamID()) >= id {
			rejected = append(rejected, x)
		}
	}
	for _, cancel := range cc.opening {
		cancel() // the server need not allow any more streams
	}
	last := cc.unused()
	cc.mu.Unlock()
	for _, x := range rejected {
		x.s.rejected.Store(true)
		x.s.abort(ErrRequestCancelled)
	}
	if last {
		cc.qc.CloseWithError(ErrNoError, "")
	}
}

// withdraw makes other requests use another connection: this one has ended, or
// is of no use.
func (cc *clientConn) withdraw() {
	cc.retire()
	cc.mu.Lock()
	cc.retired = true
	unused := cc.unused()
	cc.mu.Unlock()
	if unused {
		cc.qc.CloseWithError(ErrNoError, "")
	}
}

// unused reports whether the connection has no request. mu is held.
func (cc *clientConn) unused() bool { return len(cc.active) == 0 && len(cc.opening) == 0 }

// closeIfIdle closes the connection if it has no request.
func (cc *clientConn) closeIfIdle() {
	cc.mu.Lock()
	idle := cc.unused()
	if idle {
		cc.retired = true
	}
	cc.mu.Unlock()
	if idle {
		cc.retire()
		cc.qc.CloseWithError(ErrNoError, "")
	}
}

// armIdle starts the IdleConnTimeout if there is no request. mu is held.
func (cc *clientConn) armIdle() {
	d := cc.t.IdleConnTimeout
	if d == 0 {
		d = defaultIdleConnTimeout
	}
	switch {
	case d < 0 || cc.retired:
	case !cc.unused():
		if cc.idle != nil {
			cc.idle.Stop()
		}
	case cc.idle == nil:
		cc.idle = time.AfterFunc(d, cc.closeIfIdle)
	default:
		cc.idle.Reset(d)
	}
}

// errRetired is the reason why a connection takes no request. The server did
// not see it.
var errRetired = &sentError{err: errors.New("http3: the connection takes no request any more"), rejected: true}

// open opens a stream for a request, when the server allows one more.
func (cc *clientConn) open(ctx context.Context, x *exchange) error {
	cc.mu.Lock()
	if cc.retired {
		cc.mu.Unlock()
		cc.retire()
		return errRetired
	}
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	cc.opening[x] = cancel
	cc.armIdle()
	cc.mu.Unlock()
	qs, err := cc.qc.OpenStream(wait)
	cc.mu.Lock()
	delete(cc.opening, x)
	last := err != nil && cc.retired && cc.unused()
	defer func() {
		cc.mu.Unlock()
		if last {
			cc.qc.CloseWithError(ErrNoError, "")
		}
	}()
	if err != nil {
		cc.armIdle()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// Nothing was sent.
		return &sentError{err: wrap(err), rejected: true}
	}
	if uint64(qs.StreamID()) >= cc.goneAt {
		qs.CancelRead(ErrRequestCancelled)
		qs.CancelWrite(ErrRequestCancelled)
		return errRetired
	}
	x.s = cc.newStream(qs)
	x.s.holdCodec()
	x.s.ended = func() { cc.release(x) }
	cc.active[x] = struct{}{}
	return nil
}

// release is called when a request has ended.
func (cc *clientConn) release(x *exchange) {
	cc.mu.Lock()
	delete(cc.active, x)
	last := cc.retired && cc.unused()
	cc.idleSince = time.Now()
	cc.armIdle()
	cc.mu.Unlock()
	if last {
		cc.qc.CloseWithError(ErrNoError, "")
	}
}

type sentEarlyKey struct{}

// roundTrip sends a request and returns the head of its response. late: not
// before the handshake is complete. If it fails before the request's body was
// touched, the caller closes that.
func (cc *clientConn) roundTrip(req *http.Request, late bool) (*http.Response, error) {
	ctx := req.Context()
	x := &exchange{cc: cc, req: req, trace: httptrace.ContextClientTrace(ctx)}
	if !cc.isHandshaken() {
		if late || !safeMethod(x.method()) || x.hasBody() {
			select {
			case <-cc.handshaken:
			case <-cc.qc.Context().Done():
				return nil, &sentError{err: wrap(context.Cause(cc.qc.Context())), rejected: true}
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		} else {
			x.early = true
		}
	}
	if x.extended() {
		st, err := cc.Settings(ctx)
		if err == nil && !st.ExtendedConnect {
			err = errors.New("http3: the server does not support extended CONNECT")
		}
		if err == nil && cc.ext.ExtendedConnect != nil {
			err = cc.ext.ExtendedConnect(cc.Conn, req)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := cc.open(ctx, x); err != nil {
		return nil, err
	}
	return x.run()
}

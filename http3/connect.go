package http3

import "context"

// Connect makes the connection that requests to host will use, unless there is
// one, and returns it when its handshake is complete. host is a "host:port" or a
// host for port 443, as in a URL. If ctx is done before, the attempt goes on for
// others.
func (t *Transport) Connect(ctx context.Context, host string) (*Conn, error) {
	addr := authorityAddr(host)
	for attempt := 1; ; attempt++ {
		cc, _, err := t.conn(ctx, addr)
		if err != nil {
			return nil, err
		}
		select {
		case <-cc.handshaken:
		case <-cc.qc.Context().Done():
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if cc.qc.Context().Err() == nil {
			return cc.Conn, nil
		}
		cc.withdraw() // the pool may not have noticed
		if attempt == maxAttempts {
			return nil, wrap(context.Cause(cc.qc.Context()))
		}
	}
}

// Connected returns the connection that the next request to host would use, or
// nil if there is none whose handshake is complete.
func (t *Transport) Connected(host string) *Conn {
	if cc := t.pooled(host); cc != nil && cc.isHandshaken() && cc.qc.Context().Err() == nil {
		return cc.Conn
	}
	return nil
}

// Withdraw makes later requests to host use another connection than the one
// there is, which ends when its requests have.
func (t *Transport) Withdraw(host string) {
	if cc := t.pooled(host); cc != nil {
		cc.withdraw()
	}
}

// pooled returns the connection for host, or nil.
func (t *Transport) pooled(host string) *clientConn {
	t.mu.Lock()
	e := t.conns[authorityAddr(host)]
	t.mu.Unlock()
	if e == nil {
		return nil
	}
	select {
	case <-e.ready:
		return e.conn // nil if that failed
	default:
		return nil
	}
}

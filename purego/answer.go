package purego

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"sync"
)

// An answerGate keeps a client's 0-RTT apart from the server's answer.
//
// In 0-RTT quic-go works by the transport parameters that the session promised
// (RFC 9001, Section 4.6.1). Whoever opens a stream, sends a datagram or asks for
// the state reads them, without a lock, while quic-go's own goroutine replaces them
// by those of the server's answer. So that is done before the answer is looked at,
// or after the handshake, and never between: [conn.promised] and [conn.answered].
type answerGate struct {
	mu        sync.RWMutex
	shut      bool
	datagrams bool // the session promises that the server takes them; set in Dial
}

// pass runs f unless the server has answered, and reports whether it did. Meanwhile
// the answer waits: f must not block, nor need a lock that crypto/tls holds during a
// handshake, as ConnectionState does.
func (g *answerGate) pass(f func()) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.shut {
		return false
	}
	f()
	return true
}

// handshakeSecret begins the line of a key log that crypto/tls writes between
// ServerHello and what follows it, EncryptedExtensions with the transport
// parameters. It writes no line before.
var handshakeSecret = []byte("CLIENT_HANDSHAKE_TRAFFIC_SECRET ")

// A gateKeeper shuts a gate when the server answers. A key log is the one thing that
// crypto/tls calls then, in every handshake.
type gateKeeper struct {
	gate *answerGate
	log  io.Writer // the application's, or nil
}

// keep returns config with a gateKeeper.
func (g *answerGate) keep(config *tls.Config) {
	config.KeyLogWriter = &gateKeeper{g, config.KeyLogWriter}
}

func (k *gateKeeper) Write(line []byte) (int, error) {
	if bytes.HasPrefix(line, handshakeSecret) {
		k.gate.mu.Lock()
		k.gate.shut = true
		k.gate.mu.Unlock()
	}
	if k.log == nil {
		return len(line), nil
	}
	return k.log.Write(line)
}

// inEarlyData reports whether c may be a client in 0-RTT. Then quic-go's methods that
// read the peer's transport parameters must not be called but through the gate.
func (c *conn) inEarlyData() bool { return c.gate != nil && !c.complete() }

// answered waits until the handshake is complete. It fails if c or ctx ends before.
func (c *conn) answered(ctx context.Context) error {
	select {
	case <-c.qc.HandshakeComplete():
		return nil
	case <-c.qc.Context().Done():
		return c.finish(context.Cause(c.qc.Context()))
	case <-ctx.Done():
		return c.orReason(ctx.Err())
	}
}

// promised learns what the session promises of datagrams. If the server has answered
// already, it waits for the end of the handshake: nobody can have sent early data.
func (c *conn) promised(ctx context.Context) error {
	if c.gate.pass(func() { c.gate.datagrams = c.maxDatagramNow() > 0 }) {
		return nil
	}
	return c.answered(ctx)
}

// openStream opens one: with now, which does not wait, in 0-RTT, and else with wait.
// What the session promised is then used up, or the answer is here, which says more.
func openStream[S any](ctx context.Context, c *conn, now func() (S, error), wait func(context.Context) (S, error)) (s S, err error) {
	if err := ctx.Err(); err != nil {
		return s, c.orReason(err)
	}
	if c.inEarlyData() {
		if c.gate.pass(func() { s, err = now() }) && !isStreamLimit(err) {
			return s, c.err(err)
		}
		if err := c.answered(ctx); err != nil {
			return s, err
		}
	}
	s, err = wait(ctx)
	return s, c.err(err)
}

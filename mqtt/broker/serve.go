package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/anyquic/anyquic/internal/tcpqueue"
	"github.com/anyquic/anyquic/mqtt"
)

// ErrClosed is returned by ServeLink if the broker was closed before.
// It matches net.ErrClosed.
var ErrClosed = fmt.Errorf("broker: closed: %w", net.ErrClosed)

// Serve accepts connections from l, which carries c, and serves each of them.
// It blocks until the listener fails, or returns nil after Shutdown or Close,
// even if they came first.
// It closes l before it returns. A listener of package crypto/tls does for TLS.
func (b *Broker) Serve(l net.Listener, c mqtt.Carrier) error {
	return b.serve(l, func(context.Context) (mqtt.Link, error) {
		conn, err := l.Accept()
		if err != nil {
			return nil, err
		}
		tcpqueue.Limit(conn)
		return mqtt.NewConnLink(conn, c), nil
	})
}

// ServeLinks is Serve for listeners of other carriers, such as those of packages
// mqttquic and mqttweb.
func (b *Broker) ServeLinks(l mqtt.LinkListener) error { return b.serve(l, l.Accept) }

func (b *Broker) serve(l interface{ Close() error }, accept func(context.Context) (mqtt.Link, error)) error {
	defer l.Close()
	b.mu.Lock()
	if b.closing {
		b.mu.Unlock()
		return nil
	}
	use := new(listenerUse)
	use.rates.init(2)
	b.admission.useListener(use)
	b.listeners[l] = use
	b.running.Add(1)
	b.mu.Unlock()
	defer b.running.Done()
	defer func() {
		b.mu.Lock()
		delete(b.listeners, l)
		b.mu.Unlock()
	}()

	var delay time.Duration
	for {
		link, err := accept(b.ctx)
		switch {
		case err == nil:
			delay = 0
			if !b.begin() {
				b.refuse(link, mqtt.LinkNormal)
				return nil
			}
			go func() { // ends with the connection; Close waits for it
				defer b.running.Done()
				b.serveLink(link, use)
			}()
		case b.isClosing():
			return nil
		case errors.Is(err, net.ErrClosed) || delay > time.Minute:
			return fmt.Errorf("broker: accept: %w", err)
		default:
			// Too many open files, or a connection that was gone before it was
			// accepted: others must still get in.
			b.count.acceptErrors.Add(1)
			delay = max(2*delay, 5*time.Millisecond)
			b.log.Warn("mqtt: accept failed", "err", err, "retry", min(delay, time.Second))
			if !b.sleep(min(delay, time.Second)) {
				return nil
			}
		}
	}
}

// sleep reports false if the broker is closed first.
func (b *Broker) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-b.ctx.Done():
		return false
	}
}

// ServeLink serves one client and blocks until its connection has ended. When
// ctx is done the connection is closed at once. The error is nil however the
// client behaved, and ErrClosed if the broker is closed or shutting down.
func (b *Broker) ServeLink(ctx context.Context, link mqtt.Link) error {
	if !b.begin() {
		b.refuse(link, mqtt.LinkNormal)
		return ErrClosed
	}
	defer b.running.Done()
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { link.CloseWithCode(mqtt.LinkNormal) })
		defer stop()
	}
	b.serveLink(link, nil)
	return nil
}

func (b *Broker) isClosing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closing
}

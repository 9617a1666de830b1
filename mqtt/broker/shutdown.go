package broker

import (
	"context"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Shutdown stops accepting, gives clients Config.DrainTimeout to take what is
// queued for them, tells MQTT 5 clients that the server shuts down (DISCONNECT
// 0x8B), waits until each has closed its connection or Config.DrainTimeout has
// passed once more, and ends everything. It waits for every goroutine. If ctx is done first it ends what is left at once and returns ctx's
// error.
func (b *Broker) Shutdown(ctx context.Context) error {
	conns := b.stopAccepting()
	drain, cancel := context.WithTimeout(ctx, b.cfg.DrainTimeout)
	for _, cn := range conns {
		cn.drain(drain) // one after the other, in the same time
	}
	cancel()
	for _, cn := range conns {
		cn.shutDown()
	}
	done := make(chan struct{})
	go func() { // ends with the last connection
		b.running.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	b.Close()
	<-done
	return err
}

// Close ends everything at once and waits for every goroutine. A store that does not
// answer, because the device does not, is given up after 30 s, which the log says.
func (b *Broker) Close() error {
	conns := b.stopAccepting()
	b.stop()
	for _, cn := range conns {
		cn.linkCode.Store(uint64(mqtt.LinkNormal))
		cn.link.CloseWithCode(mqtt.LinkNormal)
	}
	bounded := b.durable.bound()
	b.running.Wait()
	b.background.Wait()
	bounded()
	b.endOnce.Do(func() {
		b.authHooks.wait(b.cfg.DrainTimeout)
		b.aclHooks.wait(b.cfg.DrainTimeout)
		defer b.durable.bound()() // for which hooks have taken no time
		b.wheel.Close()
		b.durable.close()
		close(b.ended)
	})
	<-b.ended
	return nil
}

// stopAccepting returns the connections that are left; there will be no more.
func (b *Broker) stopAccepting() []*conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closing = true
	for l := range b.listeners {
		l.Close()
	}
	conns := make([]*conn, 0, len(b.conns))
	for cn := range b.conns {
		conns = append(conns, cn)
	}
	return conns
}

// drain waits until everything that may be sent to the client is with its writer,
// or ctx is done: the DISCONNECT that follows overtakes what is still queued.
func (cn *conn) drain(ctx context.Context) {
	c := cn.attached()
	if c == nil {
		return
	}
	for {
		c.mu.Lock()
		if c.conn != cn || cn.closing || !c.s.HasOutput(cn.out.id) {
			c.mu.Unlock()
			return
		}
		c.kick(time.Now())
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room: // the writer has taken some
		case <-ctx.Done():
			return
		}
	}
}

// shutDown ends a connection with notice if it has come as far as a session.
func (cn *conn) shutDown() {
	c := cn.attached()
	if c == nil {
		cn.link.CloseWithCode(mqtt.LinkNormal)
		return
	}
	var src source
	src.init(cn.b, nil)
	src.now = time.Now()
	c.mu.Lock()
	if c.conn != cn {
		c.mu.Unlock()
		return // on its way out already
	}
	fx := c.disconnectLocked(src.now, packet.ServerShuttingDown, "")
	c.mu.Unlock()
	cn.b.apply(&src, c, fx)
	src.flush()
}

// attached returns the client of cn, nil while it has none.
func (cn *conn) attached() *client {
	cn.b.mu.Lock() // attach sets it under this
	defer cn.b.mu.Unlock()
	return cn.client
}

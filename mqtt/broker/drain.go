package broker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Drain says how clients are sent away before the broker ends.
type Drain struct {
	// Reference is where MQTT 5 clients should go instead: host names or
	// addresses with a port, if need be, with spaces between (MQTT 5, Section
	// 4.11). They are told with Use another server (0x9C). Empty: Server shutting
	// down (0x8B).
	Reference string

	// Permanent says that clients should go there from now on: Server moved (0x9D)
	// in place of 0x9C. It counts only with a Reference.
	Permanent bool

	// Spread is the time in which clients are sent away one after the other, so
	// that they do not arrive together where they go. Zero: all at once.
	Spread time.Duration
}

// drainReport is how often the log tells how far a drain has come.
const drainReport = 2 * time.Second

// disconnectCode is what a client is told that is connected.
func (d *Drain) disconnectCode() packet.ReasonCode {
	switch {
	case d.Reference == "":
		return packet.ServerShuttingDown
	case d.Permanent:
		return packet.ServerMoved
	}
	return packet.UseAnotherServer
}

// connack is what a client is told that connects; earlier versions have Server
// unavailable for each of the codes.
func (d *Drain) connack() *packet.Connack {
	if d.Reference == "" {
		return &packet.Connack{Code: packet.ServerUnavailable}
	}
	return &packet.Connack{Code: d.disconnectCode(), Properties: &packet.Properties{ServerReference: d.Reference}}
}

// Drain sends clients away, as d says, and refuses those that connect; listeners
// stay open for that. Each gets what is queued for it, as far as it takes it within
// Config.DrainTimeout. Clients before MQTT 5 are disconnected without a word. Wills
// are published as after any DISCONNECT of a server.
//
// Drain returns when no client is connected any more, or with the error of ctx when
// that is done first. It ends nothing else: Shutdown or Close is to follow. A
// second call replaces what clients are told from then on.
func (b *Broker) Drain(ctx context.Context, d Drain) error {
	b.mu.Lock()
	b.draining = &d
	left := make([]*conn, 0, len(b.conns))
	for cn := range b.conns { // in no particular order
		left = append(left, cn)
	}
	b.mu.Unlock()

	var telling sync.WaitGroup
	defer telling.Wait()
	began, reported := time.Now(), time.Now()
	report := func(now time.Time, told int) {
		if now.Sub(reported) < drainReport {
			return
		}
		reported = now
		b.log.LogAttrs(ctx, slog.LevelInfo, "mqtt: draining",
			slog.Int("told", told), slog.Int("of", len(left)), slog.Int("connected", b.connected()))
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	wait := func(until time.Duration) error {
		pause.Reset(until - time.Since(began))
		select {
		case <-pause.C:
			return ctx.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	step := time.Duration(0)
	if len(left) > 0 {
		step = d.Spread / time.Duration(len(left))
	}
	for i, cn := range left {
		for due := step * time.Duration(i); due > time.Since(began); {
			report(time.Now(), i)
			if err := wait(min(due, time.Since(began)+drainReport)); err != nil {
				return err
			}
		}
		report(time.Now(), i)
		telling.Go(func() { // ends after DrainTimeout
			most, cancel := context.WithTimeout(ctx, b.cfg.DrainTimeout)
			defer cancel()
			cn.drain(most)
			cn.sendAway(&d)
		})
	}
	telling.Wait()
	for b.connected() > 0 {
		if err := wait(time.Since(began) + drainPoll); err != nil {
			return err
		}
		report(time.Now(), len(left))
	}
	return nil
}

// drainPoll is how often Drain looks whether the last client has gone.
const drainPoll = 10 * time.Millisecond

// connected returns the connections that have a client.
func (b *Broker) connected() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for cn := range b.conns {
		if cn.client != nil {
			n++
		}
	}
	return n
}

// sendAway tells the client, if there is one by now, where to go.
func (cn *conn) sendAway(d *Drain) {
	c := cn.attached()
	if c == nil {
		return // its CONNECT is refused
	}
	var src source
	src.init(cn.b, nil)
	src.now = time.Now()
	c.mu.Lock()
	if c.conn != cn || cn.closing {
		c.mu.Unlock()
		return // on its way out already
	}
	fx := c.s.Redirect(nil, src.now, d.disconnectCode(), d.Reference)
	c.mu.Unlock()
	cn.b.apply(&src, c, fx)
	src.flush()
}

// closed returns what to answer a CONNECT, nil if it is welcome. The caller holds mu.
func (b *Broker) closed() *packet.Connack {
	switch {
	case b.draining != nil:
		return b.draining.connack()
	case b.closing:
		return &packet.Connack{Code: packet.ServerUnavailable}
	}
	return nil
}

// sentAway reports whether code is that of a broker that ends.
func sentAway(code packet.ReasonCode) bool {
	return code == packet.ServerShuttingDown || code == packet.UseAnotherServer || code == packet.ServerMoved
}

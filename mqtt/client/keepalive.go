package client

import "time"

// keepAlive decides when to send PINGREQ and when the connection is lost.
type keepAlive struct {
	interval time.Duration // 0: none
	sent     time.Time     // when something was last written, or PINGREQ was queued
	heard    time.Time     // when something was last read
	pinged   time.Time     // when PINGREQ was sent; zero: no answer is due
	deaf     bool          // the client itself does not read: silence means nothing
}

// pingTimeout is how long an answer may take. Servers wait for half of the
// keep-alive as well, beyond the whole of it ([MQTT-3.1.2-22]).
func (k *keepAlive) pingTimeout() time.Duration {
	return min(max(k.interval/2, time.Second), 30*time.Second)
}

func (k *keepAlive) startKeepAlive(now time.Time, interval time.Duration) {
	*k = keepAlive{interval: interval, sent: now, heard: now}
}

func (k *keepAlive) stopKeepAlive() { *k = keepAlive{} }

// wrote and read note that bytes went out and came in.
func (k *keepAlive) wrote(now time.Time) { k.sent = now }
func (k *keepAlive) read(now time.Time)  { k.heard = now }

// setDeaf notes whether the client reads.
func (k *keepAlive) setDeaf(now time.Time, deaf bool) {
	k.deaf, k.heard = deaf, now
}

func (m *machine) receivePingresp() { m.pinged = time.Time{} }

// deadline returns when to call tick, zero for never.
//
// A client that only sends needs no PINGREQ to stay connected, but without one it
// would not notice for a long time that nothing arrives. So silence in either
// direction is answered with a PINGREQ.
func (m *machine) deadline() time.Time {
	if !m.connected || m.interval == 0 {
		return time.Time{}
	}
	send, hear := m.sent.Add(m.interval), m.heard.Add(m.interval)
	if !m.pinged.IsZero() {
		hear = m.patience()
	}
	if send.Before(hear) {
		return send // [MQTT-3.1.2-20], answer or not
	}
	return hear
}

// patience returns when PINGREQ, which was sent, is too late to be answered.
func (m *machine) patience() time.Time { return later(m.pinged, m.heard).Add(m.pingTimeout()) }

// tick does what is due at now.
func (m *machine) tick(now time.Time) error {
	if m.deaf {
		m.heard = now
	}
	due := m.deadline()
	switch {
	case due.IsZero() || now.Before(due):
		return nil
	case !m.pinged.IsZero() && !now.Before(m.patience()):
		return ErrKeepAlive
	}
	m.pinged, m.sent = now, now
	m.send(outgoing{packet: pingreq})
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

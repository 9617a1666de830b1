//go:build ngtcp2 && cgo

package ngtcp2

import (
	"net/netip"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// receive takes packets from the loop of s. It returns quickly.
func (c *conn) receive(s socket, b *batch) {
	if h := c.hs.Load(); h != nil && h.receive(s, b) {
		return
	}
	if c.lock() != nil {
		return
	}
	c.gathering = b.later != nil
	c.read(s, b.path, b.ecn, b.data, b.segment, b.now)
	c.gathering = false
	switch {
	case c.reason() != nil:
		c.wakeNow()
	case c.cc.AnswerWaits():
		c.arm(b.now)
		c.wakeNow()
	case b.later != nil:
		if !c.owing {
			c.owing = true
			*b.later = append(*b.later, c)
		}
	default:
		c.flush(b.now)
	}
	c.unlock()
}

// answer is called by the loop after receive has put c on its list.
func (c *conn) answer(now uint64) {
	if c.lock() != nil {
		return
	}
	if c.owing {
		c.flush(now)
	}
	c.wakeNow()
	c.unlock()
}

// wakeFirst may be called by the loop between receive and answer.
func (c *conn) wakeFirst() {
	if c.lock() == nil {
		c.wakeNow()
		c.unlock()
	}
}

// wakeLater wakes one of those who wait at w, once there is something for it to
// do that does not wait for mu. The caller holds mu.
func (c *conn) wakeLater(w *waiter) {
	if c.gathering {
		c.waking = append(c.waking, w)
	} else {
		w.wake()
	}
}

// wakeNow wakes those whom wakeLater has gathered. The caller holds mu, but not
// for long any more.
func (c *conn) wakeNow() {
	for i, w := range c.waking {
		c.waking[i] = nil
		w.wake()
	}
	c.waking = c.waking[:0]
}

// expired is called by the loop when the time of c's timer has come.
func (c *conn) expired(now uint64) {
	if h := c.hs.Load(); h != nil && h.post(func() { h.tick = true }) {
		return
	}
	if c.lock() != nil {
		return
	}
	c.tick(now)
	if c.reason() == nil {
		c.flush(now)
	}
	c.unlock()
}

// unblocked is called by the loop when the socket takes packets again.
func (c *conn) unblocked() {
	if h := c.hs.Load(); h != nil && h.post(func() { h.unblocked = true }) {
		return
	}
	if c.lock() != nil {
		return
	}
	c.blocked = false
	c.flush(c.ep.now())
	c.unlock()
}

// read gives packets to the library and does what follows. The caller holds mu
// and flushes.
func (c *conn) read(s socket, p capi.Path, ecn uint8, data []byte, segment int, now uint64) {
	if c.client {
		// A client does not care which of its host's addresses the kernel
		// uses: to the library, a socket has one.
		p.Local = localFor(s, p.Remote)
		if c.abandoned.IsValid() && p.Local == c.abandoned {
			return // or an answer that comes late would move the connection there
		}
	}
	err := c.cc.ReadPackets(p, ecn, data, segment, now)
	c.events()
	switch {
	case err != nil:
		c.fail(err)
	case !c.client && p != *c.path.Load():
		// It may be one of before: the library reports only those that it
		// validates.
		c.followPath()
	}
}

// localFor is the local address of a client's path from s to remote. A socket
// for both families has an address of one.
func localFor(s socket, remote netip.AddrPort) netip.AddrPort {
	local := s.localAddr()
	if ip := local.Addr(); ip.IsUnspecified() && ip.Is4() != remote.Addr().Is4() {
		if remote.Addr().Is4() {
			return netip.AddrPortFrom(netip.IPv4Unspecified(), local.Port())
		}
		return netip.AddrPortFrom(netip.IPv6Unspecified(), local.Port())
	}
	return local
}

// tick does what is due. The caller holds mu and flushes.
func (c *conn) tick(now uint64) {
	c.armed = 0 // the loop has forgotten it
	err := c.cc.HandleExpiry(now)
	c.events()
	if err != nil {
		c.fail(err)
	}
}

// events handles what the library has reported. The caller holds mu.
func (c *conn) events() {
	if c.cc == nil {
		return
	}
	// What handles an event calls the library, which may report more and move
	// them.
	for i := 0; i < len(c.cc.Events()); i++ {
		ev := c.cc.Events()[i]
		c.event(&ev)
	}
	c.cc.ClearEvents()
}

func (c *conn) event(ev *capi.Event) {
	switch ev.Type {
	case capi.StreamOpened:
		c.remoteStream(ev.Stream)
	case capi.Readable, capi.Writable, capi.StreamReset, capi.StopSending, capi.StreamFinished, capi.StreamClosed:
		if s := c.streams[ev.Stream]; s != nil {
			s.event(ev)
		}
	case capi.StreamsBidi:
		c.openWaiting(bidi)
	case capi.StreamsUni:
		c.openWaiting(uni)
	case capi.Datagram:
		c.datagram.wake()
	case capi.ConnIDAdded:
		if !c.ep.addConnID(c, ev.CID[:ev.CIDLen]) {
			c.end(&ending{reason: localError(errDuplicateID), kind: capi.CloseTransport, code: codeInternalError})
		}
	case capi.ConnIDRemoved:
		c.ep.removeConnID(c, ev.CID[:ev.CIDLen])
	case capi.ResetTokenAdded:
		c.ep.addResetToken(ev.Token, c)
	case capi.ResetTokenRemoved:
		c.ep.removeResetToken(ev.Token, c)
	case capi.PathValidated:
		c.pathValidated(ev.Code == 1)
	case capi.StatelessReset:
		c.end(&ending{reason: transport.ErrStatelessReset, silent: true, keeps: true})
	case capi.ClientHello:
		c.hello = true
	case capi.HandshakeCompleted:
		c.completed()
	case capi.HandshakeConfirmed:
		c.confirm()
	case capi.EarlyDataRejected:
		c.rejected.Store(true)
		c.rejectStreams()
	case capi.NewToken:
		c.ep.tokens.put(c.tokensOf(c.tls.Load()), c.cc.NewToken())
	case capi.Session:
		c.keepSession()
	}
}

// completed is called when the handshake is. It asks the application, before
// anything is delivered, whether that is the peer it wants.
func (c *conn) completed() {
	if alert, err := c.tls.Load().finish(c.cc.TLSState()); err != nil {
		c.cc.FailHandshake(alert)
		c.endTLS(alert, err)
		return
	}
	c.complete.Store(true)
	c.ep.completed(c)
	if !c.client {
		if t, err := c.ep.newToken(c.path.Load().Remote); err == nil {
			_ = c.cc.SubmitNewToken(t) // the client does without
		}
	}
	c.openWaiting(bidi)
	c.openWaiting(uni)
}

// confirm is called when the handshake is confirmed (RFC 9001, Section 4.1.2).
func (c *conn) confirm() {
	c.confirmed = true
	if !c.client {
		c.ep.confirmed(c, 3*c.cc.PTO())
	}
	if c.confirming != nil {
		close(c.confirming)
		c.confirming = nil
	}
}

// keepSession gives a client's sessions to its cache.
func (c *conn) keepSession() {
	params := c.cc.EarlyTransportParams()
	ts := c.tls.Load()
	for {
		session := c.cc.TakeSession()
		if len(session) == 0 || ts == nil {
			return
		}
		c.later(func() { ts.storeSession(session, params) })
	}
}

// makeIDs makes connection IDs before the library needs them. The generator is
// the application's: no lock is held, and nobody else uses cc.
func (c *conn) makeIDs(cc *capi.Conn) {
	if c.ep.opts.ConnIDs == nil {
		return
	}
	for range cc.ConnIDsWanted() {
		id, err := c.ep.newConnID()
		if err != nil {
			return // the connection does with those that it has
		}
		cc.SupplyConnID(id)
	}
}

// supplyIDs makes more when few are left. The caller holds mu.
func (c *conn) supplyIDs() {
	wanted := c.cc.ConnIDsWanted()
	if c.supplying || wanted < fewIDs {
		return
	}
	c.supplying = c.later(func() {
		var made [][]byte
		for range wanted {
			id, err := c.ep.newConnID()
			if err != nil {
				break
			}
			made = append(made, id)
		}
		if c.lock() != nil {
			return
		}
		for _, id := range made {
			c.cc.SupplyConnID(id)
		}
		c.supplying = len(made) == 0 // a generator that fails is not asked again
		c.flush(c.ep.now())
		c.unlock()
	})
}

// fewIDs is how many connection IDs must be missing before more are made.
const fewIDs = 8

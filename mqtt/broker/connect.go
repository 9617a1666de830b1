package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// noIdleTimeout is for clients without a keep-alive, who may be silent for
// as long as they like.
const noIdleTimeout = 10 * 365 * 24 * time.Hour

// begin waits for the handshake, the control stream and CONNECT, and attaches
// the connection to its client. It reports false if there is nothing to serve;
// above is the quota for which the client is refused, nil for none.
func (cn *conn) begin(above *quota) bool {
	// The timer closes the link if the peer takes too long over any of this.
	ctx := cn.link.Context()
	early := cn.earlyPolicy()
	if early == mqtt.EarlyOff && !cn.handshake("") {
		return false
	}
	stream, err := cn.link.AcceptStream(ctx)
	if err != nil {
		cn.refused("", packet.UnspecifiedError, "no control stream: "+err.Error())
		return false
	}
	cn.in.init(cn, stream)
	cn.out = outlet{cn: cn, stream: stream, id: stream.ID()}
	if stream.ID() != mqtt.ControlStream {
		cn.refused("", packet.ProtocolError, "the first stream is not the control stream")
		return false
	}

	p, err := cn.in.readConnect()
	cn.in.src.now = time.Now()
	if err != nil {
		cn.refuseError(err)
		return false
	}
	// An Authenticator is asked when the client's certificate is known, and
	// never by a replay.
	waits := early > mqtt.EarlyConnect && cn.b.cfg.Auth != nil
	if (!cn.early(early, p) || waits) && !cn.handshake(p.ClientID) {
		return false
	}
	if above != nil {
		cn.linkCode.Store(uint64(mqtt.LinkOverloaded))
		cn.refuse(p.Version, &packet.Connack{Code: above.code}, p.ClientID, above.text)
		return false
	}
	if cn.id = p.ClientID; cn.id == "" {
		cn.id, cn.assigned = rand.Text(), true // 130 random bits [MQTT-3.1.3-6]
	}
	cn.version = p.Version
	cn.throttle = cn.newThrottle()
	cn.revision = cn.b.revision()
	if !cn.authenticate(p) || !cn.recheck(p) {
		return false
	}
	cn.in.src.now = time.Now()
	return cn.attach(p)
}

func (in *inlet) init(cn *conn, s mqtt.Stream) {
	in.cn, in.stream = cn, s
	in.reader = mqtt.NewReader(s, cn.limits.session.MaximumPacketSize)
	in.src.init(cn.b, cn)
}

// readConnect reads the first packet, which must be CONNECT [MQTT-3.1.0-1].
func (in *inlet) readConnect() (*packet.Connect, error) {
	h, body, err := in.reader.Next()
	if err != nil {
		return nil, err
	}
	size := uint64(len(body)) + headerSize(len(body))
	in.flow.bytes += size
	in.flow.sizes[h.Type] += size
	in.flow.packets[h.Type]++
	in.tell()
	if h.Type != packet.CONNECT {
		return nil, &packet.Error{Code: packet.ProtocolError, Reason: h.Type.String() + " before CONNECT"}
	}
	if in.cn.b.cfg.Auth != nil {
		body = bytes.Clone(body) // an exchange reads on before the CONNECT is done with
	}
	p, err := packet.Decode(h, body, 0)
	if err != nil {
		return nil, err
	}
	return p.(*packet.Connect), nil
}

// refuseError answers an error of readConnect.
func (cn *conn) refuseError(err error) {
	if bad, ok := errors.AsType[*packet.ConnectError](err); ok {
		if ack := bad.Connack(); ack != nil {
			cn.refuse(bad.Version, ack, "", bad.Err.Reason)
		} else {
			cn.refused("", bad.Err.Code, bad.Err.Reason)
		}
		return
	}
	if bad, ok := errors.AsType[*packet.Error](err); ok {
		cn.refused("", bad.Code, bad.Reason)
		return
	}
	if cn.late.Load() {
		cn.refused("", packet.UnspecifiedError, "no CONNECT in time")
		return
	}
	if errors.Is(err, io.EOF) {
		cn.b.countRefused(packet.UnspecifiedError) // a probe; nothing was said
		return
	}
	cn.refused("", packet.UnspecifiedError, "connection ended before CONNECT: "+err.Error())
}

// refused logs and counts a connection that gets no session and no answer.
func (cn *conn) refused(id string, code packet.ReasonCode, reason string) {
	cn.b.countRefused(code)
	cn.b.log.LogAttrs(context.Background(), slog.LevelInfo, "mqtt: refused",
		slog.String("client", shortened(id)),
		slog.String("remote", addrString(cn.link)),
		slog.String("carrier", string(cn.link.Carrier())),
		slog.String("code", codeString(code)),
		slog.String("reason", reason))
}

// shortened returns the beginning of what somebody unknown has sent, for the log,
// which it must not fill.
func shortened(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// refuse answers CONNECT with a failure, and gives the peer time to read it.
func (cn *conn) refuse(v packet.Version, ack *packet.Connack, id, reason string) {
	cn.refused(id, ack.Code, reason)
	out, err := ack.Append(nil, v)
	if err != nil {
		return
	}
	cn.lingered.Store(true) // the timer now closes
	cn.timer.Reset(time.Now().Add(cn.b.cfg.DrainTimeout))
	if _, err := cn.out.stream.Write(out); err != nil {
		return
	}
	f := flow{bytes: uint64(len(out))}
	f.packets[packet.CONNACK]++
	f.sizes[packet.CONNACK] += uint64(len(out))
	f.tell(&cn.b.count.out)
	cn.closeWrite()
	cn.in.reader.Release()
	_, _ = io.Copy(io.Discard, cn.out.stream) // until the peer closes or the linger is over
}

// attach finds or makes the client and gives it this connection.
func (cn *conn) attach(p *packet.Connect) bool {
	b := cn.b
	now := cn.in.src.now
	id := cn.id
	cn.keepAlive = cn.limits.keepAlive(p)
	cn.timer.Stop() // CONNECT is here; from now on it times the end
	who := cn.remembered()

	b.mu.Lock()
	if ack := b.closed(); ack != nil {
		b.mu.Unlock()
		cn.refuse(p.Version, ack, id, "shutting down")
		return false
	}
	old := b.sessions[id]
	if old != nil && !cn.owns(old) {
		b.mu.Unlock()
		b.count.denied.Add(1)
		cn.refuse(p.Version, &packet.Connack{Code: packet.NotAuthorized}, id, "the client identifier has a session of another user")
		return false
	}
	if !b.durable.admits(p, old != nil) {
		b.mu.Unlock()
		cn.refuse(p.Version, &packet.Connack{Code: packet.QuotaExceeded}, id, "the store cannot be written")
		return false
	}
	tookOver := old.online()
	c, fx := cn.takeover(old, p.CleanStart, now)
	present := c != nil
	if c == nil {
		if old == nil && cn.limits.maxSessions > 0 && len(b.sessions) >= cn.limits.maxSessions {
			b.mu.Unlock()
			cn.refuse(p.Version, &packet.Connack{Code: packet.QuotaExceeded}, id, "too many sessions")
			return false
		}
		c = b.newClient(id, cn.limits)
		c.owner = cn.username
		c.journal.own(c.owner)
		c.mu.Lock()
		b.sessions[id] = c
	}
	// c.mu is held.
	b.count.attached(p.Version, present, tookOver, now.Sub(cn.since))
	cn.client, cn.since = c, now
	c.conn = cn
	c.half = cn.limits.queueHalf
	c.who = who
	c.progressed(now)
	c.s.SetLimits(cn.limits.session)
	how := cn.how(present)
	if mqtt.Node(p.Properties) != "" {
		how.Node = b.cfg.Node // it asks by telling its own
	}
	c.s.Attach(now, p, how)
	c.rearm()
	c.kick(now)
	c.mu.Unlock()
	b.arrived(&cn.place)
	b.mu.Unlock()
	if old != nil {
		old.settle(now)
	}
	if was := cn.superseded; was != nil {
		cn.superseded = nil
		was.resetStreams(packet.SessionTakenOver)
	}
	if cn.revision != b.revision() {
		cn.review() // a Reauthorize may have passed between decision and effect
	}

	cn.logConnected(present)
	idle := noIdleTimeout
	if cn.keepAlive != 0 {
		idle = max(cn.keepAlive*4/3, 30*time.Second) // twice the keep-alive
	}
	cn.link.SetIdleTimeout(idle)
	if len(fx) > 0 {
		cn.in.src.setter = cn.setter
		b.apply(&cn.in.src, old, fx)
		cn.in.src.setter = nil
		cn.in.src.flush()
	}
	if cn.link.Carrier().Streams() {
		cn.goroutines.Add(1)
		go cn.acceptStreams() // until the link ends, which finish waits for
	}
	return true
}

// how says how the connection begins.
func (cn *conn) how(present bool) session.Attach {
	a := session.Attach{SessionPresent: present, AssignedClientID: cn.assigned}
	if cn.standing != nil {
		a.AuthMethod, a.AuthData = cn.standing.method, cn.standing.data
		cn.standing.data = nil
	}
	return a
}

// keepAlive returns how long the client may be silent, as the machine reckons.
func (l *limits) keepAlive(p *packet.Connect) time.Duration {
	ka := p.KeepAlive
	if most := l.session.KeepAliveMax; p.Version >= packet.V5 && most != 0 && (ka == 0 || ka > most) {
		ka = most
	}
	return time.Duration(ka) * time.Second * 3 / 2
}

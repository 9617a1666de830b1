package broker

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// maxDataStreams is how many data streams a connection may have at once. The
// carrier's own limit is usually lower.
const maxDataStreams = 64

// acceptStreams serves the data streams of a connection. It begins when CONNECT
// has succeeded: what the peer opened before waits in the carrier, within the
// carrier's limits, and ends with the link if CONNECT is refused.
func (cn *conn) acceptStreams() {
	defer cn.goroutines.Done()
	for {
		s, err := cn.link.AcceptStream(cn.link.Context())
		if err != nil {
			return
		}
		c := cn.client
		c.mu.Lock()
		full := len(cn.data) >= maxDataStreams
		if c.conn != cn || cn.closing || full {
			c.mu.Unlock()
			code := packet.ServerShuttingDown
			if full {
				code = packet.QuotaExceeded
			}
			s.Reset(uint64(code))
			cn.b.count.streamsReset.Add(1)
			continue
		}
		cn.b.count.streamsOpened.Add(1)
		if cn.data == nil {
			cn.data = make(map[mqtt.StreamID]*outlet)
		}
		cn.data[s.ID()] = &outlet{cn: cn, stream: s, id: s.ID()}
		cn.goroutines.Add(1)
		c.mu.Unlock()
		go cn.serveStream(s) // until the stream or the link ends, which finish waits for
	}
}

// serveStream is a data stream's reading goroutine.
func (cn *conn) serveStream(s mqtt.Stream) {
	defer cn.goroutines.Done()
	in := new(inlet)
	in.init(cn, s)
	defer in.reader.Release()
	in.read()
	in.src.flush()
	now := time.Now()
	in.src.now = now
	cn.streamEnded(in, now)
}

// streamEnded ends our half of a data stream that is read no further, and has the
// control stream take its place.
//
// After the client's FIN our half ends with a FIN, after what is being written.
// But if the client owes an acknowledgement, which it cannot send there any more,
// the message is sent again, and so it is taken back here first; and a stream that
// was abandoned is abandoned as a whole.
func (cn *conn) streamEnded(in *inlet, now time.Time) {
	c, id := cn.client, in.stream.ID()
	abandoned, code := false, uint64(0)
	if e, ok := errors.AsType[*mqtt.StreamError](in.end); ok {
		abandoned, code = true, e.Code
	}
	if abandoned {
		in.stream.Reset(code)
	}
	c.mu.Lock()
	for !abandoned && c.conn == cn && c.s.Unsettled(id) {
		c.mu.Unlock()
		in.stream.Reset(code) // from now on nothing that is taken for it arrives
		abandoned = true
		c.mu.Lock()
	}
	o := cn.data[id]
	delete(cn.data, id)
	writing := o != nil && o.writing
	if writing {
		o.ended = true
	}
	var fx []session.Effect
	if c.conn == cn { // else these numbers are another connection's
		fx = c.s.StreamClosed(nil, now, id)
		c.kick(now)
	}
	c.mu.Unlock()
	cn.b.apply(&in.src, c, fx)
	in.src.flush()
	if !writing {
		in.stream.CloseWrite()
	}
}

// resetStream ends a data stream on which the client broke the protocol; the
// connection lives on.
func (cn *conn) resetStream(id mqtt.StreamID, code packet.ReasonCode, reason string) {
	c := cn.client
	c.mu.Lock()
	o := cn.data[id]
	c.mu.Unlock()
	if o == nil {
		return
	}
	cn.logStream(id, code, reason)
	o.stream.Reset(uint64(code))
}

// abandoned reports whether a data stream has been reset, by whomever. A packet that
// was read before is then not for the machine any more: the client may have sent
// it again on another stream, and the machine may have done what it asks. The caller
// holds client.mu, so that what comes on the other stream later finds this one done.
func (in *inlet) abandoned() bool {
	if in.stream.ID() == mqtt.ControlStream {
		return false
	}
	in.end = in.stream.Abandoned()
	return in.end != nil
}

// broken notes that the machine wants the stream reset, for which its reading ends.
func (in *inlet) broken() {
	for i := range in.fx {
		if e := &in.fx[i]; e.Kind == session.EffectReset {
			in.end = &mqtt.StreamError{Code: uint64(e.Code)}
		}
	}
}

// streamFailed ends the reading of a data stream for an error.
func (in *inlet) streamFailed(err error) {
	in.end = err
	if bad, ok := errors.AsType[*packet.Error](err); ok {
		in.cn.logStream(in.stream.ID(), bad.Code, bad.Reason)
		in.stream.Reset(uint64(bad.Code))
	}
}

// resetStreams ends all data streams at once, for a client whose session another
// connection has taken: it gets nothing more. No lock is held.
func (cn *conn) resetStreams(code packet.ReasonCode) {
	c := cn.client
	c.mu.Lock()
	streams := make([]mqtt.Stream, 0, len(cn.data))
	for _, o := range cn.data {
		streams = append(streams, o.stream)
	}
	c.mu.Unlock()
	for _, s := range streams {
		s.Reset(uint64(code))
	}
}

func (cn *conn) logStream(id mqtt.StreamID, code packet.ReasonCode, reason string) {
	cn.b.count.streamsReset.Add(1)
	cn.b.log.LogAttrs(context.Background(), slog.LevelInfo, "mqtt: stream reset",
		slog.String("client", cn.client.id),
		slog.String("remote", addrString(cn.link)),
		slog.Uint64("stream", uint64(id)),
		slog.String("code", codeString(code)),
		slog.String("reason", reason))
}

// newSubscription returns what the tree keeps of a subscription that was made on
// stream of a connection of c. The billionth stream of a connection is not
// told from the control stream, to save memory in all others.
func newSubscription(stream mqtt.StreamID, connection uint32) subscription {
	if stream > math.MaxUint32 {
		stream = mqtt.ControlStream
	}
	return subscription{stream: uint32(stream), connection: connection}
}

// on is where s delivers.
func (s *subscription) on() (mqtt.StreamID, uint32) { return mqtt.StreamID(s.stream), s.connection }

package broker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
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
			continue
		}
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

	c := cn.client
	now := time.Now()
	in.src.now = now
	c.mu.Lock()
	o := cn.data[s.ID()]
	delete(cn.data, s.ID())
	writing := o != nil && o.writing
	fx := c.s.StreamClosed(nil, now, s.ID())
	c.kick(now)
	c.mu.Unlock()
	cn.b.apply(&in.src, c, fx)
	in.src.flush()
	// Our half ends after what is being written. A writer that goes on finds no
	// more output, since what waited has moved to the control stream.
	if !writing {
		s.CloseWrite()
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

// streamFailed ends the reading of a data stream for an error.
func (in *inlet) streamFailed(err error) {
	if bad, ok := errors.AsType[*packet.Error](err); ok {
		in.cn.logStream(in.stream.ID(), bad.Code, bad.Reason)
		in.stream.Reset(uint64(bad.Code))
	}
}

func (cn *conn) logStream(id mqtt.StreamID, code packet.ReasonCode, reason string) {
	cn.b.log.LogAttrs(context.Background(), slog.LevelInfo, "mqtt: stream reset",
		slog.String("client", cn.client.id),
		slog.String("remote", addrString(cn.link)),
		slog.Uint64("stream", uint64(id)),
		slog.String("code", codeString(code)),
		slog.String("reason", reason))
}

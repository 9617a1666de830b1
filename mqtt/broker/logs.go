package broker

import (
	"context"
	"log/slog"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// logConnected writes the line about a connection that has got a session, for who
// looks for everything: there may be very many.
func (cn *conn) logConnected(present bool) {
	if !cn.b.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	cn.b.log.LogAttrs(context.Background(), slog.LevelDebug, "mqtt: connected", append(cn.who(cn.id),
		slog.String("version", cn.version.String()),
		slog.Bool("session_present", present),
		slog.Duration("keep_alive", cn.keepAlive*2/3))...)
}

// logDisconnected writes the line about a connection that ended: at the level of
// information if it ended otherwise than its client, or the operator, wished.
func (cn *conn) logDisconnected(code packet.ReasonCode, reason string, abnormal bool) {
	level := slog.LevelDebug
	if abnormal {
		level = slog.LevelInfo
	}
	if !cn.b.log.Enabled(context.Background(), level) {
		return
	}
	cn.b.log.LogAttrs(context.Background(), level, "mqtt: disconnected", append(cn.who(cn.id),
		slog.String("code", codeString(code)),
		slog.String("reason", reason),
		slog.Duration("after", time.Since(cn.since).Round(time.Millisecond)))...)
}

// who names the connection's client in a line of the log. What a client sends
// besides its identifier and its name is never in one.
func (cn *conn) who(id string) []slog.Attr {
	all := make([]slog.Attr, 0, 8)
	all = append(all,
		slog.String("client", id),
		slog.String("remote", addrString(cn.link)),
		slog.String("carrier", string(cn.link.Carrier())))
	if cn.username != "" {
		all = append(all, slog.String("user", cn.username))
	}
	return all
}

func addrString(l mqtt.Link) string {
	if a := l.RemoteAddr(); a != nil {
		return a.String()
	}
	return ""
}

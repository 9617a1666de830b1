package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport"
)

// A listener is one open socket of the program.
type listener struct {
	name  string // as the flag that opens it
	addr  net.Addr
	url   string                         // for clients; empty for the metrics
	serve func() error                   // blocks until close; returns nil then
	close func() error                   // stops accepting; connections live on
	stats func() transport.EndpointStats // of a QUIC socket, else nil
}

// listeners opens what cfg asks for, the metrics last. If one cannot be opened,
// those before it are closed again.
func listeners(cfg *serveConfig, b *broker.Broker, quic transport.Transport, cert tls.Certificate, draining *atomic.Bool, log *slog.Logger) (open []*listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range open {
				err = errors.Join(err, l.close())
			}
			open = nil
		}
	}()
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	websocket := http.NewServeMux()
	websocket.Handle(cfg.Listen.WSPath, b.WebSocketHandler())

	var quicStats func() transport.EndpointStats
	for _, l := range []struct {
		name, addr string
		open       func(name, addr string) (*listener, error)
	}{
		{"tcp", cfg.Listen.TCP, func(name, addr string) (*listener, error) {
			return listenStream(name, addr, nil, "mqtt", func(ln net.Listener) error { return b.Serve(ln, mqtt.TCP) })
		}},
		{"tls", cfg.Listen.TLS, func(name, addr string) (*listener, error) {
			return listenStream(name, addr, config, "mqtts", func(ln net.Listener) error { return b.Serve(ln, mqtt.TLS) })
		}},
		{"ws", cfg.Listen.WS, func(name, addr string) (*listener, error) {
			return listenHTTP(name, addr, nil, "ws", cfg.Listen.WSPath, websocket, log)
		}},
		{"wss", cfg.Listen.WSS, func(name, addr string) (*listener, error) {
			return listenHTTP(name, addr, config, "wss", cfg.Listen.WSPath, websocket, log)
		}},
		{"quic", cfg.Listen.QUIC, func(name, addr string) (*listener, error) {
			l, err := listenQUIC(name, addr, config, quic, cfg, b)
			if err == nil {
				quicStats = l.stats
			}
			return l, err
		}},
		{"metrics", cfg.Listen.Metrics, func(name, addr string) (*listener, error) {
			return listenHTTP(name, addr, nil, "", "", monitoring(b, quic, quicStats, draining), log)
		}},
	} {
		if l.addr == off {
			continue
		}
		opened, err := l.open(l.name, l.addr)
		if err != nil {
			return open, fmt.Errorf("--%s %s: %w", l.name, l.addr, err)
		}
		open = append(open, opened)
	}
	return open, nil
}

// listenStream opens a TCP socket, with TLS if config is not nil.
func listenStream(name, addr string, config *tls.Config, scheme string, serve func(net.Listener) error) (*listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	bound := ln.Addr()
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	return &listener{
		name:  name,
		addr:  bound,
		url:   scheme + "://" + dialable(bound),
		serve: func() error { return serve(ln) },
		close: ln.Close,
	}, nil
}

// listenHTTP opens a TCP socket with an HTTP server for handler on it.
func listenHTTP(name, addr string, config *tls.Config, scheme, path string, handler http.Handler, log *slog.Logger) (*listener, error) {
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(log.With("listener", name).Handler(), slog.LevelDebug),
		// WebSocket over HTTP/2 needs extended CONNECT, which net/http does not
		// offer: without h2 in ALPN every client asks for HTTP/1.1.
		Protocols: new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	if config != nil {
		config = config.Clone()
		config.NextProtos = []string{"http/1.1"}
	}
	l, err := listenStream(name, addr, config, scheme, func(ln net.Listener) error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.url += path
	if scheme == "" {
		l.url = ""
	}
	closeSocket := l.close
	l.close = func() error {
		// Hijacked connections, which WebSockets are, belong to the broker.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := srv.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = srv.Close()
		}
		// If Serve never ran, Shutdown does not know the socket.
		return errors.Join(err, ignoreClosed(closeSocket()))
	}
	return l, nil
}

func listenQUIC(name, addr string, config *tls.Config, quic transport.Transport, cfg *serveConfig, b *broker.Broker) (*listener, error) {
	ln, err := mqttquic.ListenAddr(quic, addr, &mqttquic.ListenConfig{
		TLS:     config,
		Options: transport.Options{MaxConns: cfg.Limits.MaxConnections},
	})
	if err != nil {
		return nil, err
	}
	return &listener{
		name:  name,
		addr:  ln.Addr(),
		url:   "mqtt+quic://" + dialable(ln.Addr()),
		serve: func() error { return b.ServeLinks(ln) },
		close: ln.Close,
		stats: ln.Stats,
	}, nil
}

// dialable returns the address for a client on this machine: an unspecified
// host is replaced by localhost.
func dialable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// loopback reports whether only this machine can reach a.
func loopback(a net.Addr) bool {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return false
	}
	ip := net.ParseIP(strings.SplitN(host, "%", 2)[0])
	return ip != nil && ip.IsLoopback()
}

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
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
)

// A listener is one open port of the program.
type listener struct {
	name  string // as the flag that opens it
	addr  net.Addr
	url   string       // for clients; empty for the metrics
	more  []carrierURL // other carriers on the same port
	serve func() error // blocks until close; returns nil then
	close func() error // stops accepting; connections live on
}

// A carrierURL is a way to reach a listener.
type carrierURL struct {
	carrier mqtt.Carrier
	url     string
}

// listeners opens what cfg asks for, the metrics last. If one cannot be opened,
// those before it are closed again.
func listeners(cfg *serveConfig, b *broker.Broker, ops *operations, log *slog.Logger) (open []*listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range open {
				err = errors.Join(err, l.close())
			}
			open = nil
		}
	}()
	config := ops.tls()
	web := &webListeners{cfg: cfg, broker: b, quic: ops.meter, tls: ops.tls("h2", "http/1.1"), log: log}
	for _, l := range []struct {
		name, addr string
		open       func(name, addr string) (*listener, error)
	}{
		{"tcp", cfg.Listen.TCP, func(name, addr string) (*listener, error) {
			return listenStream(name, addr, nil, "mqtt", func(ln net.Listener) error { return cfg.serveConns(b, ln, mqtt.TCP) })
		}},
		{"tls", cfg.Listen.TLS, func(name, addr string) (*listener, error) {
			return listenStream(name, addr, config, "mqtts", func(ln net.Listener) error { return cfg.serveConns(b, ln, mqtt.TLS) })
		}},
		{"ws", cfg.Listen.WS, web.plain},
		{"wss", cfg.Listen.WSS, web.secure},
		{"quic", cfg.Listen.QUIC, web.sharedQUIC},
		{"metrics", cfg.Listen.Metrics, func(name, addr string) (*listener, error) {
			return listenHTTP(name, addr, monitoring(ops), log)
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

// listenHTTP opens a TCP socket with a server of HTTP/1.1 for handler on it.
func listenHTTP(name, addr string, handler http.Handler, log *slog.Logger) (*listener, error) {
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: httpHeaderTimeout,
		IdleTimeout:       httpIdleTimeout,
		ErrorLog:          slog.NewLogLogger(log.With("listener", name).Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	l, err := listenStream(name, addr, nil, "", func(ln net.Listener) error { return ignoreServerClosed(srv.Serve(ln)) })
	if err != nil {
		return nil, err
	}
	l.url = ""
	closeSocket := l.close
	l.close = func() error {
		// Hijacked connections, which WebSockets are, belong to the broker.
		// If Serve never ran, Shutdown does not know the socket.
		return errors.Join(shutDown(srv), ignoreClosed(closeSocket()))
	}
	return l, nil
}

const (
	httpHeaderTimeout = 10 * time.Second
	httpIdleTimeout   = time.Minute

	// httpShutdownTimeout bounds what follows after the broker has ended: that
	// clients hear of it.
	httpShutdownTimeout = time.Second
)

// shutDown ends a server of HTTP, by force if need be.
func shutDown(srv interface {
	Shutdown(context.Context) error
	Close() error
}) error {
	ctx, cancel := context.WithTimeout(context.Background(), httpShutdownTimeout)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	return err
}

func ignoreServerClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
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

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/allhttp"
	_ "github.com/anyquic/anyquic/http3/websocket/http2connect" // browsers use HTTP/2 for WebSocket if they may
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/transport"
)

// webListeners opens the ports that speak HTTP, or share theirs with it.
type webListeners struct {
	cfg    *serveConfig
	broker *broker.Broker
	quic   func(listener string) transport.Transport
	tls    *tls.Config
	log    *slog.Logger
}

// handler returns what answers at the path for MQTT, and with 404 elsewhere.
func (w *webListeners) handler() (*mqttweb.Listener, http.Handler) {
	web := mqttweb.NewListener(&mqttweb.ListenConfig{Origins: w.cfg.Listen.origins()})
	mux := http.NewServeMux()
	var h http.Handler = web
	if a := &w.cfg.Access; !a.authenticates() && !a.AllowAnonymous {
		h = refuseForwarded(web)
	}
	mux.Handle(w.cfg.Listen.WSPath, h)
	return web, mux
}

// serve runs f, which serves HTTP, with the broker behind it.
func (w *webListeners) serve(web *mqttweb.Listener, f func() error) error {
	var g errgroup.Group
	g.Go(func() error { return ignoreClosed(w.cfg.serveLinks(w.broker, web)) }) // ends with the broker, or web
	g.Go(func() error {
		defer web.Close()
		return f()
	})
	return g.Wait()
}

// end waits until clients know that their connections have ended, and not for
// long, before closeServer.
func (w *webListeners) end(web *mqttweb.Listener, closeServer func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), httpShutdownTimeout)
	defer cancel()
	web.Close()
	if err := web.Wait(ctx); err != nil {
		w.log.Debug("clients on the web did not answer the end of their connections", "error", err)
	}
	return closeServer()
}

// plain opens a TCP port for WebSocket on HTTP/1.1.
func (w *webListeners) plain(name, addr string) (*listener, error) {
	web, handler := w.handler()
	l, err := listenHTTP(name, addr, handler, w.log)
	if err != nil {
		return nil, err
	}
	l.url = "ws://" + dialable(l.addr) + w.cfg.Listen.WSPath
	serve, closeServer := l.serve, l.close
	l.serve = func() error { return w.serve(web, serve) }
	l.close = func() error { return w.end(web, closeServer) }
	return l, nil
}

// secure opens a port for WebSocket on every version of HTTP, and for WebTransport:
// TCP and, for HTTP/3, UDP.
func (w *webListeners) secure(name, addr string) (*listener, error) {
	web, handler := w.handler()
	srv := &allhttp.Server{
		Engine:            w.quic(name),
		Addr:              addr,
		Handler:           handler,
		TLS:               w.tls,
		ReadHeaderTimeout: httpHeaderTimeout,
		IdleTimeout:       httpIdleTimeout,
		Options:           &transport.Options{MaxConns: w.cfg.Limits.MaxConnections},
		Logger:            w.log.With("listener", name),
	}
	srv.QUIC, srv.Extensions = mqttweb.ServerConfig(nil)
	if !w.cfg.Listen.HTTP3 {
		srv.Versions = allhttp.HTTP1 | allhttp.HTTP2
	}
	sockets, err := srv.Listen()
	if err != nil {
		return nil, err
	}
	l := &listener{
		name:  name,
		addr:  sockets.TCP[0].Addr(),
		serve: func() error { return w.serve(web, func() error { return ignoreServerClosed(srv.Serve(sockets)) }) },
	}
	l.url = "wss://" + dialable(l.addr) + w.cfg.Listen.WSPath
	l.close = func() error {
		return w.end(web, func() error {
			err := shutDown(srv)
			sockets.Close() // if Serve never ran; else they are closed
			return err
		})
	}
	if w.cfg.Listen.HTTP3 {
		l.more = w.http3URLs(l.addr)
	}
	return l, nil
}

// sharedQUIC opens a UDP port for MQTT over QUIC and, for clients that negotiate
// HTTP/3, for what that carries.
func (w *webListeners) sharedQUIC(name, addr string) (*listener, error) {
	early, err := parseEarly(w.cfg.Listen.Early)
	if err != nil {
		return nil, err
	}
	config := &mqttquic.ListenConfig{TLS: w.tls, EarlyData: early, MaxStreams: int64(w.cfg.Listen.Streams), Options: transport.Options{MaxConns: w.cfg.Limits.MaxConnections}}
	if !w.cfg.Listen.HTTP3 {
		ln, err := mqttquic.ListenAddr(w.quic(name), addr, config)
		if err != nil {
			return nil, err
		}
		return w.quicListener(name, ln), nil
	}
	web, handler := w.handler()
	srv := &http3.Server{
		Handler:           handler,
		ReadHeaderTimeout: httpHeaderTimeout,
		IdleTimeout:       httpIdleTimeout,
		Logger:            w.log.With("listener", name),
	}
	srv.Transport, srv.Extensions = mqttweb.ServerConfig(nil)
	config.Others = []mqttquic.Protocol{mqttweb.SharedPort(srv)}
	ln, err := mqttquic.ListenAddr(w.quic(name), addr, config)
	if err != nil {
		return nil, err
	}
	l := w.quicListener(name, ln)
	l.more = w.http3URLs(l.addr)
	serve, closeSocket := l.serve, l.close
	l.serve = func() error { return w.serve(web, serve) }
	l.close = func() error {
		err := closeSocket()
		return errors.Join(err, w.end(web, func() error { return shutDown(srv) }))
	}
	return l, nil
}

func (w *webListeners) quicListener(name string, ln *mqttquic.Listener) *listener {
	return &listener{
		name:  name,
		addr:  ln.Addr(),
		url:   mqttquic.Scheme + "://" + dialable(ln.Addr()),
		serve: func() error { return w.cfg.serveLinks(w.broker, ln) },
		close: ln.Close,
	}
}

// http3URLs returns what a UDP port carries over HTTP/3.
func (w *webListeners) http3URLs(addr net.Addr) []carrierURL {
	at := "://" + dialable(addr) + w.cfg.Listen.WSPath
	return []carrierURL{{mqtt.WSSH3, "wss+h3" + at}, {mqtt.WebTransport, "mqtt+wt" + at}}
}

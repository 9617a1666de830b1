package allhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

// A running is what serves for a Server.
type running struct {
	s         *Server
	sockets   *Sockets
	tcp       *http.Server // also if there is no socket for it: it is what http.ServerContextKey has
	plain     *http.Server
	h3        *http3.Server // nil without HTTP/3
	endpoints []transport.Endpoint
	listeners []transport.Listener
	drain     drain
}

// Serve answers requests on the sockets, which it takes over. It returns after
// Shutdown or Close, with [http.ErrServerClosed] and possibly while Shutdown is
// still waiting for requests; or when a socket fails, with its error and
// everything closed. It can be called once.
func (s *Server) Serve(sockets *Sockets) error {
	r, err := s.start(sockets)
	if err != nil {
		return err
	}
	loops := r.loops()
	ended := make(chan error, len(loops))
	var wg sync.WaitGroup
	for _, loop := range loops {
		wg.Go(func() { ended <- loop() }) // ends with Shutdown, Close or its socket
	}
	err = <-ended
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		err = http.ErrServerClosed
	} else {
		err = errors.Join(err, r.close())
	}
	wg.Wait()
	return err
}

// start makes everything ready. If it fails, the sockets are closed.
func (s *Server) start(sockets *Sockets) (_ *running, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, sockets.Close())
		}
	}()
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := s.fits(sockets); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, http.ErrServerClosed
	case s.running != nil:
		return nil, errors.New("allhttp: Server.Serve was called before")
	}
	r := &running{s: s, sockets: sockets}
	var cfg *tls.Config
	if len(sockets.TCP)+len(sockets.UDP) > 0 {
		if cfg, err = s.tlsConfig(); err != nil {
			return nil, err
		}
	}
	r.tcp = s.httpServer(r, s.handler())
	r.tcp.TLSConfig = cfg
	r.tcp.Protocols = s.Versions.protocols()
	h := s.PlainHandler
	if h == nil {
		h = s.handler()
	}
	r.plain = s.httpServer(r, h)
	r.plain.Protocols = new(http.Protocols)
	r.plain.Protocols.SetHTTP1(s.Versions.Has(HTTP1))
	r.plain.Protocols.SetUnencryptedHTTP2(s.Versions.Has(HTTP2))
	if len(sockets.UDP) > 0 {
		if err := r.startHTTP3(cfg); err != nil {
			return nil, err
		}
	}
	s.altSvc.Store(s.altSvcValue(sockets.UDP))
	s.running = r
	return r, nil
}

// fits reports whether the sockets are for the versions.
func (s *Server) fits(sockets *Sockets) error {
	switch {
	case len(sockets.TCP) > 0 && !s.Versions.tcp():
		return fmt.Errorf("allhttp: there is a TCP socket, but Versions are %q", s.Versions)
	case len(sockets.Plain) > 0 && !s.Versions.tcp():
		return fmt.Errorf("allhttp: there is a TCP socket without TLS, but Versions are %q", s.Versions)
	case len(sockets.UDP) > 0 && !s.Versions.Has(HTTP3):
		return fmt.Errorf("allhttp: there is a UDP socket, but Versions are %q", s.Versions)
	case len(sockets.TCP)+len(sockets.UDP)+len(sockets.Plain) == 0:
		return errors.New("allhttp: there is no socket to serve on")
	}
	return nil
}

// tlsConfig returns the configuration for all versions. mu is held.
func (s *Server) tlsConfig() (*tls.Config, error) {
	cfg := new(tls.Config)
	if s.TLS != nil {
		cfg = s.TLS.Clone()
	}
	if s.CertFile != "" {
		if cfg.GetCertificate != nil {
			return nil, errors.New("allhttp: Server.CertFile and TLS.GetCertificate are both set")
		}
		var err error
		if s.certs, err = LoadCertFiles(s.CertFile, s.KeyFile, s.logger()); err != nil {
			return nil, err
		}
		cfg.GetCertificate = s.certs.GetCertificate
	}
	if len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil {
		return nil, errors.New("allhttp: no certificate: Server.TLS has none and CertFile is not set")
	}
	return cfg, nil
}

// quicTLS returns the configuration for HTTP/3, without what is for TLS 1.2 or
// for TCP: QUIC keeps sessions by itself.
//
// https://www.rfc-editor.org/rfc/rfc9001#section-4.2
func quicTLS(cfg *tls.Config) (*tls.Config, error) {
	if cfg.MaxVersion != 0 && cfg.MaxVersion < tls.VersionTLS13 {
		return nil, fmt.Errorf("allhttp: tls.Config.MaxVersion is %s: HTTP/3 needs TLS 1.3", tls.VersionName(cfg.MaxVersion))
	}
	cfg = cfg.Clone()
	cfg.MinVersion = tls.VersionTLS13
	cfg.CipherSuites = nil // of TLS 1.2
	cfg.Renegotiation = tls.RenegotiateNever
	cfg.ClientSessionCache = nil
	cfg.NextProtos = []string{http3.ALPN}
	if f := cfg.GetConfigForClient; f != nil {
		cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := f(hello)
			if c == nil || err != nil {
				return nil, err
			}
			return quicTLS(c)
		}
	}
	return cfg, nil
}

// httpServer returns a server for HTTP/1.1 and HTTP/2.
func (s *Server) httpServer(r *running, h http.Handler) *http.Server {
	srv := &http.Server{
		Handler:                      http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(h, w, r) }),
		DisableGeneralOptionsHandler: s.DisableGeneralOptionsHandler,
		ReadHeaderTimeout:            s.ReadHeaderTimeout,
		ReadTimeout:                  s.ReadTimeout,
		WriteTimeout:                 s.WriteTimeout,
		IdleTimeout:                  s.IdleTimeout,
		MaxHeaderBytes:               s.MaxHeaderBytes,
		HTTP2:                        s.HTTP2,
		ErrorLog:                     slog.NewLogLogger(s.logger().Handler(), slog.LevelWarn),
		ConnContext:                  s.ConnContext,
		ConnState:                    r.drain.connState,
	}
	if s.BaseContext != nil {
		srv.BaseContext = func(net.Listener) context.Context { return s.BaseContext() }
	}
	return srv
}

// startHTTP3 starts QUIC on the UDP sockets. If it fails, those are closed.
func (r *running) startHTTP3(cfg *tls.Config) error {
	s := r.s
	cfg, err := quicTLS(cfg)
	if err != nil {
		return err
	}
	r.h3 = &http3.Server{
		Handler:                      s.handler(),
		TLS:                          cfg,
		Transport:                    s.QUIC,
		DisableGeneralOptionsHandler: s.DisableGeneralOptionsHandler,
		ReadHeaderTimeout:            s.ReadHeaderTimeout,
		ReadTimeout:                  s.ReadTimeout,
		WriteTimeout:                 s.WriteTimeout,
		IdleTimeout:                  s.IdleTimeout,
		MaxHeaderBytes:               s.MaxHeaderBytes,
		Logger:                       s.logger(),
		Extensions:                   s.Extensions,
		ConnContext:                  s.HTTP3ConnContext,
		BaseContext: func() context.Context {
			ctx := context.Background()
			if s.BaseContext != nil {
				ctx = s.BaseContext()
			}
			return context.WithValue(ctx, http.ServerContextKey, r.tcp)
		},
	}
	quic, err := r.h3.TransportConfig()
	if err != nil {
		return err
	}
	for _, pc := range r.sockets.UDP {
		if err := r.openQUIC(pc, quic); err != nil {
			return errors.Join(err, r.closeQUIC())
		}
	}
	return nil
}

func (r *running) openQUIC(pc net.PacketConn, cfg *transport.Config) error {
	ep, err := r.s.Engine.Open(pc, r.s.Options)
	if err != nil {
		return fmt.Errorf("allhttp: HTTP/3 on UDP %s: %w", pc.LocalAddr(), err)
	}
	r.endpoints = append(r.endpoints, ep)
	l, err := ep.Listen(cfg)
	if err != nil {
		return fmt.Errorf("allhttp: HTTP/3 on UDP %s: %w", pc.LocalAddr(), err)
	}
	r.listeners = append(r.listeners, l)
	return nil
}

// loops returns what accepts connections, for each socket.
func (r *running) loops() (loops []func() error) {
	for _, l := range r.sockets.TCP {
		l = r.drain.listener(l)
		loops = append(loops, func() error { return r.tcp.ServeTLS(l, "", "") })
	}
	for _, l := range r.sockets.Plain {
		l = r.drain.listener(l)
		loops = append(loops, func() error { return r.plain.Serve(l) })
	}
	for _, l := range r.listeners {
		loops = append(loops, func() error { return r.h3.Serve(l) })
	}
	return loops
}

// stop makes Serve return ErrServerClosed, and returns what runs; nil: nothing.
func (s *Server) stop() *running {
	s.altSvc.Store(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.running
}

// Addrs returns the addresses that are served, those for TCP first. There is
// none before Serve and after Shutdown or Close.
func (s *Server) Addrs() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.running == nil {
		return nil
	}
	return s.running.sockets.Addrs()
}

// ReloadCertificate reads CertFile and KeyFile at once. If they are no
// certificate, the one in use stays. Connections are unaffected.
func (s *Server) ReloadCertificate() error {
	s.mu.Lock()
	certs := s.certs
	s.mu.Unlock()
	if certs == nil {
		return errors.New("allhttp: there is no certificate to reload: CertFile is not set, or Serve was not called")
	}
	return certs.Reload()
}

// Shutdown stops accepting connections and waits until all requests are
// answered, on all versions. Before it closes connections, it lets their clients
// know: by "Connection: close" or a GOAWAY. It returns ctx.Err() if that is done
// first; what goes on then is for Close to end. Connections that were hijacked
// from HTTP/1.1 are not waited for.
func (s *Server) Shutdown(ctx context.Context) error {
	r := s.stop()
	if r == nil {
		return nil
	}
	var wg sync.WaitGroup
	var tcpErr, plainErr, h3Err error
	if r.h3 != nil {
		wg.Go(func() { h3Err = r.h3.Shutdown(ctx) }) // ends with ctx
	}
	s.draining.Store(true)
	err := r.drain.run(ctx)
	wg.Go(func() { tcpErr = r.tcp.Shutdown(ctx) })     // ends with ctx
	wg.Go(func() { plainErr = r.plain.Shutdown(ctx) }) // ends with ctx
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, tcpErr, plainErr, h3Err, r.closeQUIC())
}

// Close ends all connections at once and closes the sockets. It does not wait
// for handlers.
func (s *Server) Close() error {
	r := s.stop()
	if r == nil {
		return nil
	}
	return r.close()
}

func (r *running) close() error {
	errs := []error{r.drain.close(), r.tcp.Close(), r.plain.Close()}
	if r.h3 != nil {
		errs = append(errs, r.h3.Close())
	}
	return errors.Join(append(errs, r.closeQUIC())...)
}

// closeQUIC closes the UDP sockets and what is left on them.
func (r *running) closeQUIC() error {
	var errs []error
	for _, ep := range r.endpoints {
		errs = append(errs, ep.Close())
	}
	return errors.Join(errs...)
}

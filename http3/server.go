package http3

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/anyquic/anyquic/transport"
)

// ALPN is the application protocol that client and server negotiate.
const ALPN = "h3"

const (
	defaultMaxStreams = 100
	minUniStreams     = 3 // control, encoder, decoder

	// lingerTimeout is how long a connection stays after its last response,
	// so that the client gets that: closing discards what is not acknowledged.
	// A client that has what it wants closes before.
	lingerTimeout = 5 * time.Second

	goAwayNotice = maxVarint - 3 // the largest ID of a request stream
)

// A Server answers HTTP/3 requests with a [http.Handler]. Its fields must not be
// changed after the first call of a method. In durations zero means none, as in
// [http.Server].
type Server struct {
	// Handler answers requests. If nil, http.DefaultServeMux does.
	Handler http.Handler

	// DisableGeneralOptionsHandler passes "OPTIONS *" requests to the Handler,
	// where the server otherwise answers them with 200 and no content, as that of
	// net/http.
	DisableGeneralOptionsHandler bool

	// TLS has the certificate, for [Server.TransportConfig].
	TLS *tls.Config

	// Transport configures connections, but for TLS. If nil, the zero Config
	// does. Its MaxStreams also limits the handlers that run at once for a
	// connection.
	Transport *transport.Config

	// ReadHeaderTimeout and ReadTimeout bound the time until the head and the
	// whole of a request have arrived, WriteTimeout that until the response is
	// written. A handler can change the last two with http.ResponseController.
	// If ReadHeaderTimeout is zero, ReadTimeout counts.
	ReadHeaderTimeout, ReadTimeout, WriteTimeout time.Duration

	// IdleTimeout ends connections without a request.
	IdleTimeout time.Duration

	// MaxHeaderBytes limits the head and the trailers of a request, each field
	// counted with 32 bytes above its text. Zero: http.DefaultMaxHeaderBytes.
	MaxHeaderBytes int

	// Logger gets panics of handlers and their mistakes. Nil discards.
	Logger *slog.Logger

	// BaseContext returns the context that those of all requests derive from.
	// If nil, it is context.Background. ConnContext, if not nil, derives one
	// for a connection from it.
	BaseContext func() context.Context
	ConnContext func(context.Context, *Conn) context.Context

	Extensions

	workers workers

	mu        sync.Mutex
	closed    bool                            // by Shutdown or Close; guarded by mu
	conns     map[*serverConn]struct{}        // guarded by mu
	accepting map[int]context.CancelFunc      // of the Serve calls; guarded by mu
	listeners map[transport.Listener]struct{} // guarded by mu
	serves    int                             // so far; guarded by mu
}

// TransportConfig returns what to pass to a [transport.Endpoint]'s Listen: the
// Transport and TLS fields with what HTTP/3 needs: the protocol's name, and room
// for its unidirectional streams.
func (s *Server) TransportConfig() (*transport.Config, error) {
	if s.TLS == nil {
		return nil, errors.New("http3: Server.TLS is not set: QUIC needs a certificate")
	}
	cfg, err := http3Config(s.Transport, &s.Extensions)
	if err != nil {
		return nil, err
	}
	cfg.TLS = s.TLS.Clone()
	cfg.TLS.NextProtos = []string{ALPN}
	return cfg, nil
}

// http3Config returns a copy of cfg that HTTP/3 can work with.
func http3Config(cfg *transport.Config, ext *Extensions) (*transport.Config, error) {
	for id := range ext.Settings {
		if knownSetting(id) {
			return nil, fmt.Errorf("http3: Extensions.Settings has setting %#x, which is not for extensions", id)
		}
	}
	var c transport.Config
	if cfg != nil {
		c = *cfg
	}
	if c.MaxUniStreams != 0 && c.MaxUniStreams < minUniStreams {
		// https://www.rfc-editor.org/rfc/rfc9114#section-6.2
		return nil, fmt.Errorf("http3: Config.MaxUniStreams is %d: HTTP/3 needs %d", c.MaxUniStreams, minUniStreams)
	}
	return &c, nil
}

// Serve accepts connections and answers their requests. It returns after
// Shutdown or Close, with [http.ErrServerClosed], or when l fails. Shutdown and
// Close close l.
func (s *Server) Serve(l transport.Listener) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.Join(http.ErrServerClosed, l.Close())
	}
	if s.listeners == nil {
		s.listeners = make(map[transport.Listener]struct{})
		s.accepting = make(map[int]context.CancelFunc)
	}
	s.listeners[l] = struct{}{}
	s.serves++
	key := s.serves
	s.accepting[key] = cancel
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.accepting, key)
	}()
	for {
		qc, err := l.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return http.ErrServerClosed
			}
			return fmt.Errorf("http3: %w", err)
		}
		go func() { // ends with the connection and its handlers
			_ = s.ServeConn(qc) // it was logged, or is the peer's affair
		}()
	}
}

// ServeConn answers the requests of a connection that was accepted elsewhere. It
// returns when the connection has ended and its handlers have returned, with
// the reason; or with [http.ErrServerClosed] if the server was closed before.
func (s *Server) ServeConn(qc transport.Conn) error {
	c := s.newServerConn(qc)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		c.cancel()
		c.codec.end()
		qc.CloseWithError(ErrNoError, "")
		return http.ErrServerClosed
	}
	if s.conns == nil {
		s.conns = make(map[*serverConn]struct{})
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	err := c.serve()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	return err
}

// stop makes the Serve calls return and later ServeConn calls fail, and returns
// what is left.
func (s *Server) stop() (conns []*serverConn, listeners []transport.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, cancel := range s.accepting {
		cancel()
	}
	for c := range s.conns {
		conns = append(conns, c)
	}
	for l := range s.listeners {
		listeners = append(listeners, l)
	}
	return conns, listeners
}

// Shutdown stops accepting connections and requests and waits until all
// requests are answered: it sends each client a GOAWAY that announces the end,
// and after a round trip one that says which requests will be answered (RFC
// 9114, Section 5.2). It returns ctx.Err() if that is done first; what goes on
// then is for Close to end. Streams that were taken from HTTP count as requests.
func (s *Server) Shutdown(ctx context.Context) error {
	conns, listeners := s.stop()
	refusing, stop := context.WithCancel(ctx)
	defer stop()
	var refused, wg sync.WaitGroup
	for _, l := range listeners {
		refused.Go(func() { s.refuse(refusing, l) }) // ends with refusing
	}
	for _, c := range conns {
		wg.Go(func() { c.shutdown(ctx) }) // ends soon after ctx, or with the connection
	}
	drained := make(chan struct{})
	go func() { // likewise
		wg.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-ctx.Done(): // a client that lets nothing be said to it does not delay this
	}
	stop()
	refused.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	// Not before: closing a listener may close the socket.
	return closeAll(listeners)
}

// refuse tells clients that connect while the server shuts down to go elsewhere.
func (s *Server) refuse(ctx context.Context, l transport.Listener) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		qc, err := l.Accept(ctx)
		if err != nil {
			return
		}
		c := s.newServerConn(qc)
		c.limit = 0
		conns.Go(func() { _ = c.serve() }) // ends with the connection
		conns.Go(func() {                  // ends with ctx or the connection
			defer context.AfterFunc(ctx, func() { c.qc.CloseWithError(ErrNoError, "") })()
			_ = c.send(func(codec codec) { codec.goAway(0) }) // an error ends the connection
			c.wait(ctx, nil, lingerTimeout)
			c.qc.CloseWithError(ErrNoError, "")
		})
	}
}

// Close ends all connections at once. It does not wait for handlers.
func (s *Server) Close() error {
	conns, listeners := s.stop()
	for _, c := range conns {
		c.qc.CloseWithError(ErrNoError, "server closed")
	}
	return closeAll(listeners)
}

func closeAll(listeners []transport.Listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// handlerOf returns what answers a request.
func (s *Server) handlerOf(req *http.Request) http.Handler {
	switch {
	case !s.DisableGeneralOptionsHandler && req.Method == http.MethodOptions && req.RequestURI == "*":
		return http.HandlerFunc(generalOptions)
	case s.Handler == nil:
		return http.DefaultServeMux
	}
	return s.Handler
}

// generalOptions answers what asks about the server as a whole.
//
// https://www.rfc-editor.org/rfc/rfc9110#section-9.3.7
func generalOptions(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "0") }

func (s *Server) logger() *slog.Logger {
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger
}

func (s *Server) maxHeaderBytes() uint64 {
	if s.MaxHeaderBytes <= 0 {
		return http.DefaultMaxHeaderBytes
	}
	return uint64(s.MaxHeaderBytes)
}

func (s *Server) maxStreams() int64 {
	if s.Transport != nil && s.Transport.MaxStreams > 0 {
		return s.Transport.MaxStreams
	}
	return defaultMaxStreams
}

func (s *Server) readHeaderTimeout() time.Duration { return cmp.Or(s.ReadHeaderTimeout, s.ReadTimeout) }

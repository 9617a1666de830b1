package allhttp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

// defaultAltSvcMaxAge is also what clients assume without "ma".
//
// https://www.rfc-editor.org/rfc/rfc7838#section-3.1
const defaultAltSvcMaxAge = 24 * time.Hour

// A Server answers requests over HTTP/1.1, HTTP/2 and HTTP/3 with one handler,
// on one port. Its fields must not be changed after the first call of a method.
// In timeouts zero means none, as in [http.Server].
type Server struct {
	// Engine runs QUIC. It must be set unless Versions are without HTTP3.
	Engine transport.Transport

	// Addr is where Listen listens, as "host:port"; empty means ":https". With
	// port 0 it takes one that is free for both TCP and UDP. Without a host it
	// listens on all addresses, of IPv4 and IPv6.
	Addr string

	// HTTP3Addr is where Listen listens for HTTP/3, if that is not Addr.
	HTTP3Addr string

	// PlainAddr, if not empty, is where Listen also listens for HTTP/1.1 and
	// HTTP/2 without TLS ("h2c", with prior knowledge); which of them, Versions
	// say. PlainHandler answers there, or Handler if that is nil.
	PlainAddr    string
	PlainHandler http.Handler

	// HTTP3Optional makes Listen go on without HTTP/3 if there is no socket for
	// it. The Logger is told.
	HTTP3Optional bool

	// Handler answers requests. If nil, http.DefaultServeMux does.
	Handler http.Handler

	// Versions are those that are served. Zero: all.
	Versions Versions

	// TLS configures TLS for all versions, each of which adds its name to the
	// protocols. HTTP/3 uses TLS 1.3 or later whatever its MinVersion. It must
	// have a certificate unless CertFile is set.
	TLS *tls.Config

	// CertFile and KeyFile name PEM files with the certificate's chain and its
	// key. They are read anew when they change; see [CertFiles].
	CertFile, KeyFile string

	// AltSvcMaxAge is how long clients shall remember that there is HTTP/3.
	// Default 24h; negative: they are not told.
	AltSvcMaxAge time.Duration

	// AltSvcPort is the UDP port that clients are told, if they reach it under
	// another number than the socket's.
	AltSvcPort int

	// Timeouts of requests and connections; see http.Server and http3.Server.
	ReadHeaderTimeout, ReadTimeout, WriteTimeout, IdleTimeout time.Duration

	// MaxHeaderBytes limits a request's head. Zero: http.DefaultMaxHeaderBytes.
	MaxHeaderBytes int

	// DisableGeneralOptionsHandler passes "OPTIONS *" requests to the Handler; see
	// http.Server.
	DisableGeneralOptionsHandler bool

	// HTTP2 configures HTTP/2.
	HTTP2 *http.HTTP2Config

	// QUIC configures QUIC connections, but for TLS, and Options their sockets.
	// Nil: the zero values do.
	QUIC    *transport.Config
	Options *transport.Options

	// Extensions are for protocols on HTTP/3, such as WebTransport.
	Extensions http3.Extensions

	// BaseContext returns the context that those of all requests derive from.
	// If nil, it is context.Background. ConnContext, if not nil, derives one for
	// a TCP connection from it, HTTP3ConnContext one for a HTTP/3 connection.
	//
	// http.ServerContextKey has the [http.Server] in the requests of all
	// versions, also of those that it does not serve itself.
	BaseContext      func() context.Context
	ConnContext      func(context.Context, net.Conn) context.Context
	HTTP3ConnContext func(context.Context, *http3.Conn) context.Context

	// Logger gets what goes wrong but is no request's affair, panics of
	// handlers, and what became of new certificates. Nil discards.
	Logger *slog.Logger

	altSvc   atomic.Pointer[string] // the field's value; nil: none
	draining atomic.Bool            // responses end their connections

	mu      sync.Mutex
	certs   *CertFiles // guarded by mu; nil until it is needed, or without CertFile
	running *running   // guarded by mu; nil before Serve
	closed  bool       // by Shutdown or Close; guarded by mu
}

// ListenAndServeTLS serves HTTP/1.1, HTTP/2 and HTTP/3 on addr, as
// http.ListenAndServeTLS serves the first two. It always returns an error.
func ListenAndServeTLS(engine transport.Transport, addr, certFile, keyFile string, handler http.Handler) error {
	s := &Server{Engine: engine, Addr: addr, CertFile: certFile, KeyFile: keyFile, Handler: handler}
	return s.ListenAndServe()
}

// ListenAndServe serves on the sockets of Listen.
func (s *Server) ListenAndServe() error {
	sockets, err := s.Listen()
	if err != nil {
		return err
	}
	return s.Serve(sockets)
}

// Listen opens the sockets that Addr and the other fields call for. If it cannot
// have them all, it opens none: the error is a [*ListenError].
func (s *Server) Listen() (*Sockets, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	sockets, err := s.listen()
	if err != nil {
		return nil, err
	}
	if s.PlainAddr != "" {
		l, err := net.Listen("tcp", s.PlainAddr)
		if err != nil {
			return nil, errors.Join(&ListenError{TCP: s.PlainAddr, Err: err}, sockets.Close())
		}
		sockets.Plain = append(sockets.Plain, l)
	}
	return sockets, nil
}

func (s *Server) listen() (*Sockets, error) {
	addr := cmp.Or(s.Addr, ":https")
	udpAddr := cmp.Or(s.HTTP3Addr, addr)
	sockets := new(Sockets)
	if s.Versions.tcp() && s.Versions.Has(HTTP3) && udpAddr == addr {
		l, pc, err := openPair(addr)
		if err == nil {
			sockets.TCP = append(sockets.TCP, l)
			sockets.UDP = append(sockets.UDP, pc)
			return sockets, nil
		}
		if e, ok := errors.AsType[*ListenError](err); !s.HTTP3Optional || ok && e.UDP == "" {
			return nil, err
		}
	}
	if s.Versions.tcp() {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, &ListenError{TCP: addr, Err: err}
		}
		sockets.TCP = append(sockets.TCP, l)
		if udpAddr == addr {
			udpAddr = l.Addr().String()
		}
	}
	if !s.Versions.Has(HTTP3) {
		return sockets, nil
	}
	pc, err := net.ListenPacket("udp", udpAddr)
	if err != nil {
		lerr := &ListenError{UDP: udpAddr, Err: err}
		if s.Versions.tcp() {
			lerr.TCP = addr
			if s.HTTP3Optional {
				s.logger().Warn("serving without HTTP/3", "error", lerr)
				return sockets, nil
			}
		}
		return nil, errors.Join(lerr, sockets.Close())
	}
	sockets.UDP = append(sockets.UDP, pc)
	return sockets, nil
}

func (s *Server) check() error {
	if err := s.Versions.check(); err != nil {
		return err
	}
	if s.Versions.Has(HTTP3) && s.Engine == nil {
		return errors.New("allhttp: Server.Engine is not set: HTTP/3 needs one")
	}
	if s.AltSvcPort < 0 || s.AltSvcPort > 65535 {
		return fmt.Errorf("allhttp: Server.AltSvcPort is %d", s.AltSvcPort)
	}
	return nil
}

func (s *Server) logger() *slog.Logger {
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger
}

func (s *Server) handler() http.Handler {
	if s.Handler == nil {
		return http.DefaultServeMux
	}
	return s.Handler
}

// answer has the handler answer a request over TCP.
func (s *Server) answer(h http.Handler, w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		// With HTTP/2, net/http makes a GOAWAY of it.
		w.Header().Set("Connection", "close")
	}
	if v := s.altSvc.Load(); v != nil && r.TLS != nil {
		w.Header()["Alt-Svc"] = []string{*v}
	}
	h.ServeHTTP(w, r)
}

// altSvcValue returns what clients are told, or nil.
func (s *Server) altSvcValue(udp []net.PacketConn) *string {
	age := cmp.Or(s.AltSvcMaxAge, defaultAltSvcMaxAge)
	if age < 0 || len(udp) == 0 {
		return nil
	}
	var services []string
	for _, pc := range udp {
		p := cmp.Or(s.AltSvcPort, port(pc.LocalAddr()))
		service := fmt.Sprintf(`%s=":%d"; ma=%d`, http3.ALPN, p, int64(age/time.Second))
		if p != 0 && !slices.Contains(services, service) {
			services = append(services, service)
		}
	}
	if services == nil {
		return nil
	}
	v := strings.Join(services, ", ")
	return &v
}

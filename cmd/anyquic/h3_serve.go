package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/internal/selfcert"
	"github.com/anyquic/anyquic/transport"
)

type h3ServeFlags struct {
	certificateConfig
	addr      string
	versions  string
	plain     string
	altPort   int
	earlyData bool
	noTests   bool
	accessLog bool
	asJSON    bool
	drain     time.Duration
	log       logConfig
}

func newH3Serve() *cobra.Command {
	f := h3ServeFlags{log: defaults().Log}
	cmd := &cobra.Command{
		Use:   "serve [DIR]",
		Short: "Serve a folder over HTTP/1.1, HTTP/2 and HTTP/3",
		Long: `Serve a folder over HTTP/1.1, HTTP/2 and HTTP/3, on one port for TCP and UDP.

Responses over TCP name the UDP port (Alt-Svc). What is outside of DIR is not
reached, by links neither; a folder without index.html is listed. Without --cert the
certificate is self-signed and made at start; files given are read again when they
change. Beside the files there are, unless --no-tests is given,

  /echo            what is sent to it, as it comes
  /echo-request    the request as JSON
  /stream-bytes/N  N bytes

SIGTERM and SIGINT let requests end, for --drain-timeout at most; a second signal
ends the program at once. SIGHUP reads the files of --cert and --key at once.

Sockets that systemd hands over (LISTEN_FDS) take the place of --addr: those for TCP
get HTTP/1.1 and HTTP/2 with TLS, those for UDP HTTP/3.`,
		Example: `  anyquic h3 serve . --addr localhost:8443
  anyquic h3 serve /srv/www --addr :443 --cert fullchain.pem --key key.pem
  anyquic h3 serve --http 3 --engine purego --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			return f.run(cmd, dir)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.addr, "addr", "localhost:8443", "where to listen, HOST:PORT, for TCP and UDP; port 0 takes a free one")
	fs.StringVar(&f.Cert, "cert", "", "PEM file with the certificate and its chain (default self-signed)")
	fs.StringVar(&f.Key, "key", "", "PEM file with its private key")
	fs.StringVar(&f.versions, "http", "auto", `versions to serve: "auto" for all, or of 1.1, 2 and 3 those with commas between`)
	fs.StringVar(&f.plain, "plain", "", "also listen here for HTTP/1.1 and HTTP/2 without TLS, HOST:PORT")
	fs.IntVar(&f.altPort, "alt-svc-port", 0, "UDP port to name to clients, if they reach it under another number")
	fs.BoolVar(&f.earlyData, "0rtt", false, "take requests with safe methods before the handshake is complete; they may be replays")
	fs.BoolVar(&f.noTests, "no-tests", false, "serve the files alone")
	fs.BoolVar(&f.accessLog, "access-log", false, "log each request")
	fs.BoolVar(&f.asJSON, "json", false, "print where it listens as a JSON object")
	fs.DurationVar(&f.drain, "drain-timeout", 30*time.Second, "how long requests may go on after a signal")
	fs.StringVar(&f.log.Level, "log-level", f.log.Level, "debug, info, warn or error")
	fs.StringVar(&f.log.Format, "log-format", f.log.Format, "text or json")
	return cmd
}

func (f *h3ServeFlags) run(cmd *cobra.Command, dir string) error {
	if _, err := f.log.level(); err != nil {
		return err
	}
	if (f.Cert == "") != (f.Key == "") {
		return errors.New("--cert and --key belong together")
	}
	versions, err := allhttp.ParseVersions(f.versions)
	if err != nil {
		return fmt.Errorf("--http: %w", err)
	}
	quic, err := engineOf(cmd)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(f.addr)
	if err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	cert, selfSigned, err := f.certificate(time.Now(), host)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()

	log := f.log.logger(cmd.ErrOrStderr())
	s := &allhttp.Server{
		Engine: quic, Addr: f.addr, PlainAddr: f.plain, Versions: versions, AltSvcPort: f.altPort,
		Handler: f.handler(root.FS(), quic, log),
		Logger:  log,
		// A client that says nothing must not keep a connection; one that
		// uploads or downloads may take its time.
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		QUIC: &transport.Config{EarlyData: f.earlyData},
	}
	if selfSigned {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	} else {
		s.CertFile, s.KeyFile = f.Cert, f.Key
	}
	sockets, err := f.listen(cmd, s)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	if !selfSigned { // otherwise it ends the program, as when a terminal goes
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
	}
	if err := f.announce(cmd.OutOrStdout(), quic, sockets, dir, versions, cert, selfSigned); err != nil {
		log.Warn("could not print where it listens", "error", err) // it serves all the same
	}
	return f.serve(cmd.Context(), s, sockets, hup, log)
}

// listen returns the sockets to serve on: those that the process was started with,
// or those of --addr and --plain.
func (f *h3ServeFlags) listen(cmd *cobra.Command, s *allhttp.Server) (*allhttp.Sockets, error) {
	sockets, err := inheritedSockets()
	switch {
	case err != nil:
		return nil, err
	case sockets == nil:
		return s.Listen()
	case cmd.Flags().Changed("addr") || f.plain != "":
		return nil, errors.Join(errors.New("--addr and --plain are not for a program that gets its sockets by LISTEN_FDS"), sockets.Close())
	}
	return sockets, nil
}

// serve answers until ctx is done, and then lets requests end. A signal from hup
// makes it read the certificate again.
func (f *h3ServeFlags) serve(ctx context.Context, s *allhttp.Server, sockets *allhttp.Sockets, hup <-chan os.Signal, log *slog.Logger) error {
	served := make(chan error, 1)
	go func() { served <- s.Serve(sockets) }() // ends with Shutdown or Close
	for ctx.Err() == nil {
		select {
		case err := <-served:
			return err
		case <-hup:
			_ = s.ReloadCertificate() // it is logged, unless Serve is about to read it
		case <-ctx.Done():
		}
	}
	log.Info("draining", "timeout", f.drain)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.drain)
	defer cancel()
	err := s.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("requests were still going on after --drain-timeout %v", f.drain)
	}
	err = errors.Join(err, s.Close())
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// An h3Listening is what --json prints.
type h3Listening struct {
	Engine   string   `json:"engine"`
	Dir      string   `json:"dir"`
	HTTP     string   `json:"http"` // versions
	URL      string   `json:"url"`
	Plain    string   `json:"plain,omitempty"` // URL without TLS
	Addrs    []string `json:"addrs"`
	CertHash string   `json:"certificate_sha256"`
	Self     bool     `json:"self_signed"`
}

func (f *h3ServeFlags) announce(w io.Writer, quic transport.Transport, sockets *allhttp.Sockets, dir string, versions allhttp.Versions, cert tls.Certificate, selfSigned bool) error {
	l := h3Listening{
		Engine: quic.Name(), Dir: dir, HTTP: versions.String(),
		CertHash: selfcert.Fingerprint(cert.Certificate[0]), Self: selfSigned,
	}
	for _, a := range sockets.Addrs() {
		l.Addrs = append(l.Addrs, a.Network()+" "+a.String())
	}
	host, _, _ := net.SplitHostPort(f.addr) // run has checked it
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	at := func(scheme string, a net.Addr) string {
		_, port, _ := net.SplitHostPort(a.String()) // a socket's has one
		return scheme + "://" + net.JoinHostPort(host, port) + "/"
	}
	switch {
	case len(sockets.TCP) > 0:
		l.URL = at("https", sockets.TCP[0].Addr())
	case len(sockets.UDP) > 0:
		l.URL = at("https", sockets.UDP[0].LocalAddr())
	}
	if len(sockets.Plain) > 0 {
		l.Plain = at("http", sockets.Plain[0].Addr())
	}
	if f.asJSON {
		return json.NewEncoder(w).Encode(l)
	}
	_, err := fmt.Fprintf(w, "%s serves %s with HTTP %s on %s\n", l.URL, dir, l.HTTP, l.Engine)
	if err == nil && l.Plain != "" {
		_, err = fmt.Fprintf(w, "%s without TLS\n", l.Plain)
	}
	if err == nil && selfSigned {
		_, err = fmt.Fprintf(w, "the certificate is self-signed, SHA-256 %s; try: anyquic h3 get --insecure %s\n", l.CertHash, l.URL)
	}
	return err
}

func (f *h3ServeFlags) handler(files fs.FS, quic transport.Transport, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServerFS(files))
	if !f.noTests {
		mux.HandleFunc("/echo", echo)
		mux.HandleFunc("/echo-request", func(w http.ResponseWriter, r *http.Request) { echoRequest(w, r, quic) })
		mux.HandleFunc("GET /stream-bytes/{n}", streamBytes)
	}
	if !f.accessLog {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		lw := &loggedWriter{ResponseWriter: w}
		mux.ServeHTTP(lw, r)
		log.Info("request", "proto", r.Proto, "method", r.Method, "uri", r.RequestURI, "remote", r.RemoteAddr,
			"status", max(lw.status, http.StatusOK), "bytes", lw.written, "took", time.Since(start))
	})
}

// A loggedWriter knows what was sent.
type loggedWriter struct {
	http.ResponseWriter
	status  int
	written int64
}

func (w *loggedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *loggedWriter) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *loggedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	return n, err
}

// echo sends the request's body back while it comes.
func echo(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // HTTP/1.1 alone needs it
	// What strangers send must not become a page of this site.
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return // the client has gone
			}
			if err := rc.Flush(); err != nil {
				return
			}
		}
		if err != nil {
			return // the end, or the client has gone
		}
	}
}

// An echoedRequest is what /echo-request answers.
type echoedRequest struct {
	Proto     string      `json:"proto"`
	Method    string      `json:"method"`
	Host      string      `json:"host"`
	Path      string      `json:"path"`
	Query     string      `json:"query"`
	Header    http.Header `json:"header"`
	Remote    string      `json:"remote"`
	Engine    string      `json:"engine,omitempty"` // of HTTP/3
	TLS       string      `json:"tls,omitempty"`
	ALPN      string      `json:"alpn,omitempty"`
	EarlyData bool        `json:"early_data"` // it may be a replay (RFC 8470)
}

func echoRequest(w http.ResponseWriter, r *http.Request, quic transport.Transport) {
	e := echoedRequest{
		Proto: r.Proto, Method: r.Method, Host: r.Host, Path: r.URL.Path, Query: r.URL.RawQuery,
		Header: r.Header, Remote: r.RemoteAddr, EarlyData: http3.Early(r),
	}
	if http3.ConnOf(w) != nil {
		e.Engine = quic.Name()
	}
	if r.TLS != nil {
		e.TLS, e.ALPN = tls.VersionName(r.TLS.Version), r.TLS.NegotiatedProtocol
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(e) // the client has gone
}

func streamBytes(w http.ResponseWriter, r *http.Request) {
	left, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err != nil || left < 0 {
		http.Error(w, "not a number of bytes: "+r.PathValue("n"), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(left, 10))
	for buf := make([]byte, 64<<10); left > 0; {
		n, err := w.Write(buf[:min(left, int64(len(buf)))])
		if err != nil {
			return // the client has gone
		}
		left -= int64(n)
	}
}

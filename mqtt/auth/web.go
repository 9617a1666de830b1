package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Web asks a web server who a client is, by POST of a JSON object:
//
//	{"client_id": "…", "username": "…", "password": "…", "remote": "192.0.2.1:4711",
//	 "carrier": "quic", "version": 5, "certificate": "common name, if verified"}
//
// The server answers 200 with another:
//
//	{"result": "allow" | "deny" | "ignore", "username": "…", "expires": 1767225600}
//
// username and expires (seconds since 1970) may be left out: then the user is
// the one of CONNECT, and the connection has no end. ignore passes the client on
// to the next of a [Chain]. Anything else is a failure of the server: the client
// is refused with Server unavailable (0x88). After several failures in a row the
// server is left alone for a while and clients are refused at once.
//
// A password that is not UTF-8 goes as "password_base64".
type Web struct {
	cfg    WebConfig                   // complete
	client atomic.Pointer[http.Client] // trusts what CAFile had last

	mu     sync.Mutex
	failed int       // in a row; guarded by mu
	until  time.Time // guarded by mu: the server is left alone
	trying bool      // guarded by mu: one call finds out whether it is back
}

// A WebConfig says how to reach the server.
type WebConfig struct {
	// URL is https, or http for a host on loopback.
	URL string
	// TLS verifies the server; nil: with the system's roots. InsecureSkipVerify is
	// refused.
	TLS *tls.Config
	// CAFile is a PEM file with the authorities to trust in place of TLS.RootCAs;
	// Reload reads it again. Empty: there is none.
	CAFile string
	// Timeout of one question: 3 s.
	Timeout time.Duration
	// MaxConns bounds the questions at once; those above it wait: 32.
	MaxConns int
	// Failures in a row after which the server is left alone for Rest: 5, 5 s.
	Failures int
	Rest     time.Duration
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 64 << 10

// NewWeb returns an authenticator that asks a server. It does not connect.
func NewWeb(cfg WebConfig) (*Web, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, errors.New("auth: the URL of the server cannot be parsed") // it may have a secret
	case u.Host == "":
		return nil, errors.New("auth: the URL of the server has no host: use https://HOST/PATH")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, errors.New("auth: http carries passwords in the clear: use https, or a server on loopback")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("auth: scheme %q: use https", u.Scheme)
	case cfg.TLS != nil && cfg.TLS.InsecureSkipVerify:
		return nil, errors.New("auth: the server must be verified: name its CA instead of InsecureSkipVerify")
	case cfg.Timeout < 0 || cfg.MaxConns < 0 || cfg.Failures < 0 || cfg.Rest < 0:
		return nil, errors.New("auth: a limit of WebConfig is negative")
	}
	or := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	or(&cfg.MaxConns, 32)
	or(&cfg.Failures, 5)
	if cfg.Timeout == 0 {
		cfg.Timeout = 3 * time.Second
	}
	if cfg.Rest == 0 {
		cfg.Rest = 5 * time.Second
	}
	w := &Web{cfg: cfg}
	client, err := w.newClient()
	if err != nil {
		return nil, err
	}
	w.client.Store(client)
	return w, nil
}

// newClient returns a client that trusts what is in the CAFile now.
func (w *Web) newClient() (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = w.cfg.TLS.Clone()
	t.MaxConnsPerHost, t.MaxIdleConnsPerHost = w.cfg.MaxConns, w.cfg.MaxConns
	t.MaxResponseHeaderBytes = maxAnswer
	if w.cfg.CAFile != "" {
		pem, err := readFile(w.cfg.CAFile)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("auth: %s: no PEM certificate in it", w.cfg.CAFile)
		}
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = new(tls.Config)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Transport: t, Timeout: w.cfg.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // passwords go to whom they are meant for
	}}, nil
}

// Reload reads the CAFile again. On an error the authorities stay as they were.
func (w *Web) Reload() error { return reload(w.PrepareReload()) }

// PrepareReload reads the CAFile and returns what puts it in force: the next question
// is asked on a new connection.
func (w *Web) PrepareReload() (commit func(), err error) {
	if w.cfg.CAFile == "" {
		return func() {}, nil
	}
	client, err := w.newClient()
	if err != nil {
		return nil, err
	}
	return func() { w.client.Swap(client).CloseIdleConnections() }, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// Close closes idle connections.
func (w *Web) Close() error {
	w.client.Load().CloseIdleConnections()
	return nil
}

type question struct {
	ClientID    string  `json:"client_id"`
	Username    *string `json:"username,omitempty"`
	Password    *string `json:"password,omitempty"`
	Binary      []byte  `json:"password_base64,omitempty"`
	Remote      string  `json:"remote,omitempty"`
	Carrier     string  `json:"carrier"`
	Version     int     `json:"version"`
	Certificate string  `json:"certificate,omitempty"`
}

type answer struct {
	Result   string  `json:"result"`
	Username *string `json:"username"`
	Expires  int64   `json:"expires"`
}

// Authenticate implements [broker.Authenticator].
func (w *Web) Authenticate(ctx context.Context, c *broker.Credentials) (broker.Identity, error) {
	if err := w.admit(time.Now()); err != nil {
		return broker.Identity{}, err
	}
	a, err := w.ask(ctx, c)
	w.done(ctx, time.Now(), err)
	if err != nil {
		return broker.Identity{}, err
	}
	switch a.Result {
	case "ignore":
		return broker.Identity{}, ErrNotMine
	case "deny":
		return broker.Identity{}, &broker.Denied{Code: packet.NotAuthorized, Reason: "denied by the web server"}
	}
	id := broker.Identity{Username: c.Client.Username}
	if a.Username != nil {
		id.Username = *a.Username
	}
	if a.Expires != 0 {
		id.Expires = time.Unix(a.Expires, 0)
	}
	return id, nil
}

// admit refuses a question while the server is left alone. When the time is over
// one question finds out whether it is back.
func (w *Web) admit(now time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed < w.cfg.Failures {
		return nil
	}
	if now.Before(w.until) || w.trying {
		return fmt.Errorf("auth: web server: left alone after %d failures in a row", w.failed)
	}
	w.trying = true
	return nil
}

// done notes how a question ended. That its client has gone says nothing of the server.
func (w *Web) done(ctx context.Context, now time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trying = false
	switch {
	case err == nil:
		w.failed = 0
	case errors.Is(ctx.Err(), context.Canceled):
	default:
		if w.failed++; w.failed >= w.cfg.Failures {
			w.until = now.Add(w.cfg.Rest)
		}
	}
}

func (w *Web) ask(ctx context.Context, c *broker.Credentials) (*answer, error) {
	q := question{ClientID: c.Client.ClientID, Carrier: string(c.Client.Carrier), Version: int(c.Client.Version)}
	if c.HasUsername {
		q.Username = &c.Client.Username
	}
	if c.Password != nil {
		if p := string(c.Password); string([]rune(p)) == p {
			q.Password = &p
		} else {
			q.Binary = c.Password
		}
	}
	if c.Client.Remote != nil {
		q.Remote = c.Client.Remote.String()
	}
	if t := c.Client.TLS; t != nil && len(t.VerifiedChains) > 0 {
		q.Certificate = t.VerifiedChains[0][0].Subject.CommonName
	}
	body, err := json.Marshal(q) //nolint:gosec // the password goes to whom it is meant for, verified
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("auth: web server: request cannot be made")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := w.client.Load().Do(req)
	if err != nil {
		return nil, fmt.Errorf("auth: web server: %w", withoutURL(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("auth: web server: %w", withoutURL(err))
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("auth: web server: answer above %d bytes", maxAnswer)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("auth: web server: status %d", resp.StatusCode)
	}
	a := new(answer)
	if err := json.Unmarshal(text, a); err != nil {
		return nil, errors.New("auth: web server: answer is not the JSON object that it should be")
	}
	switch a.Result {
	case "allow", "deny", "ignore":
		return a, nil
	}
	return nil, errors.New("auth: web server: result is none of allow, deny and ignore")
}

// withoutURL strips the URL, which may have a secret in it.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

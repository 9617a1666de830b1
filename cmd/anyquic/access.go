package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/anyquic/anyquic/mqtt/auth"
	"github.com/anyquic/anyquic/mqtt/broker"
)

// An accessConfig says who may use the broker, and for what.
type accessConfig struct {
	Users          string        `yaml:"users"` // file
	JWKS           string        `yaml:"jwks"`  // file
	JWTIssuer      string        `yaml:"jwt-issuer"`
	JWTAudience    string        `yaml:"jwt-audience"`
	JWTUser        string        `yaml:"jwt-user"`
	ClientCA       string        `yaml:"client-ca"` // file
	ClientName     string        `yaml:"client-name"`
	HTTP           string        `yaml:"auth-http"`    // URL
	HTTPCA         string        `yaml:"auth-http-ca"` // file
	ACL            string        `yaml:"acl"`          // file
	Timeout        time.Duration `yaml:"auth-timeout"`
	AllowAnonymous bool          `yaml:"allow-anonymous"`
	Checks         int           `yaml:"password-checks"` // 0: half of the processors
	Queue          int           `yaml:"password-queue"`
}

func (c *accessConfig) bind(fs *pflag.FlagSet) {
	fs.StringVar(&c.Users, "users", c.Users, `file with a line for each user, as "anyquic mqtt passwd" makes them`)
	fs.StringVar(&c.JWKS, "jwks", c.JWKS, "file with the public keys of JSON Web Tokens, which clients show as password or user name")
	fs.StringVar(&c.JWTIssuer, "jwt-issuer", c.JWTIssuer, "issuer (iss) that tokens must have")
	fs.StringVar(&c.JWTAudience, "jwt-audience", c.JWTAudience, "audience (aud) that tokens must have")
	fs.StringVar(&c.JWTUser, "jwt-user", c.JWTUser, "claim of a token that names the user")
	fs.StringVar(&c.ClientCA, "client-ca", c.ClientCA, "PEM file with the authorities whose certificates name clients, on TLS, HTTPS and QUIC")
	fs.StringVar(&c.ClientName, "client-name", c.ClientName, "what of a client's certificate is the user: cn, dns, uri or email")
	fs.StringVar(&c.HTTP, "auth-http", c.HTTP, "https URL to ask who a client is")
	fs.StringVar(&c.HTTPCA, "auth-http-ca", c.HTTPCA, "PEM file with the authorities to trust for --auth-http (default the system's)")
	fs.StringVar(&c.ACL, "acl", c.ACL, "file with the rules of who may publish and subscribe to what")
	fs.DurationVar(&c.Timeout, "auth-timeout", c.Timeout, "longest time to find out who a client is")
	fs.IntVar(&c.Checks, "password-checks", c.Checks, "processors that check passwords at the same time (default half of them)")
	fs.IntVar(&c.Queue, "password-queue", c.Queue, "passwords that may wait to be checked; more are refused with Server busy (0x89)")
	fs.BoolVar(&c.AllowAnonymous, "allow-anonymous", c.AllowAnonymous, "let clients in that show nothing; without users and the like, everyone, on any address")
}

// authenticates reports whether clients must say who they are.
func (c *accessConfig) authenticates() bool {
	return c.Users != "" || c.JWKS != "" || c.ClientCA != "" || c.HTTP != ""
}

// check refuses what does not fit together, and addresses that would open the
// broker to everyone without anybody having said so.
func (c *accessConfig) check(listen map[string]string) error {
	switch {
	case c.JWKS == "" && (c.JWTIssuer != "" || c.JWTAudience != ""):
		return errors.New("--jwt-issuer and --jwt-audience need --jwks")
	case c.HTTP == "" && c.HTTPCA != "":
		return errors.New("--auth-http-ca needs --auth-http")
	case c.Timeout <= 0:
		return errors.New("--auth-timeout must be more than 0")
	case c.Checks < 0 || c.Queue < 1:
		return errors.New("--password-checks must be 0 (half of the processors) or more, --password-queue 1 or more")
	case c.authenticates() || c.AllowAnonymous:
		return nil
	}
	for flag, addr := range listen {
		if addr == off || loopbackHost(addr) {
			continue
		}
		return fmt.Errorf("--%s %s: not on loopback, where anyone could connect, publish and subscribe. "+
			"Say who may: --users, --jwks, --client-ca or --auth-http; or --allow-anonymous for everyone", flag, addr)
	}
	return nil
}

// loopbackHost reports whether HOST:PORT is reached by this machine only. A name
// other than localhost may be anything.
func loopbackHost(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(strings.SplitN(host, "%", 2)[0])
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// An access is an accessConfig at work.
type access struct {
	chain   auth.Chain  // nil: nobody has to prove anything
	rules   *auth.Rules // nil: everything is allowed
	clients *clientCA   // nil: clients are not asked for certificates
	web     *auth.Web
	users   *auth.Users
}

// open reads the files.
func (c *accessConfig) open() (*access, error) {
	a := new(access)
	if c.ClientCA != "" {
		from, err := auth.ParseNameFrom(c.ClientName)
		if err != nil {
			return nil, fmt.Errorf("--client-name: %w", err)
		}
		if a.clients, err = openClientCA(c.ClientCA); err != nil {
			return nil, err
		}
		a.chain = append(a.chain, auth.Certificate{From: from})
	}
	if c.Users != "" {
		users, err := auth.OpenUsersLimited(c.Users, auth.UsersLimits{Checks: c.Checks, Waiting: c.Queue})
		if err != nil {
			return nil, fmt.Errorf("--users: %w", err)
		}
		a.chain, a.users = append(a.chain, users), users
	}
	if c.JWKS != "" {
		tokens, err := auth.OpenTokens(auth.TokensConfig{Keys: c.JWKS, Issuer: c.JWTIssuer, Audience: c.JWTAudience, User: c.JWTUser})
		if err != nil {
			return nil, fmt.Errorf("--jwks: %w", err)
		}
		a.chain = append(a.chain, tokens)
	}
	if c.HTTP != "" {
		var err error
		if a.web, err = auth.NewWeb(auth.WebConfig{URL: c.HTTP, Timeout: c.Timeout, CAFile: c.HTTPCA, TLS: &tls.Config{MinVersion: tls.VersionTLS12}}); err != nil {
			return nil, fmt.Errorf("--auth-http: %w", err)
		}
		a.chain = append(a.chain, a.web)
	}
	if c.ACL != "" {
		var err error
		if a.rules, err = auth.OpenRules(c.ACL); err != nil {
			return nil, fmt.Errorf("--acl: %w", err)
		}
	}
	switch {
	case len(a.chain) > 0 && c.AllowAnonymous:
		a.chain = append(a.chain, auth.Anonymous{})
	case len(a.chain) == 0 && a.rules != nil:
		// Rules must not believe what nobody has proven.
		a.chain = append(a.chain, auth.Anonymous{Everyone: true})
	}
	return a, nil
}

func readPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no PEM certificate in it", file)
	}
	return pool, nil
}

// guard sets what a broker asks.
func (a *access) guard(cfg *broker.Config, timeout time.Duration) {
	cfg.HookTimeout = timeout
	if a.chain != nil {
		cfg.Auth = a.chain
	}
	if a.rules != nil {
		cfg.ACL = a.rules
	}
}

// verify has clients asked for their certificates.
func (a *access) verify(cfg *tls.Config) {
	if a.clients != nil {
		a.clients.verify(cfg)
	}
}

// watch has reloads read what a was read from as well.
func (o *operations) watch(a *access) {
	o.access = a
	o.reloaders = append(o.reloaders, accessReloader{a, o})
}

// An accessReloader reads authorities, users, keys and rules again, all of them or
// nothing, and ends the subscriptions that the rules no longer allow.
type accessReloader struct {
	*access
	ops *operations
}

// reauthorizeTimeout bounds the time for which a reload holds up the next.
const reauthorizeTimeout = 10 * time.Second

// PrepareReload implements preparer.
func (r accessReloader) PrepareReload() (commit func(), err error) {
	users, err := r.chain.PrepareReload()
	if err != nil {
		return nil, err
	}
	if r.clients != nil {
		ca, err := r.clients.PrepareReload()
		if err != nil {
			return nil, err
		}
		others := users
		users = func() {
			others()
			ca()
		}
	}
	if r.rules == nil {
		return users, nil
	}
	rules, err := r.rules.PrepareReload()
	if err != nil {
		return nil, err
	}
	return func() {
		users()
		rules()
		ctx, cancel := context.WithTimeout(context.Background(), reauthorizeTimeout)
		defer cancel()
		n, err := r.ops.broker.Reauthorize(ctx)
		if err != nil {
			r.ops.log.Error("subscriptions were not all held against the new rules", "error", err)
		}
		if n > 0 {
			r.ops.log.Info("subscriptions that are no longer allowed have ended", "subscriptions", n)
		}
	}, nil
}

// Reload implements reloader.
func (r accessReloader) Reload() error {
	commit, err := r.PrepareReload()
	if err == nil {
		commit()
	}
	return err
}

func (a *access) close() {
	if a.web != nil {
		_ = a.web.Close()
	}
}

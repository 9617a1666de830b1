package client

import (
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/anyquic/anyquic/mqtt"
)

// A target is what a URL says.
type target struct {
	url     *url.URL
	carrier mqtt.Carrier
	host    string     // for certificates
	addr    string     // host:port
	dialer  LinkDialer // nil: the carrier is the client's own
}

// String returns the URL without its query, which may be a credential.
func (t *target) String() string {
	u := *t.url
	u.RawQuery, u.ForceQuery = "", false
	return u.String()
}

// schemes are those of the carriers that need no dialer.
var schemes = map[string]mqtt.Scheme{
	"mqtt":  {Carrier: mqtt.TCP, Port: "1883"},
	"tcp":   {Carrier: mqtt.TCP, Port: "1883"},
	"mqtts": {Carrier: mqtt.TLS, Port: "8883"},
	"ssl":   {Carrier: mqtt.TLS, Port: "8883"},
	"tls":   {Carrier: mqtt.TLS, Port: "8883"},
}

// dialers says which package of this module has the dialer for a scheme.
var dialers = map[string]string{
	"mqtt+quic": "mqttquic",
	"mqtt-quic": "mqttquic",
	"ws":        "mqttweb",
	"wss":       "mqttweb",
	"wss+h2":    "mqttweb",
	"wss+h3":    "mqttweb",
	"mqtt+wt":   "mqttweb",
}

// findScheme returns what URLs with a scheme look like, and who connects.
func findScheme(name string, given []LinkDialer) (mqtt.Scheme, LinkDialer, error) {
	for _, d := range given {
		if s, ok := d.Scheme(name); ok {
			return s, d, nil
		}
	}
	if s, ok := schemes[name]; ok {
		return s, nil, nil
	}
	if p, ok := dialers[name]; ok {
		return mqtt.Scheme{}, nil, fmt.Errorf("client: Config.Dialers must have a %s.Dialer for %s URLs", p, name)
	}
	return mqtt.Scheme{}, nil, fmt.Errorf("client: URL scheme %q is unknown (have mqtt and mqtts, and what is in Config.Dialers)", name)
}

// parseURL never repeats s in an error: it may contain a password.
func parseURL(s string, given []LinkDialer) (*target, error) {
	if s == "" {
		return nil, errors.New("client: URL is empty")
	}
	u, err := url.Parse(s)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return nil, fmt.Errorf("client: URL is not valid: %w", err)
	}
	sch, dialer, err := findScheme(u.Scheme, given)
	if err != nil {
		return nil, err
	}
	switch {
	case u.User != nil:
		return nil, errors.New("client: URL contains credentials: set Config.Username and Config.Password")
	case u.Opaque != "" || u.Hostname() == "":
		return nil, fmt.Errorf("client: URL has no host: want %s://host:port", u.Scheme)
	case u.Fragment != "":
		return nil, errors.New("client: URL has a fragment")
	case sch.Path == "" && u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("client: URL has a path, which %s has no place for", u.Scheme)
	case sch.Path == "" && (u.RawQuery != "" || u.ForceQuery):
		return nil, fmt.Errorf("client: URL has a query, which %s has no place for", u.Scheme)
	}
	t := &target{url: u, carrier: sch.Carrier, host: u.Hostname(), dialer: dialer}
	port := u.Port()
	if port == "" {
		port = sch.Port
	}
	t.addr = net.JoinHostPort(t.host, port)
	if u.Path == "" {
		u.Path = sch.Path
	}
	return t, nil
}

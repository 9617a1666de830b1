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
	host    string // for certificates
	addr    string // host:port
}

// String returns the URL without its query, which may be a credential.
func (t *target) String() string {
	u := *t.url
	u.RawQuery, u.ForceQuery = "", false
	return u.String()
}

type scheme struct {
	carrier mqtt.Carrier
	port    string
}

var schemes = map[string]scheme{
	"mqtt":      {mqtt.TCP, "1883"},
	"tcp":       {mqtt.TCP, "1883"},
	"mqtts":     {mqtt.TLS, "8883"},
	"ssl":       {mqtt.TLS, "8883"},
	"tls":       {mqtt.TLS, "8883"},
	"ws":        {mqtt.WebSocket, "80"},
	"wss":       {mqtt.WSS, "443"},
	"mqtt+quic": {mqtt.QUIC, "14567"},
	"mqtt-quic": {mqtt.QUIC, "14567"},
}

const knownSchemes = "mqtt, mqtts, ws, wss and mqtt+quic"

// defaultPath is the path of WebSocket URLs that have none.
const defaultPath = "/mqtt"

// parseURL never repeats s in an error: it may contain a password.
func parseURL(s string) (*target, error) {
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
	sch, ok := schemes[u.Scheme]
	if !ok {
		return nil, fmt.Errorf("client: URL scheme %q is unknown (have %s)", u.Scheme, knownSchemes)
	}
	ws := sch.carrier == mqtt.WebSocket || sch.carrier == mqtt.WSS
	switch {
	case u.User != nil:
		return nil, errors.New("client: URL contains credentials: set Config.Username and Config.Password")
	case u.Opaque != "" || u.Hostname() == "":
		return nil, fmt.Errorf("client: URL has no host: want %s://host:port", u.Scheme)
	case u.Fragment != "":
		return nil, errors.New("client: URL has a fragment")
	case !ws && u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("client: URL has a path, which %s has no place for", u.Scheme)
	case !ws && (u.RawQuery != "" || u.ForceQuery):
		return nil, fmt.Errorf("client: URL has a query, which %s has no place for", u.Scheme)
	}
	t := &target{url: u, carrier: sch.carrier, host: u.Hostname()}
	port := u.Port()
	if port == "" {
		port = sch.port
	}
	t.addr = net.JoinHostPort(t.host, port)
	if ws && u.Path == "" {
		u.Path = defaultPath
	}
	return t, nil
}

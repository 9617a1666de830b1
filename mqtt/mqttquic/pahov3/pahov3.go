// Package pahov3 gives programs built on Eclipse Paho's MQTT 3.1.1 client
// (github.com/eclipse/paho.mqtt.golang) MQTT over QUIC. One line of the options
// changes:
//
//	opts.SetCustomOpenConnectionFn(pahov3.Open(&mqttquic.Dialer{Transport: engine.Default()}))
//
// and the broker's URL becomes mqtt+quic://host:14567.
package pahov3

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/anyquic/anyquic/mqtt/mqttquic"
)

// Open returns a function for [paho.ClientOptions.SetCustomOpenConnectionFn]
// that dials mqtt+quic URLs with d. If d.TLS is nil, the TLSConfig of the
// options is used. An attempt is given up after the options' ConnectTimeout.
//
// The list of brokers may go on with mqtt, tcp, mqtts, tls or ssl, to fall back
// to TCP where UDP does not get through; these are dialled with the options'
// Dialer, without the proxies that paho takes from the environment. Other
// schemes are an error.
func Open(d *mqttquic.Dialer) paho.OpenConnectionFunc {
	return func(u *url.URL, opts paho.ClientOptions) (net.Conn, error) {
		ctx := context.Background()
		if opts.ConnectTimeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, opts.ConnectTimeout)
			defer cancel()
		}
		td := opts.Dialer
		if td == nil {
			td = &net.Dialer{}
		}
		if mqttquic.IsScheme(u.Scheme) {
			quic := *d
			if quic.TLS == nil {
				quic.TLS = opts.TLSConfig
			}
			return quic.DialURL(ctx, u)
		}
		switch strings.ToLower(u.Scheme) {
		case "mqtt", "tcp":
			return td.DialContext(ctx, "tcp", u.Host)
		case "mqtts", "ssl", "tls", "mqtt+ssl", "tcps":
			return (&tls.Dialer{NetDialer: td, Config: opts.TLSConfig}).DialContext(ctx, "tcp", u.Host)
		}
		return nil, fmt.Errorf("pahov3: URL scheme %q is not supported beside %q", u.Scheme, mqttquic.Scheme)
	}
}

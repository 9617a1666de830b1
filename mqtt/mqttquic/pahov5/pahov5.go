// Package pahov5 gives programs built on Eclipse Paho's MQTT 5 client
// (github.com/eclipse/paho.golang) MQTT over QUIC. One line of the
// configuration changes:
//
//	cfg.AttemptConnection = pahov5.Attempt(&mqttquic.Dialer{Transport: engine.Default()})
//
// and the server URLs become mqtt+quic://host:14567.
package pahov5

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/packets"

	"github.com/anyquic/anyquic/mqtt/mqttquic"
)

// Attempt returns a function for [autopaho.ClientConfig.AttemptConnection] that
// dials mqtt+quic URLs with d. If d.TLS is nil, the TlsCfg of the client's
// configuration is used.
//
// The list of server URLs may go on with mqtt, tcp, mqtts, tls or ssl, to fall
// back to TCP where UDP does not get through; these are dialled directly, without
// the proxies that paho takes from the environment. Other schemes are an error.
//
// An attempt is given up after the configuration's ConnectTimeout, which paho
// itself applies only to the connections that it dials.
func Attempt(d *mqttquic.Dialer) func(context.Context, autopaho.ClientConfig, *url.URL) (net.Conn, error) {
	return func(ctx context.Context, cfg autopaho.ClientConfig, u *url.URL) (net.Conn, error) {
		timeout := cfg.ConnectTimeout
		if timeout <= 0 {
			timeout = 10 * time.Second // what paho uses
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		c, err := dial(ctx, d, cfg.TlsCfg, u)
		if err != nil {
			return nil, err
		}
		// A packet may take several Writes, which paho keeps together on
		// connections that have a lock.
		return packets.NewThreadSafeConn(c), nil
	}
}

func dial(ctx context.Context, d *mqttquic.Dialer, tlsConf *tls.Config, u *url.URL) (net.Conn, error) {
	if mqttquic.IsScheme(u.Scheme) {
		quic := *d
		if quic.TLS == nil {
			quic.TLS = tlsConf
		}
		return quic.DialURL(ctx, u)
	}
	switch strings.ToLower(u.Scheme) {
	case "mqtt", "tcp", "":
		var td net.Dialer
		return td.DialContext(ctx, "tcp", u.Host)
	case "mqtts", "ssl", "tls", "mqtt+ssl", "tcps":
		td := tls.Dialer{Config: tlsConf}
		return td.DialContext(ctx, "tcp", u.Host)
	}
	return nil, fmt.Errorf("pahov5: URL scheme %q is not supported beside %q", u.Scheme, mqttquic.Scheme)
}

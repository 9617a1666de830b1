package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/anyquic/anyquic/mqtt"
)

// openLink connects to the server as the URL demands, up to the end of the
// carrier's handshake.
func (c *Client) openLink(ctx context.Context) (mqtt.Link, error) {
	if d := c.target.dialer; d != nil {
		u := *c.target.url
		return d.DialLink(ctx, &u, c.tlsConfig())
	}
	conn, err := c.dialConn(ctx)
	if err != nil {
		return nil, err
	}
	if c.target.carrier == mqtt.TCP {
		return mqtt.NewConnLink(conn, mqtt.TCP), nil
	}
	tc := tls.Client(conn, c.tlsConfig())
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return mqtt.NewConnLink(tc, mqtt.TLS), nil
}

func (c *Client) dialConn(ctx context.Context) (net.Conn, error) {
	if c.cfg.Dial != nil {
		u := *c.target.url
		return c.cfg.Dial(ctx, &u)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", c.target.addr)
}

func (c *Client) tlsConfig() *tls.Config {
	if c.cfg.TLS == nil {
		return &tls.Config{ServerName: c.target.host}
	}
	conf := c.cfg.TLS.Clone()
	if conf.ServerName == "" {
		conf.ServerName = c.target.host
	}
	return conf
}

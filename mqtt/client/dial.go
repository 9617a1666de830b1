package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/anyquic/anyquic/mqtt"
)

// open connects to the server as the URL demands, up to the end of the carrier's
// handshake.
func (c *Client) open(ctx context.Context, t *target) (mqtt.Link, error) {
	if d := t.dialer; d != nil {
		u := *t.url
		return d.DialLink(ctx, &u, c.tlsConfig(t))
	}
	conn, err := c.dialConn(ctx, t)
	if err != nil {
		return nil, err
	}
	if t.carrier == mqtt.TCP {
		return mqtt.NewConnLink(conn, mqtt.TCP), nil
	}
	tc := tls.Client(conn, c.tlsConfig(t))
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return mqtt.NewConnLink(tc, mqtt.TLS), nil
}

func (c *Client) dialConn(ctx context.Context, t *target) (net.Conn, error) {
	if c.cfg.Dial != nil {
		u := *t.url
		return c.cfg.Dial(ctx, &u)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", t.addr)
}

func (c *Client) tlsConfig(t *target) *tls.Config {
	if c.cfg.TLS == nil {
		return &tls.Config{ServerName: t.host}
	}
	conf := c.cfg.TLS.Clone()
	if conf.ServerName == "" {
		conf.ServerName = t.host
	}
	return conf
}

package mqttquic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/transport"
)

// Scheme is the scheme of the URLs that DialURL takes:
// mqtt+quic://host or mqtt+quic://host:port.
const Scheme = "mqtt+quic"

// IsScheme reports whether scheme names MQTT over QUIC: it is [Scheme], or
// "mqtt-quic" as clients of EMQX write it. Upper and lower case are the same.
func IsScheme(scheme string) bool {
	return strings.EqualFold(scheme, Scheme) || strings.EqualFold(scheme, "mqtt-quic")
}

// A Dialer connects to brokers over QUIC. Transport or Endpoint must be set, the
// zero values of the other fields are defaults; in durations negative means none.
// It must not be modified after use, and can be used from any goroutine.
type Dialer struct {
	// Transport is the QUIC engine. Each connection gets a UDP socket.
	Transport transport.Transport

	// Endpoint, if not nil, is the socket that all connections are dialled
	// from, instead of one each. It stays the caller's and must live as long
	// as they do.
	Endpoint transport.Endpoint

	// TLS is for DialConn and DialURL; DialLink is given its own. If nil, the
	// server is verified with the system's roots. NextProtos is replaced by
	// "mqtt", in a copy, and an empty ServerName by the host of the address.
	TLS *tls.Config

	// HandshakeTimeout bounds the handshake. Default 10s.
	HandshakeTimeout time.Duration

	// IdleTimeout ends a connection whose server cannot be reached any more.
	// Default 10m. The smaller value of the two sides counts.
	IdleTimeout time.Duration

	// KeepAlive is the time without a packet after which a PING is sent, so
	// that NATs on the way do not forget the connection. Default 25s; never
	// more than half of IdleTimeout.
	KeepAlive time.Duration

	// StreamWindow and ConnWindow limit, in bytes, what may arrive unread.
	// Default 1 MiB and 2 MiB.
	StreamWindow, ConnWindow int64

	// Sessions lets a connection resume a TLS session; the ClientSessionCache of
	// a tls.Config, which carriers share, is for TCP.
	Sessions transport.SessionCache

	// EarlyData lets DialLink return before the handshake, if Sessions has a
	// session, and what is written then travel with the first packets (0-RTT).
	// Whoever records them can send them again, and a server may let that take
	// effect: ours does not, by default. See [Link.Handshake].
	EarlyData bool

	// CongestionControl and QLog are those of [transport.Config].
	CongestionControl string
	QLog              func(connID []byte, client bool) io.WriteCloser
}

// Scheme says how URLs look that the Dialer connects to: those for which
// [IsScheme] is true.
func (d *Dialer) Scheme(name string) (mqtt.Scheme, bool) {
	return mqtt.Scheme{Carrier: mqtt.QUIC, Port: strconv.Itoa(Port)}, IsScheme(name)
}

// DialLink connects to the host of an mqtt+quic URL, of which nothing else
// counts, and completes the handshake, but for EarlyData. A nil tlsConf is the zero Config. The Link
// is a [*Link].
func (d *Dialer) DialLink(ctx context.Context, u *url.URL, tlsConf *tls.Config) (mqtt.Link, error) {
	c, err := d.dial(ctx, u.Host, tlsConf, d.EarlyData)
	if err != nil {
		return nil, err
	}
	return Wrap(c, false), nil
}

// DialConn connects to addr, host or host:port, opens the control stream and
// returns it as a net.Conn, for MQTT libraries that know nothing of QUIC.
//
// Its Close returns at once. In the background it ends the stream and waits for
// the broker to end it too, for a second at most, before it closes the
// connection: what was written last, usually a DISCONNECT, is not lost.
// The deadlines, addresses and errors are as net.Conn describes them.
func (d *Dialer) DialConn(ctx context.Context, addr string) (net.Conn, error) {
	c, err := d.dial(ctx, addr, d.TLS, false)
	if err != nil {
		return nil, err
	}
	s, err := c.OpenStream(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mqttquic: open control stream: %w", err), c.CloseWithError(0, ""))
	}
	return newConn(c, s), nil
}

// DialURL is DialConn to the host of an mqtt+quic URL. It ignores the user and
// the path: the former belong into the CONNECT packet.
func (d *Dialer) DialURL(ctx context.Context, u *url.URL) (net.Conn, error) {
	if !IsScheme(u.Scheme) {
		return nil, fmt.Errorf("mqttquic: URL scheme is %q, not %q", u.Scheme, Scheme)
	}
	return d.DialConn(ctx, u.Host)
}

func (d *Dialer) dial(ctx context.Context, addr string, tlsConf *tls.Config, early bool) (transport.Conn, error) {
	if d.Transport == nil && d.Endpoint == nil {
		return nil, errors.New("mqttquic: neither Transport nor Endpoint of the Dialer is set")
	}
	addr, err := withPort(addr)
	if err != nil {
		return nil, err
	}
	if tlsConf == nil {
		tlsConf = &tls.Config{}
	}
	tlsConf = tlsConf.Clone()
	tlsConf.NextProtos = []string{ALPN}
	tlsConf.ClientSessionCache = nil // Sessions is in its place
	cfg := &transport.Config{
		TLS:               tlsConf,
		HandshakeTimeout:  d.HandshakeTimeout,
		IdleTimeout:       orDefault(d.IdleTimeout, defaultIdleTimeout),
		KeepAlive:         orDefault(d.KeepAlive, clientKeepAlive),
		MaxStreams:        -1,
		MaxUniStreams:     -1,
		StreamWindow:      orDefault(d.StreamWindow, defaultStreamWindow),
		ConnWindow:        orDefault(d.ConnWindow, defaultConnWindow),
		Sessions:          d.Sessions,
		EarlyData:         early,
		CongestionControl: d.CongestionControl,
		QLog:              d.QLog,
	}
	capKeepAlive(cfg)
	var c transport.Conn
	if d.Endpoint != nil {
		c, err = dialFrom(ctx, d.Endpoint, addr, cfg)
	} else {
		c, err = transport.DialAddr(ctx, d.Transport, addr, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("mqttquic: %w", err)
	}
	return c, nil
}

// dialFrom is transport.DialAddr from an endpoint that exists. It sets the
// ServerName of cfg.TLS, which is the caller's own.
func dialFrom(ctx context.Context, ep transport.Endpoint, addr string, cfg *transport.Config) (transport.Conn, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, err
	}
	if cfg.TLS.ServerName == "" {
		cfg.TLS.ServerName = host
	}
	ips := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = append(ips, ip)
	} else if ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
		return nil, err
	}
	var errs []error
	for _, ip := range ips {
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip.Unmap(), uint16(port)))
		c, err := ep.Dial(ctx, to, cfg)
		if err == nil {
			return c, nil
		}
		errs = append(errs, fmt.Errorf("dial %s: %w", to, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// withPort adds the default port to a host: a name, an IPv4 address, or an IPv6
// address with or without brackets.
func withPort(addr string) (string, error) {
	if addr == "" {
		return "", errors.New("mqttquic: no host to dial")
	}
	host := addr
	if n := len(host); host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	} else if net.ParseIP(host) == nil {
		h, port, err := net.SplitHostPort(addr)
		switch {
		case err == nil && h == "":
			return "", fmt.Errorf("mqttquic: no host to dial in %q", addr)
		case err == nil && port != "":
			return addr, nil
		case err == nil:
			host = h
		default:
			var ae *net.AddrError
			if !errors.As(err, &ae) || ae.Err != "missing port in address" {
				return "", fmt.Errorf("mqttquic: %w", err)
			}
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(Port)), nil
}

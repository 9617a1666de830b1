package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// ListenAddr listens with t on a UDP address such as ":4433".
// Closing the Listener closes the socket and every connection on it.
func ListenAddr(t Transport, addr string, cfg *Config) (Listener, error) {
	ep, err := open(t, addr)
	if err != nil {
		return nil, err
	}
	l, err := ep.Listen(cfg)
	if err != nil {
		return nil, errors.Join(err, ep.Close())
	}
	return &ownListener{l, ep}, nil
}

// An ownListener closes its Endpoint too.
type ownListener struct {
	Listener
	ep Endpoint
}

func (l *ownListener) Close() error { return l.ep.Close() }

// DialAddr connects with t to a UDP address such as "example.com:443" from a
// new socket, which is closed with the Conn. The host's addresses are tried in
// turn until a handshake completes. If cfg.TLS has no ServerName, the host is
// used.
func DialAddr(ctx context.Context, t Transport, addr string, cfg *Config) (Conn, error) {
	if cfg == nil || cfg.TLS == nil {
		return nil, errors.New("transport: Config.TLS is not set")
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, err
	}
	if cfg.TLS.ServerName == "" {
		c := *cfg
		c.TLS = cfg.TLS.Clone()
		c.TLS.ServerName = host
		cfg = &c
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, ip := range ips {
		to, err := net.ResolveUDPAddr("udp", net.JoinHostPort(ip.Unmap().String(), strconv.Itoa(port)))
		if err != nil {
			return nil, err
		}
		c, err := dial(ctx, t, to, cfg)
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

func dial(ctx context.Context, t Transport, to *net.UDPAddr, cfg *Config) (Conn, error) {
	local := "0.0.0.0:0"
	if to.IP.To4() == nil {
		local = "[::]:0"
	}
	ep, err := open(t, local)
	if err != nil {
		return nil, err
	}
	c, err := ep.Dial(ctx, to, cfg)
	if err != nil {
		return nil, errors.Join(err, ep.Close())
	}
	// Ends with the connection. Close of the Conn does not wait for it: the
	// socket may outlive the Conn for the moment it takes to say goodbye.
	context.AfterFunc(c.Context(), func() { ep.Close() })
	return c, nil
}

func open(t Transport, addr string) (Endpoint, error) {
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	ep, err := t.Open(pc, nil)
	if err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	return ep, nil
}

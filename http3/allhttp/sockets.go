package allhttp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// portAttempts is how many ports are tried when any will do that is free for
// TCP and for UDP.
const portAttempts = 20

// Sockets are what a [Server] serves on. They may be opened by [Server.Listen],
// or elsewhere and handed in: each is optional, and there may be several of a
// kind. Server.Serve takes them over.
type Sockets struct {
	TCP   []net.Listener   // for TLS with HTTP/1.1 and HTTP/2
	UDP   []net.PacketConn // for HTTP/3
	Plain []net.Listener   // for HTTP/1.1 and HTTP/2 without TLS
}

// Addrs returns the addresses of the sockets, those for TCP first.
func (s *Sockets) Addrs() []net.Addr {
	var addrs []net.Addr
	for _, l := range s.TCP {
		addrs = append(addrs, l.Addr())
	}
	for _, pc := range s.UDP {
		addrs = append(addrs, pc.LocalAddr())
	}
	for _, l := range s.Plain {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}

// Close closes the sockets. After Server.Serve was called it is not needed.
func (s *Sockets) Close() error {
	var errs []error
	for _, l := range s.TCP {
		errs = append(errs, l.Close())
	}
	for _, pc := range s.UDP {
		errs = append(errs, pc.Close())
	}
	for _, l := range s.Plain {
		errs = append(errs, l.Close())
	}
	for i, err := range errs {
		if errors.Is(err, net.ErrClosed) {
			errs[i] = nil // as it is to be
		}
	}
	return errors.Join(errs...)
}

// FileSockets returns the sockets behind files that the process was started
// with, as by systemd (sd_listen_fds(3)): listening TCP or Unix sockets become
// TCP, datagram sockets UDP. It closes the files.
func FileSockets(files ...*os.File) (*Sockets, error) {
	s := new(Sockets)
	for _, f := range files {
		if err := errors.Join(s.addFile(f), f.Close()); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func (s *Sockets) addFile(f *os.File) error {
	pc, perr := net.FilePacketConn(f)
	if perr == nil {
		if _, ok := pc.(*net.UDPConn); !ok {
			return errors.Join(fmt.Errorf("allhttp: %s is a socket for packets, but not for UDP", f.Name()), pc.Close())
		}
		s.UDP = append(s.UDP, pc)
		return nil
	}
	l, lerr := net.FileListener(f)
	if lerr != nil {
		return fmt.Errorf("allhttp: %s is neither a listening TCP socket (%w) nor a UDP socket (%w)", f.Name(), lerr, perr)
	}
	s.TCP = append(s.TCP, l)
	return nil
}

// openPair listens on addr for TCP and on the same port for UDP.
func openPair(addr string) (net.Listener, net.PacketConn, error) {
	for attempt := 1; ; attempt++ {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, nil, &ListenError{TCP: addr, Err: err}
		}
		bound := l.Addr().String()
		pc, err := net.ListenPacket("udp", bound)
		if err == nil {
			return l, pc, nil
		}
		err = errors.Join(err, l.Close())
		if anyPort(addr) && attempt < portAttempts {
			continue // another program has this one for UDP
		}
		return nil, nil, &ListenError{TCP: bound, UDP: bound, Err: err}
	}
}

func anyPort(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	return err == nil && (port == "" || port == "0")
}

// A ListenError says which of a Server's sockets could not be opened.
type ListenError struct {
	TCP string // the address for TCP; empty if TCP is not served
	UDP string // the address for UDP; empty if it was not tried
	Err error
}

func (e *ListenError) Error() string {
	switch {
	case e.UDP == "":
		return fmt.Sprintf("allhttp: cannot listen on TCP %s: %v", e.TCP, e.Err)
	case e.TCP == "":
		return fmt.Sprintf("allhttp: cannot listen on UDP %s, which HTTP/3 needs: %v", e.UDP, e.Err)
	}
	return fmt.Sprintf("allhttp: cannot listen on UDP %s, which HTTP/3 needs beside TCP %s: %v", e.UDP, e.TCP, e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }

// port returns the port of a socket, or 0 if it has none.
func port(a net.Addr) int {
	_, p, err := net.SplitHostPort(a.String())
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		return 0
	}
	return n
}

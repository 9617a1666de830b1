package allhttp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/transport"
)

func TestOnePortServesThreeVersionsWithOneHandler(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		s := open(t, &allhttp.Server{Engine: e, Handler: answerProto})
		require.Len(t, s.addrs, 2)
		require.Equal(t, "tcp", s.addrs[0].Network())
		require.Equal(t, "udp", s.addrs[1].Network())
		require.Equal(t, s.addrs[0].String(), s.addrs[1].String())
		for _, proto := range []string{proto1, proto2, proto3} {
			resp, body := get(t, s.client(proto), s.url())
			require.Equal(t, proto, resp.Proto)
			require.Equal(t, proto, body)
		}
		require.Equal(t, s.addrs, s.srv.Addrs())
		require.NoError(t, s.srv.Close())
		require.Empty(t, s.srv.Addrs())
	})
}

// modes are the rows of feature H05.
func TestOnlyTheChosenVersionsAreServed(t *testing.T) {
	modes := map[allhttp.Versions][]string{
		0:                             {proto1, proto2, proto3},
		allhttp.HTTP1:                 {proto1},
		allhttp.HTTP2:                 {proto2},
		allhttp.HTTP3:                 {proto3},
		allhttp.HTTP1 | allhttp.HTTP2: {proto1, proto2},
		allhttp.HTTP1 | allhttp.HTTP3: {proto1, proto3},
		allhttp.HTTP2 | allhttp.HTTP3: {proto2, proto3},
		allhttp.HTTP1 | allhttp.HTTP2 | allhttp.HTTP3: {proto1, proto2, proto3},
	}
	engines(t, func(t *testing.T, e transport.Transport) {
		for versions, accepted := range modes {
			t.Run(fmt.Sprint(versions, uint8(versions)), func(t *testing.T) {
				srv := &allhttp.Server{Engine: e, Handler: answerProto, Versions: versions}
				if !versions.Has(allhttp.HTTP3) {
					srv.Engine = nil // it is not needed
				}
				s := open(t, srv)
				s.engine = e
				var networks []string
				for _, a := range s.addrs {
					networks = append(networks, a.Network())
				}
				require.Equal(t, versions.Has(allhttp.HTTP1) || versions.Has(allhttp.HTTP2), contains(networks, "tcp"))
				require.Equal(t, versions.Has(allhttp.HTTP3), contains(networks, "udp"))
				for _, proto := range []string{proto1, proto2, proto3} {
					if contains(accepted, proto) {
						resp, body := get(t, s.client(proto), s.url())
						require.Equal(t, proto, resp.Proto)
						require.Equal(t, proto, body)
						continue
					}
					c := s.client(proto)
					if proto == proto3 {
						tr := c.Transport.(*http3.Transport)
						tr.Config = &transport.Config{HandshakeTimeout: 100e6} // nobody may answer
					}
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url(), nil)
					require.NoError(t, err)
					resp, err := c.Do(req)
					if err == nil {
						resp.Body.Close()
						require.NotEqual(t, proto, resp.Proto)
						t.Fatalf("%s: got a response over %s", proto, resp.Proto)
					}
				}
			})
		}
	})
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func TestAltSvcNamesTheRealUDPPort(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		for name, c := range map[string]struct {
			srv  *allhttp.Server
			want string // %s: the UDP port; empty: no field
		}{
			"same port":    {&allhttp.Server{}, `h3=":%s"; ma=86400`},
			"other port":   {&allhttp.Server{HTTP3Addr: anyPort}, `h3=":%s"; ma=86400`},
			"mapped port":  {&allhttp.Server{AltSvcPort: 4430}, `h3=":4430"; ma=86400`},
			"max age":      {&allhttp.Server{AltSvcMaxAge: 60e9}, `h3=":%s"; ma=60`},
			"switched off": {&allhttp.Server{AltSvcMaxAge: -1}, ``},
			"no HTTP/3":    {&allhttp.Server{Versions: allhttp.HTTP1 | allhttp.HTTP2}, ``},
		} {
			t.Run(name, func(t *testing.T) {
				srv := c.srv
				srv.Engine, srv.Handler = e, answerProto
				s := open(t, srv)
				want := c.want
				if strings.Contains(want, "%s") {
					want = fmt.Sprintf(want, portOf(t, s.addrs[1]))
				}
				for _, proto := range []string{proto1, proto2} {
					resp, _ := get(t, s.client(proto), s.url())
					require.Equal(t, want, resp.Header.Get("Alt-Svc"), proto)
				}
				if name == "same port" {
					resp, _ := get(t, s.client(proto3), s.url())
					require.Empty(t, resp.Header.Get("Alt-Svc"), "who is there need not be told")
				}
			})
		}
	})
}

func TestAHandlersOwnAltSvcIsKept(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		s := open(t, &allhttp.Server{Engine: e, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Alt-Svc", "clear")
		})})
		for _, proto := range []string{proto1, proto2, proto3} {
			resp, _ := get(t, s.client(proto), s.url())
			require.Equal(t, []string{"clear"}, resp.Header["Alt-Svc"])
		}
	})
}

func TestAHandlerSeesTheSameWithEveryVersion(t *testing.T) {
	type key string
	engines(t, func(t *testing.T, e transport.Transport) {
		s := open(t, &allhttp.Server{
			Engine:      e,
			BaseContext: func() context.Context { return context.WithValue(background(), key("base"), "b") },
			ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return context.WithValue(ctx, key("conn"), "c") },
			HTTP3ConnContext: func(ctx context.Context, _ *http3.Conn) context.Context {
				return context.WithValue(ctx, key("conn"), "c")
			},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, isServer := r.Context().Value(http.ServerContextKey).(*http.Server)
				local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
				host, port, err := net.SplitHostPort(r.RemoteAddr)
				fmt.Fprintln(w, r.Method, r.Host, r.RequestURI, r.Header.Get("X-Some"), r.ProtoMajor, isServer, local,
					host, port != "", err, r.TLS.Version == tls.VersionTLS13, r.TLS.HandshakeComplete, r.TLS.ServerName,
					r.Context().Value(key("base")), r.Context().Value(key("conn")))
			}),
		})
		addr := s.addrs[0].String()
		for major, proto := range map[int]string{1: proto1, 2: proto2, 3: proto3} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url()+"/path?q=1", nil)
			require.NoError(t, err)
			req.Header.Set("X-Some", "thing")
			resp, err := s.client(proto).Do(req)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, fmt.Sprintln("GET", addr, "/path?q=1", "thing", major, true, addr,
				"127.0.0.1", true, nil, true, true, "localhost", "b", "c"), string(body))
		}
	})
}

// withUDP gives f UDP ports until it has found one whose number it can have for TCP
// too: any program on this host may take that at any time.
func withUDP(t *testing.T, f func(udp net.PacketConn) error) {
	t.Helper()
	var err error
	for range 20 {
		udp, uerr := net.ListenPacket("udp", anyPort)
		require.NoError(t, uerr)
		t.Cleanup(func() { udp.Close() })
		if err = f(udp); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	require.NoError(t, err)
}

func TestAPortThatIsTakenIsSaidWithBothSockets(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		var taken string
		var l net.Listener
		withUDP(t, func(udp net.PacketConn) (err error) {
			taken = udp.LocalAddr().String()
			_, err = (&allhttp.Server{Engine: e, Addr: taken}).Listen()
			var lerr *allhttp.ListenError
			require.ErrorAs(t, err, &lerr)
			if lerr.UDP == "" {
				return err // it did not come so far
			}
			require.ErrorContains(t, err, "cannot listen on UDP "+taken+", which HTTP/3 needs beside TCP "+taken+": ")
			require.ErrorContains(t, err, "address already in use")
			l, err = net.Listen("tcp", taken) // whose socket was given up
			return err
		})
		defer l.Close()

		_, err := (&allhttp.Server{Engine: e, Addr: taken}).Listen()
		require.ErrorContains(t, err, "cannot listen on TCP "+taken+": ")
		_, err = (&allhttp.Server{Engine: e, Addr: taken, Versions: allhttp.HTTP3}).Listen()
		require.ErrorContains(t, err, "cannot listen on UDP "+taken+", which HTTP/3 needs: ")
		_, err = (&allhttp.Server{Engine: e, Addr: anyPort, PlainAddr: taken}).Listen()
		require.ErrorContains(t, err, "cannot listen on TCP "+taken+": ")
	})
}

func TestAServerThatMayGoWithoutHTTP3SaysSoAndDoesNotAdvertiseIt(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		var s *site
		withUDP(t, func(udp net.PacketConn) (err error) {
			s, err = tryOpen(t, &allhttp.Server{Engine: e, Addr: udp.LocalAddr().String(), HTTP3Optional: true, Handler: answerProto})
			return err
		})
		require.Len(t, s.addrs, 1)
		resp, _ := get(t, s.client(proto2), s.url())
		require.Empty(t, resp.Header.Get("Alt-Svc"))
		require.Equal(t, 1, s.log.count("serving without HTTP/3"))
	})
}

func TestAnAddressWithoutHostIsServedWithIPv4AndIPv6(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("this host has no IPv6:", err)
	} else {
		l.Close()
	}
	engines(t, func(t *testing.T, e transport.Transport) {
		s := open(t, &allhttp.Server{Engine: e, Addr: ":0", Handler: answerProto})
		for _, host := range []string{"127.0.0.1", "::1"} {
			for _, proto := range []string{proto1, proto2, proto3} {
				_, body := get(t, s.client(proto), "https://"+net.JoinHostPort(host, portOf(t, s.addrs[0])))
				require.Equal(t, proto, body)
			}
		}
	})
}

func TestInheritedSocketsAreServed(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		var pc net.PacketConn
		var l net.Listener
		withUDP(t, func(udp net.PacketConn) (err error) {
			pc = udp
			l, err = net.Listen("tcp", udp.LocalAddr().String())
			return err
		})
		defer l.Close()
		lf, err := l.(*net.TCPListener).File()
		require.NoError(t, err)
		pf, err := pc.(*net.UDPConn).File()
		require.NoError(t, err)
		sockets, err := allhttp.FileSockets(lf, pf)
		require.NoError(t, err)
		require.NoError(t, l.Close())
		require.NoError(t, pc.Close())

		other := open(t, &allhttp.Server{Engine: e}) // for its certificates
		s := &site{T: t, engine: e, ca: other.ca, served: make(chan error, 1),
			srv: &allhttp.Server{Engine: e, TLS: other.srv.TLS, Handler: answerProto}}
		s.serve(sockets)
		for _, proto := range []string{proto1, proto2, proto3} {
			_, body := get(t, s.client(proto), s.url())
			require.Equal(t, proto, body)
		}
	})
}

func TestAFileThatIsNoSocketIsRefused(t *testing.T) {
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	_, err = allhttp.FileSockets(f)
	require.ErrorContains(t, err, "neither a listening TCP socket")
	require.ErrorIs(t, f.Close(), os.ErrClosed)
}

func TestPlainHTTPIsServedToo(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		s := open(t, &allhttp.Server{Engine: e, Handler: answerProto, PlainAddr: anyPort})
		for _, proto := range []string{proto1, proto2} {
			p := new(http.Protocols)
			p.SetHTTP1(proto == proto1)
			p.SetUnencryptedHTTP2(proto == proto2)
			tr := &http.Transport{Protocols: p}
			defer tr.CloseIdleConnections()
			resp, body := get(t, &http.Client{Transport: tr}, "http://"+s.addrs[2].String())
			require.Equal(t, proto, body)
			require.Empty(t, resp.Header.Get("Alt-Svc"), "without TLS it would not be worth a thing")
		}
	})
}

func TestAServerThatCannotWorkSaysWhy(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		for want, srv := range map[string]*allhttp.Server{
			"Server.Engine is not set": {},
			"no certificate":           {Engine: e},
			"both set":                 {Engine: e, CertFile: "x", TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}},
			"no-such-file":             {Engine: e, CertFile: "no-such-file", KeyFile: "no-such-file"},
			"HTTP/3 needs TLS 1.3":     {Engine: e, TLS: &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: make([]tls.Certificate, 1)}},
			"unknown Versions":         {Engine: e, Versions: 128},
			"AltSvcPort is 65536":      {Engine: e, AltSvcPort: 65536},
			"MaxUniStreams is 1":       {Engine: e, QUIC: &transport.Config{MaxUniStreams: 1}, TLS: &tls.Config{Certificates: make([]tls.Certificate, 1)}},
		} {
			srv.Addr = anyPort
			require.ErrorContains(t, srv.ListenAndServe(), want)
			require.Empty(t, srv.Addrs())
			require.NoError(t, srv.Close())
		}
		l, err := net.Listen("tcp", anyPort)
		require.NoError(t, err)
		srv := &allhttp.Server{Engine: e, Versions: allhttp.HTTP3}
		require.ErrorContains(t, srv.Serve(&allhttp.Sockets{TCP: []net.Listener{l}}), `Versions are "3"`)
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed, "what is refused is closed")
		require.ErrorContains(t, srv.Serve(new(allhttp.Sockets)), "no socket")
	})
}

func TestAClosedServerDoesNotServe(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		srv := &allhttp.Server{Engine: e, Addr: anyPort}
		require.NoError(t, srv.Shutdown(t.Context()))
		require.ErrorIs(t, srv.ListenAndServe(), http.ErrServerClosed)
	})
}

func TestASocketThatFailsEndsTheServer(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		srv := &allhttp.Server{Engine: e, Addr: anyPort, Handler: answerProto}
		cfg, err := allhttp.SelfSigned()
		require.NoError(t, err)
		srv.TLS = cfg
		sockets, err := srv.Listen()
		require.NoError(t, err)
		served := make(chan error, 1)
		go func() { served <- srv.Serve(sockets) }() // ends when the listener does
		require.NoError(t, sockets.TCP[0].Close())
		err = <-served
		require.ErrorIs(t, err, net.ErrClosed)
		require.NotErrorIs(t, err, http.ErrServerClosed)
		again, err := net.ListenPacket("udp", sockets.UDP[0].LocalAddr().String())
		require.NoError(t, err, "the UDP socket is closed too")
		require.NoError(t, again.Close())
	})
}

func TestVersionsAreReadAsTheyArePrinted(t *testing.T) {
	for v := range allhttp.Versions(8) {
		w, err := allhttp.ParseVersions(v.String())
		require.NoError(t, err)
		require.Equal(t, v.String(), w.String())
	}
	for _, s := range []string{"4", "1.1,", "h2c", "1.1 2"} {
		_, err := allhttp.ParseVersions(s)
		require.Error(t, err, s)
	}
}

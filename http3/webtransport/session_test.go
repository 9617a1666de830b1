package webtransport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// echo sends back what comes on a session's streams and in its datagrams, and on
// a stream of its own what comes on a unidirectional one. It ends with the session.
func echo(s *webtransport.Session) {
	ctx := s.Context()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			b, err := s.AcceptStream(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				io.Copy(b, b)
				b.Close()
			})
		}
	})
	wg.Go(func() {
		for {
			r, err := s.AcceptUniStream(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				w, err := s.OpenUniStream(ctx)
				if err != nil {
					return
				}
				io.Copy(w, r)
				w.Close()
			})
		}
	})
	for {
		p, err := s.ReceiveDatagram(ctx)
		if err != nil {
			break
		}
		s.SendDatagram(p)
	}
	wg.Wait()
}

// roundTrip sends a message on a new stream and reads it back.
func roundTrip(ctx context.Context, s *webtransport.Session, msg []byte) error {
	b, err := s.OpenStream(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var werr error
	wg.Go(func() { _, werr = b.WriteLast(msg) })
	got, err := io.ReadAll(b)
	wg.Wait()
	if err == nil && !bytes.Equal(got, msg) {
		err = fmt.Errorf("%d bytes came back of %d", len(got), len(msg))
	}
	return errors.Join(err, werr)
}

func TestStreamsAndDatagramsAreEchoed(t *testing.T) {
	simulate(t, func(w *world) {
		client, server := w.pair()
		go echo(server) // ends with the session
		large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		require.NoError(w, roundTrip(w.Context(), client, []byte("hello")))
		require.NoError(w, roundTrip(w.Context(), client, large))
		require.NoError(w, roundTrip(w.Context(), client, nil))

		out, err := client.OpenUniStream(w.Context())
		require.NoError(w, err)
		_, err = io.WriteString(out, "one way")
		require.NoError(w, err)
		require.NoError(w, out.Close())
		in, err := client.AcceptUniStream(w.Context())
		require.NoError(w, err)
		b, err := io.ReadAll(in)
		require.NoError(w, err)
		require.Equal(w, "one way", string(b))
		require.Same(w, client, in.Session())
		require.Same(w, client, out.Session())
		require.True(w, in.StreamID().Unidirectional() && in.StreamID().ServerInitiated())

		require.NoError(w, client.SendDatagram([]byte("unreliable")))
		b, err = client.ReceiveDatagram(w.Context())
		require.NoError(w, err)
		require.Equal(w, "unreliable", string(b))
		for { // until the server has found out as well that so much goes through
			require.NoError(w, client.SendDatagram(make([]byte, client.MaxDatagram())))
			if b, err = client.ReceiveDatagram(w.timeout(time.Second)); err == nil {
				break
			}
			require.ErrorIs(w, err, context.DeadlineExceeded)
		}
		require.NotEmpty(w, b)
		synctest.Wait() // MaxDatagram may grow
		var tooLarge *transport.DatagramTooLargeError
		require.ErrorAs(w, client.SendDatagram(make([]byte, 1<<16)), &tooLarge)
		require.Equal(w, client.MaxDatagram(), tooLarge.Max)
		require.NoError(w, client.Close())
		require.True(w, ended(w, server).Remote)
	})
}

func TestTheServerOpensStreamsToo(t *testing.T) {
	simulate(t, func(w *world) {
		client, server := w.pair()
		go echo(client) // ends with the session
		for i := range 5 {
			require.NoError(w, roundTrip(w.Context(), server, fmt.Appendf(nil, "message %d", i)))
		}
		require.NoError(w, server.SendDatagram([]byte("x")))
		b, err := server.ReceiveDatagram(w.Context())
		require.NoError(w, err)
		require.Equal(w, "x", string(b))
		require.NoError(w, server.Close())
	})
}

func TestFiftyStreamsAtOnceWithDatagramsBetween(t *testing.T) {
	simulateLink(t, transporttest.Link{Latency: oneWay, Loss: 0.01}, func(w *world) {
		client, server := w.pair()
		go echo(server) // ends with the session
		errs := make(chan error, 100)
		for i := range 50 {
			go func() { errs <- roundTrip(w.Context(), client, bytes.Repeat([]byte{byte(i)}, 20_000+i)) }()
			go func() {
				out, err := client.OpenUniStream(w.Context())
				if err == nil {
					_, err = out.WriteLast(bytes.Repeat([]byte{byte(i)}, 10_000+i))
				}
				errs <- err
			}()
			require.NoError(w, client.SendDatagram([]byte{byte(i)}))
		}
		seen := make(map[int]bool)
		for range 50 {
			in, err := client.AcceptUniStream(w.Context())
			require.NoError(w, err)
			b, err := io.ReadAll(in)
			require.NoError(w, err)
			require.Len(w, b, 10_000+int(b[0]))
			seen[int(b[0])] = true
		}
		require.Len(w, seen, 50)
		for range 100 {
			require.NoError(w, <-errs)
		}
		// Few packets may have had them all, and those may have been lost.
		_, err := client.ReceiveDatagram(w.timeout(time.Second))
		for err != nil {
			require.ErrorIs(w, err, context.DeadlineExceeded)
			require.NoError(w, client.SendDatagram([]byte("once more")))
			_, err = client.ReceiveDatagram(w.timeout(time.Second))
		}
		require.NoError(w, client.Close())
	})
}

func TestAnUrgentStreamComesFirst(t *testing.T) {
	simulateLink(t, transporttest.Link{Latency: oneWay, Rate: 4 << 20, Queue: 1 << 20}, func(w *world) {
		client, server := w.pair()
		send := func(p transport.Priority) {
			s, err := server.OpenUniStream(w.Context())
			require.NoError(w, err)
			s.SetPriority(p)
			require.Equal(w, p, s.Priority())
			go func() { s.WriteLast(make([]byte, 2<<20)) }() // ends with the session
		}
		send(transport.PriorityBackground)
		send(transport.PriorityHigh)
		finished := make(chan transport.StreamID, 2)
		for range 2 {
			in, err := client.AcceptUniStream(w.Context())
			require.NoError(w, err)
			go func() {
				n, err := io.Copy(io.Discard, in)
				require.NoError(w, err)
				require.EqualValues(w, 2<<20, n)
				finished <- in.StreamID()
			}()
		}
		first, second := <-finished, <-finished
		require.Greater(w, first, second, "the stream that was opened last")
		require.NoError(w, client.Close())
	})
}

func TestAStreamIsANetConn(t *testing.T) {
	simulate(t, func(w *world) {
		client, server := w.pair()
		b, err := client.OpenStream(w.Context())
		require.NoError(w, err)
		a, err := server.AcceptStream(w.Context())
		require.NoError(w, err, "the peer learns of a stream when it is opened")
		c1, c2 := b.NetConn(), a.NetConn()
		require.Equal(w, serverAddr, c1.RemoteAddr().String())
		require.Equal(w, serverAddr, c2.LocalAddr().String())
		require.Equal(w, c1.LocalAddr().String(), c2.RemoteAddr().String())
		require.Equal(w, serverAddr, a.LocalAddr().String())
		require.NoError(w, c1.SetDeadline(time.Now().Add(time.Second)))
		_, err = c1.Read(make([]byte, 1))
		require.ErrorIs(w, err, os.ErrDeadlineExceeded)
		require.NoError(w, c1.SetDeadline(time.Time{}))
		_, err = c2.Write([]byte("hi"))
		require.NoError(w, err)
		require.NoError(w, c2.Close())
		got, err := io.ReadAll(c1)
		require.NoError(w, err)
		require.Equal(w, "hi", string(got))
		require.NoError(w, c1.Close())
	})
}

func TestAStreamKeepsThePromisesOfNetConn(t *testing.T) {
	if testing.Short() {
		t.Skip("real time")
	}
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) { testNetConn(t, newLoopback(t, e)) })
	}
}

func testNetConn(t *testing.T, l *loopback) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		client, server := l.dial(t)
		b, err := client.OpenStream(t.Context())
		if err != nil {
			return nil, nil, nil, err
		}
		a, err := server.AcceptStream(t.Context())
		if err != nil {
			return nil, nil, nil, err
		}
		return b.NetConn(), a.NetConn(), func() {
			client.Close()
			<-client.Finished()
		}, nil
	})
}

func TestASessionIsATransportConn(t *testing.T) {
	// What runs on QUIC must not see a difference.
	simulate(t, func(w *world) {
		client, server := w.pair()
		c, s := client.TransportConn(), server.TransportConn()
		require.NoError(w, c.Handshake(w.Context()))
		require.True(w, s.State().HandshakeComplete)
		require.Equal(w, http3.ALPN, s.State().TLS.NegotiatedProtocol)
		synctest.Wait() // MaxDatagram may grow
		require.Equal(w, client.MaxDatagram(), c.State().MaxDatagram)
		require.NotZero(w, c.Stats().PacketsReceived)
		for range 2 {
			out, err := c.OpenStream(w.Context())
			require.NoError(w, err)
			_, err = out.Write([]byte("hello"))
			require.NoError(w, err)
			in, err := s.AcceptStream(w.Context())
			require.NoError(w, err)
			require.Equal(w, out.StreamID(), in.StreamID())
			got := make([]byte, 5)
			_, err = io.ReadFull(in, got)
			require.NoError(w, err)
			require.GreaterOrEqual(w, in.Stats().BytesRead, uint64(5))
			in.CancelRead(7)
			in.CancelWrite(8)
			_, err = out.Read(got)
			require.ErrorIs(w, err, &transport.StreamError{Code: 8})
			<-out.Context().Done()
			_, err = out.Write(got)
			require.ErrorIs(w, err, &transport.StreamError{Code: 7})
			var se *transport.StreamError
			require.ErrorAs(w, err, &se)
			require.True(w, se.Remote)
		}
		one, err := s.OpenUniStream(w.Context())
		require.NoError(w, err)
		require.NoError(w, one.Close())
		two, err := c.AcceptUniStream(w.Context())
		require.NoError(w, err)
		_, err = two.Read(make([]byte, 1))
		require.ErrorIs(w, err, io.EOF)
		require.NoError(w, c.SendDatagram([]byte("x")))
		_, err = s.ReceiveDatagram(w.Context())
		require.NoError(w, err)

		require.NoError(w, c.CloseWithError(1<<40, "too large a code"))
		<-s.Context().Done()
		var ae *transport.ApplicationError
		require.ErrorAs(w, context.Cause(s.Context()), &ae)
		require.Equal(w, transport.ApplicationError{Code: 1<<32 - 1, Reason: "too large a code", Remote: true}, *ae)
		for name, f := range calls(w.Context(), s) {
			err := f()
			require.ErrorIs(w, err, net.ErrClosed, name)
			require.ErrorIs(w, err, &transport.ApplicationError{Code: 1<<32 - 1}, name)
		}
	})
}

// calls are all calls on a session that fail after its end.
func calls(ctx context.Context, c transport.Conn) map[string]func() error {
	return map[string]func() error{
		"OpenStream":      func() error { _, err := c.OpenStream(ctx); return err },
		"OpenUniStream":   func() error { _, err := c.OpenUniStream(ctx); return err },
		"AcceptStream":    func() error { _, err := c.AcceptStream(ctx); return err },
		"AcceptUniStream": func() error { _, err := c.AcceptUniStream(ctx); return err },
		"SendDatagram":    func() error { return c.SendDatagram([]byte("x")) },
		"ReceiveDatagram": func() error { _, err := c.ReceiveDatagram(ctx); return err },
	}
}

func TestCallsObeyTheirContext(t *testing.T) {
	simulate(t, func(w *world) {
		client, _ := w.pair()
		for name, f := range map[string]func(context.Context) error{
			"AcceptStream":    func(ctx context.Context) error { _, err := client.AcceptStream(ctx); return err },
			"AcceptUniStream": func(ctx context.Context) error { _, err := client.AcceptUniStream(ctx); return err },
			"ReceiveDatagram": func(ctx context.Context) error { _, err := client.ReceiveDatagram(ctx); return err },
		} {
			require.ErrorIs(w, f(w.timeout(time.Second)), context.DeadlineExceeded, name)
		}
		var err error
		for err == nil { // as many as the server allows
			_, err = client.OpenStream(w.timeout(time.Second))
		}
		require.ErrorIs(w, err, context.DeadlineExceeded)
		for err = nil; err == nil; {
			_, err = client.OpenUniStream(w.timeout(time.Second))
		}
		require.ErrorIs(w, err, context.DeadlineExceeded)
		require.NoError(w, client.Close())
	})
}

func TestSeveralSessionsShareAConnection(t *testing.T) {
	simulate(t, func(w *world) {
		w.serve(&webtransport.Config{MaxSessions: 3}, nil)
		webtransport.ConfigureTransport(w.tr, nil)
		var clients, servers []*webtransport.Session
		for range 3 {
			c, s := w.dial(&webtransport.DialOptions{Pool: true})
			go echo(s) // ends with the session
			clients, servers = append(clients, c), append(servers, s)
		}
		require.Len(w, w.dialled, 1)
		_, err := webtransport.Dial(w.Context(), w.tr, site+"/", &webtransport.DialOptions{Pool: true})
		require.ErrorIs(w, err, webtransport.ErrSessionLimit)
		resp, err := (&http.Client{Transport: w.tr}).Get(site + "/hello")
		require.NoError(w, err)
		require.Equal(w, 200, resp.StatusCode)
		resp.Body.Close()
		require.Len(w, w.dialled, 1, "requests go beside")
		for i, c := range clients {
			require.NoError(w, roundTrip(w.Context(), c, fmt.Appendf(nil, "on session %d", i)))
			require.NoError(w, c.SendDatagram([]byte{byte(i)}))
			b, err := c.ReceiveDatagram(w.Context())
			require.NoError(w, err)
			require.Equal(w, []byte{byte(i)}, b)
		}
		require.NoError(w, clients[1].CloseWithError(5, "this one only"))
		require.EqualValues(w, 5, ended(w, servers[1]).Code)
		for _, i := range []int{0, 2} {
			require.NoError(w, roundTrip(w.Context(), clients[i], []byte("still here")))
		}
		<-clients[1].Finished()
		c, s := w.dial(&webtransport.DialOptions{Pool: true}) // in the free place
		require.Len(w, w.dialled, 1)
		require.NoError(w, c.Close())
		require.True(w, ended(w, s).Remote)
	})
}

func TestPoolingNeedsAConfiguredTransport(t *testing.T) {
	simulate(t, func(w *world) {
		w.serve(nil, nil)
		_, err := webtransport.Dial(w.Context(), w.tr, site+"/", &webtransport.DialOptions{Pool: true})
		require.ErrorContains(w, err, "ConfigureTransport was not called")
	})
}

func TestAThousandSessionsLeaveNothingBehind(t *testing.T) {
	// The bubble fails if a goroutine is left.
	for _, pool := range []bool{true, false} {
		t.Run(fmt.Sprintf("pooled %v", pool), func(t *testing.T) {
			rounds := 1000
			if !pool {
				rounds = 100 // each with a handshake
			}
			simulate(t, func(w *world) {
				w.serve(nil, nil)
				webtransport.ConfigureTransport(w.tr, nil)
				opts := &webtransport.DialOptions{Pool: pool}
				var last *http3.Conn
				for i := range rounds {
					c, s := w.dial(opts)
					b, err := c.OpenStream(w.Context())
					require.NoError(w, err)
					_, err = b.Write([]byte("x"))
					require.NoError(w, err)
					_, err = s.AcceptStream(w.Context())
					require.NoError(w, err)
					require.NoError(w, s.SendDatagram([]byte("x")))
					if i%2 == 0 {
						require.NoError(w, c.CloseWithError(uint32(i), "round"))
						require.EqualValues(w, i, ended(w, s).Code)
					} else {
						require.NoError(w, s.Close())
						require.Zero(w, ended(w, c).Code)
					}
					<-c.Finished()
					<-s.Finished()
					last = s.Conn()
				}
				if pool {
					require.Len(w, w.dialled, 1)
				}
				require.Zero(w, webtransport.Held(last))
			})
		})
	}
}

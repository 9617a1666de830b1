package mqttquic_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport"
)

func TestLinkSaysWhatCarriesIt(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		server, client, ss, cs := w.streams()
		for _, l := range []*mqttquic.Link{server, client} {
			require.Equal(w, mqtt.QUIC, l.Carrier())
			require.NoError(w, l.Handshake(w.Context()))
			require.NotNil(w, l.TLS())
			require.Equal(w, "mqtt", l.TLS().NegotiatedProtocol)
			require.True(w, l.TLS().HandshakeComplete)
			require.NoError(w, l.Context().Err())
			l.SetIdleTimeout(time.Second) // must not matter
		}
		require.Equal(w, mqtt.ControlStream, ss.ID())
		require.Equal(w, mqtt.ControlStream, cs.ID())
		require.Equal(w, clientAddr.String(), server.RemoteAddr().String())
		require.Equal(w, serverAddr.String(), client.RemoteAddr().String())
		require.Equal(w, serverAddr.String(), server.LocalAddr().String())
		require.Equal(w, serverAddr.String(), w.listener.Addr().String())
	})
}

func TestOtherApplicationProtocolsFailTheHandshake(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		for _, protos := range [][]string{{"h3"}, {"MQTT"}, {"mqtt-next", "h3"}} {
			conf := w.clientTLS.Clone()
			conf.NextProtos = protos
			_, err := w.endpoint.Dial(w.Context(), serverAddr, &transport.Config{TLS: conf})
			var pe *transport.ProtocolError
			require.ErrorAs(w, err, &pe)
			// RFC 9001, Section 8.1: CRYPTO_ERROR with no_application_protocol.
			require.EqualValues(w, 0x178, pe.Code)
		}
		// Nothing was accepted, and others still are.
		_, err := w.listener.Accept(w.within(time.Minute))
		require.ErrorIs(w, err, context.DeadlineExceeded)
		server, _ := w.link()
		require.Equal(w, "mqtt", server.TLS().NegotiatedProtocol)
	})
}

func TestClientThatNeverOpensAStreamHoldsUpNobody(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		silent, _ := w.link()
		start := time.Now()
		_, _, _, _ = w.streams() // another client
		require.Less(w, time.Since(start), 10*latency)

		_, err := silent.AcceptStream(w.within(10 * time.Second))
		require.ErrorIs(w, err, context.DeadlineExceeded)
		require.NoError(w, silent.Context().Err(), "the Link must live on until its owner closes it")
	})
}

func TestControlStreamIsTheFirstEvenIfAnotherHasData(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		server, client := w.link()
		control, err := client.OpenStream(w.Context())
		require.NoError(w, err)
		data, err := client.OpenStream(w.Context())
		require.NoError(w, err)
		_, err = data.Write([]byte("data"))
		require.NoError(w, err)

		first, err := server.AcceptStream(w.Context())
		require.NoError(w, err)
		require.Equal(w, mqtt.ControlStream, first.ID())
		second, err := server.AcceptStream(w.Context())
		require.NoError(w, err)
		require.Equal(w, mqtt.StreamID(4), second.ID())

		_, err = control.Write([]byte("control"))
		require.NoError(w, err)
		for s, want := range map[mqtt.Stream]string{first: "control", second: "data"} {
			b := make([]byte, len(want))
			_, err = io.ReadFull(s, b)
			require.NoError(w, err)
			require.Equal(w, want, string(b))
		}
	})
}

func TestCloseCodesReachThePeer(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		for _, code := range []mqtt.LinkCode{mqtt.LinkNormal, mqtt.LinkControlDown, mqtt.LinkOverloaded} {
			for _, fromServer := range []bool{true, false} {
				server, client := w.link()
				from, to := client, server
				if fromServer {
					from, to = server, client
				}
				require.NoError(w, from.CloseWithCode(code))
				require.NoError(w, from.CloseWithCode(99), "only the first call counts")
				<-to.Context().Done()
				var ae *transport.ApplicationError
				require.ErrorAs(w, context.Cause(to.Context()), &ae)
				require.Equal(w, transport.ErrorCode(code), ae.Code)
				require.True(w, ae.Remote, "%v, from server %v", ae, fromServer)
				_, err := server.AcceptStream(w.Context())
				require.ErrorIs(w, err, net.ErrClosed)
				_, err = client.OpenStream(w.Context())
				require.ErrorIs(w, err, net.ErrClosed)
			}
		}
	})
}

func TestOnlyTheClientOpensStreams(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		server, client := w.link()
		_, err := server.OpenStream(w.Context())
		require.ErrorIs(w, err, errors.ErrUnsupported)
		_, err = client.AcceptStream(w.Context())
		require.ErrorIs(w, err, errors.ErrUnsupported)
		// A server that tries all the same gets no credit for it.
		_, err = server.Conn().OpenStream(w.within(time.Minute))
		require.ErrorIs(w, err, context.DeadlineExceeded)
		require.NoError(w, server.Context().Err())
	})
}

func TestUniStreamsAndDatagramsAreRefusedAndTheLinkLives(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		conf := w.clientTLS.Clone()
		conf.NextProtos = []string{mqttquic.ALPN}
		c, err := w.endpoint.Dial(w.Context(), serverAddr, &transport.Config{TLS: conf, Datagrams: e.Features().Datagrams, IdleTimeout: time.Hour})
		require.NoError(w, err)
		server, err := w.listener.Accept(w.Context())
		require.NoError(w, err)

		_, err = c.OpenUniStream(w.within(time.Minute))
		require.ErrorIs(w, err, context.DeadlineExceeded)
		require.ErrorIs(w, c.SendDatagram(nil), errors.ErrUnsupported)
		s, err := c.OpenStream(w.Context())
		require.NoError(w, err)
		_, err = s.Write([]byte("x"))
		require.NoError(w, err)
		_, err = server.AcceptStream(w.Context())
		require.NoError(w, err)
	})
}

// A connection from a shared port may have been granted more than MQTT uses.
func TestWrappedConnIgnoresUniStreamsAndDatagrams(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		server, client := testcert.New(mqttquic.ALPN)
		ep, err := e.Open(w.socket(secondAddr), nil)
		require.NoError(w, err)
		defer ep.Close()
		ln, err := ep.Listen(&transport.Config{TLS: server, Datagrams: e.Features().Datagrams})
		require.NoError(w, err)
		c, err := w.endpoint.Dial(w.Context(), secondAddr, &transport.Config{TLS: client, Datagrams: e.Features().Datagrams})
		require.NoError(w, err)
		sc, err := ln.Accept(w.Context())
		require.NoError(w, err)
		link := mqttquic.Wrap(sc, true)

		u, err := c.OpenUniStream(w.Context())
		require.NoError(w, err)
		_, err = u.Write([]byte("ignored"))
		require.NoError(w, err)
		if e.Features().Datagrams {
			require.NoError(w, c.SendDatagram(nil)) // EMQX's clients probe a connection so
			require.NoError(w, c.SendDatagram([]byte("ignored")))
		}
		time.Sleep(time.Second) // virtual: everything has arrived
		s, err := c.OpenStream(w.Context())
		require.NoError(w, err)
		_, err = s.Write([]byte("x"))
		require.NoError(w, err)
		first, err := link.AcceptStream(w.Context())
		require.NoError(w, err)
		require.Equal(w, mqtt.ControlStream, first.ID())
		require.NoError(w, link.Context().Err())
	})
}

func TestStreamsAreReplenishedAsTheyClose(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		server, client := w.link()
		var open []mqtt.Stream
		for range 16 {
			s, err := client.OpenStream(w.Context())
			require.NoError(w, err)
			_, err = s.Write([]byte("x"))
			require.NoError(w, err)
			open = append(open, s)
		}
		_, err := client.OpenStream(w.within(time.Minute))
		require.ErrorIs(w, err, context.DeadlineExceeded)

		var accepted []mqtt.Stream
		for range open {
			s, err := server.AcceptStream(w.Context())
			require.NoError(w, err)
			accepted = append(accepted, s)
		}
		require.NoError(w, open[15].CloseWrite())
		_, err = io.ReadAll(accepted[15])
		require.NoError(w, err)
		require.NoError(w, accepted[15].CloseWrite())
		s, err := client.OpenStream(w.within(time.Minute))
		require.NoError(w, err)
		require.Equal(w, mqtt.StreamID(64), s.ID())
	})
}

func TestResetEndsBothDirectionsWithTheCode(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		server, client := w.link()
		for _, fromServer := range []bool{true, false} {
			cs, err := client.OpenStream(w.Context())
			require.NoError(w, err)
			_, err = cs.Write([]byte("x"))
			require.NoError(w, err)
			ss, err := server.AcceptStream(w.Context())
			require.NoError(w, err)
			from, to := cs, ss
			if fromServer {
				from, to = ss, cs
			} else {
				_, err := io.ReadFull(to, make([]byte, 1))
				require.NoError(w, err)
			}
			from.Reset(0x8E)
			var se *transport.StreamError
			_, err = to.Read(make([]byte, 1))
			require.ErrorAs(w, err, &se)
			require.Equal(w, transport.ErrorCode(0x8E), se.Code)
			require.True(w, se.Remote)
			time.Sleep(time.Second) // STOP_SENDING may have a packet of its own
			_, err = to.Write([]byte("y"))
			require.ErrorAs(w, err, &se)
			require.Equal(w, transport.ErrorCode(0x8E), se.Code)
			_, err = from.Read(make([]byte, 1))
			require.Error(w, err)
			_, err = from.Write([]byte("z"))
			require.Error(w, err)
			require.NoError(w, server.Context().Err())
		}
	})
}

// NanoSDK drops data that it receives together with FIN.
func TestServersLastPacketIsOnItsWayBeforeTheFIN(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		_, client, ss, cs := w.streams()
		_, err := ss.Write([]byte("last"))
		require.NoError(w, err)
		require.NoError(w, ss.CloseWrite())
		require.NoError(w, ss.CloseWrite())
		_, err = ss.Write([]byte("more"))
		require.ErrorIs(w, err, net.ErrClosed)

		b := make([]byte, 10)
		n, err := cs.Read(b)
		require.NoError(w, err)
		require.Equal(w, "last", string(b[:n]))
		arrived := time.Now()
		_, err = cs.Read(b)
		require.Equal(w, io.EOF, err)
		require.GreaterOrEqual(w, time.Since(arrived), 2*latency)
		require.Less(w, time.Since(arrived), time.Second)
		require.NoError(w, client.Context().Err())

		// The other direction lives on.
		_, err = cs.Write([]byte("still"))
		require.NoError(w, err)
		n, err = ss.Read(b)
		require.NoError(w, err)
		require.Equal(w, "still", string(b[:n]))
		require.NoError(w, cs.CloseWrite())
		_, err = ss.Read(b)
		require.Equal(w, io.EOF, err)
	})
}

func TestDeadlinesBoundReadAndWrite(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		_, _, ss, cs := w.streams()
		start := time.Now()
		require.NoError(w, ss.SetReadDeadline(start.Add(time.Second)))
		_, err := ss.Read(make([]byte, 1))
		require.ErrorIs(w, err, os.ErrDeadlineExceeded)
		require.Equal(w, time.Second, time.Since(start))

		// Nobody reads: the writer is pushed back when the window is full.
		require.NoError(w, cs.SetWriteDeadline(time.Now().Add(time.Minute)))
		n, err := cs.Write(make([]byte, 8<<20))
		require.ErrorIs(w, err, os.ErrDeadlineExceeded)
		require.Less(w, n, 3<<20)
	})
}

func TestRemoteAddrFollowsTheClientsNAT(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		server, _, ss, cs := w.streams()
		w.router.rebind(newNATAddr)
		buf := make([]byte, 1)
		for range 10 {
			_, err := cs.Write([]byte("x"))
			require.NoError(w, err)
			_, err = ss.Read(buf)
			require.NoError(w, err)
			_, err = ss.Write([]byte("y"))
			require.NoError(w, err)
			_, err = cs.Read(buf)
			require.NoError(w, err)
		}
		require.Equal(w, newNATAddr.String(), server.RemoteAddr().String())
		require.NoError(w, server.Context().Err())
	})
}

func TestRemoteAddrFollowsTheClientsMigration(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		server, client, ss, cs := w.streams()
		pc := w.socket(secondAddr)
		err := client.Conn().Migrate(w.Context(), pc)
		if !e.Features().Migration {
			require.ErrorIs(w, err, errors.ErrUnsupported)
			return
		}
		require.NoError(w, err)
		buf := make([]byte, 1)
		for range 10 {
			_, err := cs.Write([]byte("x"))
			require.NoError(w, err)
			_, err = ss.Read(buf)
			require.NoError(w, err)
		}
		synctest.Wait()
		time.Sleep(time.Second) // virtual: the server has validated the path
		require.Equal(w, secondAddr.String(), server.RemoteAddr().String())
		require.Equal(w, secondAddr.String(), client.LocalAddr().String())
		require.NoError(w, client.CloseWithCode(mqtt.LinkNormal))
	})
}

// MQTT's keep-alive decides when a client is dead: [MQTT-3.1.2-22].
func TestSilentClientIsKeptForAsLongAsItsHostAnswers(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		conf := w.clientTLS.Clone()
		conf.NextProtos = []string{mqttquic.ALPN}
		// A client without a timeout and without PINGs of its own.
		c, err := w.endpoint.Dial(w.Context(), serverAddr, &transport.Config{TLS: conf, IdleTimeout: -1, KeepAlive: -1})
		require.NoError(w, err)
		link, err := w.listener.Accept(w.Context())
		require.NoError(w, err)
		time.Sleep(24 * time.Hour) // virtual
		require.NoError(w, c.Context().Err())
		require.NoError(w, link.Context().Err())

		// And one that vanishes is noticed, even without an MQTT keep-alive.
		w.router.down.Store(true)
		start := time.Now()
		<-link.Context().Done()
		require.Equal(w, transport.ErrIdleTimeout, context.Cause(link.Context()))
		require.Greater(w, time.Since(start), 5*time.Minute)
		require.Less(w, time.Since(start), 15*time.Minute)
	})
}

// A stream that was reset says so to whoever has read ahead, and to others while a
// Read waits.
func TestAStreamSaysThatItIsAbandoned(t *testing.T) {
	for _, reads := range []bool{false, true} {
		for _, remote := range []bool{true, false} {
			simulate(t, nil, func(w *world, e transport.Transport) {
				_, _, ss, cs := w.streams()
				_, err := cs.Write([]byte("read ahead, and not"))
				require.NoError(w, err)
				b := make([]byte, len("read ahead"))
				_, err = io.ReadFull(ss, b)
				require.NoError(w, err)
				read := make(chan error, 1)
				if reads {
					_, err = io.ReadFull(ss, make([]byte, len(", and not")))
					require.NoError(w, err)
					go func() {
						_, err := ss.Read(b)
						read <- err
					}()
				}
				time.Sleep(4 * latency)
				require.NoError(w, ss.Abandoned())
				if remote {
					cs.Reset(5)
					time.Sleep(4 * latency)
				} else {
					ss.Reset(5)
				}
				var end *mqtt.StreamError
				require.ErrorAs(w, ss.Abandoned(), &end)
				require.EqualValues(w, 5, end.Code)
				require.Equal(w, remote, end.Remote)
				if reads {
					err = <-read
				} else {
					_, err = ss.Read(b)
				}
				require.ErrorAs(w, err, &end)
				require.Equal(w, remote, end.Remote)
			})
		}
	}
}

func TestAStreamThatHasEndedInOrderIsNotAbandoned(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		_, client, ss, cs := w.streams()
		require.NoError(w, cs.CloseWrite())
		_, err := ss.Read(make([]byte, 1))
		require.ErrorIs(w, err, io.EOF)
		require.NoError(w, ss.Abandoned())
		require.NoError(w, ss.CloseWrite())
		_, err = cs.Read(make([]byte, 1))
		require.ErrorIs(w, err, io.EOF)
		require.NoError(w, cs.Abandoned())
		require.NoError(w, client.CloseWithCode(mqtt.LinkNormal))
		time.Sleep(4 * latency)
		require.NoError(w, ss.Abandoned())
		require.NoError(w, cs.Abandoned())
	})
}

package faultlink_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/faultlink"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A place is a broker with a source of faults for some of its clients, in virtual time.
type place struct {
	*testing.T
	broker *broker.Broker
	faults *faultlink.Source
}

func newPlace(t *testing.T, cfg faultlink.Config) *place {
	t.Helper()
	b, err := broker.New(nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	s, err := faultlink.New(cfg)
	require.NoError(t, err)
	return &place{t, b, s}
}

// config returns that of a client, whose connections have faults if faulty.
func (p *place) config(id string, v packet.Version, faulty bool) *client.Config {
	return &client.Config{
		URL: "mqtt://broker.test", ClientID: id, Version: v, SessionExpiry: client.NeverExpires,
		Dial: func(context.Context, *url.URL) (net.Conn, error) {
			ours, theirs := net.Pipe()
			l := mqtt.NewConnLink(theirs, mqtt.TCP)
			if faulty {
				l = p.faults.Link(l)
			}
			go p.broker.ServeLink(context.Background(), l) // ends with the connection
			return ours, nil
		},
	}
}

func (p *place) dial(cfg *client.Config) *client.Client {
	p.Helper()
	for {
		c, err := client.Dial(p.Context(), cfg)
		if err == nil {
			p.Cleanup(func() { c.Close() })
			return c
		}
		// One attempt is the caller's, and that one may be refused too.
		var refused *client.ConnectError
		require.ErrorAs(p, err, &refused)
		require.Equal(p, packet.ServerUnavailable, refused.Code)
	}
}

func TestOurClientSurvivesEveryFault(t *testing.T) {
	sets := map[string][]faultlink.Fault{"all": faultlink.All}
	for _, f := range faultlink.All {
		sets[string(f)] = []faultlink.Fault{f}
	}
	for name, faults := range sets {
		for _, v := range []packet.Version{packet.V311, packet.V5} {
			for _, qos := range []packet.QoS{packet.AtLeastOnce, packet.ExactlyOnce} {
				t.Run(fmt.Sprintf("%s/%v/qos%d", name, v, qos), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						// A limit, because a server that sends again what one bad packet
						// in five is among never gets to the end of many.
						p := newPlace(t, faultlink.Config{Faults: faults, Rate: 0.2, Seed: 7, Limit: 200})
						survives(p, v, qos)
						for _, f := range faults {
							require.NotZero(t, p.faults.Happened()[f], "%s did not happen: %v", f, p.faults.Happened())
						}
					})
				})
			}
		}
	}
}

// survives has a client that faults happen to get messages until it has them
// all.
func survives(p *place, v packet.Version, qos packet.QoS) {
	const n, rounds = 200, 20
	var mu sync.Mutex
	got, early := make(map[string]int), 0
	all := make(chan struct{})
	handler := func(m *packet.Publish) {
		mu.Lock()
		defer mu.Unlock()
		if string(m.Payload) == string(faultlink.PublishBeforeSuback) {
			early++
			return
		}
		if got[string(m.Payload)]++; len(got) == n {
			close(all)
		}
	}
	cfg := p.config("sub", v, true)
	cfg.OnMessage = handler // the handler of a subscription is known when it has been asked for
	sub := p.dial(cfg)
	pub := p.dial(p.config("pub", v, false))
	// Each round connects anew and subscribes again.
	for range rounds {
		_, err := sub.Subscribe(p.Context(), handler, packet.Subscription{Filter: "t/+", QoS: qos})
		require.NoError(p, err)
		other := p.dial(p.config("other", v, true))
		require.NoError(p, other.Close())
	}
	for i := range n {
		_, err := pub.Publish(p.Context(), &packet.Publish{Topic: "t/1", Payload: fmt.Append(nil, i), QoS: qos})
		require.NoError(p, err)
		time.Sleep(100 * time.Millisecond)
	}
	select {
	case <-all:
	case <-time.After(24 * time.Hour): // of the bubble
		mu.Lock()
		defer mu.Unlock()
		require.Fail(p, "messages are missing", "%d of %d came; %v", len(got), n, p.faults.Happened())
	}
	mu.Lock()
	defer mu.Unlock()
	if qos == packet.ExactlyOnce {
		for payload, times := range got {
			require.Equal(p, 1, times, payload)
		}
	}
	require.EqualValues(p, p.faults.Happened()[faultlink.PublishBeforeSuback], early)
	require.NoError(p, sub.Err())
}

func TestTheSameSeedMakesTheSameFaults(t *testing.T) {
	run := func(seed uint64) (happened map[faultlink.Fault]uint64) {
		synctest.Test(t, func(t *testing.T) {
			p := newPlace(t, faultlink.Config{Faults: []faultlink.Fault{faultlink.SplitPackets}, Rate: 0.5, Seed: seed})
			c := p.dial(p.config("c", packet.V5, true))
			for range 100 {
				_, err := c.Publish(t.Context(), &packet.Publish{Topic: "t", QoS: 1})
				require.NoError(t, err)
			}
			require.NoError(t, c.Disconnect(t.Context()))
			happened = p.faults.Happened()
		})
		return happened
	}
	require.Equal(t, run(1), run(1))
	require.NotEqual(t, run(1), run(2))
}

func TestALimitEndsTheFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, faultlink.Config{Faults: []faultlink.Fault{faultlink.ErrorConnack}, Rate: 1, Limit: 2})
		for range 2 {
			_, err := client.Dial(t.Context(), p.config("c", packet.V5, true))
			require.Error(t, err)
		}
		p.dial(p.config("c", packet.V5, true))
	})
}

func TestFaultsAreNamedAndRatesAreChecked(t *testing.T) {
	got, err := faultlink.Parse("cut, short-publish")
	require.NoError(t, err)
	require.Equal(t, []faultlink.Fault{faultlink.Cut, faultlink.ShortPublish}, got)
	got, err = faultlink.Parse("all")
	require.NoError(t, err)
	require.Equal(t, faultlink.All, got)
	_, err = faultlink.Parse("cut,earthquake")
	require.ErrorContains(t, err, `"earthquake" (there are: publish-before-suback`)
	for _, cfg := range []faultlink.Config{{Rate: 1.1}, {Rate: -1}, {Limit: -1}, {Faults: []faultlink.Fault{"x"}}} {
		_, err := faultlink.New(cfg)
		require.Error(t, err)
	}
}

// FuzzTransparent checks that without faults every byte passes, however it is cut.
func FuzzTransparent(f *testing.F) {
	f.Add([]byte{0x30, 3, 0, 1, 't', 0xC0, 0, 0x90, 4, 0, 1, 0, 0}, uint8(3))
	f.Add([]byte{0x30, 0xFF, 0xFF, 0x7F, 1, 2, 3}, uint8(1))
	f.Add([]byte{0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3}, uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		var s pieces
		src, err := faultlink.New(faultlink.Config{Faults: []faultlink.Fault{faultlink.SplitPackets}, Rate: 0.5})
		require.NoError(t, err)
		l := src.Link(&s)
		stream, err := l.AcceptStream(t.Context())
		require.NoError(t, err)
		for rest := b; len(rest) > 0; {
			n := min(len(rest), 1+int(size))
			wrote, err := stream.Write(rest[:n])
			require.NoError(t, err)
			require.Equal(t, n, wrote)
			rest = rest[n:]
		}
		require.True(t, len(s.written) <= len(b) && string(s.written) == string(b[:len(s.written)]))
		require.Less(t, len(b)-len(s.written), 64<<10+5, "more is held back than one packet")
	})
}

// pieces is a Link and its stream, which remembers what was written.
type pieces struct {
	mqtt.Link
	mqtt.Stream
	written []byte
}

func (p *pieces) AcceptStream(context.Context) (mqtt.Stream, error) { return p, nil }
func (p *pieces) ID() mqtt.StreamID                                 { return 0 }
func (p *pieces) Write(b []byte) (int, error) {
	p.written = append(p.written, b...)
	return len(b), nil
}

func TestOurClientSaysWhatWasWrong(t *testing.T) {
	for fault, code := range map[faultlink.Fault]packet.ReasonCode{
		faultlink.ShortPublish: packet.MalformedPacket, faultlink.MalformedLength: packet.MalformedPacket,
		faultlink.ExcessiveLength: packet.PacketTooLarge, faultlink.Cut: 0,
	} {
		t.Run(string(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, faultlink.Config{Faults: []faultlink.Fault{fault}, Rate: 1})
				cfg := p.config("c", packet.V5, true)
				cfg.Reconnect.Disabled = true
				c := p.dial(cfg)
				_, err := c.Subscribe(t.Context(), nil, packet.Subscription{Filter: "t"})
				require.NoError(t, err)
				_, err = p.broker.Publish(t.Context(), &packet.Publish{Topic: "t", Payload: make([]byte, 100)})
				require.NoError(t, err)
				<-c.Done()
				if fault == faultlink.Cut {
					var lost *client.ConnectionError
					require.ErrorAs(t, c.Err(), &lost)
					return
				}
				var bad *client.ProtocolError
				require.ErrorAs(t, c.Err(), &bad)
				require.Equal(t, code, bad.Code)
				synctest.Wait()
				require.Equal(t, uint64(1), p.broker.Stats().Disconnects[code], "the server was told")
			})
		})
	}
}

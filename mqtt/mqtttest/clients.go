package mqtttest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// dialClient connects with package client and checks what carries it.
func (r *run) dialClient(cfg *client.Config) (*client.Client, *killer) {
	r.Helper()
	if r.broker == nil {
		r.start(nil)
	}
	r.target.Client(cfg)
	k := new(killer)
	k.watch(cfg)
	cfg.Reconnect.Min = 10 * time.Millisecond
	c, err := client.Dial(r.patient(), cfg)
	require.NoError(r, err)
	r.Cleanup(func() { _ = c.Close() })
	require.Equal(r, r.carrier.Kind, c.Carrier())
	require.Equal(r, r.carrier.Kind, c.Link().Carrier())
	r.checkTLS(c.TLS())
	return c, k
}

// A killer knows the network connection that a client dialled last, and cuts it.
type killer struct {
	mu  sync.Mutex
	cut func() error
}

func (k *killer) set(cut func() error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut = cut
}

func (k *killer) kill(t testing.TB) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.cut(); err != nil {
		require.ErrorIs(t, err, net.ErrClosed) // it is cut already
	}
}

// watch has cfg's connections dialled through k.
func (k *killer) watch(cfg *client.Config) {
	for i, d := range cfg.Dialers {
		cfg.Dialers[i] = &killerDialer{k, d}
	}
	cfg.Dial = func(ctx context.Context, u *url.URL) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", u.Host)
		if err == nil {
			k.set(c.Close)
		}
		return c, err
	}
}

type killerDialer struct {
	k *killer
	client.LinkDialer
}

func (d *killerDialer) DialLink(ctx context.Context, u *url.URL, tlsConf *tls.Config) (mqtt.Link, error) {
	l, err := d.LinkDialer.DialLink(ctx, u, tlsConf)
	if err == nil {
		d.k.set(func() error { return l.CloseWithCode(mqtt.LinkControlDown) })
	}
	return l, err
}

// patient is a context for what must happen.
func (r *run) patient() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.Cleanup(cancel)
	return ctx
}

// inbox collects messages. The broker's limits keep it small.
type inbox chan *packet.Publish

func (in inbox) handle(p *packet.Publish) { in <- client.Clone(p) }

func (in inbox) next(t testing.TB) *packet.Publish {
	t.Helper()
	select {
	case m := <-in:
		return m
	case <-time.After(patience):
		require.Fail(t, "no message")
		return nil
	}
}

var clientCases = []testCase{
	{"ClientPublishesAndSubscribesWithEveryQoS", func(r *run) {
		r.Attr("mqtt5", "both: MQTT-4.2.0-1")
		r.Attr("mqtt3.1.1", "both: MQTT-7.0.0-2 MQTT-7.1.1-1 MQTT-7.1.2-1")
		for _, v := range versions {
			sub, _ := r.dialClient(&client.Config{Version: v, ClientID: fmt.Sprint("sub", v), CleanStart: true})
			pub, _ := r.dialClient(&client.Config{Version: v, ClientID: fmt.Sprint("pub", v), CleanStart: true})
			in := make(inbox, 10)
			codes, err := sub.Subscribe(r.patient(), in.handle, packet.Subscription{Filter: "t/#", QoS: 2})
			require.NoError(r, err)
			require.Equal(r, []packet.ReasonCode{packet.GrantedQoS2}, codes)
			for q := packet.AtMostOnce; q <= packet.ExactlyOnce; q++ {
				_, err := pub.Publish(r.patient(), &packet.Publish{Topic: "t/x", Payload: fmt.Append(nil, "m", q), QoS: q})
				require.NoError(r, err)
				m := in.next(r)
				require.Equal(r, "t/x", m.Topic)
				require.Equal(r, fmt.Sprint("m", q), string(m.Payload))
				require.Equal(r, q, m.QoS)
			}
			require.NoError(r, pub.Disconnect(r.patient()))
			require.NoError(r, sub.Disconnect(r.patient()))
		}
	}},
	{"ClientLosesNothingWhenConnectionsAreKilled", func(r *run) { // QoS 2: exactly once, in order
		var mu sync.Mutex
		var got []string
		done := make(chan struct{})
		const n = 200
		sub, killSub := r.dialClient(&client.Config{ClientID: "sub", SessionExpiry: time.Hour})
		_, err := sub.Subscribe(r.patient(), func(p *packet.Publish) {
			mu.Lock()
			defer mu.Unlock()
			if got = append(got, string(p.Payload)); len(got) == n {
				close(done)
			}
		}, packet.Subscription{Filter: "t", QoS: 2})
		require.NoError(r, err)
		pub, killPub := r.dialClient(&client.Config{ClientID: "pub", SessionExpiry: time.Hour})
		var acks sync.WaitGroup
		errs := make(chan error, n)
		for i := range n {
			acks.Add(1)
			err := pub.PublishAsync(r.patient(), &packet.Publish{Topic: "t", Payload: fmt.Append(nil, i), QoS: 2}, func(err error) {
				errs <- err
				acks.Done()
			})
			require.NoError(r, err)
			switch i {
			case n / 4, n / 2:
				killPub.kill(r)
			case n / 3, 2 * n / 3:
				killSub.kill(r)
			}
		}
		select {
		case <-done:
		case <-time.After(patience):
			mu.Lock()
			defer mu.Unlock()
			require.Failf(r, "lost", "%d of %d messages arrived", len(got), n)
		}
		acks.Wait()
		close(errs)
		for err := range errs {
			require.NoError(r, err)
		}
		require.NoError(r, pub.Disconnect(r.patient()))
		require.NoError(r, sub.Disconnect(r.patient())) // no handler runs after it
		mu.Lock()
		defer mu.Unlock()
		require.Len(r, got, n, "a message arrived twice")
		for i, payload := range got {
			require.Equal(r, fmt.Sprint(i), payload)
		}
		require.GreaterOrEqual(r, r.broker.Stats().Connections[r.carrier.Kind].Total, uint64(4), "no connection was killed")
	}},
	{"ClientThatIsLostLeavesItsWill", func(r *run) {
		w := r.watcher()
		c, _ := r.dialClient(&client.Config{ClientID: "c", CleanStart: true, Will: &packet.Will{Topic: "will", Payload: []byte("gone"), QoS: 1}})
		require.NoError(r, c.Close())
		w.message("will", "gone")
	}},
	{"ClientThatDisconnectsLeavesNoWill", func(r *run) {
		w := r.watcher()
		c, _ := r.dialClient(&client.Config{ClientID: "c", CleanStart: true, Will: &packet.Will{Topic: "will", Payload: []byte("gone"), QoS: 1}})
		require.NoError(r, c.Disconnect(r.patient()))
		w.noWill()
	}},
	{"ClientLearnsWhyItWasDisconnected", func(r *run) {
		reasons := make(chan error, 1)
		c, _ := r.dialClient(&client.Config{ClientID: "c", CleanStart: true, OnDisconnect: func(err error) { reasons <- err }})
		r.client("c") // takes over
		select {
		case err := <-reasons:
			var d *client.DisconnectError
			require.ErrorAs(r, err, &d)
			require.Equal(r, packet.SessionTakenOver, d.Code)
		case <-time.After(patience):
			require.Fail(r, "the client was not told")
		}
		<-c.Done() // it does not fight for the session
	}},
	{"ClientLearnsWhatWasRefused", func(r *run) {
		c, _ := r.dialClient(&client.Config{ClientID: "c", CleanStart: true})
		_, err := c.Subscribe(r.patient(), func(*packet.Publish) {}, packet.Subscription{Filter: "t", QoS: 1})
		require.NoError(r, err)
		codes, err := c.Unsubscribe(r.patient(), "t")
		require.NoError(r, err)
		require.Equal(r, []packet.ReasonCode{packet.Success}, codes)
	}},
	{"ClientsLargeMessageArrives", func(r *run) {
		sub, _ := r.dialClient(&client.Config{ClientID: "sub", CleanStart: true})
		pub, _ := r.dialClient(&client.Config{ClientID: "pub", CleanStart: true})
		in := make(inbox, 1)
		_, err := sub.Subscribe(r.patient(), in.handle, packet.Subscription{Filter: "t", QoS: 1})
		require.NoError(r, err)
		payload := make([]byte, 900_000)
		for i := range payload {
			payload[i] = byte(i % 251)
		}
		_, err = pub.Publish(r.patient(), &packet.Publish{Topic: "t", Payload: payload, QoS: 1})
		require.NoError(r, err)
		require.True(r, string(payload) == string(in.next(r).Payload), "the payload differs")
	}},
}

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A track is a LinkDialer whose schemes are lanes of a race: each takes its time and
// then connects to the listener or fails.
type track struct {
	l     *listener
	lanes map[string]*lane
}

type lane struct {
	takes   time.Duration // negative: for ever
	err     error
	deaf    bool // it connects, and completes in spite of a context that has ended
	started atomic.Int32
	links   atomic.Int32 // that are open
}

func (*track) Scheme(name string) (mqtt.Scheme, bool) {
	return mqtt.Scheme{Carrier: mqtt.Carrier(name), Port: "1"}, len(name) == 1
}

func (tr *track) DialLink(ctx context.Context, u *url.URL, _ *tls.Config) (mqtt.Link, error) {
	la := tr.lanes[u.Scheme]
	la.started.Add(1)
	if la.takes < 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	done := ctx.Done()
	if la.deaf {
		done = nil
	}
	select {
	case <-time.After(la.takes):
	case <-done:
		return nil, ctx.Err()
	}
	if la.err != nil {
		return nil, la.err
	}
	conn, err := tr.l.dial(ctx, u)
	if err != nil {
		return nil, err
	}
	la.links.Add(1)
	return &countedLink{mqtt.NewConnLink(conn, mqtt.Carrier(u.Scheme)), la}, nil
}

type countedLink struct {
	mqtt.Link
	lane *lane
}

func (l *countedLink) CloseWithCode(code mqtt.LinkCode) error {
	l.lane.links.Add(-1)
	return l.Link.CloseWithCode(code)
}

func raced(t *testing.T, lanes map[string]*lane) (*Config, *listener) {
	l := newListener(t, packet.V5)
	cfg := l.config()
	cfg.Dialers = []LinkDialer{&track{l, lanes}}
	cfg.URL, cfg.URLs = "q://s", []string{"t://s", "w://s"}
	return cfg, l
}

func TestTheFirstURLThatIsThereWinsAndAloneSendsCONNECT(t *testing.T) {
	const ms = time.Millisecond
	for name, tc := range map[string]struct {
		q, t, w *lane
		winner  string
		after   time.Duration
		started [3]int32
	}{
		"the first is fast":            {&lane{takes: 200 * ms}, &lane{}, &lane{}, "q", 200 * ms, [3]int32{1, 0, 0}},
		"UDP is blocked":               {&lane{takes: -1}, &lane{takes: 50 * ms}, &lane{}, "t", 350 * ms, [3]int32{1, 1, 0}},
		"it fails at once":             {&lane{err: errors.New("refused")}, &lane{takes: 50 * ms}, &lane{}, "t", 50 * ms, [3]int32{1, 1, 0}},
		"only the last works":          {&lane{takes: -1}, &lane{takes: -1}, &lane{takes: 50 * ms}, "w", 650 * ms, [3]int32{1, 1, 1}},
		"the first is slow, not dead":  {&lane{takes: 400 * ms}, &lane{takes: 500 * ms}, &lane{}, "q", 400 * ms, [3]int32{1, 1, 0}},
		"a loser completes afterwards": {&lane{takes: 400 * ms, deaf: true}, &lane{takes: 50 * ms}, &lane{}, "t", 350 * ms, [3]int32{1, 1, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg, l := raced(t, map[string]*lane{"q": tc.q, "t": tc.t, "w": tc.w})
				start := time.Now()
				c, err := New(cfg)
				require.NoError(t, err)
				require.Equal(t, mqtt.Carrier("q"), c.Carrier())
				p, _ := l.accepted(&packet.Connack{})
				after(t, tc.after, start)
				require.Equal(t, mqtt.Carrier(tc.winner), c.Carrier())
				time.Sleep(time.Second) // virtual
				require.Equal(t, tc.started, [3]int32{tc.q.started.Load(), tc.t.started.Load(), tc.w.started.Load()})
				require.EqualValues(t, 1, tc.q.links.Load()+tc.t.links.Load()+tc.w.links.Load(), "the others are closed")
				for len(l.conns) > 0 {
					loser := l.accept()
					loser.expectEnd() // without a byte
				}
				disconnect(t, c, p)
			})
		})
	}
}

func TestAURLThatWasTooSlowComesLastUntilThatIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, tl := &lane{takes: -1}, &lane{takes: time.Millisecond}
		cfg, l := raced(t, map[string]*lane{"q": q, "t": tl, "w": {}})
		cfg.Reconnect = Backoff{Min: time.Second, Max: time.Second}
		cfg.KeepAlive = -1
		c, err := New(cfg)
		require.NoError(t, err)
		p, _ := l.accepted(&packet.Connack{})
		for range 3 {
			p.close()
			synctest.Wait()
			lost := time.Now()
			p, _ = l.accepted(&packet.Connack{})
			require.LessOrEqual(t, time.Since(lost), time.Second+tl.takes)
			require.EqualValues(t, 1, q.started.Load(), "not tried again so soon")
		}
		time.Sleep(defaultRaceMemory) // virtual
		q.takes = 10 * time.Millisecond
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		require.Equal(t, mqtt.Carrier("q"), c.Carrier(), "it works again")
		disconnect(t, c, p)
	})
}

func TestARaceThatNobodyWinsReportsEveryReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reasons := []error{errors.New("refused"), errors.New("no route"), errors.New("not found")}
		cfg, _ := raced(t, map[string]*lane{"q": {err: reasons[0]}, "t": {err: reasons[1], takes: time.Second}, "w": {err: reasons[2]}})
		_, err := Dial(t.Context(), cfg)
		for _, reason := range reasons {
			require.ErrorIs(t, err, reason)
		}
		require.ErrorContains(t, err, "t://s: no route")
		var e *ConnectionError
		require.ErrorAs(t, err, &e)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cfg, _ = raced(t, map[string]*lane{"q": {takes: -1}, "t": {takes: -1}, "w": {takes: -1}})
		cfg.ConnectTimeout = time.Hour
		_, err = Dial(ctx, cfg)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		_, err = New(&Config{URLs: []string{"mqtt://a", "ftp://b"}})
		require.ErrorContains(t, err, "URL 2 of 2")
		_, err = New(&Config{})
		require.ErrorContains(t, err, "URL is empty")
	})
}

func TestARaceOfRealPortsConnectsOverTheOneThatIsThere(t *testing.T) {
	url := serveOne(t, func(_ net.Conn, in *mqtt.Reader) { _, _, _ = in.Next() })
	// Nobody listens on the client's port of a connection, nor can while it is there.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	busy, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer busy.Close()
	gone := "mqtt://" + busy.LocalAddr().String()
	c, err := Dial(t.Context(), &Config{URLs: []string{gone, url}})
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

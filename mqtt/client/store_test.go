package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/journal"
	"github.com/anyquic/anyquic/internal/pipenet"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

var errKilled = errors.New("killed")

// A mortal file ends its process during one of its writes: nothing is written and
// nothing is sent after that.
type mortal struct {
	storeFile
	kill func()

	mu     sync.Mutex
	writes int // guarded by mu; how many there were
	at     int // the write with which it ends, counted from 0
	share  int // in how many of 4 parts of its bytes that write goes on; whole files are replaced with 4 only
	dead   bool
}

func (f *mortal) write(now func() error, partly func()) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return errKilled
	}
	f.writes++
	if f.writes-1 != f.at {
		return now()
	}
	f.dead = true
	partly()
	f.kill()
	return errKilled
}

func (f *mortal) Append(b []byte, sync bool) error {
	return f.write(
		func() error { return f.storeFile.Append(b, sync) },
		func() { _ = f.storeFile.Append(b[:len(b)*f.share/4], sync) },
	)
}

func (f *mortal) Replace(b []byte) error {
	return f.write(
		func() error { return f.storeFile.Replace(b) },
		func() {
			if f.share == 4 {
				_ = f.storeFile.Replace(b)
			}
		},
	)
}

// A town is a broker and those who connect to it, in virtual time.
type town struct {
	*testing.T
	net  *pipenet.Listener
	many *manyStreams // beside it; what conns are on it cannot be told apart
	b    *broker.Broker
	done chan error
}

func newTown(t *testing.T) *town {
	b, err := broker.New(nil)
	require.NoError(t, err)
	w := &town{t, pipenet.Listen(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1883}, 64<<10),
		&manyStreams{links: make(chan mqtt.Link), done: make(chan struct{})}, b, make(chan error, 2)}
	go func() { w.done <- b.Serve(w.net, mqtt.TCP) }()
	go func() { w.done <- b.ServeLinks(w.many) }()
	return w
}

func (w *town) close() {
	require.NoError(w, w.net.Close())
	require.NoError(w, w.many.Close())
	require.NoError(w, w.b.Close())
	<-w.done
	<-w.done
}

func (w *town) config(id string) *Config {
	return &Config{
		URL: "mqtt://broker.test", ClientID: id, SessionExpiry: time.Hour, InflightMax: 2,
		Dial:      func(ctx context.Context, _ *url.URL) (net.Conn, error) { return w.net.Dial(ctx) },
		Reconnect: Backoff{Min: time.Second, Max: time.Second},
	}
}

// mortalClient makes a client whose process ends with write at of its file.
func (w *town) mortalClient(cfg *Config, at, share int) (*Client, *mortal) {
	w.Helper()
	c, err := newClient(cfg)
	require.NoError(w, err)
	f := &mortal{storeFile: c.store.file, at: at, share: share, kill: func() {
		if link := c.Link(); link != nil {
			_ = link.CloseWithCode(mqtt.LinkNormal)
		}
	}}
	c.store.file = f
	c.start(nil)
	return c, f
}

// everyDeath calls f for every write at which a process can end, until it lives on.
func everyDeath(t *testing.T, f func(t *testing.T, at, share int) (died bool)) {
	for share := range 5 {
		for at := 0; ; at++ {
			died := false
			synctest.Test(t, func(t *testing.T) { died = f(t, at, share) })
			if !died {
				require.Greater(t, at, 5, "there were writes")
				break
			}
		}
	}
}

func TestWhateverWriteAProcessEndsInNothingAcceptedIsLostAndQoS2ArrivesOnce(t *testing.T) {
	testOutbound(t, true, func(*town, *Config) {})
}

func TestWhateverWriteAProcessEndsInTheSameHoldsOnManyStreams(t *testing.T) {
	testOutbound(t, false, func(w *town, cfg *Config) {
		cfg.URL, cfg.Dialers, cfg.Streams = "many://broker.test", []LinkDialer{w.many}, Hash(2)
	})
}

func testOutbound(t *testing.T, ordered bool, configure func(*town, *Config)) {
	dir := t.TempDir()
	everyDeath(t, func(t *testing.T, at, share int) bool {
		w := newTown(t)
		got := map[string]int{}
		var order []string
		subCfg := w.config("sub")
		subCfg.OnMessage = func(p *packet.Publish) {
			if got[p.Topic]++; got[p.Topic] == 1 {
				order = append(order, p.Topic)
			}
		}
		sub, err := Dial(t.Context(), subCfg)
		require.NoError(t, err)
		_, err = sub.Subscribe(t.Context(), nil, packet.Subscription{Filter: "#", QoS: 2})
		require.NoError(t, err)

		cfg := w.config("pub")
		configure(w, cfg)
		cfg.Queue = Queue{File: filepath.Join(dir, fmt.Sprintf("%d-%d", at, share)), QoS0: true}
		c, file := w.mortalClient(cfg, at, share)
		state := map[string]PublishState{}
		var mu sync.Mutex
		var sent []string
		for i := range 8 {
			if i == 4 {
				synctest.Wait() // the first ones were queued before the connection, or nearly
			}
			topic := fmt.Sprintf("%d/%d", i%3, i)
			err := c.PublishAsync(t.Context(), &packet.Publish{Topic: topic, QoS: packet.QoS(i % 3)}, func(err error) {
				mu.Lock()
				defer mu.Unlock()
				state[topic] = StateOf(err)
			})
			if err != nil {
				mu.Lock()
				state[topic] = StateOf(err)
				mu.Unlock()
				require.NotEqual(t, Kept, StateOf(err))
				continue
			}
			sent = append(sent, topic)
		}
		synctest.Wait()
		died := file.dead
		if died {
			require.NoError(t, c.Close())
		} else {
			require.NoError(t, c.Disconnect(t.Context()))
		}

		restored := 0
		cfg.Queue.Restored = func(_ *packet.Publish, err error) {
			require.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			restored++
		}
		next, err := newClient(cfg)
		require.NoError(t, err)
		kept := next.Stats().Inflight
		next.start(nil)
		require.NoError(t, next.Disconnect(t.Context()))
		require.Equal(t, kept, restored)
		synctest.Wait()

		for i := range 8 {
			topic := fmt.Sprintf("%d/%d", i%3, i)
			where := fmt.Sprintf("%s, killed in write %d at %d/4: %v", topic, at, share, state[topic])
			accepted := false
			for _, s := range sent {
				accepted = accepted || s == topic
			}
			switch i % 3 {
			case 0:
				require.LessOrEqual(t, got[topic], 1, where)
			case 1:
				if accepted {
					require.GreaterOrEqual(t, got[topic], 1, where)
				}
			case 2:
				require.LessOrEqual(t, got[topic], 1, where)
				if accepted {
					require.Equal(t, 1, got[topic], where)
				}
			}
			if s, ok := state[topic]; ok && s == NotSent {
				require.Zero(t, got[topic], where)
			}
		}
		for _, qos := range []string{"0", "1", "2"} {
			last := ""
			for _, topic := range order {
				if ordered && topic[:1] == qos {
					require.Greater(t, topic, last, "the order is kept")
					last = topic
				}
			}
		}
		require.NoError(t, sub.Disconnect(t.Context()))
		w.close()
		return died
	})
}

func TestWhateverWriteAProcessEndsInWhatItGetsIsNotLostAndOnceWasRecordedNotRepeated(t *testing.T) {
	dir := t.TempDir()
	everyDeath(t, func(t *testing.T, at, share int) bool {
		w := newTown(t)
		got := map[string]int{}
		cfg := w.config("sub")
		cfg.ReceiveMaximum = 2
		cfg.OnMessage = func(p *packet.Publish) { got[p.Topic]++ }
		cfg.Queue.File = filepath.Join(dir, fmt.Sprintf("%d-%d", at, share))

		// The session is made, with a subscription.
		first, err := Dial(t.Context(), cfg)
		require.NoError(t, err)
		_, err = first.Subscribe(t.Context(), nil, packet.Subscription{Filter: "#", QoS: 2})
		require.NoError(t, err)
		require.NoError(t, first.Disconnect(t.Context()))

		c, file := w.mortalClient(cfg, at, share)
		pub, err := Dial(t.Context(), w.config("pub"))
		require.NoError(t, err)
		const n = 8
		for i := range n {
			_, err := pub.Publish(t.Context(), &packet.Publish{Topic: fmt.Sprint(i), QoS: 2})
			require.NoError(t, err)
		}
		synctest.Wait()
		died := file.dead
		require.NoError(t, c.Close())

		next, err := Dial(t.Context(), cfg)
		require.NoError(t, err)
		require.True(t, next.Connack().SessionPresent)
		time.Sleep(time.Second) // virtual
		synctest.Wait()
		repeated := 0
		for i := range n {
			times := got[fmt.Sprint(i)]
			require.GreaterOrEqual(t, times, 1, "%d, killed in write %d at %d/4", i, at, share)
			repeated += times - 1
		}
		// Those that a handler had had when the record of it was written.
		most := 0
		if died {
			most = int(cfg.ReceiveMaximum)
		}
		require.LessOrEqual(t, repeated, most, "killed in write %d at %d/4", at, share)
		require.NoError(t, next.Disconnect(t.Context()))
		require.NoError(t, pub.Disconnect(t.Context()))
		w.close()
		return died
	})
}

// A full device refuses writes for a while.
type fullDevice struct {
	storeFile
	full bool // guarded by the store's mu
}

func (f *fullDevice) Append(b []byte, sync bool) error {
	if f.full {
		_ = f.storeFile.Append(b[:len(b)/2], sync)
		return errors.New("no space left on device")
	}
	return f.storeFile.Append(b, sync)
}

func (f *fullDevice) Replace(b []byte) error {
	if f.full {
		return errors.New("no space left on device")
	}
	return f.storeFile.Replace(b)
}

func TestAFullDeviceRefusesMessagesAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		cfg := w.config("c")
		cfg.Queue.File = filepath.Join(t.TempDir(), "queue")
		c, err := newClient(cfg)
		require.NoError(t, err)
		f := &fullDevice{storeFile: c.store.file}
		c.store.file = f
		c.start(nil)
		_, err = c.Publish(t.Context(), msg("before", 2))
		require.NoError(t, err)
		fill := func(full bool) {
			c.store.mu.Lock()
			defer c.store.mu.Unlock()
			f.full = full
		}
		fill(true)
		for range 3 {
			err = c.PublishAsync(t.Context(), msg("during", 1), nil)
			require.ErrorContains(t, err, "no space left")
		}
		fill(false)
		_, err = c.Publish(t.Context(), msg("after", 2))
		require.NoError(t, err)
		require.NoError(t, c.Disconnect(t.Context()))

		c, err = New(cfg)
		require.NoError(t, err)
		require.Zero(t, c.Stats().Inflight)
		require.NoError(t, c.Close())
		w.close()
	})
}

func TestTheFileStaysSmallHoweverMuchPassesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		cfg := w.config("c")
		cfg.InflightMax = 100
		cfg.QueueBytes = 1 << 20
		cfg.Queue.File = filepath.Join(t.TempDir(), "queue")
		c, err := New(cfg)
		require.NoError(t, err)
		p := &packet.Publish{Topic: "t", QoS: 1, Payload: make([]byte, 50_000)}
		largest := int64(0)
		for range 300 { // 15 MB
			require.NoError(t, c.PublishAsync(t.Context(), p, nil))
			c.store.mu.Lock()
			largest = max(largest, c.store.file.Size())
			c.store.mu.Unlock()
		}
		require.Greater(t, largest, int64(slack), "it was written over")
		require.Less(t, largest, int64(2*cfg.QueueBytes+slack+100_000))
		require.NoError(t, c.Disconnect(t.Context()))
		w.close()
	})
}

func TestWhatACloseLeavesBehindIsKeptForTheNextClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V311)
		l.refuseDials(1)
		cfg := l.config()
		cfg.ClientID = "keeper"
		cfg.Queue.File = filepath.Join(t.TempDir(), "queue")
		c := offline(t, cfg)
		done := publish(t.Context(), c, msg("a", 1))
		synctest.Wait()
		_, err := New(cfg)
		require.ErrorIs(t, err, journal.ErrLocked)
		require.NoError(t, c.Close())
		o := <-done
		require.Equal(t, Kept, StateOf(o.err))
		require.ErrorIs(t, o.err, ErrClosed)

		other := *cfg
		other.Version = packet.V5
		_, err = New(&other)
		require.ErrorContains(t, err, "MQTT version 4, not 5")

		next := offline(t, cfg)
		p, _ := l.accepted(&packet.Connack{})
		require.Equal(t, "a", expect[*packet.Publish](p).Topic)
		p.send(&packet.Puback{Ack: ack(1)})
		disconnect(t, next, p)

		other = *cfg
		other.ClientID = "another"
		_, err = New(&other)
		require.ErrorContains(t, err, `client "keeper", not "another"`)
	})
}

func TestAMessageTakenBackDoesNotComeOutOfTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		l.refuseDials(1)
		cfg := l.config()
		cfg.Queue.File = filepath.Join(t.TempDir(), "queue")
		c := offline(t, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := c.Publish(ctx, msg("a", 1))
		require.Equal(t, NotSent, StateOf(err))
		require.NoError(t, c.Close())
		next, err := newClient(cfg)
		require.NoError(t, err)
		require.Zero(t, next.Stats().Inflight)
		next.keepQueue()
	})
}

func FuzzRestore(f *testing.F) {
	var l sessionLog
	m := newMachine(machineConfig{version: packet.V5, inflightMax: 10})
	m.log = &l
	var bodies [][]byte
	l.version, l.clientID = packet.V5, "c"
	for _, qos := range []packet.QoS{0, 1, 2, 2} {
		fl, _ := newFlight(msg("t", qos), packet.V5)
		_ = m.submit(fl)
	}
	_ = m.attach(time.Time{}, &packet.Connack{}, false)
	for range 4 {
		m.next()
	}
	_ = m.receivePubrec(0, &packet.Ack{PacketID: 3})
	l.received(inboundID{4, 7}, reception{qos: packet.ExactlyOnce, delivered: true})
	l.snapshot(m)
	l.salt.Scan(l.buf, func(b []byte) { bodies = append(bodies, b) })
	var all []byte
	for _, b := range bodies {
		all = append(append(all, byte(len(b))), b...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMachine(machineConfig{version: packet.V5, inflightMax: 10, receiveMaximum: 10})
		l := &sessionLog{version: packet.V5}
		r := newRestorer(m, l)
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			if n > 0 {
				r.add(b[1 : 1+n])
			}
			b = b[1+n:]
		}
		flights, queued, zeros := 0, 0, 0
		releasedAllowed := true
		for f := m.outbound.first; f != nil; f = f.next {
			flights++
			queued += f.cost()
			if f.qos == 0 {
				zeros++
			}
			require.True(t, releasedAllowed || !f.released, "released ones are first")
			releasedAllowed = f.released
			if f.id != 0 {
				require.Same(t, f, m.outbound.byID[f.id])
			}
		}
		require.Equal(t, flights, m.flights)
		require.Equal(t, queued, m.queued)
		require.Len(t, m.zeros, zeros)
		// A snapshot of it makes the same.
		l.snapshot(m)
		again := newMachine(m.cfg)
		r = newRestorer(again, &sessionLog{version: packet.V5})
		l.salt.Scan(l.buf, r.add)
		require.Zero(t, r.bad)
		require.NoError(t, r.err)
		require.Equal(t, m.flights, again.flights)
		require.Equal(t, m.received, again.received)
		// It can be used.
		require.NoError(t, m.attach(time.Time{}, &packet.Connack{SessionPresent: true}, false))
		for _, ok := m.next(); ok; _, ok = m.next() {
		}
		m.abandonAll(ErrClosed)
		require.Zero(t, m.queued)
	})
}

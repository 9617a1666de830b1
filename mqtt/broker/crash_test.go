package broker_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/store"
)

// A faithful client keeps its side of its session over any number of
// connections, as MQTT 5, Section 4.1 wants it.
type faithful struct {
	t    testing.TB
	id   string
	conn *peer

	// As a publisher.
	total, sent int
	open        []*exchange
	acked       map[string]bool

	// As a subscriber.
	filter     string
	subscribed bool
	receiving  map[uint16]bool
	got        map[string]int
	want       int
	online     func()          // told of CONNACK
	after      *sync.WaitGroup // publishers wait for it: messages for who is away would fill its queue
	came       func()          // told of each packet after CONNACK; nil: nobody asks
}

type exchange struct {
	id       uint16
	payload  string
	qos      packet.QoS
	released bool
}

func newFaithful(t testing.TB, id string) *faithful {
	return &faithful{t: t, id: id, acked: map[string]bool{}, receiving: map[uint16]bool{}, got: map[string]int{}}
}

func (f *faithful) write(packets ...packet.Packet) error {
	var out []byte
	for _, p := range packets {
		var err error
		if out, err = p.Append(out, packet.V5); err != nil {
			return err
		}
	}
	_, err := f.conn.conn.Write(out)
	return err
}

func (e *exchange) packet(dup bool) packet.Packet {
	if e.released {
		return &packet.Pubrel{Ack: packet.Ack{PacketID: e.id}}
	}
	return &packet.Publish{Topic: "t/" + e.payload, Payload: []byte(e.payload), QoS: e.qos, PacketID: e.id, Dup: dup}
}

// run goes on with what is to be done on a new connection, f.conn. It returns an
// error when that is lost.
func (f *faithful) run() error {
	c := &packet.Connect{Version: packet.V5, ClientID: f.id, Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](3600)}}
	f.conn.v = packet.V5
	if err := f.write(c); err != nil {
		return err
	}
	p, err := f.conn.read()
	if err != nil {
		return err
	}
	if ack, ok := p.(*packet.Connack); !ok || ack.Code != packet.Success {
		return fmt.Errorf("%#v", p)
	}
	f.online()
	f.after.Wait()
	for _, e := range f.open {
		if err := f.write(e.packet(true)); err != nil {
			return err
		}
	}
	if f.filter != "" && !f.subscribed {
		if err := f.write(&packet.Subscribe{PacketID: 60000, Subscriptions: []packet.Subscription{{Filter: f.filter, QoS: 2}}}); err != nil {
			return err
		}
	}
	for !f.done() {
		for len(f.open) < 4 && f.sent < f.total {
			f.sent++
			e := &exchange{id: uint16(f.sent%50 + 1), payload: fmt.Sprint(f.id, "-", f.sent), qos: packet.QoS(1 + f.sent%2)}
			f.open = append(f.open, e)
			if err := f.write(e.packet(false)); err != nil {
				return err
			}
		}
		if p, err = f.conn.read(); err != nil {
			return err
		}
		if f.came != nil {
			f.came()
		}
		if err := f.take(p); err != nil {
			return err
		}
	}
	return nil
}

func (f *faithful) done() bool {
	return f.sent == f.total && len(f.open) == 0 && (f.filter == "" || f.subscribed) && len(f.got) >= f.want && len(f.receiving) == 0
}

func (f *faithful) take(p packet.Packet) error {
	switch p := p.(type) {
	case *packet.Suback:
		f.subscribed = true
	case *packet.Publish:
		if p.QoS == packet.AtLeastOnce {
			f.got[string(p.Payload)]++
			return f.write(&packet.Puback{Ack: packet.Ack{PacketID: p.PacketID}})
		}
		if !f.receiving[p.PacketID] {
			f.receiving[p.PacketID] = true
			f.got[string(p.Payload)]++
		}
		return f.write(&packet.Pubrec{Ack: packet.Ack{PacketID: p.PacketID}})
	case *packet.Pubrel:
		delete(f.receiving, p.PacketID)
		return f.write(&packet.Pubcomp{Ack: packet.Ack{PacketID: p.PacketID}})
	case *packet.Puback:
		f.complete(p.PacketID, p.Code)
	case *packet.Pubrec:
		if p.Code.Failed() {
			return fmt.Errorf("PUBREC %v", p.Code)
		}
		for _, e := range f.open {
			if e.id == p.PacketID && e.qos == 2 {
				e.released = true
				return f.write(e.packet(false))
			}
		}
	case *packet.Pubcomp:
		f.complete(p.PacketID, 0)
	default:
		return fmt.Errorf("%#v", p)
	}
	return nil
}

func (f *faithful) complete(id uint16, code packet.ReasonCode) {
	for i, e := range f.open {
		if e.id == id {
			f.acked[e.payload] = !code.Failed()
			f.open = append(f.open[:i:i], f.open[i+1:]...)
			return
		}
	}
}

// together runs clients on a broker until all are done, or until stop is closed, which
// cuts their connections. It reports whether they are done.
func together(t testing.TB, dial func() *peer, stop <-chan struct{}, clients ...*faithful) bool {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, len(clients))
	var subscribers, none sync.WaitGroup
	for _, f := range clients {
		f.conn = dial()
		f.online, f.after = func() {}, &subscribers
		if f.filter != "" {
			subscribers.Add(1)
			f.online, f.after = sync.OnceFunc(subscribers.Done), &none
		}
	}
	for i, f := range clients {
		wg.Go(func() {
			defer f.online()
			errs[i] = f.run()
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-stop:
		for _, f := range clients {
			f.conn.conn.Close()
		}
		<-finished
	}
	for i, f := range clients {
		f.conn.conn.Close()
		if errs[i] != nil {
			select {
			case <-stop:
			case <-time.After(time.Minute): // nobody stopped anything
				require.NoError(t, errs[i], f.id)
			}
			return false
		}
	}
	return true
}

// leastCommits is less than what crashAt makes, however many changes the store takes
// together: what a client waits for one after the other is not in one commit.
const leastCommits = 8

// The machine stops in the place of each commit in turn, once before it and once
// after it was written but before anybody knew.
func TestACrashAtAnyCommitLosesAndDuplicatesNothing(t *testing.T) {
	for _, torn := range []bool{false, true} {
		stops := 0
		for n := 1; crashAt(t, n, torn, 0); n++ {
			stops++
		}
		require.Greater(t, stops, leastCommits, "torn %v", torn)
		t.Logf("torn %v: %d crashes", torn, stops)
	}
}

// The same where a queue has room for two messages, so that publishers wait, and
// one subscriber has a message long before the other.
func TestACrashWhileAMessageIsPartlyRoutedDuplicatesNothing(t *testing.T) {
	for _, torn := range []bool{false, true} {
		stops := 0
		for n := 1; crashAt(t, n, torn, 700); n++ {
			stops++
		}
		require.Greater(t, stops, leastCommits, "torn %v", torn)
		t.Logf("torn %v: %d crashes", torn, stops)
	}
}

// crashAt stops the machine at the n-th commit and reports whether there was one.
// queue is what a session's queue holds; 0: enough.
func crashAt(t *testing.T, n int, torn bool, queue int) bool {
	const messages = 12
	stopped := make(chan struct{})
	var over atomic.Bool
	once := sync.OnceFunc(func() { close(stopped) })
	m := store.NewMemory(func(i int) store.Fault {
		if i < n || over.Load() {
			return store.Fault{}
		}
		once()
		return store.Fault{Stop: true, Torn: torn && i == n}
	})
	cfg := func() *broker.Config {
		c := &broker.Config{Store: m, ConnectTimeout: time.Minute} // a busy machine is not a client that is stuck
		c.Limits.QueueBytes = queue
		return c
	}
	b, err := broker.New(cfg())
	require.NoError(t, err)
	pipe := func() *peer { return dial(t, b) }
	crashed := false
	crash := func() {
		next := m.Restart(nil)
		require.NoError(t, m.Close())
		b.Close()
		m = next
		b, err = broker.New(cfg())
		require.NoError(t, err)
		stopped = make(chan struct{}) // never again
		crashed = true
	}
	subs := []*faithful{newFaithful(t, "live"), newFaithful(t, "away")}
	live, away := subs[0], subs[1]
	live.filter, away.filter = "t/#", "t/#"
	for !together(t, pipe, stopped, live, away) {
		crash()
	}
	pubs := []*faithful{newFaithful(t, "p"), newFaithful(t, "q")}
	for _, p := range pubs {
		p.total = messages
	}
	live.want, away.want = len(pubs)*messages, len(pubs)*messages
	all := append(pubs, live)
	if queue > 0 {
		all = append(all, away) // the queue would not hold what comes while it is away
	}
	for !together(t, pipe, stopped, all...) {
		crash()
	}
	for !together(t, pipe, stopped, away) {
		crash()
	}
	over.Store(true)
	m.Applied() // the plan is not being asked any more
	select {
	case <-stopped: // by what clients left behind
		crash()
	default:
	}
	require.NoError(t, b.Close())
	for _, s := range subs {
		require.Len(t, s.got, s.want, "%s lost something, crash at commit %d, torn %v", s.id, n, torn)
		for payload, times := range s.got {
			var k int
			fmt.Sscanf(payload[2:], "%d", &k)
			if k%2 == 1 { // QoS 2
				require.Equal(t, 1, times, "%s got %s again, crash at commit %d, torn %v", s.id, payload, n, torn)
			}
		}
	}
	return crashed
}

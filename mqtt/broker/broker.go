// Package broker is an MQTT server for versions 3.1, 3.1.1 and 5 over any
// [mqtt.Link]: TCP, TLS, QUIC, WebSocket and WebTransport.
//
// What MQTT says about one client is decided by the machine in package session;
// this package surrounds it with the network, the router and time:
//
//	Link ─ Stream ─ reading goroutine ─ Receive ─┐
//	                                             client: mutex + session.Session + timer
//	Link ─ Stream ─ writing goroutine ─ Next ────┘        ^
//	                                                      │ Deliver
//	reading goroutine of a publisher ─ router: subscription tree, retained store
//	Broker.Publish, inside the program ─┘  └─ Local: a subscriber inside the program
//
// # Goroutines
//
// A stream has one reading goroutine. A writing goroutine exists only while
// there is something to write. A connection whose carrier has several streams
// has one more that accepts them. All of them end with their connection, and
// Close and Shutdown wait for them.
//
// # Locks
//
// The registry's mutex may be held when a client's is taken, never the other
// way round. A client's mutex guards its machine and nothing slow happens under
// it: it is not held while writing, routing or logging, so that no two clients'
// mutexes are ever held by one goroutine.
//
// # Back-pressure
//
// A publisher whose message finds a subscriber's queue full is not read further
// until there is room: TCP's and QUIC's flow control then slow the client down,
// and nothing is lost, as long as the subscriber takes something every
// Config.StallTimeout. See backpressure.go for what happens to one that does not.
package broker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/internal/timerwheel"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Broker is an MQTT server. Its methods may be called from any goroutine.
type Broker struct {
	cfg   Config
	log   *slog.Logger
	wheel *timerwheel.Wheel

	limits atomic.Pointer[limits]

	subs     subscriptions
	retained retainedStore
	durable  *durable // nil: everything is in memory
	delayed  delayedStore
	wills    wills
	count    counters
	slowLog  slowLog

	authHooks, aclHooks hooks

	ctx  context.Context // done when the broker closes at once
	stop context.CancelFunc

	mu        sync.Mutex
	closing   bool                                        // guarded by mu: nothing is accepted
	draining  *Drain                                      // guarded by mu; nil: clients are welcome
	listeners map[interface{ Close() error }]*listenerUse // guarded by mu
	conns     map[*conn]struct{}                          // guarded by mu
	sessions  map[string]*client                          // guarded by mu; by client ID
	locals    map[*Local]struct{}                         // guarded by mu
	admission admission                                   // guarded by mu

	running    sync.WaitGroup // accept loops and connections; Add only under mu while not closing
	background sync.WaitGroup // what runs until the broker closes

	ended   chan struct{} // closed when Close or Shutdown is complete
	endOnce sync.Once
}

// wheelTick is how late a timer may be.
const wheelTick = 20 * time.Millisecond

// New returns a Broker that serves nothing yet. It must be closed.
func New(cfg *Config) (*Broker, error) {
	c, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	b := &Broker{
		cfg:       c,
		log:       c.Logger,
		listeners: make(map[interface{ Close() error }]*listenerUse),
		conns:     make(map[*conn]struct{}),
		sessions:  make(map[string]*client),
		locals:    make(map[*Local]struct{}),
		ended:     make(chan struct{}),
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.limits.Store(newLimits(&c))
	b.admission.init(b.limits.Load())
	b.subs.init()
	b.authHooks.init(&c)
	b.aclHooks.init(&c)
	b.retained.init(c.MaxRetained, c.MaxRetainedBytes)
	b.wheel = timerwheel.New(wheelTick)
	b.delayed.init(b, c.Delayed)
	b.wills.init(b)
	if b.durable = b.openDurable(); b.durable != nil {
		b.retained.durable = b.durable // before what is loaded may expire
		if err := b.load(time.Now()); err != nil {
			b.Close()
			return nil, err
		}
		if c.ACL != nil {
			b.background.Go(b.reauthorizeRestored) // until Close, or before
		}
	}
	if c.SysInterval > 0 {
		b.background.Go(b.publishSys) // until Close
	}
	return b, nil
}

// Node returns the name that Config.Node gives the broker or that it has chosen.
func (b *Broker) Node() string { return b.cfg.Node }

// clients returns the sessions of this moment.
func (b *Broker) clients() []*client {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*client, 0, len(b.sessions))
	for _, c := range b.sessions {
		all = append(all, c)
	}
	return all
}

// begin counts a connection or an accept loop as running, unless the broker is
// closing.
func (b *Broker) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return false
	}
	b.running.Add(1)
	return true
}

// refuse ends a link that never became a connection.
func (b *Broker) refuse(link mqtt.Link, code mqtt.LinkCode) {
	b.countRefused(packet.ServerBusy)
	link.CloseWithCode(code)
}

package app

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A backend is what an App serves: a broker or a client's connection.
type backend interface {
	publish(ctx context.Context, p *packet.Publish) error
	request(ctx context.Context, topic string, payload []byte) (*packet.Publish, error)
	close()
}

// A serve is one call of ServeBroker or ServeClient.
type serve struct {
	app    *App
	routes []*route
	ctx    context.Context // done when no new messages are taken
	stop   context.CancelFunc

	mu       sync.Mutex
	work     int           // guarded by mu; messages that were given to routes
	finished bool          // guarded by mu; no route is given any more
	idle     chan struct{} // closed when finished and work is 0
}

// enter counts a message as given to a route. It reports false if the handlers have
// been waited for: a client's dispatcher may still come with messages then.
func (s *serve) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return false
	}
	s.work++
	return true
}

func (s *serve) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.work--; s.work == 0 && s.finished {
		close(s.idle)
	}
}

// wait ends what enter admits and waits for what it has admitted.
func (s *serve) wait() {
	s.mu.Lock()
	s.finished = true
	if s.work == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	<-s.idle
}

// begin counts a call of Serve as running.
func (a *App) begin(ctx context.Context) (*serve, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a.serving = true
	a.running.Add(1)
	s := &serve{app: a, routes: a.routes, idle: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(ctx)
	context.AfterFunc(a.end, s.stop)
	return s, nil
}

// serves makes b the one that the App publishes by.
func (s *serve) serves(b backend) {
	s.app.mu.Lock()
	defer s.app.mu.Unlock()
	s.app.backends[b] = struct{}{}
}

// finish waits for the handlers.
func (s *serve) finish(b backend) {
	s.stop()
	s.wait() // they may request and publish until the end
	b.close()
	s.app.mu.Lock()
	delete(s.app.backends, b)
	s.app.mu.Unlock()
	s.app.running.Done()
}

func (s *serve) ended() bool { return s.ctx.Err() != nil }

// reason returns why it ends: the App was closed, ctx is done, or else err.
func (s *serve) reason(ctx context.Context, err error) error {
	switch {
	case s.app.end.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// subscription returns what r subscribes to.
func (r *route) subscription() packet.Subscription {
	s := packet.Subscription{Filter: r.filter, QoS: packet.ExactlyOnce}
	if r.o.AtMostOnce {
		s.QoS = packet.AtMostOnce
	}
	if r.o.NoRetained {
		s.RetainHandling = 2
	}
	return s
}

// ServeBroker gives the handlers what is published in b, until ctx is done, the App
// is closed or the broker is. It waits until the handlers that run have
// returned; messages that still wait for one are refused. The error says which it
// was and is never nil.
func (a *App) ServeBroker(ctx context.Context, b *broker.Broker) error {
	s, err := a.begin(ctx)
	if err != nil {
		return err
	}
	in := &inside{broker: b}
	defer s.finish(in)
	in.local, err = b.NewLocal(&broker.LocalConfig{ClientID: a.cfg.ClientID, QueueBytes: a.cfg.QueueBytes})
	if err != nil {
		return err
	}
	defer in.local.Close() // what waits is refused
	s.serves(in)
	for i, r := range s.routes {
		if err := in.local.Subscribe(uint32(i+1), r.subscription()); err != nil {
			return err
		}
	}
	for {
		m, err := in.local.Next(s.ctx)
		if err != nil {
			return s.reason(ctx, err)
		}
		s.inside(in, m)
	}
}

// inside gives m to the routes that its subscriptions are of.
func (s *serve) inside(in *inside, m *broker.LocalMessage) {
	d := newDelivery(s, len(m.SubscriptionIDs), m.Done)
	p := m.Publish()
	for _, id := range m.SubscriptionIDs {
		r := s.routes[id-1]
		r.add(&Message{
			Topic: p.Topic, Payload: p.Payload, QoS: m.QoS, Retain: m.Retain, Properties: p.Properties,
			app: s.app, from: in, route: r, client: m.Client, delivery: d,
		})
	}
}

// inside is a broker as a backend.
type inside struct {
	broker *broker.Broker
	local  *broker.Local

	mu        sync.Mutex
	closed    bool
	responses *broker.Local                   // guarded by mu; nil until the first request
	topic     string                          // guarded by mu; of the responses
	last      uint64                          // guarded by mu
	waiting   map[uint64]chan *packet.Publish // guarded by mu; by correlation data
	reading   sync.WaitGroup
}

func (in *inside) publish(ctx context.Context, p *packet.Publish) error {
	code, err := in.local.Publish(ctx, p)
	if err == nil && code.Failed() {
		err = &client.PublishError{State: client.Refused, Code: code}
	}
	return err
}

// request has a Local of its own for responses: the other one may be full of
// messages whose handlers wait for them.
func (in *inside) request(ctx context.Context, topic string, payload []byte) (*packet.Publish, error) {
	in.mu.Lock()
	if err := in.listen(); err != nil {
		in.mu.Unlock()
		return nil, err
	}
	in.last++
	key := in.last
	answer := make(chan *packet.Publish, 1)
	in.waiting[key] = answer
	responseTopic := in.topic
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		delete(in.waiting, key)
		in.mu.Unlock()
	}()
	code, err := in.local.Publish(ctx, &packet.Publish{
		Topic: topic, Payload: payload, QoS: packet.AtLeastOnce,
		Properties: &packet.Properties{ResponseTopic: responseTopic, CorrelationData: binary.BigEndian.AppendUint64(nil, key)},
	})
	switch {
	case err != nil:
		return nil, err
	case code == packet.NoMatchingSubscribers:
		return nil, ErrNoSubscribers
	case code.Failed():
		return nil, &client.PublishError{State: client.Refused, Code: code}
	}
	select {
	case p := <-answer:
		if p == nil {
			return nil, ErrClosed
		}
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// listen subscribes to the response topic when it is needed first. mu is held.
func (in *inside) listen() error {
	if in.closed {
		return ErrClosed
	}
	if in.responses != nil {
		return nil
	}
	l, err := in.broker.NewLocal(nil)
	if err != nil {
		return err
	}
	// Nobody can guess this one, and so send a response that was not asked for.
	in.topic = "response/" + rand.Text()
	if err := l.Subscribe(0, packet.Subscription{Filter: in.topic, QoS: packet.AtLeastOnce}); err != nil {
		return errors.Join(err, l.Close())
	}
	in.responses, in.waiting = l, make(map[uint64]chan *packet.Publish)
	in.reading.Go(func() { // until close, or the broker's end
		for {
			m, err := l.Next(context.Background())
			if err != nil {
				in.abandon()
				return
			}
			in.respond(m.Publish())
			m.Done(packet.Success)
		}
	})
	return nil
}

func (in *inside) respond(p *packet.Publish) {
	if p.Properties == nil || len(p.Properties.CorrelationData) != 8 {
		return
	}
	key := binary.BigEndian.Uint64(p.Properties.CorrelationData)
	in.mu.Lock()
	defer in.mu.Unlock()
	if answer := in.waiting[key]; answer != nil {
		delete(in.waiting, key)
		answer <- client.Clone(p) // capacity 1, and the only one
	}
}

// abandon ends the requests that wait.
func (in *inside) abandon() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	for key, answer := range in.waiting {
		delete(in.waiting, key)
		answer <- nil // capacity 1, and the only one
	}
}

func (in *inside) close() {
	in.mu.Lock()
	in.closed = true
	l := in.responses
	in.mu.Unlock()
	if l != nil {
		_ = l.Close()
	}
	in.abandon()
	in.reading.Wait()
}

// unsubscribeTimeout bounds how long ServeClient waits for the answer to its last
// UNSUBSCRIBE.
const unsubscribeTimeout = 5 * time.Second

// ServeClient gives the handlers the messages of subscriptions that it makes by c,
// until ctx is done, the App is closed or the client has ended. Then it waits
// until the handlers that run have returned; messages that still wait for one are
// refused. The error says which it was, or that a subscription was refused, and is never
// nil.
//
// It ends its subscriptions, unless it is the client that has ended: so to let the
// server keep the session with its subscriptions, close the client and not the
// App.
func (a *App) ServeClient(ctx context.Context, c *client.Client) error {
	s, err := a.begin(ctx)
	if err != nil {
		return err
	}
	over := &connection{c}
	defer s.finish(over)
	s.serves(over)
	var filters []string
	defer func() {
		s.stop()
		if len(filters) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unsubscribeTimeout)
		defer cancel()
		_, _ = c.Unsubscribe(ctx, filters...) // or the client has ended, and its subscriptions with it
	}()
	for _, r := range s.routes {
		filters = append(filters, r.filter)
		_, err := c.Subscribe(s.ctx, func(p *packet.Publish) { s.connection(over, r, p) }, r.subscription())
		if err != nil {
			return s.reason(ctx, err)
		}
	}
	select {
	case <-s.ctx.Done():
		return s.reason(ctx, ErrClosed)
	case <-c.Done():
		filters = nil
		if err := c.Err(); err != nil {
			return err
		}
		return client.ErrClosed
	}
}

// connection gives p to r. It is called by the client's dispatcher, which waits
// with it while there is too much to do.
func (s *serve) connection(over *connection, r *route, p *packet.Publish) {
	done := over.c.Defer()
	cost := len(p.Topic) + len(p.Payload) + messageOverhead
	if !s.app.bytes.take(s.ctx, cost) {
		done(packet.ImplementationSpecificError)
		return
	}
	p = client.Clone(p)
	d := newDelivery(s, 1, func(code packet.ReasonCode) {
		s.app.bytes.give(cost)
		done(code)
	})
	r.add(&Message{
		Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, Properties: p.Properties,
		app: s.app, from: over, route: r, client: over.client, delivery: d,
	})
}

// messageOverhead is about what a message costs besides its topic and payload.
const messageOverhead = 512

// A connection is a client as a backend.
type connection struct{ c *client.Client }

func (o *connection) publish(ctx context.Context, p *packet.Publish) error {
	_, err := o.c.Publish(ctx, p)
	return err
}

func (o *connection) request(ctx context.Context, topic string, payload []byte) (*packet.Publish, error) {
	return o.c.Request(ctx, topic, payload)
}

func (o *connection) close() {}

func (o *connection) client() broker.ClientInfo { return broker.ClientInfo{Carrier: o.c.Carrier()} }

// A budget is how many bytes may be in use at once. One that is larger than all
// goes alone.
type budget struct {
	max int

	mu   sync.Mutex
	used int           // guarded by mu
	room chan struct{} // guarded by mu; closed when something was given back; nil: nobody waits
}

func newBudget(most int) *budget { return &budget{max: most} }

// take waits until there is room for n. It reports false if ctx is done first.
func (b *budget) take(ctx context.Context, n int) bool {
	for {
		b.mu.Lock()
		if ctx.Err() != nil {
			b.mu.Unlock()
			return false
		}
		if b.used == 0 || b.used+n <= b.max {
			b.used += n
			b.mu.Unlock()
			return true
		}
		if b.room == nil {
			b.room = make(chan struct{})
		}
		room := b.room
		b.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
		}
	}
}

func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.room != nil {
		close(b.room)
		b.room = nil
	}
}

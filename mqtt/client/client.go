package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Client is an MQTT client with one session, on one network connection after
// another. Its methods may be called from any goroutine.
type Client struct {
	cfg       Config // with defaults filled in
	route     route  // of the supervisor, or of Dial before it starts
	log       *slog.Logger
	dispatch  *dispatcher
	routes    atomic.Pointer[routes]
	requester requester
	store     *store       // nil: the queue is in memory
	calls     atomic.Int64 // calls that wait for the server

	ctx      context.Context // done when the Client ends, or Disconnect or Close are called
	leave    context.CancelFunc
	stop     chan struct{} // closed by Close: at once
	stopOnce sync.Once
	done     chan struct{} // closed when everything has ended

	mu       sync.Mutex
	m        *machine      // guarded by mu
	conn     *conn         // guarded by mu; nil while there is none that packets may be added to
	out      []byte        // guarded by mu; encoded packets that the writer has not taken
	outQoS0  int           // guarded by mu; messages with QoS 0 in out
	room     chan struct{} // guarded by mu; closed and replaced by changed
	writing  bool          // guarded by mu; the writer has taken something that is not written yet
	waiting  int           // guarded by mu; how many wait for room
	closing  bool          // guarded by mu; no new work is accepted
	ended    bool          // guarded by mu
	err      error         // guarded by mu; why the Client ended
	connack  *packet.Connack
	clientID string       // guarded by mu; the server may have assigned it
	carrier  mqtt.Carrier // guarded by mu; of the latest connection
	// responseTo is the topic of Request's responses, empty until it is
	// subscribed to.
	responseTo string // guarded by mu
	stats      Stats  // guarded by mu
}

// outMax is how many bytes may wait for the writer before those who publish wait
// as well. It is also the size of a write, unless a packet is larger.
const outMax = 64 << 10

// Stats are counters of a Client.
type Stats struct {
	MessagesSent     uint64 // PUBLISH packets, QoS 1 and 2 as often as they were sent
	MessagesReceived uint64 // PUBLISH packets
	MessagesLost     uint64 // QoS 0 messages in the outgoing buffer of a connection that was lost, or dropped from a full queue
	MessagesDropped  uint64 // QoS 0 messages that arrived while a handler waited for the server, for long
	BytesSent        uint64
	BytesReceived    uint64 // of complete packets
	Connections      uint64 // that the server accepted
	Inflight         int    // messages that are not acknowledged, sent or not, and those with QoS 0 in the queue
	QueueBytes       int    // what they cost
}

// Dial connects to a server and returns when the server has accepted. It makes
// one attempt: Config.Reconnect is for what comes after it. A refusal is a
// [*ConnectError], a failure before the server answered a [*ConnectionError].
// The context is for the attempt only; the Client lives until Disconnect or Close,
// or until it gives up.
func Dial(ctx context.Context, cfg *Config) (*Client, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	cn, err := c.connectFollowing(ctx)
	if err != nil {
		c.leave()
		c.route.racers.Wait()
		c.keepQueue()
		return nil, err
	}
	c.start(cn)
	return c, nil
}

// New returns a Client that connects in the background, and makes attempts as after
// the loss of a connection, the first at once. What is published and subscribed to
// meanwhile waits for the server, as [Queue] says. The errors are those of cfg and
// of its Queue's file; why an attempt failed is in the log, and why the Client gave
// up in [Client.Err].
func New(cfg *Config) (*Client, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	c.start(nil)
	return c, nil
}

func (c *Client) start(cn *conn) {
	go c.dispatch.run() // ends with close, which supervise calls
	go c.supervise(cn)  // ends with Disconnect, Close, or when it gives up
}

func newClient(cfg *Config) (*Client, error) {
	if cfg == nil {
		cfg = new(Config)
	}
	targets, err := parseURLs(cfg)
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: *cfg, route: route{targets: targets, avoid: make(map[string]time.Time)}, carrier: targets[0].carrier, log: cfg.Logger,
		stop: make(chan struct{}), done: make(chan struct{}),
		room: make(chan struct{}), clientID: cfg.ClientID,
	}
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	c.ctx, c.leave = context.WithCancel(context.Background())
	c.m = newMachine(machineConfig{
		version:           c.cfg.Version,
		inflightMax:       c.cfg.InflightMax,
		receiveMaximum:    c.cfg.ReceiveMaximum,
		topicAliasMaximum: uint16(c.cfg.TopicAliasMaximum),
		topicAliases:      c.cfg.TopicAliases,
		keepAlive:         c.cfg.KeepAlive,
		streams:           c.cfg.Streams,
	})
	c.dispatch = newDispatcher(c)
	c.requester.setup = make(chan struct{}, 1)
	c.requester.waiting = make(map[uint64]chan *packet.Publish)
	if c.cfg.Queue.File != "" {
		if err := c.openStore(); err != nil {
			c.leave()
			return nil, err
		}
	}
	return c, nil
}

func (c *Client) setDefaults() error {
	cfg := &c.cfg
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Version == 0 {
		cfg.Version = packet.V5
	}
	setDefault(&cfg.ConnectTimeout, defaultConnectTimeout)
	setDefault(&cfg.RaceDelay, defaultRaceDelay)
	setDefault(&cfg.RaceMemory, defaultRaceMemory)
	setDefault(&cfg.KeepAlive, defaultKeepAlive)
	setDefault(&cfg.ReceiveMaximum, defaultReceiveMaximum)
	setDefault(&cfg.MaximumPacketSize, defaultMaximumPacketSize)
	setDefault(&cfg.TopicAliasMaximum, defaultTopicAliasMaximum)
	setDefault(&cfg.InflightMax, defaultInflightMax)
	setDefault(&cfg.QueueBytes, defaultQueueBytes)
	setDefault(&cfg.Reconnect.Min, defaultBackoffMin)
	setDefault(&cfg.Reconnect.Max, max(cfg.Reconnect.Min, defaultBackoffMax))
	if cfg.Reconnect.Retry == nil {
		cfg.Reconnect.Retry = Retryable
	}
	cfg.TopicAliasMaximum = max(cfg.TopicAliasMaximum, 0)
	cfg.InflightMax = min(cfg.InflightMax, maxInflight)
	switch {
	case cfg.Version < packet.V31 || cfg.Version > packet.V5:
		return fmt.Errorf("client: Config.Version is %d, not 3 (MQTT 3.1), 4 (3.1.1) or 5", uint8(cfg.Version))
	case cfg.Auth != nil && cfg.Version < packet.V5:
		return errors.New("client: Config.Auth needs MQTT 5")
	case cfg.InflightMax < 1 || cfg.QueueBytes < 1:
		return errors.New("client: Config.InflightMax and Config.QueueBytes cannot be none")
	case cfg.TopicAliasMaximum > math.MaxUint16:
		return errors.New("client: Config.TopicAliasMaximum is larger than 65535")
	case cfg.SessionExpiry < 0:
		return errors.New("client: Config.SessionExpiry is negative")
	case cfg.Reconnect.Min < 0 || cfg.Reconnect.Max < cfg.Reconnect.Min:
		return errors.New("client: Config.Reconnect needs 0 < Min <= Max")
	}
	err := errors.Join(cfg.Queue.check(), cfg.Streams.check())
	if err != nil {
		return err
	}
	if cfg.KeepAlive, err = wholeSeconds("KeepAlive", max(cfg.KeepAlive, 0), math.MaxUint16); err != nil {
		return err
	}
	if cfg.SessionExpiry, err = wholeSeconds("SessionExpiry", min(cfg.SessionExpiry, NeverExpires), math.MaxUint32); err != nil {
		return err
	}
	if cfg.Version == packet.V31 && cfg.ClientID == "" {
		c.clientID = "anyquic-" + rand.Text()[:12] // 1 to 23 characters (MQTT 3.1, Section 3.1)
	}
	// What CONNECT cannot say is found now, not when the network is there.
	_, err = c.connectPacket(true).Append(nil, cfg.Version)
	return err
}

// maxInflight leaves packet identifiers for SUBSCRIBE and UNSUBSCRIBE.
const maxInflight = 60_000

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// wholeSeconds rounds up, so that what is not none stays so.
func wholeSeconds(field string, d time.Duration, limit int64) (time.Duration, error) {
	s := int64((d + time.Second - 1) / time.Second)
	if s > limit {
		return 0, fmt.Errorf("client: Config.%s is larger than %d s", field, limit)
	}
	return time.Duration(s) * time.Second, nil
}

// connectPacket returns the CONNECT to send. mu is held, or the Client is new.
func (c *Client) connectPacket(first bool) *packet.Connect {
	cfg := &c.cfg
	p := &packet.Connect{
		Version:    cfg.Version,
		ClientID:   c.clientID,
		CleanStart: c.cleanStart(first),
		Bridge:     cfg.Bridge,
		KeepAlive:  uint16(cfg.KeepAlive / time.Second),
		Password:   cfg.Password,
		Will:       cfg.Will,
	}
	if cfg.Username != "" {
		p.Username = packet.Some(cfg.Username)
	}
	if cfg.Version < packet.V5 {
		return p
	}
	props := &packet.Properties{
		ReceiveMaximum:    packet.Some(cfg.ReceiveMaximum),
		MaximumPacketSize: packet.Some(cfg.MaximumPacketSize),
		User:              cfg.UserProperties,
	}
	if cfg.SessionExpiry > 0 {
		props.SessionExpiry = packet.Some(uint32(cfg.SessionExpiry / time.Second))
	}
	if cfg.TopicAliasMaximum > 0 {
		props.TopicAliasMaximum = packet.Some(uint16(cfg.TopicAliasMaximum))
	}
	p.Properties = props
	return p
}

// cleanStart returns the flag of the first or a later CONNECT. Before MQTT 5 it
// also says that the session must end with the connection, so it stays.
func (c *Client) cleanStart(first bool) bool {
	return c.cfg.CleanStart && (first || c.cfg.Version < packet.V5)
}

// unusable returns an error if the Client takes no new work. mu is held.
func (c *Client) unusable() error {
	switch {
	case c.ended && c.err != nil:
		return c.err
	case c.ended || c.closing:
		return ErrClosed
	}
	return nil
}

// Disconnect ends the Client in order: it accepts no new calls, waits for what is
// in flight, sends DISCONNECT, so that the server does not publish the will, and
// waits a second at most for the server to close. When ctx is done it waits for
// nothing in flight any more, and returns the context's error; the messages that
// this leaves behind end with a [*PublishError].
// Messages of QoS 1 and 2 that come when nothing is in flight any more stay with the
// server. It must not be called from a handler, which it waits for.
func (c *Client) Disconnect(ctx context.Context) error {
	err := c.drain(ctx)
	c.leave()
	select {
	case <-c.done:
		return err
	case <-ctx.Done():
	}
	// DISCONNECT gets its second even if ctx did not leave it any; a handler
	// that does not return is not waited for.
	t := time.NewTimer(lingerTimeout)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
		c.stopNow()
	}
	return ctx.Err()
}

// drain waits until nothing waits for the server or to be written, the
// acknowledgement of the message that a handler has then included, or the Client has
// ended.
func (c *Client) drain(ctx context.Context) error {
	c.mu.Lock()
	c.closing = true
	c.changed()
	for !c.ended && (!c.m.idle() || c.unfinished()) {
		// waitRoom is woken with changed, which freed calls at least when
		// the queue is empty.
		if err := c.waitRoom(ctx); err != nil {
			return err
		}
	}
	cn := c.conn
	c.mu.Unlock()
	if cn != nil {
		cn.finishStreams(ctx)
	}
	return nil
}

// unfinished reports whether something is to be written, or will be when a handler
// returns. From now on no handler gets a message that would be acknowledged: on a busy
// topic that would have no end. mu is held.
func (c *Client) unfinished() bool {
	c.dispatch.leaving.Store(true)
	return c.conn != nil && (c.writing || len(c.out) > 0 || c.dispatch.handling.Load())
}

// Close ends the Client at once, without a DISCONNECT: the server publishes the
// will, and what is in flight ends with a [*PublishError]. It waits for the
// Client's goroutines and must not be called from a handler. It returns nil.
func (c *Client) Close() error {
	c.stopNow()
	<-c.done
	return nil
}

func (c *Client) stopNow() {
	c.mu.Lock()
	c.closing = true
	c.changed()
	c.mu.Unlock()
	c.stopOnce.Do(func() {
		close(c.stop)
		c.leave()
	})
}

// Done is closed when the Client has ended: after Disconnect or Close, or when it
// does not connect again.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the Client has ended: nil while it has not and after Disconnect and
// Close, otherwise the reason that is not [Retryable] or the last one of
// Backoff.MaxAttempts.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Carrier says what carries the latest connection; before there is one, what would
// carry one to the first URL.
func (c *Client) Carrier() mqtt.Carrier {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.carrier
}

// ClientID returns the client identifier, which the server may have assigned.
func (c *Client) ClientID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clientID
}

// Connack returns the server's answer on the latest connection. It must not be
// modified.
func (c *Client) Connack() *packet.Connack {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connack
}

// Link returns the latest network connection, for its addresses and TLS state,
// nil while there is none. It must not be used to read, write or close.
func (c *Client) Link() mqtt.Link {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	return c.conn.link
}

// TLS returns what the latest connection negotiated, nil without TLS or connection.
func (c *Client) TLS() *tls.ConnectionState {
	if l := c.Link(); l != nil {
		return l.TLS()
	}
	return nil
}

// Connected reports whether there is a connection now.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Inflight, s.QueueBytes = c.m.flights, c.m.queued
	return s
}

// Clone returns a copy of p that shares no memory with it.
func Clone(p *packet.Publish) *packet.Publish {
	q := *p
	q.Payload = bytes.Clone(p.Payload)
	if p.Properties != nil {
		props := *p.Properties
		props.CorrelationData = bytes.Clone(props.CorrelationData)
		props.SubscriptionIDs = slices.Clone(props.SubscriptionIDs)
		props.User = slices.Clone(props.User)
		q.Properties = &props
	}
	return &q
}

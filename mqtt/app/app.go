// Package app has handlers for MQTT messages, in the manner of net/http:
//
//	a := app.New(nil)
//	a.Handle("sensors/{id}/temp", func(ctx context.Context, m *app.Message) error {
//		var reading struct{ Celsius float64 }
//		if err := m.JSON(&reading); err != nil {
//			return err
//		}
//		return m.ReplyJSON(map[string]string{"seen": m.Named("id")})
//	})
//	err := a.ServeBroker(ctx, b) // inside a broker, or a.ServeClient(ctx, c) over a client's connection
//
// The same [App] serves inside a [broker.Broker], where messages are neither sent
// nor encoded and their publisher is known, and over the connection of a
// [client.Client], to any broker.
//
// # Patterns
//
// A pattern is a topic filter. A level may have a name: {id} stands for +, and
// {rest...} as the last level for #. What the wildcards matched is in
// [Message.Param] and [Message.Named]. A pattern may begin with $share/group/:
// then the group's members share the messages, whichever program they are in. A
// message goes to every handler whose pattern matches its topic.
//
// # Order and concurrency
//
// Messages of one topic are handled one after the other, in their order; those of
// different topics at once, up to Options.Concurrency of them per handler.
//
// # Acknowledgement
//
// A message with QoS 1 or 2 is acknowledged when its handlers have returned.
// If one of them returns an error, the acknowledgement says so, with the reason
// code of a [*Error] in it or else Implementation specific error (0x83), and a handler
// that panics is Unspecified error (0x80). Only MQTT 5 has words for that: a
// publisher of 3.x, or one with QoS 0, does not hear of it. Inside a broker the
// publisher is told; over a client connection it is the broker, which
// most take note of and no more. Other subscribers get the message all the same: to
// keep a message from everybody is what access control is for.
//
// # Memory
//
// Messages that wait for handlers or are worked on are bounded by
// Config.QueueBytes. When they are more, the publishers wait: see the
// back-pressure of [broker.Local] and of [client.Client].
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Handler handles one message. The context is done when the message's time is
// over, see Config.Timeout, or when the App ends at once. The message is valid
// after it returns; its payload and properties may be shared with other
// subscribers and must not be modified.
type Handler func(ctx context.Context, m *Message) error

// A Middleware returns a handler that does something around next.
type Middleware func(next Handler) Handler

// A Config says how an [App] behaves. Zero values are defaults; a nil pointer is
// the zero Config.
type Config struct {
	// Logger gets errors and panics of handlers. Payloads are never logged. Nil
	// discards.
	Logger *slog.Logger

	// ClientID is the publisher's name inside a broker: "app". A client has
	// its own.
	ClientID string

	// QueueBytes bounds the messages that wait or are worked on: 4 MiB.
	QueueBytes int

	// Timeout is how long a handler has for a message: 30 s; negative: as long
	// as it likes. Then its context is done, and the message is acknowledged
	// with Implementation specific error (0x83), for its publisher must not
	// wait for a handler that hangs. The handler keeps its place until it
	// returns.
	Timeout time.Duration

	// MayReply, if not nil, says whether the response topic that a message
	// asks for may be replied to. Whoever publishes a request chooses that
	// topic, and inside a broker a reply passes no access control.
	// The default refuses topics that begin with $.
	MayReply func(m *Message, topic string) bool
}

// Options are those of one handler.
type Options struct {
	// Concurrency is how many messages the handler works on at once:
	// the number of processors. 1 means one after the other, in order.
	Concurrency int

	// Unordered lets messages of one topic be worked on at once too.
	Unordered bool

	// AtMostOnce subscribes with QoS 0: nothing is acknowledged, and nothing
	// sent again. Otherwise messages come with the QoS that they were
	// published with, if the broker has it.
	AtMostOnce bool

	// NoRetained leaves out the messages that were retained before.
	NoRetained bool
}

// An App has handlers and serves them. Its methods may be called from any
// goroutine; Use and Handle only before it serves.
type App struct {
	cfg Config
	log *slog.Logger

	mu       sync.Mutex
	use      []Middleware         // guarded by mu
	routes   []*route             // guarded by mu; not changed once serving is true
	filters  map[string]struct{}  // guarded by mu
	serving  bool                 // guarded by mu; it has served
	backends map[backend]struct{} // guarded by mu; that serve now
	ended    bool                 // guarded by mu
	running  sync.WaitGroup       // Serve calls; Add only under mu while not ended

	end   context.Context // done when Close is called
	stop  context.CancelFunc
	bytes *budget // of messages that came over client connections
}

const (
	defaultQueueBytes = 4 << 20
	defaultTimeout    = 30 * time.Second
)

// ErrClosed is returned when the App has been closed.
var ErrClosed = errors.New("app: closed")

// New returns an App without handlers.
func New(cfg *Config) *App {
	a := &App{filters: make(map[string]struct{}), backends: make(map[backend]struct{})}
	if cfg != nil {
		a.cfg = *cfg
	}
	if a.log = a.cfg.Logger; a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.cfg.ClientID == "" {
		a.cfg.ClientID = "app"
	}
	if a.cfg.QueueBytes <= 0 {
		a.cfg.QueueBytes = defaultQueueBytes
	}
	if a.cfg.Timeout == 0 {
		a.cfg.Timeout = defaultTimeout
	}
	a.bytes = newBudget(a.cfg.QueueBytes)
	a.end, a.stop = context.WithCancel(context.Background())
	return a
}

// Use adds middleware around the handlers that are added after it. The first
// one is the outermost.
func (a *App) Use(m ...Middleware) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mustNotServe("Use")
	a.use = append(a.use, m...)
}

// Handle adds a handler for the messages that match a pattern. It panics if the
// pattern is not valid or has a handler already, and when the App has begun to
// serve, as http.Handle does: that is a mistake in the program.
func (a *App) Handle(pattern string, h Handler) { a.HandleWith(pattern, Options{}, h) }

// HandleWith is Handle with options.
func (a *App) HandleWith(pattern string, o Options, h Handler) {
	p, err := parsePattern(pattern)
	switch {
	case err != nil:
		panic(fmt.Sprintf("app: pattern %q: %v", pattern, err))
	case h == nil:
		panic(fmt.Sprintf("app: pattern %q: nil handler", pattern))
	case o.Concurrency < 0:
		panic(fmt.Sprintf("app: pattern %q: negative concurrency", pattern))
	}
	if o.Concurrency == 0 {
		o.Concurrency = runtime.GOMAXPROCS(0)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mustNotServe("Handle")
	if _, ok := a.filters[p.filter]; ok {
		panic(fmt.Sprintf("app: pattern %q: there is a handler for %s already", pattern, p.filter))
	}
	a.filters[p.filter] = struct{}{}
	for i := len(a.use) - 1; i >= 0; i-- {
		h = a.use[i](h)
	}
	a.routes = append(a.routes, newRoute(a, p, o, h))
}

// mustNotServe is called with mu.
func (a *App) mustNotServe(what string) {
	if a.serving {
		a.mu.Unlock()
		defer a.mu.Lock() // for the caller's Unlock
		panic("app: " + what + " after the App has begun to serve")
	}
}

// Stats are the figures of a handler.
type Stats struct {
	Pattern  string
	Messages uint64 // handled to the end
	Errors   uint64 // of them, with an error; panics are not among them
	Panics   uint64
	TimedOut uint64 // whose time was over before the handler returned
	Running  int    // being worked on
	Waiting  int
}

// Stats returns the figures of every handler, in the order of Handle.
func (a *App) Stats() []Stats {
	a.mu.Lock()
	routes := a.routes
	a.mu.Unlock()
	all := make([]Stats, len(routes))
	for i, r := range routes {
		all[i] = r.stats()
	}
	return all
}

// Close ends the App: Serve calls return, no new messages are taken, those that
// wait are refused, and the context of the handlers that run is done. It waits
// until they have returned; a handler must not call it.
func (a *App) Close() error {
	a.mu.Lock()
	a.ended = true
	a.mu.Unlock()
	a.stop()
	a.running.Wait()
	return nil
}

// Publish publishes a message by whatever the App serves: if that is more than
// one broker or client, by one of them. It returns [ErrClosed] if it serves nothing.
// See [broker.Broker.Publish] and [client.Client.Publish].
func (a *App) Publish(ctx context.Context, p *packet.Publish) error {
	b, err := a.backend()
	if err != nil {
		return err
	}
	return b.publish(ctx, p)
}

// Request publishes payload to a topic with QoS 1 and returns the first response.
// It needs MQTT 5 (Section 4.10). If the broker says that nobody is there to
// answer, it returns [ErrNoSubscribers] at once.
func (a *App) Request(ctx context.Context, topic string, payload []byte) (*packet.Publish, error) {
	b, err := a.backend()
	if err != nil {
		return nil, err
	}
	return b.request(ctx, topic, payload)
}

func (a *App) backend() (backend, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for b := range a.backends {
		return b, nil
	}
	return nil, fmt.Errorf("app: it serves neither a broker nor a client: %w", ErrClosed)
}

package broker

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/store"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// A Config says how a [Broker] behaves. The zero value of each field is its
// default; a nil *Config is the zero Config.
type Config struct {
	// Logger gets one line for each connection that ends abnormally, and what
	// an operator must know. Passwords and payloads are never logged.
	// Nil discards.
	Logger *slog.Logger

	// Auth decides who a client is; nil: everyone is whom it says. With it, a
	// session belongs to the user who began it: others are refused its client
	// identifier while it lives.
	Auth Authenticator

	// ACL decides what a client may publish and subscribe to; nil: everything.
	ACL Authorizer

	// SysInterval is how often the broker publishes its figures below $SYS/broker/,
	// beginning at once. They are kept for later subscribers and match no filter
	// that begins with a wildcard. Zero: never.
	SysInterval time.Duration

	// Version is what $SYS/broker/version says: name and version of the program.
	// Default "anyquic".
	Version string

	// HookTimeout bounds one call of Auth or ACL: 5 s.
	HookTimeout time.Duration

	// MaxHooks bounds the calls of Auth and, apart from them, of ACL that are
	// going on at the same time, those that were given up included: 64. Calls
	// above it wait, within HookTimeout. Wills that are due are asked about half
	// as many at a time and wait for that as long as it takes, so that those of
	// many who are lost together neither are denied for want of a place nor
	// take all of them.
	MaxHooks int

	// Quotas bound connections and rates.
	Quotas Quotas

	// Limits bound what one session may hold.
	Limits session.Limits

	// Node names the broker where bridges have brought messages, see package
	// mqtt/bridge. Default: a random name.
	Node string

	// MaxConns bounds the network connections. Those above it are refused with
	// Server busy (0x89), or at once if they come faster than they can be
	// refused politely. Zero: no limit.
	MaxConns int

	// MaxSessions bounds the sessions, with and without a connection. A CONNECT
	// above it is refused with Quota exceeded (0x97). Zero: no limit.
	MaxSessions int

	// MaxRetained and MaxRetainedBytes bound the retained store: 1,000,000
	// messages, 256 MiB of topics, payloads and properties. A retained message
	// above them is refused with Quota exceeded (0x97). Negative: no limit.
	MaxRetained      int
	MaxRetainedBytes int64 // bytes

	// Store keeps sessions that outlive their connection, what is queued for them,
	// and retained messages; see docs/durability.md. New loads them. The
	// broker does not close it: that is for after Close. Nil: all is in memory.
	Store store.Store

	// SyncInterval is how often the store is synced to the disk. Zero: before each
	// acknowledgement, in groups, so that nothing acknowledged is lost when the
	// machine stops. Otherwise acknowledgements do not wait, and it is what may
	// be lost then.
	SyncInterval time.Duration

	// Rewrite maps topics by rules. Default: none.
	Rewrite Rewrite

	// Delayed is for delayed publishing, which is off by default.
	Delayed Delayed

	// ConnectTimeout is how long a connection may take from being accepted to
	// a complete CONNECT packet, TLS handshake included: 10 s.
	ConnectTimeout time.Duration

	// DrainTimeout is how long a connection that the broker ends may linger so
	// that the peer gets what was written last: 1 s.
	DrainTimeout time.Duration

	// StallTimeout is how long a subscriber with a full queue may take nothing
	// before publishers stop waiting for it and its QoS 0 messages are
	// dropped, oldest first: 1 s. Live clients need the better part of that: a
	// lost segment costs TCP 200 ms at least, even on loopback, and the same
	// segment lost again 400 ms more.
	StallTimeout time.Duration

	// HoldTimeout bounds what a publisher waits for the subscribers of one
	// message, however slowly they make progress; and how long a subscriber
	// with a full queue of QoS 1 and 2 messages may take nothing before it is
	// disconnected with Quota exceeded (0x97): 5 s.
	HoldTimeout time.Duration
}

const (
	defaultMaxRetained      = 1_000_000
	defaultMaxRetainedBytes = 256 << 20
	defaultConnectTimeout   = 10 * time.Second
	defaultDrainTimeout     = time.Second
	defaultStallTimeout     = time.Second
	defaultHoldTimeout      = 5 * time.Second
	defaultHookTimeout      = 5 * time.Second
	defaultMaxHooks         = 64

	// The machine announces its own default; the reader must refuse by the
	// same number before it keeps a packet's body.
	defaultMaxPacket = 1 << 20
	defaultQueue     = 1 << 20
)

// complete returns a copy of cfg with defaults filled in.
func (cfg *Config) complete() (Config, error) {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Node == "" {
		c.Node = "n-" + rand.Text()[:12]
	}
	if len(c.Node) > 64 || topic.ValidName(c.Node) != nil {
		return c, fmt.Errorf("broker: Node %q: must be 1 to 64 bytes without + and #", c.Node)
	}
	if c.Limits.MaximumPacketSize == 0 {
		c.Limits.MaximumPacketSize = defaultMaxPacket
	}
	if c.SysInterval < 0 || c.SysInterval > 0 && c.SysInterval < time.Second {
		return c, fmt.Errorf("broker: SysInterval %v: must be 0, or a second or more", c.SysInterval)
	}
	if c.Version == "" {
		c.Version = "anyquic"
	}
	if err := c.Quotas.check(); err != nil {
		return c, err
	}
	c.Quotas.complete()
	if c.MaxRetained == 0 {
		c.MaxRetained = defaultMaxRetained
	}
	if c.MaxRetainedBytes == 0 {
		c.MaxRetainedBytes = defaultMaxRetainedBytes
	}
	if c.MaxHooks == 0 {
		c.MaxHooks = defaultMaxHooks
	}
	if c.MaxHooks < 0 {
		return c, fmt.Errorf("broker: MaxHooks %d: negative", c.MaxHooks)
	}
	if c.MaxConns < 0 || c.MaxSessions < 0 {
		return c, fmt.Errorf("broker: MaxConns %d, MaxSessions %d: a limit cannot be negative", c.MaxConns, c.MaxSessions)
	}
	if c.SyncInterval < 0 {
		return c, fmt.Errorf("broker: SyncInterval %v: negative", c.SyncInterval)
	}
	for _, d := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"ConnectTimeout", &c.ConnectTimeout, defaultConnectTimeout},
		{"DrainTimeout", &c.DrainTimeout, defaultDrainTimeout},
		{"StallTimeout", &c.StallTimeout, defaultStallTimeout},
		{"HoldTimeout", &c.HoldTimeout, defaultHoldTimeout},
		{"HookTimeout", &c.HookTimeout, defaultHookTimeout},
	} {
		if *d.v < 0 {
			return c, fmt.Errorf("broker: %s %v: negative", d.name, *d.v)
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	return c, c.Delayed.complete()
}

// DefaultConfig returns the zero Config with its defaults filled in, for
// programs that show or change them.
func DefaultConfig() Config {
	c, err := (*Config)(nil).complete()
	if err != nil {
		panic(err) // the defaults are not valid
	}
	c.Limits = session.DefaultLimits()
	return c
}

// Package faultlink makes a broker misbehave towards its clients, to test them.
//
//	Link of the carrier ─ Link with faults ─ broker
//
// A server-side [mqtt.Link] is wrapped: what the broker writes is taken apart into
// packets, some of which are left out, changed or added to by chance. The broker
// knows nothing of it. It is for tests and for loopback, never for a service.
package faultlink

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/anyquic/anyquic/mqtt"
)

// A Fault is one way to misbehave.
type Fault string

const (
	// PublishBeforeSuback sends a PUBLISH that matches a subscription before the
	// SUBACK, which a server may do (MQTT 5, Section 3.8.4).
	PublishBeforeSuback Fault = "publish-before-suback"
	// SplitPackets writes the bytes of a packet one by one, as a network may
	// deliver them.
	SplitPackets Fault = "split-packets"
	// ShortPublish sends, in place of a PUBLISH, one that ends within its topic.
	ShortPublish Fault = "short-publish"
	// ErrorConnack refuses a connection that the broker has accepted, and closes
	// it.
	ErrorConnack Fault = "error-connack"
	// ExcessiveLength announces, in place of a PUBLISH, a packet of 256 MiB, the
	// most that there is.
	ExcessiveLength Fault = "excessive-length"
	// MalformedLength sends, in place of a PUBLISH, a remaining length of five bytes.
	MalformedLength Fault = "malformed-length"
	// Cut ends the connection in the middle of a PUBLISH.
	Cut Fault = "cut"
)

// All are the faults there are.
var All = []Fault{PublishBeforeSuback, SplitPackets, ShortPublish, ErrorConnack, ExcessiveLength, MalformedLength, Cut}

// Parse returns the faults in a list with commas; "all" stands for all of them.
func Parse(list string) ([]Fault, error) {
	if list == "all" {
		return slices.Clone(All), nil
	}
	var faults []Fault
	for name := range strings.SplitSeq(list, ",") {
		f := Fault(strings.TrimSpace(name))
		if !slices.Contains(All, f) {
			return nil, fmt.Errorf("faultlink: no such fault: %q (there are: %s)", f, names(All))
		}
		faults = append(faults, f)
	}
	return faults, nil
}

func names(faults []Fault) string {
	var all []string
	for _, f := range faults {
		all = append(all, string(f))
	}
	return strings.Join(all, ", ")
}

// A Config says what goes wrong how often.
type Config struct {
	Faults []Fault

	// Rate is how probable each fault is at each packet that it can happen to:
	// 0.1.
	Rate float64

	// Seed makes chance repeatable: the Nth connection, and on it the Nth packet of the
	// control stream, always fare alike. Zero is a seed like others.
	Seed uint64

	// Limit is how many faults happen, all connections together. 0: no limit.
	Limit int64
}

// A Source makes faults for the connections that it wraps.
type Source struct {
	cfg      Config
	links    atomic.Uint64
	total    atomic.Int64
	mu       sync.Mutex
	happened map[Fault]uint64 // guarded by mu
}

// New returns a Source.
func New(cfg Config) (*Source, error) {
	for _, f := range cfg.Faults {
		if !slices.Contains(All, f) {
			return nil, fmt.Errorf("faultlink: no such fault: %q (there are: %s)", f, names(All))
		}
	}
	if cfg.Rate == 0 {
		cfg.Rate = 0.1
	}
	if cfg.Rate < 0 || cfg.Rate > 1 || cfg.Limit < 0 {
		return nil, fmt.Errorf("faultlink: rate %v, limit %d: a rate is between 0 and 1, and a limit not negative", cfg.Rate, cfg.Limit)
	}
	return &Source{cfg: cfg, happened: make(map[Fault]uint64)}, nil
}

// Happened returns how often each fault has happened.
func (s *Source) Happened() map[Fault]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[Fault]uint64, len(s.happened))
	for f, n := range s.happened {
		out[f] = n
	}
	return out
}

// chance decides whether f happens now.
func (s *Source) chance(rng *rand.Rand, f Fault) bool {
	if !slices.Contains(s.cfg.Faults, f) || rng.Float64() >= s.cfg.Rate {
		return false
	}
	if n := s.total.Add(1); s.cfg.Limit > 0 && n > s.cfg.Limit {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.happened[f]++
	return true
}

// Link wraps a server's Link.
func (s *Source) Link(l mqtt.Link) mqtt.Link {
	return &link{Link: l, source: s, number: s.links.Add(1)}
}

// Listener wraps a listener, to wrap every Link that it accepts.
func (s *Source) Listener(l mqtt.LinkListener) mqtt.LinkListener {
	return &listener{LinkListener: l, source: s}
}

type listener struct {
	mqtt.LinkListener
	source *Source
}

func (l *listener) Accept(ctx context.Context) (mqtt.Link, error) {
	inner, err := l.LinkListener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return l.source.Link(inner), nil
}

type link struct {
	mqtt.Link
	source  *Source
	number  uint64
	version atomic.Uint32 // of CONNECT
}

// SetCode is that of [mqtt.CodeSetter], if the Link has it.
func (l *link) SetCode(code mqtt.LinkCode) {
	if c, ok := l.Link.(mqtt.CodeSetter); ok {
		c.SetCode(code)
	}
}

func (l *link) AcceptStream(ctx context.Context) (mqtt.Stream, error) {
	s, err := l.Link.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	// The order in which others' faults come must not change this one's.
	rng := rand.New(rand.NewPCG(l.source.cfg.Seed, l.number<<32|uint64(s.ID()))) //nolint:gosec // repeatable chance
	return &stream{Stream: s, link: l, rng: rng}, nil
}

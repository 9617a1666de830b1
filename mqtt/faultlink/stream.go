package faultlink

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A stream takes apart what passes. Read is for one goroutine, and so is Write, as
// the broker uses them.
type stream struct {
	mqtt.Stream
	link *link
	rng  *rand.Rand // writer only

	in  splitter // reader only
	out splitter // writer only

	mu      sync.Mutex
	filters map[uint16]string // guarded by mu; the first one of each SUBSCRIBE without SUBACK

	broken bool // writer only: what follows is thrown away
}

// maxKept is how many bytes of a packet are kept to look into; longer ones pass as
// they come.
const maxKept = 64 << 10

// maxFilters is how many SUBSCRIBE packets are remembered.
const maxFilters = 64

// A splitter finds packets in a stream of bytes.
type splitter struct {
	kept []byte // of the packet at hand, if it is to be looked into
	pass int    // bytes of a packet that is not
}

// next takes bytes from p. It returns a whole packet that is to be looked into, or else bytes
// that pass; neither if p ended before it could tell.
func (s *splitter) next(p []byte, look func(packet.Header) bool) (whole, passing, rest []byte) {
	if s.pass > 0 {
		n := min(s.pass, len(p))
		s.pass -= n
		return nil, p[:n], p[n:]
	}
	for len(p) > 0 {
		h, n, err := packet.ParseHeader(s.kept)
		if err == nil && n == 0 {
			s.kept, p = append(s.kept, p[0]), p[1:]
			continue
		}
		size := n + h.Length
		if err != nil || size > maxKept || !look(h) {
			// The header is on its way already.
			passing, s.kept = s.kept, nil
			s.pass = h.Length
			if err != nil {
				s.pass = 1 << 30
			}
			return nil, passing, p
		}
		take := min(size-len(s.kept), len(p))
		s.kept, p = append(s.kept, p[:take]...), p[take:]
		if len(s.kept) == size {
			whole, s.kept = s.kept, nil
			return whole, nil, p
		}
	}
	// A packet may be nothing but its header.
	if h, n, err := packet.ParseHeader(s.kept); err == nil && n > 0 && h.Length == 0 {
		whole, s.kept = s.kept, nil
		return whole, nil, nil
	}
	return nil, nil, nil
}

// Read looks for what the client asks for.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		var whole []byte
		whole, _, rest = s.in.next(rest, func(h packet.Header) bool { return h.Type == packet.CONNECT || h.Type == packet.SUBSCRIBE })
		if whole != nil {
			s.received(whole)
		}
	}
	return n, err
}

func (s *stream) version() packet.Version { return packet.Version(s.link.version.Load()) }

func (s *stream) received(whole []byte) {
	h, n, _ := packet.ParseHeader(whole)
	p, err := packet.Decode(h, bytes.Clone(whole[n:]), s.version())
	if err != nil {
		return // the broker will say so
	}
	switch p := p.(type) {
	case *packet.Connect:
		s.link.version.Store(uint32(p.Version))
	case *packet.Subscribe:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.filters == nil {
			s.filters = make(map[uint16]string)
		}
		if len(s.filters) < maxFilters {
			s.filters[p.PacketID] = p.Subscriptions[0].Filter
		}
	}
}

// Write lets the broker's packets through, or what a fault makes of them.
func (s *stream) Write(p []byte) (int, error) {
	size := len(p)
	var out []byte
	for len(p) > 0 && !s.broken {
		var whole, passing []byte
		whole, passing, p = s.out.next(p, func(packet.Header) bool { return true })
		out = append(out, passing...)
		if whole == nil {
			continue
		}
		if err := s.send(&out, whole); err != nil {
			return 0, err
		}
	}
	if len(out) > 0 {
		if _, err := s.Stream.Write(out); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// send appends whole to out, or what happens to it.
func (s *stream) send(out *[]byte, whole []byte) error {
	h, n, _ := packet.ParseHeader(whole)
	happens := func(f Fault) bool { return s.link.source.chance(s.rng, f) }
	switch h.Type {
	case packet.CONNACK:
		// A refusal of the broker's own is as good.
		if len(whole) > n+1 && whole[n+1] == 0 && happens(ErrorConnack) {
			refusal, err := (&packet.Connack{Code: packet.ServerUnavailable}).Append(nil, s.version())
			if err != nil {
				return err
			}
			if err := s.only(out, refusal); err != nil {
				return err
			}
			return s.CloseWrite()
		}
	case packet.SUBACK:
		if h.Length < 2 {
			break // only a fuzzer writes one
		}
		id := uint16(whole[n])<<8 | uint16(whole[n+1])
		s.mu.Lock()
		filter, ok := s.filters[id]
		delete(s.filters, id)
		s.mu.Unlock()
		if ok && happens(PublishBeforeSuback) {
			early := &packet.Publish{Topic: matching(filter), Payload: []byte(PublishBeforeSuback)}
			if b, err := early.Append(*out, s.version()); err == nil {
				*out = b
			}
		}
	case packet.PUBLISH:
		switch {
		case happens(ShortPublish):
			return s.only(out, []byte{byte(packet.PUBLISH) << 4, 3, 0, 200, 'x'})
		case happens(ExcessiveLength):
			return s.only(out, []byte{byte(packet.PUBLISH) << 4, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, 'x'})
		case happens(MalformedLength):
			return s.only(out, []byte{byte(packet.PUBLISH) << 4, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F})
		case happens(Cut):
			if err := s.only(out, whole[:1+s.rng.IntN(len(whole)-1)]); err != nil {
				return err
			}
			return s.link.CloseWithCode(mqtt.LinkNormal)
		}
	}
	if happens(SplitPackets) {
		if len(*out) > 0 {
			if _, err := s.Stream.Write(*out); err != nil {
				return err
			}
			*out = (*out)[:0]
		}
		for i := range whole {
			if _, err := s.Stream.Write(whole[i : i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	*out = append(*out, whole...)
	return nil
}

// only writes out and b, and lets nothing through after it: the client has to end
// the connection.
func (s *stream) only(out *[]byte, b []byte) error {
	s.broken = true
	_, err := s.Stream.Write(append(*out, b...))
	*out = nil
	return err
}

// matching returns a topic that filter, which may be a shared one, matches.
func matching(filter string) string {
	if strings.HasPrefix(filter, "$share/") {
		if parts := strings.SplitN(filter, "/", 3); len(parts) == 3 {
			filter = parts[2]
		}
	}
	return strings.NewReplacer("+", "early", "#", "early").Replace(filter)
}

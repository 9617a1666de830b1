package broker

import (
	"container/heap"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anyquic/anyquic/internal/timerwheel"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// Delayed bounds delayed publishing, which EMQX has introduced: what is published to
// "$delayed/SECONDS/TOPIC" is acknowledged at once and published to TOPIC that much
// later, as if it had been published then: its Message Expiry Interval counts from
// there, and a retained message is retained then. If the Authorizer fails when one is
// due, it is asked again until it answers, and those that are due after it wait. What
// is not published when the broker ends is lost without a Store; with one it is
// published in time by the next start, or at once if that comes later. Without
// delayed publishing such a topic is refused with Topic Name invalid (0x90), as is one
// whose SECONDS are no number, or too many, or whose TOPIC is no topic name.
type Delayed struct {
	// Enabled turns delayed publishing on.
	Enabled bool
	// MaxMessages and MaxBytes bound what waits: 100,000 messages, 64 MiB of
	// topics, payloads and properties. A message above them is refused with
	// Quota exceeded (0x97). Negative: no limit.
	MaxMessages int
	MaxBytes    int64 // bytes
	// MaxDelay is the longest delay: 4294967 s, EMQX's limit.
	MaxDelay time.Duration
}

const (
	delayedPrefix = "$delayed/"

	defaultMaxDelayed      = 100_000
	defaultMaxDelayedBytes = 64 << 20
	defaultMaxDelay        = 4294967 * time.Second
	maxMaxDelay            = 1 << 32 * time.Second // 136 years, which a Duration can hold
)

func (d *Delayed) complete() error {
	if d.MaxMessages == 0 {
		d.MaxMessages = defaultMaxDelayed
	}
	if d.MaxBytes == 0 {
		d.MaxBytes = defaultMaxDelayedBytes
	}
	if d.MaxDelay == 0 {
		d.MaxDelay = defaultMaxDelay
	}
	if d.MaxDelay < 0 || d.MaxDelay > maxMaxDelay {
		return fmt.Errorf("broker: Delayed.MaxDelay %v: must be more than 0 and at most %v", d.MaxDelay, maxMaxDelay)
	}
	return nil
}

// splitDelayed takes a topic apart into what says that it is delayed, which is
// empty if it is not, and the topic that the message is for. Who decides whether a
// client may publish looks at the latter.
func splitDelayed(name string) (prefix, target string) {
	rest, ok := strings.CutPrefix(name, delayedPrefix)
	if !ok {
		return "", name
	}
	seconds, _, ok := strings.Cut(rest, "/")
	if !ok {
		return name, ""
	}
	n := len(delayedPrefix) + len(seconds) + 1
	return name[:n], name[n:]
}

// delayOf returns what the prefix of splitDelayed says.
func (d *Delayed) delayOf(prefix string) (time.Duration, bool) {
	digits := strings.TrimSuffix(strings.TrimPrefix(prefix, delayedPrefix), "/")
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' { // ParseUint takes a + too
			return 0, false
		}
	}
	seconds, err := strconv.ParseUint(digits, 10, 33)
	delay := time.Duration(seconds) * time.Second
	return delay, err == nil && delay <= d.MaxDelay
}

// A delayedStore holds the messages that are published later.
type delayedStore struct {
	b     *Broker
	limit Delayed
	timer timerwheel.Timer // for the first of heap

	mu        sync.Mutex
	heap      delayedHeap   // guarded by mu
	seq       uint64        // guarded by mu; of the last one added
	bytes     int64         // guarded by mu
	releasing bool          // guarded by mu; a goroutine publishes what is due
	pause     time.Duration // guarded by mu; how long the last question waited to be asked again; 0: it was answered
}

type delayedMessage struct {
	m     *session.Message
	who   *ClientInfo // has published it; nil: that is not kept
	asked string      // for which topic, before it was rewritten
	due   time.Time
	seq   uint64
	size  int64  // bytes
	id    uint64 // in the store
}

// How long to wait before the Authorizer is asked again about a message, when that could
// not be found out: twice as long each time.
const (
	minDelayedPause = 100 * time.Millisecond
	maxDelayedPause = 10 * time.Second
)

// delayedOverhead is about what the store needs for a message besides its bytes.
const delayedOverhead = 256

// cost returns the bytes that e counts for.
func (e *delayedMessage) cost() int64 {
	n := e.m.Publish.Size(packet.V5) + len(e.asked) + delayedOverhead
	if e.who != nil {
		n += len(e.who.Username) + len(e.who.ClientID)
	}
	return int64(n)
}

func (s *delayedStore) init(b *Broker, limit Delayed) {
	s.b, s.limit = b, limit
	s.timer.Init(b.wheel, s.due)
}

func (s *delayedStore) size() (n int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.heap), s.bytes
}

// put keeps a message whose topic splitDelayed has taken apart, and returns the
// reason code for its acknowledgement. When it is due, the Authorizer is asked whether
// who may publish to asked.
func (s *delayedStore) put(now time.Time, m *session.Message, prefix, target string, who *ClientInfo, asked string) packet.ReasonCode {
	delay, ok := s.limit.delayOf(prefix)
	if !ok || !s.limit.Enabled || strings.HasPrefix(target, delayedPrefix) ||
		topic.ValidName(target) != nil {
		return packet.TopicNameInvalid
	}
	later := *m
	later.Publish.Topic = target
	if !m.Expires.IsZero() {
		later.Expires = m.Expires.Add(delay)
	}
	if s.b.durable.failing() {
		return packet.QuotaExceeded
	}
	e := &delayedMessage{m: &later, who: who, asked: asked, due: now.Add(delay)}
	e.size = e.cost()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit.MaxMessages >= 0 && len(s.heap) >= s.limit.MaxMessages ||
		s.limit.MaxBytes >= 0 && s.bytes+e.size > s.limit.MaxBytes {
		return packet.QuotaExceeded
	}
	s.b.durable.delay(e)
	s.push(e)
	if s.heap[0] == e {
		s.timer.Reset(e.due)
	}
	return packet.Success
}

// due runs on the wheel's goroutine, which must not wait for subscribers.
func (s *delayedStore) due() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.releasing || !s.b.begin() {
		return
	}
	s.releasing = true
	go s.release() // ends when nothing is due, or with the broker, which waits for it
}

// release publishes what is due, in the order in which it is, and waits for
// subscribers as a publisher does.
func (s *delayedStore) release() {
	defer s.b.running.Done()
	var src source
	src.init(s.b, nil)
	src.ctx, src.late = s.b.ctx, true
	for burst := 1; ; burst++ {
		s.waitForStore(&src)
		src.now = time.Now()
		e := s.take(src.now)
		if e == nil {
			break
		}
		ok, err := s.b.mayStill(s.b.ctx, &src, e.who, e.asked)
		if err != nil {
			s.putBack(e)
			break
		}
		if s.answered(); ok {
			s.publish(&src, e)
		} else {
			s.b.count.dropDenied.Add(1)
			s.b.durable.undelay(e)
		}
		if burst%maxBurst == 0 {
			src.flush()
		}
	}
	src.flush()
}

// take removes the first message if it is due. If not, the timer is set for it and
// release ends.
func (s *delayedStore) take(now time.Time) *delayedMessage {
	closing := s.b.isClosing()
	s.mu.Lock()
	defer s.mu.Unlock()
	if closing || len(s.heap) == 0 || s.heap[0].due.After(now) {
		s.releasing = false
		if !closing && len(s.heap) > 0 {
			s.timer.Reset(s.heap[0].due)
		}
		return nil
	}
	e := heap.Pop(&s.heap).(*delayedMessage)
	s.bytes -= e.size
	return e
}

// putBack is for a message about which nothing could be found out. It was acknowledged,
// so it stays where it was, before what is due after it, and release ends until it is
// time to ask again; the next start asks if the broker ends before.
func (s *delayedStore) putBack(e *delayedMessage) {
	closing := s.b.isClosing()
	s.mu.Lock()
	defer s.mu.Unlock()
	heap.Push(&s.heap, e)
	s.bytes += e.size
	s.releasing = false
	s.pause = min(max(2*s.pause, minDelayedPause), maxDelayedPause)
	if !closing {
		s.timer.Reset(time.Now().Add(s.pause))
	}
}

func (s *delayedStore) answered() {
	s.mu.Lock()
	s.pause = 0
	s.mu.Unlock()
}

// A delayedHeap has the message that is due next at the top, and of several the one
// that was published first.
type delayedHeap []*delayedMessage

func (h delayedHeap) Len() int { return len(h) }
func (h delayedHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].seq < h[j].seq
	}
	return h[i].due.Before(h[j].due)
}
func (h delayedHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *delayedHeap) Push(e any)   { *h = append(*h, e.(*delayedMessage)) }
func (h *delayedHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}

package broker

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A sysPublisher publishes the broker's figures below $SYS every Config.SysInterval.
// The topics are those that other brokers have, as far as they mean something here.
type sysPublisher struct {
	b       *Broker
	src     source
	started time.Time
	last    time.Time // when it published last
	most    int       // clients at once, as far as it has seen
	before  loads     // counters at last
	load    [len(loadWindows)]loads
}

// loadWindows are those of the moving averages.
var loadWindows = [...]struct {
	name string
	over time.Duration
}{{"1min", time.Minute}, {"5min", 5 * time.Minute}, {"15min", 15 * time.Minute}}

// loads are what has moving averages, by the part of the topic that names it.
type loads map[string]float64

// publishSys runs until the broker closes.
func (b *Broker) publishSys() {
	p := &sysPublisher{b: b, started: time.Now()}
	p.src.init(b, nil)
	for i := range p.load {
		p.load[i] = make(loads)
	}
	for {
		p.publish(time.Now())
		if !b.sleep(b.cfg.SysInterval) {
			return
		}
	}
}

// publish publishes everything once.
func (p *sysPublisher) publish(now time.Time) {
	s := p.b.Stats()
	p.src.now = now
	topics := p.topics(&s, now)
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		m := session.NewMessage(now, &packet.Publish{Topic: sysTopic + "/broker/" + name, Payload: []byte(topics[name])}, "")
		p.b.retained.keepSys(m)
		p.b.route(&p.src, m)
	}
	p.src.flush()
}

// topics returns the payloads by what follows $SYS/broker/.
func (p *sysPublisher) topics(s *Stats, now time.Time) map[string]string {
	p.most = max(p.most, s.Connected())
	t := map[string]string{"version": p.b.cfg.Version}
	number := func(name string, v uint64) { t[name] = strconv.FormatUint(v, 10) }
	count := func(name string, v int) { number(name, uint64(max(v, 0))) }
	number("uptime", uint64(now.Sub(p.started)/time.Second))

	count("clients/connected", s.Connected())
	count("clients/disconnected", s.SessionsOffline)
	count("clients/total", s.Sessions)
	count("clients/maximum", p.most)
	connections := uint64(0)
	for _, c := range mqtt.Carriers {
		n := s.Connections[c]
		count("connections/"+strings.ReplaceAll(string(c), "+", "-"), int(n.Now))
		connections += n.Total
	}

	received, sent, dropped := sum(s.PacketsIn), sum(s.PacketsOut), sum(s.Dropped)
	publishedIn := s.MessagesIn[0] + s.MessagesIn[1] + s.MessagesIn[2]
	publishedOut := s.MessagesOut[0] + s.MessagesOut[1] + s.MessagesOut[2]
	number("messages/received", received)
	number("messages/sent", sent)
	count("messages/inflight", s.Inflight)
	count("store/messages/count", s.Queued)
	count("store/messages/bytes", int(s.QueuedBytes))
	number("publish/messages/received", publishedIn)
	number("publish/messages/sent", publishedOut)
	number("publish/messages/dropped", dropped)
	number("publish/bytes/received", s.BytesInBy["publish"])
	number("publish/bytes/sent", s.BytesOutBy["publish"])
	number("bytes/received", s.BytesIn)
	number("bytes/sent", s.BytesOut)
	count("retained messages/count", s.Retained)
	count("subscriptions/count", s.Subscriptions)
	count("shared_subscriptions/count", s.SharedGroups)

	p.average(now, loads{
		"messages/received": float64(received), "messages/sent": float64(sent),
		"publish/received": float64(publishedIn), "publish/sent": float64(publishedOut), "publish/dropped": float64(dropped),
		"bytes/received": float64(s.BytesIn), "bytes/sent": float64(s.BytesOut),
		"connections": float64(connections),
	})
	for i, w := range loadWindows {
		for name, v := range p.load[i] {
			t["load/"+name+"/"+w.name] = strconv.FormatFloat(v, 'f', 2, 64)
		}
	}
	return t
}

// average brings the moving averages, which are per minute, up to date: an event
// counts the less the longer it is ago, by a factor of e after the window.
func (p *sysPublisher) average(now time.Time, counters loads) {
	if passed := now.Sub(p.last); !p.last.IsZero() && passed > 0 {
		for name, v := range counters {
			rate := (v - p.before[name]) / passed.Minutes()
			for i, w := range loadWindows {
				keep := math.Exp(-passed.Seconds() / w.over.Seconds())
				p.load[i][name] = rate + keep*(p.load[i][name]-rate)
			}
		}
	}
	p.last, p.before = now, counters
}

func sum(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

// keepSys keeps m, which the broker published about itself, for those who subscribe
// later. It does not count as a retained message, nor towards a limit.
func (r *retainedStore) keepSys(m *session.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, replaces := r.tree.Get(m.Publish.Topic); !replaces {
		r.sys++
	}
	r.tree.Set(m.Publish.Topic, &kept{m: m})
}

package main

import (
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// counts waits until the series have these values: an engine, or a connection that
// ends, may count a moment after its client has been answered.
func (s *served) counts(t *testing.T, want map[string]float64) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		m, got := s.scrape(t), make(map[string]float64, len(want))
		for line := range want {
			got[line] = m[line]
		}
		if maps.Equal(want, got) || time.Now().After(deadline) {
			require.Equal(t, want, got)
			return
		}
	}
}

// A scrape is what /metrics said: values by name and labels as they are written
// there, without the prefix.
type scrape map[string]float64

func (s *served) scrape(t *testing.T) scrape {
	t.Helper()
	_, body := s.get(t, "/metrics")
	return parseScrape(t, body)
}

func parseScrape(t *testing.T, body string) scrape {
	t.Helper()
	m := make(scrape)
	for line := range strings.SplitSeq(body, "\n") {
		line, ours := strings.CutPrefix(line, metricPrefix)
		if !ours {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[at+1:], 64)
		require.NoError(t, err, line)
		m[line[:at]] = v
	}
	return m
}

// family returns the name of the series that a line of a scrape belongs to.
func family(line string) string {
	name, _, _ := strings.Cut(line, "{")
	for _, s := range allSeries {
		if s.kind == histogram {
			for _, end := range []string{"_bucket", "_sum", "_count"} {
				if name == s.name+end {
					return s.name
				}
			}
		}
	}
	return name
}

// A move is what an action changes: lines of a scrape and by how much. A change of
// more, which is not a number, is any that is greater than zero.
type move struct {
	by  string
	act func(t *testing.T, s *served)
	how map[string]float64
}

const more = -1e9

func (m *move) check(t *testing.T, before, after scrape) {
	t.Helper()
	for line, by := range m.how {
		change := after[line] - before[line]
		if by == more {
			assert.Positive(t, change, "%s moves %s", m.by, line)
		} else {
			assert.InDelta(t, by, change, 1e-9, "%s moves %s", m.by, line)
		}
	}
}

// arrived reports whether everything has changed as it should.
func (m *move) arrived(before, after scrape) bool {
	for line, by := range m.how {
		change := after[line] - before[line]
		if by == more && change <= 0 || by != more && math.Abs(change-by) > 1e-9 {
			return false
		}
	}
	return true
}

// run does what m says and waits until the series have moved.
func (m *move) run(t *testing.T, s *served) {
	t.Run(m.by, func(t *testing.T) {
		before := s.idle(t)
		m.act(t, s)
		after := s.scrape(t)
		for deadline := time.Now().Add(patience); !m.arrived(before, after) && time.Now().Before(deadline); after = s.scrape(t) {
			time.Sleep(5 * time.Millisecond)
		}
		m.check(t, before, after)
	})
}

// idle waits until nobody is connected any more, and returns what /metrics says then.
func (s *served) idle(t *testing.T) scrape {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		for line, n := range s.scrape(t) {
			if name := family(line); name == "mqtt_connections" || name == "quic_connections" {
				assert.Zero(c, n, line)
			}
		}
	}, patience, 5*time.Millisecond)
	return s.scrape(t) // anew: what that one has besides may be from before the last had gone
}

// brokerMoves are what clients on TCP can move. Each leaves the broker as it was,
// but for its counters.
var brokerMoves = []move{
	{"a client of MQTT 5 that connects and stays", func(t *testing.T, s *served) { s.connect(t, "stays") }, map[string]float64{
		`mqtt_connections{carrier="tcp"}`:             1,
		`mqtt_connections_total{carrier="tcp"}`:       1,
		`mqtt_connects_total{version="5.0"}`:          1,
		`mqtt_connect_duration_seconds_count`:         1,
		`mqtt_clients{version="5.0"}`:                 1,
		`mqtt_sessions`:                               1,
		`mqtt_sessions_connected`:                     1,
		`mqtt_sessions_created_total`:                 1,
		`mqtt_packets_received_total{type="connect"}`: 1,
		`mqtt_packets_sent_total{type="connack"}`:     1,
		`mqtt_received_bytes_total{type="connect"}`:   20,
		`mqtt_sent_bytes_total{type="connack"}`:       more,
		`mqtt_connections_refused_total`:              0,
		`mqtt_connects_total{version="3.1.1"}`:        0,
	}},
	{"a client of MQTT 3.1.1 that goes", func(t *testing.T, s *served) {
		s.connect(t, "old", func(c *packet.Connect) { c.Version, c.Properties = packet.V311, nil }).end()
	}, map[string]float64{
		`mqtt_connects_total{version="3.1.1"}`:              1,
		`mqtt_clients{version="3.1.1"}`:                     0,
		`mqtt_sessions`:                                     0,
		`mqtt_sessions_ended_total`:                         1,
		`mqtt_disconnects_total{code="0",reason="Success"}`: 1,
	}},
	{"a session that another connection takes", func(t *testing.T, s *served) {
		old := s.connect(t, "taken", keep)
		s.connect(t, "taken", keep, resume)
		old.gone()
	}, map[string]float64{
		`mqtt_takeovers_total`:                                           1,
		`mqtt_sessions_resumed_total`:                                    1,
		`mqtt_sessions_created_total`:                                    1,
		`mqtt_disconnects_total{code="142",reason="Session taken over"}`: 1,
	}},
	{"an authentication method that nobody knows", func(t *testing.T, s *served) {
		p := s.dialPeer(t)
		require.Equal(t, packet.BadAuthenticationMethod, p.hello("x", func(c *packet.Connect) { c.Properties.AuthMethod = "abacus" }).Code)
	}, map[string]float64{
		`mqtt_connections_refused_total`:                                             1,
		`mqtt_connects_refused_total{code="140",reason="Bad authentication method"}`: 1,
		`log_lines_total{level="info"}`:                                              1,
	}},
	{"a client that is silent beyond its keep-alive", func(t *testing.T, s *served) {
		s.connect(t, "silent", func(c *packet.Connect) { c.KeepAlive = 1 }).gone()
	}, map[string]float64{
		`mqtt_keep_alive_timeouts_total`:                                 1,
		`mqtt_disconnects_total{code="141",reason="Keep Alive timeout"}`: 1,
	}},
	{"a client with a keep-alive", func(t *testing.T, s *served) {
		s.connect(t, "alive", func(c *packet.Connect) { c.KeepAlive = 600 })
	}, map[string]float64{`timers`: 1}},
	{"subscriptions, shared and not", func(t *testing.T, s *served) {
		s.connect(t, "subscriber").subscribe(0, "a", "$share/g/a", "$share/g/b", "$share/h/b")
	}, map[string]float64{
		`mqtt_subscriptions`:                            4,
		`mqtt_shared_groups`:                            3,
		`mqtt_packets_received_total{type="subscribe"}`: 1,
	}},
	{"sixteen messages with QoS 1 to one subscriber", func(t *testing.T, s *served) {
		sub, pub := s.connect(t, "sub"), s.connect(t, "pub")
		sub.subscribe(1, "t/qos1")
		for range 16 {
			require.Equal(t, packet.Success, pub.publish("t/qos1", "x"))
			m := next[*packet.Publish](sub)
			sub.send(&packet.Puback{Ack: packet.Ack{PacketID: m.PacketID}})
		}
		sub.ping()
	}, map[string]float64{
		`mqtt_messages_received_total{qos="1"}`:       16,
		`mqtt_messages_sent_total{qos="1"}`:           16,
		`mqtt_packets_received_total{type="publish"}`: 16,
		`mqtt_packets_received_total{type="puback"}`:  16,
		`mqtt_packets_sent_total{type="publish"}`:     16,
		`mqtt_delivery_duration_seconds_count`:        1,
		`mqtt_inflight_messages`:                      0,
		`mqtt_messages_unmatched_total`:               0,
	}},
	{"a message that nobody subscribed to", func(t *testing.T, s *served) {
		require.Equal(t, packet.NoMatchingSubscribers, s.connect(t, "lonely").publish("nobody", "x"))
	}, map[string]float64{`mqtt_messages_unmatched_total`: 1}},
	{"a message to where only the broker publishes", func(t *testing.T, s *served) {
		require.Equal(t, packet.NotAuthorized, s.connect(t, "liar").publish("$SYS/broker/uptime", "x"))
	}, map[string]float64{`mqtt_messages_dropped_total{reason="denied"}`: 1, `mqtt_messages_unmatched_total`: 0}},
	{"a message that comes twice", func(t *testing.T, s *served) {
		s.connect(t, "again").publish("nobody", "x", func(m *packet.Publish) { m.Dup = true })
	}, map[string]float64{`mqtt_duplicates_received_total`: 1}},
	{"a message that is not acknowledged", func(t *testing.T, s *served) {
		sub, pub := s.connect(t, "deaf", keep), s.connect(t, "pub")
		sub.subscribe(1, "t/deaf")
		pub.publish("t/deaf", "x")
		next[*packet.Publish](sub)
		sub.end()
		sub = s.connect(t, "deaf", keep, resume)
		require.True(t, next[*packet.Publish](sub).Dup)
	}, map[string]float64{`mqtt_duplicates_sent_total`: 1, `mqtt_inflight_messages`: 1}},
	{"messages that a subscriber cannot have", func(t *testing.T, s *served) {
		small := s.connect(t, "small", func(c *packet.Connect) { c.Properties.MaximumPacketSize = packet.Some[uint32](100) })
		small.subscribe(1, "t/small")
		pub := s.connect(t, "pub")
		pub.publish("t/small", strings.Repeat("x", 200))
		pub.publish("t/small", "x", func(m *packet.Publish) { m.Properties.MessageExpiry = packet.Some[uint32](0) })
	}, map[string]float64{
		`mqtt_messages_too_large_total`:                 1,
		`mqtt_messages_expired_total`:                   1,
		`mqtt_messages_dropped_total{reason="ignored"}`: 2,
	}},
	{"a client that is lost and has a will", func(t *testing.T, s *served) {
		p := s.connect(t, "mortal", func(c *packet.Connect) { c.Will = &packet.Will{Topic: "nobody", Payload: []byte("x")} })
		p.conn.Close()
	}, map[string]float64{`mqtt_wills_total`: 1}},
	{"a retained message", func(t *testing.T, s *served) {
		s.connect(t, "pub").publish("kept", "x", func(m *packet.Publish) { m.Retain = true })
	}, map[string]float64{`mqtt_retained_messages`: 1, `mqtt_retained_bytes`: more}},
	{"a delayed message", func(t *testing.T, s *served) {
		s.connect(t, "pub").publish("$delayed/3600/x", "later")
	}, map[string]float64{`mqtt_delayed_messages`: 1, `mqtt_delayed_bytes`: more}},
	{"a message for who is not there", func(t *testing.T, s *served) {
		away := s.connect(t, "away", keep)
		away.subscribe(1, "t/away")
		away.end()
		s.connect(t, "pub").publish("t/away", "x")
	}, map[string]float64{
		`mqtt_sessions_offline`: 1, `mqtt_queued_messages`: 1, `mqtt_queued_bytes`: more,
	}},
	{"a client that sends itself more than it takes", func(t *testing.T, s *served) {
		// Its queue is full after eight, and it would have to wait for itself.
		p := s.connect(t, "narcissus", one1)
		p.subscribe(1, "t/self")
		for range 12 {
			p.send(&packet.Publish{Topic: "t/self", Payload: make([]byte, 8<<10), QoS: 1, PacketID: 1})
		}
	}, map[string]float64{`mqtt_spilled_bytes`: more}},
	{"a subscriber that takes nothing", func(t *testing.T, s *served) {
		sub := s.connect(t, "stuck", one1)
		sub.subscribe(1, "t/stuck")
		pub := s.connect(t, "pub")
		for i := range 16 {
			pub.send(&packet.Publish{Topic: "t/stuck", Payload: make([]byte, 8<<10), QoS: 1, PacketID: uint16(i + 1)})
		}
	}, map[string]float64{
		`mqtt_publishers_pushed_back`: 1,
		`mqtt_subscribers_slow`:       1, `mqtt_subscribers_slow_total`: 1,
		`mqtt_subscribers_stalled`:       1,
		`mqtt_subscribers_stalled_total`: 1,
	}},
	{"a TLS handshake", func(t *testing.T, s *served) {
		code, _, stderr := anyquic(t, "mqtt", "pub", s.url("tls"), "--insecure", "-t", "x", "-m", "x")
		require.Zero(t, code, stderr)
	}, map[string]float64{
		`handshakes_started_total{listener="tls"}`:         1,
		`handshake_duration_seconds_count{listener="tls"}`: 1,
	}},
	{"a client that takes TLS for TCP", func(t *testing.T, s *served) {
		c, err := net.Dial("tcp", s.addr("tls"))
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		_, err = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		require.NoError(t, err)
	}, map[string]float64{
		`handshakes_started_total{listener="tls"}`:                 1,
		`handshakes_failed_total{listener="tls",reason="not_tls"}`: 1,
		`mqtt_connections_refused_total`:                           1,
	}},
}

// impatientMoves are those of a broker with a short --hold-timeout. With brokerMoves it is
// long: a scrape must meet who is held back.
var impatientMoves = []move{
	{"the end of its publisher's patience", func(t *testing.T, s *served) {
		sub := s.connect(t, "hopeless", one1)
		sub.subscribe(1, "t/hopeless")
		pub := s.connect(t, "pub2")
		for i := range 12 {
			pub.send(&packet.Publish{Topic: "t/hopeless", Payload: make([]byte, 8<<10), QoS: 1, PacketID: uint16(i + 1)})
		}
		sub.gone()
	}, map[string]float64{
		`mqtt_publishers_pushed_back_total`:                          more,
		`mqtt_publishers_pushed_back_seconds_total`:                  more,
		`mqtt_messages_dropped_total{reason="queue_full"}`:           more,
		`mqtt_disconnects_total{code="151",reason="Quota exceeded"}`: more,
	}},
}

// one1 allows one message in flight.
func one1(c *packet.Connect) { c.Properties.ReceiveMaximum = packet.Some[uint16](1) }

func TestEverySeriesOfTheBrokerMovesWithItsTraffic(t *testing.T) {
	for _, with := range []struct {
		hold  string
		moves []move
	}{{"1h", brokerMoves}, {"1s", impatientMoves}} {
		s := startServe(t, "--delayed", "--queue-bytes", "65536", "--stall-timeout", "100ms", "--hold-timeout", with.hold, "--log-format", "json")
		for i := range with.moves {
			with.moves[i].run(t, s)
		}
	}
}

// programTested are the series that move with what an operator does, in tests of their own.
var programTested = []string{
	"build_info", "library_info", "start_time_seconds", "draining", "certificate_expiry_time_seconds",
	"reloads_total", "last_reload_time_seconds",
	"mqtt_denied_total", "mqtt_subscriptions_denied_total", "mqtt_hooks_failed_total",
	"mqtt_connections_above_quota_total", "mqtt_clients_throttled_total",
	"mqtt_connections_pending", "mqtt_logins_failed_total",
	"mqtt_passwords_checked_total", "mqtt_passwords_refused_total", "mqtt_passwords_waiting",
}

// neverHere cannot be made to happen by clients of this server: accept fails when the
// process has no files left. The broker's own tests count it.
var neverHere = []string{"mqtt_accept_errors_total"}

func TestEverySeriesHasAnActionThatMovesIt(t *testing.T) {
	tested := append(slices.Clone(programTested), neverHere...)
	add := func(how map[string]float64) {
		for line, by := range how {
			if by != 0 {
				tested = append(tested, family(line))
			}
		}
	}
	for _, m := range slices.Concat(brokerMoves, impatientMoves, streamMoves) {
		add(m.how)
	}
	for _, m := range quicMoves {
		add(m.how)
	}
	add(storeFigures)
	for _, s := range allSeries {
		require.Contains(t, tested, s.name)
	}
}

func TestNoSeriesHasALabelThatClientsCanFill(t *testing.T) {
	known := []string{"version", "go", "engine", "library", "result", "level", "carrier", "reason", "code", "type", "qos", "listener", "of", "limit"}
	names := map[string]bool{}
	for _, s := range allSeries {
		require.False(t, names[s.name], s.name)
		names[s.name] = true
		require.Regexp(t, `^[a-z]+(_[a-z]+)*$`, s.name)
		require.Equal(t, s.kind == counter, strings.HasSuffix(s.name, "_total"), s.name)
		require.True(t, strings.HasSuffix(s.help, "."), s.name)
		for _, l := range s.labels {
			require.Contains(t, known, l, s.name)
		}
	}
	require.GreaterOrEqual(t, len(names), 60)

	s := startServe(t)
	lines := func() []string {
		return slices.DeleteFunc(slices.Collect(maps.Keys(s.scrape(t))), func(l string) bool {
			// As many as there are reason codes in the protocol.
			return strings.Contains(l, "code=")
		})
	}
	connect := func(from, to int) {
		for i := from; i < to; i++ {
			p := s.connect(t, fmt.Sprint("client-", i), func(c *packet.Connect) { c.Username = packet.Some(fmt.Sprint("user-", i)) })
			p.subscribe(0, fmt.Sprint("topic-", i))
			p.publish(fmt.Sprint("topic-", i, "/x"), "x")
		}
	}
	connect(0, 2)
	first := lines()
	connect(2, 200)
	require.ElementsMatch(t, first, lines(), "two clients and two hundred have the same series")
	for _, l := range first {
		require.NotRegexp(t, `client-|user-|topic-|127\.0\.0\.1`, l)
	}
}

const operationsPage = "docs/operations.md"

func TestTheTableOfSeriesIsThatOfTheCode(t *testing.T) {
	file := filepath.Join(root, operationsPage)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var table strings.Builder
	table.WriteString("| series | type | labels | what |\n|---|---|---|---|\n")
	for _, s := range allSeries {
		fmt.Fprintf(&table, "| `%s%s` | %s | %s | %s |\n", metricPrefix, s.name, s.kind, strings.Join(s.labels, ", "), s.help)
	}
	parts := regexp.MustCompile(`(?s)(<!-- begin: series -->\n).*?(<!-- end -->)`)
	require.True(t, parts.Match(b))
	want := parts.ReplaceAllString(string(b), "${1}"+table.String()+"${2}")
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
		return
	}
	if want != string(b) {
		t.Error(operationsPage + " is not what the code says: make readme writes it")
	}
}

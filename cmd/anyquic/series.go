package main

import (
	"slices"
	"strconv"
	"time"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/quicmeter"
	"github.com/anyquic/anyquic/mqtt/auth"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A kind is what Prometheus calls the type of a metric.
type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// A series is a metric of `anyquic serve`. Its labels have few values, which the
// program knows: never a client, a topic or an address.
type series struct {
	name   string // without the program's prefix
	kind   kind
	labels []string
	help   string
	values func(*figures, emit)
}

// emit gives a value of a series and the values of its labels.
type emit func(v any, labels ...string)

// figures are what the series are made from at one scrape.
type figures struct {
	broker.Stats
	quic    []quicmeter.Stats
	users   auth.UsersStats
	program programFigures
}

// programFigures are those of the process around the broker.
type programFigures struct {
	version  versionInfo
	engine   string
	started  time.Time
	notAfter time.Time // of the certificate
	draining bool
	reloads  [2]uint64 // failed, done
	reloaded time.Time // the last that was done, or the start
	logged   map[string]uint64
}

// number is what the values of counters and gauges are.
type number interface {
	~int | ~int64 | ~uint64 | ~float64
}

// one makes the values of a series without labels.
func one[T number](f func(*figures) T) func(*figures, emit) {
	return func(s *figures, e emit) { e(float64(f(s))) }
}

// by makes those of a series with one label.
func by[K ~string, T number](f func(*figures) map[K]T) func(*figures, emit) {
	return func(s *figures, e emit) {
		for k, v := range f(s) {
			e(float64(v), string(k))
		}
	}
}

// byCode makes those of a series by MQTT reason code.
func byCode(f func(*figures) map[packet.ReasonCode]uint64) func(*figures, emit) {
	return func(s *figures, e emit) {
		for code, n := range f(s) {
			e(float64(n), code.String(), strconv.Itoa(int(code)))
		}
	}
}

// byQoS makes those of a series by quality of service.
func byQoS(f func(*figures) [3]uint64) func(*figures, emit) {
	return func(s *figures, e emit) {
		for q, n := range f(s) {
			e(float64(n), strconv.Itoa(q))
		}
	}
}

// byVersion makes those of a series by version of the protocol.
func byVersion[T number](f func(*figures) map[packet.Version]T) func(*figures, emit) {
	return func(s *figures, e emit) {
		for v, n := range f(s) {
			e(float64(n), v.String())
		}
	}
}

// took makes those of a histogram without labels.
func took(f func(*figures) broker.Histogram) func(*figures, emit) {
	return func(s *figures, e emit) { e(f(s)) }
}

// quic makes those of a series by listener of QUIC.
func quic[T number](f func(*quicmeter.Stats) T) func(*figures, emit) {
	return func(s *figures, e emit) {
		for i := range s.quic {
			e(float64(f(&s.quic[i])), s.quic[i].Listener)
		}
	}
}

// quicBy makes those of a series by listener of QUIC and something else.
func quicBy(f func(*quicmeter.Stats) map[string]uint64) func(*figures, emit) {
	return func(s *figures, e emit) {
		for i := range s.quic {
			for k, n := range f(&s.quic[i]) {
				e(float64(n), s.quic[i].Listener, k)
			}
		}
	}
}

// tlsListener is how the listener is called whose handshakes the broker waits for.
const tlsListener = "tls"

// allSeries are the series, in the order of the documentation.
var allSeries = slices.Concat(programSeries, connectionSeries, messageSeries, sessionSeries, storeSeries, quicSeries)

var programSeries = []series{
	{"build_info", gauge, []string{"version", "go", "engine"}, "Always 1; the labels say what runs.", func(s *figures, e emit) {
		e(1.0, s.program.version.Version, s.program.version.Go, s.program.engine)
	}},
	{"library_info", gauge, []string{"library", "version"}, "Always 1; the libraries inside of the QUIC engine.", func(s *figures, e emit) {
		for name, version := range s.program.version.Versions {
			e(1.0, name, version)
		}
	}},
	{"start_time_seconds", gauge, nil, "When the broker started, in seconds since 1970.", one(func(s *figures) float64 { return seconds(s.program.started) })},
	{"draining", gauge, nil, "1 while the broker drains, else 0.", one(func(s *figures) int {
		if s.program.draining {
			return 1
		}
		return 0
	})},
	{"certificate_expiry_time_seconds", gauge, nil, "When the certificate in use ends to be valid, in seconds since 1970.", one(func(s *figures) float64 { return seconds(s.program.notAfter) })},
	{"reloads_total", counter, []string{"result"}, "Reloads of the configuration (SIGHUP), by whether they were carried out.", func(s *figures, e emit) {
		e(float64(s.program.reloads[0]), "refused")
		e(float64(s.program.reloads[1]), "done")
	}},
	{"last_reload_time_seconds", gauge, nil, "When the configuration in use was loaded, in seconds since 1970.", one(func(s *figures) float64 { return seconds(s.program.reloaded) })},
	{"log_lines_total", counter, []string{"level"}, "Lines of the log.", by(func(s *figures) map[string]uint64 { return s.program.logged })},
	{"timers", gauge, nil, "Timers that are armed: keep-alives, session and message expiries.", one(func(s *figures) int { return s.Timers })},
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

var connectionSeries = []series{
	{"mqtt_connections", gauge, []string{"carrier"}, "Network connections open now.", func(s *figures, e emit) {
		for c, n := range s.Connections {
			e(float64(n.Now), string(c))
		}
	}},
	{"mqtt_connections_total", counter, []string{"carrier"}, "Network connections accepted.", func(s *figures, e emit) {
		for c, n := range s.Connections {
			e(float64(n.Total), string(c))
		}
	}},
	{"mqtt_accept_errors_total", counter, nil, "Times a listener could not accept a connection: no more files, for example.", one(func(s *figures) uint64 { return s.AcceptErrors })},
	{"mqtt_connections_refused_total", counter, nil, "Connections that did not get a session.", one(func(s *figures) uint64 { return s.Refused })},
	{"mqtt_connects_refused_total", counter, []string{"reason", "code"}, "Connections that did not get a session, by MQTT reason code; 128 is also who went away before its CONNECT.", byCode(func(s *figures) map[packet.ReasonCode]uint64 { return s.RefusedBy })},
	{"mqtt_connections_above_quota_total", counter, []string{"limit"}, "Connections refused because there were too many, by limit.", by(func(s *figures) map[string]uint64 { return s.AboveQuota })},
	{"mqtt_clients_throttled_total", counter, []string{"limit"}, "Times a client was not read because of a rate: its own, that of its address, of its listener or of all.", by(func(s *figures) map[string]uint64 { return s.Throttled })},
	{"mqtt_connections_pending", gauge, nil, "Connections without a session: their handshake, CONNECT or login is not complete.", one(func(s *figures) int { return s.Pending })},
	{"mqtt_logins_failed_total", counter, nil, "Logins that were refused for what the client had shown.", one(func(s *figures) uint64 { return s.FailedLogins })},
	{"mqtt_passwords_checked_total", counter, nil, "Passwords of --users that were checked.", one(func(s *figures) uint64 { return s.users.Checked })},
	{"mqtt_passwords_refused_total", counter, nil, "Passwords that were not checked because too many waited for it, or too long.", one(func(s *figures) uint64 { return s.users.Refused })},
	{"mqtt_passwords_waiting", gauge, nil, "Passwords that wait to be checked.", one(func(s *figures) int { return s.users.Waiting })},
	{"mqtt_denied_total", counter, nil, "Connections and re-authentications that were denied: who the client is.", one(func(s *figures) uint64 { return s.Denied })},
	{"mqtt_subscriptions_denied_total", counter, nil, "Subscriptions that were denied or revoked: what the client may do.", one(func(s *figures) uint64 { return s.DeniedFilters })},
	{"mqtt_hooks_failed_total", counter, nil, "Decisions about clients that failed or took too long, and so were a denial.", one(func(s *figures) uint64 { return s.HooksFailed })},
	{"mqtt_connects_total", counter, []string{"version"}, "CONNECT packets accepted.", byVersion(func(s *figures) map[packet.Version]uint64 { return s.Connects })},
	{"mqtt_connect_duration_seconds", histogram, nil, "From a connection's begin to its session, what the client takes for it included.", took(func(s *figures) broker.Histogram { return s.ConnectTook })},
	{"mqtt_clients", gauge, []string{"version"}, "Clients connected now.", byVersion(func(s *figures) map[packet.Version]int { return s.Clients })},
	{"mqtt_disconnects_total", counter, []string{"reason", "code"}, "Connections that ended, by MQTT reason code.", byCode(func(s *figures) map[packet.ReasonCode]uint64 { return s.Disconnects })},
	{"mqtt_keep_alive_timeouts_total", counter, nil, "Connections that ended because the client was silent.", one(func(s *figures) uint64 { return s.Disconnects[packet.KeepAliveTimeout] })},
	{"mqtt_streams", gauge, nil, "Data streams open now.", one(func(s *figures) int { return s.DataStreams.Open })},
	{"mqtt_streams_total", counter, nil, "Data streams accepted.", one(func(s *figures) uint64 { return s.DataStreams.Opened })},
	{"mqtt_streams_reset_total", counter, nil, "Data streams that the broker reset: too many, or the protocol was broken on them.", one(func(s *figures) uint64 { return s.DataStreams.Reset })},
	{"handshakes_started_total", counter, []string{"listener"}, "TLS handshakes begun, by listener; those of QUIC when the ClientHello was read.", func(s *figures, e emit) {
		e(float64(s.TLS.Started), tlsListener)
		quic(func(q *quicmeter.Stats) uint64 { return q.Hellos })(s, e)
	}},
	{"handshakes_failed_total", counter, []string{"listener", "reason"}, "TLS and QUIC handshakes that failed.", func(s *figures, e emit) {
		for r, n := range s.TLS.Failed {
			e(float64(n), tlsListener, r)
		}
		quicBy(func(q *quicmeter.Stats) map[string]uint64 { return q.Failed })(s, e)
	}},
	{"handshake_duration_seconds", histogram, []string{"listener"}, "TLS and QUIC handshakes that were completed.", func(s *figures, e emit) {
		e(s.TLS.Took, tlsListener)
		for _, q := range s.quic {
			e(q.Took, q.Listener)
		}
	}},
}

var messageSeries = []series{
	{"mqtt_packets_received_total", counter, []string{"type"}, "Control packets received.", by(func(s *figures) map[string]uint64 { return s.PacketsIn })},
	{"mqtt_packets_sent_total", counter, []string{"type"}, "Control packets sent.", by(func(s *figures) map[string]uint64 { return s.PacketsOut })},
	{"mqtt_received_bytes_total", counter, []string{"type"}, "Bytes of packets received.", by(func(s *figures) map[string]uint64 { return s.BytesInBy })},
	{"mqtt_sent_bytes_total", counter, []string{"type"}, "Bytes of packets sent.", by(func(s *figures) map[string]uint64 { return s.BytesOutBy })},
	{"mqtt_messages_received_total", counter, []string{"qos"}, "PUBLISH packets received.", byQoS(func(s *figures) [3]uint64 { return s.MessagesIn })},
	{"mqtt_messages_sent_total", counter, []string{"qos"}, "PUBLISH packets sent.", byQoS(func(s *figures) [3]uint64 { return s.MessagesOut })},
	{"mqtt_duplicates_received_total", counter, nil, "PUBLISH packets received with the DUP flag.", one(func(s *figures) uint64 { return s.Duplicates })},
	{"mqtt_duplicates_sent_total", counter, nil, "PUBLISH packets sent again, with the DUP flag.", one(func(s *figures) uint64 { return s.Resent })},
	{"mqtt_messages_dropped_total", counter, []string{"reason"}, "Messages that did not reach a subscriber.", by(func(s *figures) map[string]uint64 { return s.Dropped })},
	{"mqtt_messages_unmatched_total", counter, nil, "Messages without a subscriber.", one(func(s *figures) uint64 { return s.Unmatched })},
	{"mqtt_messages_expired_total", counter, nil, "Messages that expired on their way to a subscriber.", one(func(s *figures) uint64 { return s.Expired })},
	{"mqtt_messages_too_large_total", counter, nil, "Messages larger than a subscriber accepts.", one(func(s *figures) uint64 { return s.TooLarge })},
	{"mqtt_delivery_duration_seconds", histogram, nil, "From a PUBLISH received to it being written to a subscriber, of one message in 16.", took(func(s *figures) broker.Histogram { return s.Latency })},
	{"mqtt_wills_total", counter, nil, "Wills published.", one(func(s *figures) uint64 { return s.Wills })},
	{"mqtt_retained_messages", gauge, nil, "Retained messages.", one(func(s *figures) int { return s.Retained })},
	{"mqtt_retained_bytes", gauge, nil, "Bytes of the retained messages.", one(func(s *figures) int64 { return s.RetainedBytes })},
	{"mqtt_delayed_messages", gauge, nil, "Messages to be published later.", one(func(s *figures) int { return s.Delayed })},
	{"mqtt_delayed_bytes", gauge, nil, "Bytes of those messages.", one(func(s *figures) int64 { return s.DelayedBytes })},
}

var sessionSeries = []series{
	{"mqtt_sessions", gauge, nil, "Sessions, with and without a connection.", one(func(s *figures) int { return s.Sessions })},
	{"mqtt_sessions_connected", gauge, nil, "Sessions with a connection.", one(func(s *figures) int { return s.Connected() })},
	{"mqtt_sessions_offline", gauge, nil, "Sessions without a connection.", one(func(s *figures) int { return s.SessionsOffline })},
	{"mqtt_sessions_created_total", counter, nil, "Sessions begun.", one(func(s *figures) uint64 { return s.SessionsNew })},
	{"mqtt_sessions_resumed_total", counter, nil, "Connections that went on with a session.", one(func(s *figures) uint64 { return s.SessionsResumed })},
	{"mqtt_sessions_ended_total", counter, nil, "Sessions ended: expired, or begun anew.", one(func(s *figures) uint64 { return s.SessionsEnded })},
	{"mqtt_takeovers_total", counter, nil, "Sessions that another connection took from a live one.", one(func(s *figures) uint64 { return s.Takeovers })},
	{"mqtt_subscriptions", gauge, nil, "Subscriptions of all sessions.", one(func(s *figures) int { return s.Subscriptions })},
	{"mqtt_shared_groups", gauge, nil, "Groups with a shared subscription: pairs of a share name and a filter.", one(func(s *figures) int { return s.SharedGroups })},
	{"mqtt_queued_messages", gauge, nil, "Messages that wait to be sent for the first time.", one(func(s *figures) int { return s.Queued })},
	{"mqtt_queued_bytes", gauge, nil, "Bytes waiting for subscribers; a shared payload counts for each.", one(func(s *figures) int64 { return s.QueuedBytes })},
	{"mqtt_spilled_bytes", gauge, nil, "Of the queued bytes those beyond full queues, of clients that are held back.", one(func(s *figures) int64 { return s.SpilledBytes })},
	{"mqtt_inflight_messages", gauge, nil, "Messages sent and not completely acknowledged.", one(func(s *figures) int { return s.Inflight })},
	{"mqtt_publishers_pushed_back", gauge, nil, "Clients that are not read now because their subscribers have no room.", one(func(s *figures) int { return s.PushedBackNow })},
	{"mqtt_publishers_pushed_back_total", counter, nil, "Times a publisher had to wait for its subscribers.", one(func(s *figures) uint64 { return s.PushedBack })},
	{"mqtt_publishers_pushed_back_seconds_total", counter, nil, "Time publishers have waited for their subscribers.", one(func(s *figures) float64 { return s.PushedBackFor.Seconds() })},
	{"mqtt_subscribers_slow", gauge, nil, "Clients whose queue was full and is not yet half empty, now.", one(func(s *figures) int { return s.SlowNow })},
	{"mqtt_subscribers_slow_total", counter, nil, "Times a client's queue was full.", one(func(s *figures) uint64 { return s.Slow })},
	{"mqtt_subscribers_stalled", gauge, nil, "Clients whose queue is full and who take nothing, now.", one(func(s *figures) int { return s.StalledNow })},
	{"mqtt_subscribers_stalled_total", counter, nil, "Times a subscriber with a full queue took nothing.", one(func(s *figures) uint64 { return s.Stalled })},
}

var listenerLabel = []string{"listener"}

var quicSeries = []series{
	{"quic_connections", gauge, listenerLabel, "QUIC connections open now, those without a CONNECT included.", quic(func(q *quicmeter.Stats) uint64 { return q.Endpoint.ConnsOpen })},
	{"quic_handshakes_total", counter, listenerLabel, "QUIC handshakes completed.", quic(func(q *quicmeter.Stats) uint64 { return q.Endpoint.ConnsAccepted })},
	{"quic_refused_total", counter, listenerLabel, "QUIC connection attempts refused.", quic(func(q *quicmeter.Stats) uint64 { return q.Endpoint.ConnsRefused })},
	{"quic_retries_total", counter, listenerLabel, "QUIC Retry packets sent.", quic(func(q *quicmeter.Stats) uint64 { return q.Endpoint.Retries })},
	{"quic_packets_dropped_total", counter, listenerLabel, "UDP packets that belong to no QUIC connection.", quic(func(q *quicmeter.Stats) uint64 { return q.Endpoint.PacketsDropped })},
	{"quic_early_data_offered_total", counter, listenerLabel, "ClientHellos that offer 0-RTT; what was not accepted of them was rejected.", quic(func(q *quicmeter.Stats) uint64 { return q.EarlyOffers })},
	{"quic_early_data_accepted_total", counter, listenerLabel, "Connections that used 0-RTT.", quic(func(q *quicmeter.Stats) uint64 { return q.EarlyData })},
	{"quic_migrations_total", counter, listenerLabel, "Changes of a client's address, as found at a scrape or at the end of a connection.", quic(func(q *quicmeter.Stats) uint64 { return q.Migrations })},
	{"quic_connections_ended_total", counter, []string{"listener", "reason"}, "QUIC connections that ended.", quicBy(func(q *quicmeter.Stats) map[string]uint64 { return q.Ends })},
	{"quic_streams", gauge, listenerLabel, "QUIC streams open now.", quic(func(q *quicmeter.Stats) uint64 { return q.StreamsOpen })},
	{"quic_streams_opened_total", counter, listenerLabel, "QUIC streams that the broker opened.", quic(func(q *quicmeter.Stats) uint64 { return q.StreamsOpened })},
	{"quic_streams_accepted_total", counter, listenerLabel, "QUIC streams that clients opened.", quic(func(q *quicmeter.Stats) uint64 { return q.StreamsAccepted })},
	{"quic_packets_sent_total", counter, listenerLabel, "QUIC packets sent.", quic(func(q *quicmeter.Stats) uint64 { return q.PacketsSent })},
	{"quic_packets_received_total", counter, listenerLabel, "QUIC packets received.", quic(func(q *quicmeter.Stats) uint64 { return q.PacketsReceived })},
	{"quic_packets_lost_total", counter, listenerLabel, "QUIC packets sent and lost.", quic(func(q *quicmeter.Stats) uint64 { return q.PacketsLost })},
	{"quic_sent_bytes_total", counter, listenerLabel, "Bytes sent in UDP.", quic(func(q *quicmeter.Stats) uint64 { return q.BytesSent })},
	{"quic_received_bytes_total", counter, listenerLabel, "Bytes received in UDP.", quic(func(q *quicmeter.Stats) uint64 { return q.BytesReceived })},
	{"quic_lost_bytes_total", counter, listenerLabel, "Bytes of lost packets, which had to be sent again.", quic(func(q *quicmeter.Stats) uint64 { return q.BytesLost })},
	{"quic_datagrams_sent_total", counter, listenerLabel, "QUIC datagrams sent.", quic(func(q *quicmeter.Stats) uint64 { return q.DatagramsSent })},
	{"quic_datagrams_received_total", counter, listenerLabel, "QUIC datagrams received.", quic(func(q *quicmeter.Stats) uint64 { return q.DatagramsReceived })},
	{"quic_datagrams_dropped_total", counter, listenerLabel, "QUIC datagrams that fell out of a full queue.", quic(func(q *quicmeter.Stats) uint64 { return q.DatagramsDropped })},
	{"quic_congestion_window_bytes", gauge, listenerLabel, "What all connections together may have in flight.", quic(func(q *quicmeter.Stats) uint64 { return q.CongestionWindow })},
	{"quic_rtt_seconds", gauge, []string{"listener", "of"}, "Smoothed round-trip time: of the connections open now the least, the median, the 99th percentile and the greatest.", func(s *figures, e emit) {
		for _, q := range s.quic {
			if n := len(q.RTT); n > 0 {
				for _, p := range []struct {
					of string
					at int
				}{{"min", 0}, {"p50", n / 2}, {"p99", n * 99 / 100}, {"max", n - 1}} {
					e(q.RTT[p.at].Seconds(), q.Listener, p.of)
				}
			}
		}
	}},
}

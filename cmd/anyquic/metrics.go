package main

import (
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/transport"
)

// monitoring serves /metrics for Prometheus and /healthz for supervisors and
// load balancers: 200 while the broker accepts clients, 503 while it drains.
func monitoring(b *broker.Broker, quic transport.Transport, endpoint func() (transport.EndpointStats, bool), draining *atomic.Bool) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(b, quic, endpoint),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if draining.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte("draining\n"))
			return
		}
		w.Write([]byte("ok\n"))
	})
	return mux
}

// A collector translates the broker's figures at each scrape. Its labels have
// few values: never a client, a topic or an address.
type collector struct {
	broker   *broker.Broker
	endpoint func() (transport.EndpointStats, bool) // of the QUIC sockets; false: there is none

	info, connections, accepted, refused          *prometheus.Desc
	packetsIn, packetsOut, messagesIn, messageOut *prometheus.Desc
	bytesIn, bytesOut, dropped                    *prometheus.Desc
	retained, retainedBytes, sessions, subs       *prometheus.Desc
	queued, pushedBack, pushedBackFor, stalled    *prometheus.Desc
	disconnects                                   *prometheus.Desc
	quicOpen, quicAccepted, quicRefused           *prometheus.Desc
	quicRetries, quicDropped                      *prometheus.Desc

	infoLabels []string
}

func newCollector(b *broker.Broker, quic transport.Transport, endpoint func() (transport.EndpointStats, bool)) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("anyquic_"+name, help, labels, nil)
	}
	v := buildVersion()
	return &collector{
		broker:     b,
		endpoint:   endpoint,
		infoLabels: []string{v.Version, v.Go, quic.Name()},

		info:          desc("build_info", "Always 1; the labels say what runs.", "version", "go", "engine"),
		connections:   desc("mqtt_connections", "Network connections open now.", "carrier"),
		accepted:      desc("mqtt_connections_total", "Network connections accepted.", "carrier"),
		refused:       desc("mqtt_connections_refused_total", "Connections that did not get a session."),
		packetsIn:     desc("mqtt_packets_received_total", "Control packets received.", "type"),
		packetsOut:    desc("mqtt_packets_sent_total", "Control packets sent.", "type"),
		messagesIn:    desc("mqtt_messages_received_total", "PUBLISH packets received.", "qos"),
		messageOut:    desc("mqtt_messages_sent_total", "PUBLISH packets sent.", "qos"),
		bytesIn:       desc("mqtt_received_bytes_total", "Bytes of packets received."),
		bytesOut:      desc("mqtt_sent_bytes_total", "Bytes of packets sent."),
		dropped:       desc("mqtt_messages_dropped_total", "Messages that did not reach a subscriber.", "reason"),
		retained:      desc("mqtt_retained_messages", "Retained messages."),
		retainedBytes: desc("mqtt_retained_bytes", "Bytes of the retained messages."),
		sessions:      desc("mqtt_sessions", "Sessions, with and without a connection."),
		subs:          desc("mqtt_subscriptions", "Subscriptions of all sessions."),
		queued:        desc("mqtt_queued_bytes", "Bytes waiting for subscribers; a shared payload counts for each."),
		pushedBack:    desc("mqtt_publishers_pushed_back_total", "Times a publisher had to wait for its subscribers."),
		pushedBackFor: desc("mqtt_publishers_pushed_back_seconds_total", "Time publishers have waited for their subscribers."),
		stalled:       desc("mqtt_subscribers_stalled_total", "Times a subscriber with a full queue took nothing."),
		disconnects:   desc("mqtt_disconnects_total", "Connections that ended, by MQTT reason code.", "reason", "code"),
		quicOpen:      desc("quic_connections", "QUIC connections open now, those without a CONNECT included."),
		quicAccepted:  desc("quic_handshakes_total", "QUIC handshakes completed."),
		quicRefused:   desc("quic_refused_total", "QUIC connection attempts refused."),
		quicRetries:   desc("quic_retries_total", "QUIC Retry packets sent."),
		quicDropped:   desc("quic_packets_dropped_total", "UDP packets that belong to no QUIC connection."),
	}
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.broker.Stats()
	gauge(c.info, 1, c.infoLabels...)
	for carrier, n := range s.Connections {
		gauge(c.connections, float64(n.Now), string(carrier))
		counter(c.accepted, float64(n.Total), string(carrier))
	}
	counter(c.refused, float64(s.Refused))
	for name, n := range s.PacketsIn {
		counter(c.packetsIn, float64(n), name)
	}
	for name, n := range s.PacketsOut {
		counter(c.packetsOut, float64(n), name)
	}
	for qos := range s.MessagesIn {
		counter(c.messagesIn, float64(s.MessagesIn[qos]), strconv.Itoa(qos))
		counter(c.messageOut, float64(s.MessagesOut[qos]), strconv.Itoa(qos))
	}
	counter(c.bytesIn, float64(s.BytesIn))
	counter(c.bytesOut, float64(s.BytesOut))
	for reason, n := range s.Dropped {
		counter(c.dropped, float64(n), reason)
	}
	gauge(c.retained, float64(s.Retained))
	gauge(c.retainedBytes, float64(s.RetainedBytes))
	gauge(c.sessions, float64(s.Sessions))
	gauge(c.subs, float64(s.Subscriptions))
	gauge(c.queued, float64(s.QueuedBytes))
	counter(c.pushedBack, float64(s.PushedBack))
	counter(c.pushedBackFor, s.PushedBackFor.Seconds())
	counter(c.stalled, float64(s.Stalled))
	for code, n := range s.Disconnects {
		counter(c.disconnects, float64(n), code.String(), strconv.Itoa(int(code)))
	}
	if q, ok := c.endpoint(); ok {
		gauge(c.quicOpen, float64(q.ConnsOpen))
		counter(c.quicAccepted, float64(q.ConnsAccepted))
		counter(c.quicRefused, float64(q.ConnsRefused))
		counter(c.quicRetries, float64(q.Retries))
		counter(c.quicDropped, float64(q.PacketsDropped))
	}
}

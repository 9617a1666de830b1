package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/internal/selfcert"
	"github.com/anyquic/anyquic/transport"
)

// An H3Target is a server to measure: a command that runs as package benchproc
// describes, says where it listens as "h3", and answers as
// [benchproc.HTTPHandler] does. Where it says "quic" as well, its bare
// connections are measured beside.
type H3Target struct {
	Name   string
	Server []string
}

// H3 measures HTTP/3 servers, all with the same load.
type H3 struct {
	Engine   transport.Transport // of the client
	Requests int64               // to send
	Size     int64               // of a response, in bytes
	Conns    int                 // connections
	Parallel int                 // requests at once on each
	Bulk     int64               // bytes of a body, each way
	Idle     int                 // connections to hold
	// Command starts the server; it sets where its standard error goes.
	Command  func(ctx context.Context, words []string) *exec.Cmd
	Progress func(string) // may be nil; is told what begins
}

// H3Scenarios are the names for Measure, in the order of the report.
var H3Scenarios = []string{"requests", "bulk", "idle"}

// An h3Run is a server and who asks it.
type h3Run struct {
	server *benchproc.Process
	ep     transport.Endpoint
	url    string
}

// Measure runs a scenario once, with a new server.
func (b *H3) Measure(ctx context.Context, scenario string, t H3Target, round int) (samples []Sample, err error) {
	run, ok := map[string]func(context.Context, *h3Run) ([]Sample, error){
		"requests": b.requests, "bulk": b.bulk, "idle": b.idle,
	}[scenario]
	if !ok {
		return nil, fmt.Errorf("no scenario %q", scenario)
	}
	if b.Progress != nil {
		b.Progress(fmt.Sprintf("round %d: %s of %s", round, scenario, t.Name))
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s of %s: %w", scenario, t.Name, err)
		}
	}()
	var r h3Run
	if r.server, err = benchproc.Start(b.Command(ctx, t.Server)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.server.Stop()) }()
	if r.server.URLs["h3"] == "" {
		return nil, errors.New("the server does not say where it listens for h3")
	}
	r.url = "https://" + r.server.URLs["h3"]
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if r.ep, err = b.Engine.Open(pc, nil); err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	defer func() { err = errors.Join(err, r.ep.Close()) }()
	samples, err = run(ctx, &r)
	for i := range samples {
		samples[i].Target, samples[i].Scenario, samples[i].Round = t.Name, scenario, round
	}
	return samples, err
}

// client returns a client with a connection of its own, and has it connect.
func (r *h3Run) client(ctx context.Context) (*http3.Transport, error) {
	t := &http3.Transport{
		TLS: benchproc.ClientTLS(), DisableCompression: true, IdleConnTimeout: -1,
		Config: &transport.Config{IdleTimeout: transportIdle, KeepAlive: -1},
		Dial: func(ctx context.Context, addr string, cfg *transport.Config) (transport.Conn, error) {
			to, err := net.ResolveUDPAddr("udp", addr)
			if err != nil {
				return nil, err
			}
			return r.ep.Dial(ctx, to, cfg)
		},
	}
	if err := r.get(ctx, t, 1); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// get fetches size bytes.
func (r *h3Run) get(ctx context.Context, t *http3.Transport, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/bytes/"+strconv.FormatInt(size, 10), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || resp.ProtoMajor != 3 || n != size) {
		err = fmt.Errorf("got %d bytes of %d with %s %s", n, size, resp.Proto, resp.Status)
	}
	return err
}

// post sends size bytes.
func (r *h3Run) post(ctx context.Context, t *http3.Transport, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/sink", io.LimitReader(endless{}, size))
	if err != nil {
		return err
	}
	req.ContentLength = size
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Equal(got, strconv.AppendInt(nil, size, 10))) {
		err = fmt.Errorf("the server got %q of %d bytes, with %s %s", got, size, resp.Proto, resp.Status)
	}
	return err
}

// endless is a body.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// requests fetches small responses, with all connections at work.
func (b *H3) requests(ctx context.Context, r *h3Run) (samples []Sample, err error) {
	clients := make([]*http3.Transport, 0, b.Conns)
	defer func() {
		for _, t := range clients {
			err = errors.Join(err, t.Close())
		}
	}()
	for range b.Conns {
		t, err := r.client(ctx)
		if err != nil {
			return nil, err
		}
		clients = append(clients, t)
	}
	took := make([]time.Duration, b.Requests)
	load := func(n int64) error {
		var next atomic.Int64
		g, ctx := errgroup.WithContext(ctx)
		for i := range b.Conns * b.Parallel {
			g.Go(func() error {
				for ctx.Err() == nil {
					k := next.Add(1) - 1
					if k >= n {
						return nil
					}
					start := time.Now()
					if err := r.get(ctx, clients[i%len(clients)], b.Size); err != nil {
						return err
					}
					took[k] = time.Since(start)
				}
				return ctx.Err()
			})
		}
		return g.Wait()
	}
	if err := load(b.Requests/10 + 1); err != nil { // both sides are warm after it
		return nil, err
	}
	before, err := r.server.Usage()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := load(b.Requests); err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	after, err := r.server.Usage()
	if err != nil {
		return nil, err
	}
	slices.Sort(took)
	used, n := after.Sub(before), float64(b.Requests)
	samples = append(samples, Sample{Metric: "rate", Unit: "requests/s", Value: n / elapsed.Seconds()})
	samples = each(samples, "request", "server", used, n, time.Microsecond, "µs")
	if used.Mallocs > 0 {
		samples = append(samples, Sample{Metric: "request, server Go allocations", Unit: "", Value: float64(used.Mallocs) / n})
	}
	return append(samples,
		Sample{Metric: "latency, p50", Unit: "µs", Value: microseconds(percentile(took, 0.5))},
		Sample{Metric: "latency, p99", Unit: "µs", Value: microseconds(percentile(took, 0.99))}), nil
}

// bulk moves one large body each way.
func (b *H3) bulk(ctx context.Context, r *h3Run) (samples []Sample, err error) {
	for _, way := range []struct {
		name string
		move func(*http3.Transport) error
	}{
		{"download", func(t *http3.Transport) error { return r.get(ctx, t, b.Bulk) }},
		{"upload", func(t *http3.Transport) error { return r.post(ctx, t, b.Bulk) }},
	} {
		t, err := r.client(ctx)
		if err != nil {
			return nil, err
		}
		before, err := r.server.Usage()
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		start := time.Now()
		err = way.move(t)
		took := time.Since(start)
		after, uerr := r.server.Usage()
		if err := errors.Join(err, uerr, t.Close()); err != nil {
			return nil, err
		}
		samples = append(samples, Sample{Metric: way.name, Unit: "MB/s", Value: float64(b.Bulk) / 1e6 / took.Seconds()})
		if cpu := after.Sub(before).CPU; cpu > 0 {
			samples = append(samples, Sample{Metric: way.name + ", per second of server CPU", Unit: "MB", Value: float64(b.Bulk) / 1e6 / cpu.Seconds()})
		}
	}
	return samples, nil
}

// idle measures the memory of connections that do nothing: bare ones, if the
// server has them, and ones that have answered a request.
func (b *H3) idle(ctx context.Context, r *h3Run) (samples []Sample, err error) {
	var held []*http3.Transport
	defer func() {
		for _, t := range held {
			err = errors.Join(err, t.Close())
		}
	}()
	http := func() error {
		t, err := r.client(ctx)
		if err == nil {
			held = append(held, t)
		}
		return err
	}
	kinds := []struct {
		name string
		hold func() error
	}{{"HTTP/3 connection", http}}
	if addr := r.server.URLs["quic"]; addr != "" {
		dial := DialTransport(r.ep, "")
		kinds = slices.Insert(kinds, 0, struct {
			name string
			hold func() error
		}{"bare QUIC connection", func() error { _, err := dial(ctx, addr); return err }}) // the endpoint closes it
	}
	for _, kind := range kinds {
		for range idleWarmUp {
			if err := kind.hold(); err != nil {
				return nil, err
			}
		}
		before, err := settled(ctx, r.server, 0)
		if err != nil {
			return nil, err
		}
		for range b.Idle {
			if err := kind.hold(); err != nil {
				return nil, err
			}
		}
		after, err := settled(ctx, r.server, 0)
		if err != nil {
			return nil, err
		}
		per := func(after, before uint64) float64 { return (float64(after) - float64(before)) / float64(b.Idle) / 1024 }
		if after.RSS > 0 {
			samples = append(samples, Sample{Metric: kind.name + ", resident", Unit: "KiB", Value: per(after.RSS, before.RSS)})
		}
		if after.InUse() > 0 {
			samples = append(samples, Sample{Metric: kind.name + ", Go heap and stacks", Unit: "KiB", Value: per(after.InUse(), before.InUse())})
		}
	}
	return samples, nil
}

// An H3Server is one to measure, on loopback.
type H3Server struct {
	h3   *http3.Server
	ln   transport.Listener
	bare transport.Listener
	g    errgroup.Group
}

// ServeH3 starts one on t, with a socket for bare connections beside it.
func ServeH3(t transport.Transport) (s *H3Server, err error) {
	cert, err := selfcert.New(time.Now())
	if err != nil {
		return nil, err
	}
	s = &H3Server{h3: &http3.Server{
		TLS: benchproc.ServerTLS(cert), Handler: benchproc.HTTPHandler(), Transport: &transport.Config{IdleTimeout: transportIdle},
	}}
	cfg, err := s.h3.TransportConfig()
	if err != nil {
		return nil, err
	}
	if s.ln, err = transport.ListenAddr(t, "127.0.0.1:0", cfg); err != nil {
		return nil, err
	}
	if s.bare, err = ListenTransport(t, ""); err != nil {
		return nil, errors.Join(err, s.ln.Close())
	}
	s.g.Go(func() error {
		if err := s.h3.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	s.g.Go(func() error { return ServeTransport(s.bare) })
	return s, nil
}

// URLs says where it listens.
func (s *H3Server) URLs() map[string]string {
	return map[string]string{"h3": s.ln.Addr().String(), "quic": s.bare.Addr().String()}
}

// Close ends the server and its connections.
func (s *H3Server) Close() error { return errors.Join(s.h3.Close(), s.bare.Close(), s.g.Wait()) }

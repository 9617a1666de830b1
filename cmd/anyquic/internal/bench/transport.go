package bench

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/transport"
)

// ServeTransport answers the benchmark on l until it is closed.
func ServeTransport(l transport.Listener) error {
	for {
		c, err := l.Accept(context.Background())
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go serveConn(c) // ends with c, which ends with its Endpoint
	}
}

func serveConn(c transport.Conn) {
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go func() { _ = benchproc.ServeStream(s) }() // likewise; the client reports what it misses
	}
}

// A TransportTarget is a ServeTransport in a process of its own, and the engine
// to talk to it with.
type TransportTarget struct {
	Name   string
	Client transport.Transport
	Addr   string
	Proc   *benchproc.Process
}

// Transport measures QUIC engines.
type Transport struct {
	Bulk       int64 // bytes to send on one stream, each way
	Streams    int   // streams to open
	Pings      int
	Handshakes int
	Idle       int // connections
	Progress   func(string)
}

// Measure runs all scenarios against t.
func (b *Transport) Measure(ctx context.Context, t TransportTarget, round int) ([]Sample, error) {
	var samples []Sample
	for _, scenario := range []struct {
		name string
		run  func(context.Context, TransportTarget) ([]Sample, error)
	}{
		{"bulk", b.bulk}, {"streams", b.streams}, {"pings", b.pings}, {"handshakes", b.handshakes}, {"idle", b.idle},
	} {
		if b.Progress != nil {
			b.Progress(fmt.Sprintf("round %d: %s of %s", round, scenario.name, t.Name))
		}
		got, err := scenario.run(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", scenario.name, t.Name, err)
		}
		for _, s := range got {
			s.Target, s.Scenario, s.Round = t.Name, scenario.name, round
			samples = append(samples, s)
		}
	}
	return samples, nil
}

func (t *TransportTarget) dial(ctx context.Context) (transport.Conn, error) {
	return transport.DialAddr(ctx, t.Client, t.Addr, &transport.Config{
		TLS: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{benchproc.ALPN}, MinVersion: tls.VersionTLS13}, //nolint:gosec // the benchmark's own server
	})
}

// TransportServerTLS completes the server's TLS configuration.
func TransportServerTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{benchproc.ALPN}, MinVersion: tls.VersionTLS13}
}

func (b *Transport) bulk(ctx context.Context, t TransportTarget) ([]Sample, error) {
	c, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.CloseWithError(0, "")
	cpu, _ := t.Proc.CPU()
	upload, err := b.upload(ctx, c)
	if err != nil {
		return nil, err
	}
	used, _ := t.Proc.CPU()
	download, err := b.download(ctx, c)
	if err != nil {
		return nil, err
	}
	mb := float64(b.Bulk) / 1e6
	return []Sample{
		{Metric: "upload, one stream", Unit: "MB/s", Value: mb / upload.Seconds()},
		{Metric: "download, one stream", Unit: "MB/s", Value: mb / download.Seconds()},
		{Metric: "receiver CPU per byte", Unit: "ns", Value: float64(used-cpu) / float64(b.Bulk)},
	}, nil
}

func (b *Transport) upload(ctx context.Context, c transport.Conn) (time.Duration, error) {
	s, err := c.OpenStream(ctx)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := s.Write([]byte{benchproc.OpSink}); err != nil {
		return 0, err
	}
	buf := make([]byte, benchproc.Chunk)
	for left := b.Bulk; left > 0; {
		n, err := s.Write(buf[:min(left, benchproc.Chunk)])
		if err != nil {
			return 0, err
		}
		left -= int64(n)
	}
	if err := s.Close(); err != nil {
		return 0, err
	}
	var n [8]byte
	if _, err := io.ReadFull(s, n[:]); err != nil {
		return 0, err
	}
	if got := binary.BigEndian.Uint64(n[:]); got != uint64(b.Bulk) {
		return 0, fmt.Errorf("the server got %d of %d bytes", got, b.Bulk)
	}
	return time.Since(start), nil
}

func (b *Transport) download(ctx context.Context, c transport.Conn) (time.Duration, error) {
	s, err := c.OpenStream(ctx)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := s.Write(binary.BigEndian.AppendUint64([]byte{benchproc.OpSource}, uint64(b.Bulk))); err != nil {
		return 0, err
	}
	if err := s.Close(); err != nil {
		return 0, err
	}
	got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, benchproc.Chunk))
	if err != nil {
		return 0, err
	}
	if got != b.Bulk {
		return 0, fmt.Errorf("got %d of %d bytes", got, b.Bulk)
	}
	return time.Since(start), nil
}

// streams opens streams with 64 at work at once, each with one byte echoed.
func (b *Transport) streams(ctx context.Context, t TransportTarget) ([]Sample, error) {
	c, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.CloseWithError(0, "")
	start := time.Now()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range 64 {
		g.Go(func() error {
			for next.Add(1) <= int64(b.Streams) {
				s, err := c.OpenStream(ctx)
				if err != nil {
					return err
				}
				if _, err := s.Write([]byte{benchproc.OpEcho, 'x'}); err != nil {
					return err
				}
				if err := s.Close(); err != nil {
					return err
				}
				if got, err := io.ReadAll(s); err != nil || string(got) != "x" {
					return fmt.Errorf("echo %q: %w", got, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return []Sample{{Metric: "open, echo a byte, close", Unit: "streams/s", Value: float64(b.Streams) / time.Since(start).Seconds()}}, nil
}

func (b *Transport) pings(ctx context.Context, t TransportTarget) ([]Sample, error) {
	c, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.CloseWithError(0, "")
	s, err := c.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.Write([]byte{benchproc.OpEcho}); err != nil {
		return nil, err
	}
	msg := make([]byte, 32)
	took := make([]time.Duration, b.Pings)
	for i := range took {
		start := time.Now()
		if _, err := s.Write(msg); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(s, msg); err != nil {
			return nil, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return []Sample{
		{Metric: "32-byte ping-pong, p50", Unit: "µs", Value: microseconds(percentile(took, 0.5))},
		{Metric: "32-byte ping-pong, p99", Unit: "µs", Value: microseconds(percentile(took, 0.99))},
	}, nil
}

// handshakes connects with 4 handshakes at work at once.
func (b *Transport) handshakes(ctx context.Context, t TransportTarget) ([]Sample, error) {
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for range b.Handshakes {
		g.Go(func() error {
			c, err := t.dial(ctx)
			if err != nil {
				return err
			}
			return c.CloseWithError(0, "")
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return []Sample{{Metric: "handshakes", Unit: "1/s", Value: float64(b.Handshakes) / time.Since(start).Seconds()}}, nil
}

func (b *Transport) idle(ctx context.Context, t TransportTarget) ([]Sample, error) {
	before, err := t.Proc.Memory()
	if err != nil {
		return nil, err
	}
	conns := make([]transport.Conn, b.Idle)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.CloseWithError(0, "")
			}
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range conns {
		g.Go(func() (err error) {
			// An echo on a stream that stays open: as an MQTT client's.
			conns[i], err = t.dial(gctx)
			if err != nil {
				return err
			}
			s, err := conns[i].OpenStream(gctx)
			if err != nil {
				return err
			}
			if _, err := s.Write([]byte{benchproc.OpEcho, 'x'}); err != nil {
				return err
			}
			_, err = io.ReadFull(s, make([]byte, 1))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	after, err := t.Proc.Memory()
	if err != nil {
		return nil, err
	}
	return []Sample{{Metric: "memory per idle connection", Unit: "KiB", Value: (float64(after.InUse()) - float64(before.InUse())) / float64(b.Idle) / 1024}}, nil
}

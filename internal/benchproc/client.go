package benchproc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// What a client does, beside DoMemory and DoUsage.
const (
	DoConnect    = "connect"    // connect to Addr; the connection before is closed
	DoUpload     = "upload"     // send N bytes on one stream; Took, Packets
	DoDownload   = "download"   // receive N bytes on one stream; Took, Packets
	DoWatch      = "watch"      // receive on one stream For a time; Took, Bytes
	DoPings      = "pings"      // N times 32 bytes there and back; P50, P99, Packets
	DoStreams    = "streams"    // open N streams, Parallel at once, echo a byte on each; Took
	DoHandshakes = "handshakes" // connect N times to Addr, Parallel at once; Took
	DoHold       = "hold"       // N more connections to Addr that stay open
	DoOpen       = "open"       // on each held one a stream, with a byte echoed, that stays open
)

// A Result is what a client has measured.
type Result struct {
	Took    time.Duration `json:"took,omitempty"`
	Bytes   int64         `json:"bytes,omitempty"`
	Packets uint64        `json:"packets,omitempty"` // sent and received; 0 if not known
	P50     time.Duration `json:"p50,omitempty"`
	P99     time.Duration `json:"p99,omitempty"`
}

// A Dialer connects to a server whose streams do what ServeStream does. Every
// handshake is a full one.
type Dialer func(ctx context.Context, addr string) (Conn, error)

// A Conn is a connection to such a server.
type Conn interface {
	// OpenStream opens a stream, whose Close ends what is sent on it. The
	// error matches errors.ErrUnsupported if the Conn can have no more.
	OpenStream(context.Context) (io.ReadWriteCloser, error)
	// Packets returns how many packets were sent and received, 0 if that is
	// not known.
	Packets() uint64
	Close() error
}

// pingSize is the size of a ping, in bytes.
const pingSize = 32

// holdParallel is how many connections and streams are opened at once where they
// are not what is measured.
const holdParallel = 16

// ServeClient is a client's side: it says hello, does what the requests say with
// connections of dial, and returns when in ends.
func ServeClient(in io.Reader, out io.Writer, dial Dialer) error {
	c := &client{dial: dial}
	defer c.close()
	return Answer(in, out, Hello{}, func(req *Request) (any, error) { return c.do(context.Background(), req) })
}

// A client does one request at a time.
type client struct {
	dial Dialer
	conn Conn // of DoConnect; nil before
	held []Conn
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
	}
	for _, h := range c.held {
		h.Close()
	}
}

func (c *client) do(ctx context.Context, req *Request) (any, error) {
	switch req.Do {
	case DoConnect:
		if c.conn != nil {
			c.conn.Close()
		}
		var err error
		c.conn, err = c.dial(ctx, req.Addr)
		return nil, err
	case DoHandshakes:
		return c.handshakes(ctx, req.Addr, req.N, req.Parallel)
	case DoHold:
		return nil, c.hold(ctx, req.Addr, int(req.N))
	case DoOpen:
		return nil, c.open(ctx)
	case DoUpload, DoDownload, DoWatch, DoPings, DoStreams:
	default:
		return Own(req)
	}
	if c.conn == nil {
		return nil, errors.New("not connected")
	}
	before := c.conn.Packets()
	var r Result
	var err error
	switch req.Do {
	case DoUpload:
		r.Took, err = c.upload(ctx, req.N)
	case DoDownload:
		r, err = c.download(ctx, uint64(max(0, req.N)), math.MaxInt64)
		if err == nil && r.Bytes != req.N {
			err = fmt.Errorf("got %d of %d bytes", r.Bytes, req.N)
		}
	case DoWatch:
		r, err = c.download(ctx, math.MaxUint64, req.For)
	case DoPings:
		r, err = c.pings(ctx, int(req.N))
	case DoStreams:
		r.Took, err = c.streams(ctx, req.N, req.Parallel)
	}
	r.Packets = c.conn.Packets() - before
	return r, err
}

func (c *client) upload(ctx context.Context, size int64) (time.Duration, error) {
	start := time.Now()
	s, err := c.conn.OpenStream(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := s.Write([]byte{OpSink}); err != nil {
		return 0, err
	}
	buf := make([]byte, Chunk)
	for left := size; left > 0; {
		n, err := s.Write(buf[:min(left, Chunk)])
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
	if got := binary.BigEndian.Uint64(n[:]); got != uint64(size) {
		return 0, fmt.Errorf("the server got %d of %d bytes", got, size)
	}
	return time.Since(start), nil
}

// download asks for size bytes and returns what has come when they have, or when
// the time is over; then the connection is of no more use.
func (c *client) download(ctx context.Context, size uint64, most time.Duration) (r Result, err error) {
	start := time.Now()
	s, err := c.conn.OpenStream(ctx)
	if err != nil {
		return r, err
	}
	if _, err := s.Write(binary.BigEndian.AppendUint64([]byte{OpSource}, size)); err != nil {
		return r, err
	}
	if err := s.Close(); err != nil {
		return r, err
	}
	for buf := make([]byte, Chunk); r.Took < most; {
		n, err := s.Read(buf)
		r.Bytes += int64(n)
		r.Took = time.Since(start)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func (c *client) pings(ctx context.Context, n int) (r Result, err error) {
	s, err := c.conn.OpenStream(ctx)
	if err != nil {
		return r, err
	}
	if _, err := s.Write([]byte{OpEcho}); err != nil {
		return r, err
	}
	msg := make([]byte, pingSize)
	took := make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		if _, err := s.Write(msg); err != nil {
			return r, err
		}
		if _, err := io.ReadFull(s, msg); err != nil {
			return r, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	if n > 0 {
		r.P50, r.P99 = took[n/2], took[n*99/100]
	}
	return r, nil
}

func (c *client) streams(ctx context.Context, n int64, parallel int) (time.Duration, error) {
	start := time.Now()
	err := parallelly(ctx, n, parallel, func(ctx context.Context, _ int64) error { return echo(ctx, c.conn, true) })
	return time.Since(start), err
}

// echo has a byte echoed on a new stream, and closes the stream or leaves it open.
func echo(ctx context.Context, c Conn, end bool) error {
	s, err := c.OpenStream(ctx)
	if err != nil {
		return err
	}
	if _, err := s.Write([]byte{OpEcho, 'x'}); err != nil {
		return err
	}
	got := make([]byte, 1)
	if end {
		if err := s.Close(); err != nil {
			return err
		}
		got, err = io.ReadAll(s)
	} else {
		_, err = io.ReadFull(s, got)
	}
	if err != nil || string(got) != "x" {
		return fmt.Errorf("echo %q: %w", got, err)
	}
	return nil
}

func (c *client) handshakes(ctx context.Context, addr string, n int64, parallel int) (r Result, err error) {
	start := time.Now()
	err = parallelly(ctx, n, parallel, func(ctx context.Context, _ int64) error {
		conn, err := c.dial(ctx, addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	r.Took = time.Since(start)
	return r, err
}

func (c *client) hold(ctx context.Context, addr string, n int) error {
	conns := make([]Conn, n)
	err := parallelly(ctx, int64(n), holdParallel, func(ctx context.Context, i int64) (err error) {
		conns[i], err = c.dial(ctx, addr)
		return err
	})
	c.held = append(c.held, slices.DeleteFunc(conns, func(c Conn) bool { return c == nil })...)
	return err
}

func (c *client) open(ctx context.Context) error {
	return parallelly(ctx, int64(len(c.held)), holdParallel, func(ctx context.Context, i int64) error {
		return echo(ctx, c.held[i], false)
	})
}

// parallelly calls do n times, with 0 to n-1, from some goroutines at once. The
// context is do's until the first error; do must not keep it.
func parallelly(ctx context.Context, n int64, goroutines int, do func(context.Context, int64) error) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range max(1, goroutines) {
		g.Go(func() error {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= n {
					return nil
				}
				if err := do(ctx, i); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

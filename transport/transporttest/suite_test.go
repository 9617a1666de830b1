package transporttest

import (
	"context"
	"crypto/tls"
	"flag"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// faultVariable names the fault that a child process of the test gives its engine.
const faultVariable = "TRANSPORTTEST_FAULT"

func TestMain(m *testing.M) {
	if os.Getenv(faultVariable) == "" {
		flag.Parse()
		skip := "^TestBrokenPair$" // it is for children
		if also := flag.Lookup("test.skip").Value.String(); also != "" {
			skip += "|" + also
		}
		if err := flag.Set("test.skip", skip); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// A fault breaks an engine that works.
type fault struct {
	name   string
	caught []string // by these cases
	opts   func(*transport.Options)
	config func(*transport.Config)
	ep     func(transport.Endpoint) transport.Endpoint
	conn   func(transport.Conn) transport.Conn
	stream func(transport.Stream) transport.Stream
	uni    func(transport.SendStream) transport.SendStream
}

var faults = []fault{
	{name: "priorities-are-only-stored", caught: []string{"PriorityEffect", "PriorityOrder", "PriorityChange", "PrioritySequential"},
		uni: func(s transport.SendStream) transport.SendStream {
			return &storedPriority{SendStream: s, p: transport.DefaultPriority}
		}},
	{name: "close-is-whole", caught: []string{"CloseIsHalf", "CloseIsHalfOverUDP"},
		stream: func(s transport.Stream) transport.Stream { return wholeClose{s} }},
	{name: "second-close-fails", caught: []string{"WriteAfterClose"},
		stream: func(s transport.Stream) transport.Stream { return &failingClose{Stream: s} }},
	{name: "deadlines-are-ignored", caught: []string{"ReadDeadline", "SetDeadline"},
		stream: func(s transport.Stream) transport.Stream { return noReadDeadline{s} }},
	{name: "write-does-not-copy", caught: []string{"WriteCopies"},
		uni: func(s transport.SendStream) transport.SendStream { return &lateWrite{SendStream: s} }},
	{name: "close-loses-the-reason", caught: []string{"CloseCode", "CloseOnce"},
		conn: func(c transport.Conn) transport.Conn { return silentClose{c} }},
	{name: "drops-are-not-counted", caught: []string{"DatagramQueue", "DatagramSendQueue"},
		conn: func(c transport.Conn) transport.Conn { return uncounted{c} }},
	{name: "a-goroutine-outlives-close", caught: []string{"NoGoroutineLeak", "BidiEcho"},
		ep: func(e transport.Endpoint) transport.Endpoint {
			go func() { select {} }()
			return e
		}},
	{name: "close-keeps-the-socket", caught: []string{"EndpointClose"},
		ep: func(e transport.Endpoint) transport.Endpoint { return keepsSocket{e} }},
	{name: "nobody-is-verified", caught: []string{"VerifyDefault", "VerifyName"},
		config: func(c *transport.Config) { c.TLS.InsecureSkipVerify = true }},
	{name: "clients-need-no-certificate", caught: []string{"MTLSRefused"},
		config: func(c *transport.Config) { c.TLS.ClientAuth = tls.NoClientCert }},
	{name: "no-key-log", caught: []string{"KeyLog"},
		config: func(c *transport.Config) { c.TLS.KeyLogWriter = nil }},
	{name: "no-windows", caught: []string{"FlowControl", "FlowControlConn"},
		config: func(c *transport.Config) { c.StreamWindow, c.ConnWindow = 0, 0 }},
	{name: "no-stream-limits", caught: []string{"StreamLimitOfEachSide", "ServerOptions"},
		config: func(c *transport.Config) { c.MaxStreams, c.MaxUniStreams = 0, 0 }},
	{name: "no-timeouts", caught: []string{"IdleTimeout", "HandshakeTimeout", "HandshakeTimeoutServer"},
		config: func(c *transport.Config) { c.IdleTimeout, c.HandshakeTimeout = 0, 0 }},
	{name: "no-keep-alive", caught: []string{"KeepAlive"},
		config: func(c *transport.Config) { c.KeepAlive = 0 }},
	{name: "never-resumes", caught: []string{"Resume", "ZeroRTT", "ZeroRTTRejected"},
		config: func(c *transport.Config) { c.Sessions = nil }},
	{name: "no-early-data", caught: []string{"ZeroRTT"},
		config: func(c *transport.Config) { c.EarlyData = false }},
	{name: "no-retry", caught: []string{"Retry", "RetryChosen", "RetryFromElsewhere"},
		opts: func(o *transport.Options) { o.RequireRetry = nil }},
	{name: "no-token-key", caught: []string{"TokenKey"},
		opts: func(o *transport.Options) { o.TokenKey = [32]byte{} }},
	{name: "no-reset", caught: []string{"StatelessReset"},
		opts: func(o *transport.Options) { o.StatelessResetKey = [32]byte{} }},
	{name: "no-connection-limit", caught: []string{"MaxConns", "MaxConnsRace"},
		opts: func(o *transport.Options) { o.MaxConns = 0 }},
	{name: "own-connection-ids", caught: []string{"CIDGenerator", "CIDGeneratorClient"},
		opts: func(o *transport.Options) { o.ConnIDs = nil }},
}

// A suite that cannot fail checks nothing: each fault must be caught, and must
// not end the program.
func TestABrokenEngineFailsItsCases(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			name := engine.Default().Name()
			pattern := "^TestBrokenPair$/^" + name + "-" + name + "$/^(" + strings.Join(f.caught, "|") + ")$"
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run="+pattern, "-test.timeout=10m")
			cmd.Env = append(os.Environ(), faultVariable+"="+f.name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "%s", out)
			require.Equal(t, 1, exit.ExitCode(), "%s", out)
			for _, c := range f.caught {
				require.Contains(t, string(out), "--- FAIL: TestBrokenPair/"+name+"-"+name+"/"+c+" ", "%s", out)
			}
		})
	}
}

// TestBrokenPair runs in a child process only.
func TestBrokenPair(t *testing.T) {
	i := slices.IndexFunc(faults, func(f fault) bool { return f.name == os.Getenv(faultVariable) })
	require.GreaterOrEqual(t, i, 0)
	broken := brokenEngine{engine.Default(), faults[i]}
	TestPair(t, broken, broken)
}

type brokenEngine struct {
	transport.Transport
	fault fault
}

func (e brokenEngine) Open(pc net.PacketConn, opts *transport.Options) (transport.Endpoint, error) {
	if opts != nil && e.fault.opts != nil {
		o := *opts
		e.fault.opts(&o)
		opts = &o
	}
	var ep transport.Endpoint
	ep, err := e.Transport.Open(pc, opts)
	if err == nil && e.fault.ep != nil {
		ep = e.fault.ep(ep)
	}
	return brokenEndpoint{ep, e.fault}, err
}

type brokenEndpoint struct {
	transport.Endpoint
	fault fault
}

func (f fault) apply(cfg *transport.Config) *transport.Config {
	if cfg == nil || cfg.TLS == nil || f.config == nil {
		return cfg
	}
	c := *cfg
	c.TLS = cfg.TLS.Clone()
	f.config(&c)
	return &c
}

func (f fault) wrap(c transport.Conn, err error) (transport.Conn, error) {
	if err != nil {
		return nil, err
	}
	if f.conn != nil {
		c = f.conn(c)
	}
	return brokenConn{c, f}, nil
}

func (e brokenEndpoint) Dial(ctx context.Context, a net.Addr, cfg *transport.Config) (transport.Conn, error) {
	return e.fault.wrap(e.Endpoint.Dial(ctx, a, e.fault.apply(cfg)))
}

func (e brokenEndpoint) Listen(cfg *transport.Config) (transport.Listener, error) {
	ln, err := e.Endpoint.Listen(e.fault.apply(cfg))
	if err != nil {
		return nil, err
	}
	return brokenListener{ln, e.fault}, nil
}

type brokenListener struct {
	transport.Listener
	fault fault
}

func (l brokenListener) Accept(ctx context.Context) (transport.Conn, error) {
	return l.fault.wrap(l.Listener.Accept(ctx))
}

type brokenConn struct {
	transport.Conn
	fault fault
}

func (c brokenConn) OpenStream(ctx context.Context) (transport.Stream, error) {
	s, err := c.Conn.OpenStream(ctx)
	if err == nil && c.fault.stream != nil {
		s = c.fault.stream(s)
	}
	return s, err
}

func (c brokenConn) OpenUniStream(ctx context.Context) (transport.SendStream, error) {
	s, err := c.Conn.OpenUniStream(ctx)
	if err == nil && c.fault.uni != nil {
		s = c.fault.uni(s)
	}
	return s, err
}

type storedPriority struct {
	transport.SendStream
	p transport.Priority
}

func (s *storedPriority) SetPriority(p transport.Priority) { s.p = p }
func (s *storedPriority) Priority() transport.Priority     { return s.p }

type wholeClose struct{ transport.Stream }

func (s wholeClose) Close() error {
	s.CancelRead(0)
	return s.Stream.Close()
}

type failingClose struct {
	transport.Stream
	closed bool
}

func (s *failingClose) Close() error {
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	return s.Stream.Close()
}

type noReadDeadline struct{ transport.Stream }

func (s noReadDeadline) SetReadDeadline(time.Time) error { return nil }
func (s noReadDeadline) SetDeadline(t time.Time) error   { return s.SetWriteDeadline(t) }

// lateWrite hands a buffer on at the next call, when the caller has reused it.
type lateWrite struct {
	transport.SendStream
	mu   sync.Mutex
	kept []byte
}

func (s *lateWrite) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p) == 1 { // a stream's first byte
		return s.SendStream.Write(p)
	}
	_, err := s.SendStream.Write(s.kept)
	s.kept = p
	return len(p), err
}

func (s *lateWrite) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.SendStream.Write(s.kept); err != nil {
		return err
	}
	return s.SendStream.Close()
}

type silentClose struct{ transport.Conn }

func (c silentClose) CloseWithError(code transport.ErrorCode, _ string) error {
	return c.Conn.CloseWithError(code, "")
}

type uncounted struct{ transport.Conn }

func (c uncounted) Stats() transport.Stats {
	s := c.Conn.Stats()
	s.DatagramsDropped = 0
	return s
}

// keepsSocket leaves Close to somebody else.
type keepsSocket struct{ transport.Endpoint }

func (e keepsSocket) Close() error { return nil }

func TestTheMatrixCountsOutcomes(t *testing.T) {
	var b strings.Builder
	require.NoError(t, WriteMatrix(&b, []Result{
		{"a-a", "Uni", "S02", "pass"}, {"a-b", "Uni", "S02", "fail"},
		{"a-a", "BidiEcho", "S01", "pass"}, {"a-b", "BidiEcho", "S01", "skip"},
	}))
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	require.Equal(t, []string{
		"case rows a-a a-b", "BidiEcho S01 pass skip", "Uni S02 pass fail",
		"total pass 2 0", "total fail 0 1", "total skip 0 1",
	}, got)
}

func TestEveryCaseHasANameOfItsOwnRowsAndASentence(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range slices.Concat(cases(), realCases) {
		require.False(t, seen[c.name], "%s twice", c.name)
		seen[c.name] = true
		require.NotEmpty(t, c.rows, c.name)
		require.NotEmpty(t, c.says, c.name)
		require.NotNil(t, c.run, c.name)
	}
	require.GreaterOrEqual(t, len(seen), 80)
}

// Every row that the suite answers for is named by a case.
func TestEveryRowHasACase(t *testing.T) {
	var rows []string
	for _, c := range slices.Concat(cases(), realCases) {
		rows = append(rows, strings.Fields(c.rows)...)
	}
	for _, want := range strings.Fields(`T05 T06 T07 T08 T09 T10 T11 T17 T18 T20 T23 T24 T25 T26 T27
		S01 S02 S03 S04 S05 S06 S07 S09 S10 S11 S12 S13 D01 D02 D03 Z01 Z02 Z03 Z04 Z07
		M01 M02 M03 M06 L01 L04 L07 L08 L09 L10 L11 A01 A02 A03 A04`) {
		require.Contains(t, rows, want)
	}
}

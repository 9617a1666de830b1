package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/anyquic/anyquic/http3/allhttp"
)

// A fetched is what is known of a URL that was fetched. --json prints it.
type fetched struct {
	URL     string      `json:"url"`
	Proto   string      `json:"proto"`
	Engine  string      `json:"engine,omitempty"` // of HTTP/3
	Reason  string      `json:"reason,omitempty"` // for the version
	Remote  string      `json:"remote,omitempty"`
	TLS     string      `json:"tls,omitempty"`
	Resumed bool        `json:"resumed"`
	Early   bool        `json:"early_data"` // the request went ahead of the handshake
	Status  int         `json:"status"`
	Header  http.Header `json:"header,omitempty"`
	Trailer http.Header `json:"trailer,omitempty"`
	Bytes   int64       `json:"bytes"` // of the body
	File    string      `json:"file,omitempty"`
	Timings timings     `json:"timings"`
}

// timings count from the start of the first request, redirects included; 0: it did
// not happen.
type timings struct {
	Connected time.Duration `json:"connected_ns"`  // there is a connection, new or not
	Sent      time.Duration `json:"sent_ns"`       // the request is written
	FirstByte time.Duration `json:"first_byte_ns"` // of the response
	Total     time.Duration `json:"total_ns"`
}

// A fetch is one URL on its way.
type fetch struct {
	flags  *h3GetFlags
	cmd    *cobra.Command
	client *http.Client
	engine string

	start time.Time
	mu    sync.Mutex // the traces are called from any goroutine
	seen  fetched
}

// get fetches a URL and writes its body where it belongs. What is known is returned
// with an error too.
func (g *fetch) get(ctx context.Context, rawURL string) (*fetched, error) {
	if g.flags.maxTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, g.flags.maxTime, fmt.Errorf("no answer within --max-time %v", g.flags.maxTime))
		defer cancel()
	}
	g.seen.URL = rawURL
	req, err := g.flags.request(g.trace(ctx), g.cmd, rawURL)
	if err != nil {
		return nil, err
	}
	g.start = time.Now()
	resp, err := g.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // it names the URL, as run does
		}
		return nil, err
	}
	defer resp.Body.Close()
	err = g.receive(resp)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen.Timings.Total = time.Since(g.start)
	report := g.seen
	return &report, err
}

// trace notes what the transport says on the way.
func (g *fetch) trace(ctx context.Context) context.Context {
	mark := func(d *time.Duration) {
		g.mu.Lock()
		defer g.mu.Unlock()
		*d = time.Since(g.start)
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { mark(&g.seen.Timings.Connected) },
		WroteRequest:         func(httptrace.WroteRequestInfo) { mark(&g.seen.Timings.Sent) },
		GotFirstResponseByte: func() { mark(&g.seen.Timings.FirstByte) },
	})
	return allhttp.WithTrace(ctx, &allhttp.Trace{Chosen: func(c allhttp.Choice) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.seen.Reason, g.seen.Early = string(c.Reason), c.Reason == allhttp.ReasonEarly
		if c.Addr != nil {
			g.seen.Remote = c.Addr.String()
		}
	}})
}

func (g *fetch) receive(resp *http.Response) error {
	g.mu.Lock()
	s := &g.seen
	s.Proto, s.Status, s.Header = resp.Proto, resp.StatusCode, resp.Header
	if resp.ProtoMajor == 3 {
		s.Engine = g.engine
	}
	if resp.TLS != nil {
		s.TLS, s.Resumed = tls.VersionName(resp.TLS.Version), resp.TLS.DidResume
	}
	g.mu.Unlock()
	f := g.flags
	if f.fail && resp.StatusCode >= http.StatusBadRequest {
		return errors.New(resp.Status)
	}
	out, name, err := g.open()
	if err != nil {
		return err
	}
	if (f.include || f.head) && !f.asJSON {
		err = printHead(out, resp)
	}
	var n int64
	if err == nil {
		bar := g.progress(resp, name != "" || f.asJSON)
		n, err = io.Copy(io.MultiWriter(out, bar), resp.Body)
		_ = bar.Exit() // it is only to be looked at
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	g.mu.Lock()
	s.Bytes, s.File, s.Trailer = n, name, resp.Trailer
	g.mu.Unlock()
	return err
}

// open returns where the body goes, and the file's name if it is one.
func (g *fetch) open() (io.WriteCloser, string, error) {
	name := g.flags.output
	if g.flags.remote {
		// The name that the user gave, not one that a redirect leads to.
		u, err := url.Parse(g.seen.URL)
		if err != nil {
			return nil, "", err
		}
		name = remoteName(u)
	}
	switch {
	case name != "" && name != "-":
		file, err := os.Create(name)
		return file, name, err
	case g.flags.asJSON:
		return writeCloser{io.Discard}, "", nil
	}
	return writeCloser{g.cmd.OutOrStdout()}, "", nil
}

// A writeCloser is not ours to close.
type writeCloser struct{ io.Writer }

func (writeCloser) Close() error { return nil }

// progress shows how far the body is, if someone may be looking and the body
// itself does not go to the terminal.
func (g *fetch) progress(resp *http.Response, elsewhere bool) *progressbar.ProgressBar {
	stderr, ok := g.cmd.ErrOrStderr().(*os.File)
	visible := ok && !g.flags.quiet && elsewhere && term.IsTerminal(int(stderr.Fd()))
	return progressbar.NewOptions64(resp.ContentLength, // -1: not known
		progressbar.OptionSetVisibility(visible),
		progressbar.OptionSetWriter(g.cmd.ErrOrStderr()),
		progressbar.OptionSetDescription(resp.Request.URL.Path),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionUseANSICodes(true),
	)
}

// printHead prints a response's head as HTTP/1.1 would write it.
func printHead(w io.Writer, resp *http.Response) error {
	if _, err := fmt.Fprintf(w, "%s %s\r\n", resp.Proto, resp.Status); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(resp.Header)) {
		for _, v := range resp.Header[name] {
			if _, err := fmt.Fprintf(w, "%s: %s\r\n", name, v); err != nil {
				return err
			}
		}
	}
	_, err := io.WriteString(w, "\r\n")
	return err
}

// printTimings prints a table.
func printTimings(w io.Writer, reports []*fetched) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "version\tconnected\tsent\tfirst byte\ttotal\tbytes\tMB/s\t  URL")
	for _, r := range reports {
		t := r.Timings
		rate := "-"
		if d := t.Total - t.FirstByte; d > 0 && r.Bytes > 0 {
			rate = fmt.Sprintf("%.1f", float64(r.Bytes)/1e6/d.Seconds())
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t  %s\n", r.Proto,
			milliseconds(t.Connected), milliseconds(t.Sent), milliseconds(t.FirstByte), milliseconds(t.Total), r.Bytes, rate, r.URL)
	}
	return tw.Flush()
}

func milliseconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(d)/1e6)
}

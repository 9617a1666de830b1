package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

type subFlags struct {
	connectFlags
	filters    []string
	qos        uint8
	count      int
	timeout    time.Duration
	verbose    bool
	noNewline  bool
	noRetained bool
	asJSON     bool
}

func newSub() *cobra.Command {
	var f subFlags
	cmd := &cobra.Command{
		Use:   "sub {URL | --url URL...} -t FILTER...",
		Short: "Subscribe, and print the messages",
		Example: `  anyquic mqtt sub mqtt://localhost -t 'sensors/+/temp' -v
  anyquic mqtt sub mqtt+quic://localhost --insecure -t '#' -q 1 --json
  anyquic mqtt sub mqtt+wt://localhost:8443 --insecure -t 'from/browsers/#' -v
  anyquic mqtt sub mqtts://broker.example --cafile ca.pem -t a -C 1 -W 5s`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringArrayVarP(&f.filters, "topic", "t", nil, "topic filter to subscribe to; may be given several times")
	fs.Uint8VarP(&f.qos, "qos", "q", 0, "quality of service: 0, 1 or 2")
	fs.IntVarP(&f.count, "count", "C", 0, "end after this many messages (default: go on)")
	fs.DurationVarP(&f.timeout, "timeout", "W", 0, "end with an error when this much time has passed (default: never)")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "print the topic before the message")
	fs.BoolVarP(&f.noNewline, "no-newline", "N", false, "print no newline after the message")
	fs.BoolVarP(&f.noRetained, "no-retained", "R", false, "do not print retained messages")
	fs.BoolVar(&f.asJSON, "json", false, "print a JSON object per message")
	f.connectFlags.bind(fs)
	return cmd
}

func (f *subFlags) run(cmd *cobra.Command, urls []string) error {
	qos, err := parseQoS(f.qos)
	if err != nil {
		return err
	}
	if len(f.filters) == 0 {
		return errors.New("--topic is missing")
	}
	if f.count < 0 {
		return fmt.Errorf("--count %d: use 1 or more", f.count)
	}
	cfg, err := f.config(cmd, urls)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("--timeout %v has passed", f.timeout))
		defer cancel()
	}

	out := &printer{flags: f, w: bufio.NewWriter(cmd.OutOrStdout()), done: make(chan struct{})}
	cfg.OnMessage = out.print
	cfg.OnDisconnect = func(err error) {
		if err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "anyquic: connection lost, connecting again:", err)
		}
	}
	c, err := client.Dial(ctx, cfg)
	if err != nil {
		return orCause(ctx, err)
	}
	defer c.Close()

	subs := make([]packet.Subscription, len(f.filters))
	for i, filter := range f.filters {
		subs[i] = packet.Subscription{Filter: filter, QoS: qos}
	}
	if _, err := c.Subscribe(ctx, nil, subs...); err != nil {
		return orCause(ctx, err)
	}
	linger := farewell
	select {
	case <-out.done:
	case <-c.Done():
		return c.Err()
	case <-ctx.Done():
		if f.timeout > 0 && cmd.Context().Err() == nil {
			return context.Cause(ctx)
		}
		// Interrupted: that is how a subscriber without --count ends, and soon.
		linger = 2 * time.Second
	}
	if out.err != nil {
		return fmt.Errorf("write: %w", out.err)
	}
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), linger)
	defer cancel()
	return c.Disconnect(bye)
}

// farewell bounds how long the end of a subscriber that has what it wanted may take: it
// has yet to acknowledge the last message, and failing that is an error.
const farewell = 10 * time.Second

// orCause returns why ctx ended if it did, else err.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// A printer writes messages until it has written enough of them.
type printer struct {
	flags *subFlags
	w     *bufio.Writer
	n     int // messages printed
	err   error
	once  sync.Once
	done  chan struct{} // closed when --count is reached or writing failed; err is then final
}

// A message is what --json prints.
type message struct {
	Time    time.Time  `json:"time"`
	Topic   string     `json:"topic"`
	QoS     packet.QoS `json:"qos"`
	Retain  bool       `json:"retain"`
	Payload string     `json:"payload"`
	Base64  []byte     `json:"payload_base64,omitempty"` // instead of payload, if that is not UTF-8
}

func (p *printer) print(m *packet.Publish) {
	if p.flags.count > 0 && p.n >= p.flags.count || p.err != nil {
		return // arrived while the program ends
	}
	if m.Retain && p.flags.noRetained {
		return
	}
	p.n++
	p.err = p.write(m)
	if p.err == nil {
		p.err = p.w.Flush()
	}
	if p.err != nil || p.n == p.flags.count {
		p.once.Do(func() { close(p.done) })
	}
}

func (p *printer) write(m *packet.Publish) error {
	if p.flags.asJSON {
		j := message{Time: time.Now(), Topic: m.Topic, QoS: m.QoS, Retain: m.Retain}
		if utf8.Valid(m.Payload) {
			j.Payload = string(m.Payload)
		} else {
			j.Base64 = m.Payload
		}
		return json.NewEncoder(p.w).Encode(j)
	}
	if p.flags.verbose {
		p.w.WriteString(m.Topic)
		p.w.WriteByte(' ')
	}
	_, err := p.w.Write(m.Payload)
	if !p.flags.noNewline {
		_, err = io.WriteString(p.w, "\n")
	}
	return err
}

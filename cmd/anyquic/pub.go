package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// maxStdinMessage bounds the message that --stdin-file and --file read, and a
// line of --stdin-line: the largest payload an MQTT packet can carry.
const maxStdinMessage = packet.MaxRemainingLength

type pubFlags struct {
	connectFlags
	topic       string
	qos         uint8
	retain      bool
	message     string
	file        string
	lines       bool
	stdin       bool
	null        bool
	repeat      int
	repeatDelay time.Duration
}

func newPub() *cobra.Command {
	var f pubFlags
	cmd := &cobra.Command{
		Use:   "pub {URL | --url URL...} -t TOPIC {-m MESSAGE | -f FILE | -l | -s | -n}",
		Short: "Publish messages",
		Example: `  anyquic mqtt pub mqtt://localhost -t sensors/1/temp -m 21.5
  anyquic mqtt pub mqtt+quic://localhost --insecure -t a -q 1 -r -m kept
  anyquic mqtt pub wss+h3://localhost:8443 --insecure -t a -m 'over HTTP/3'
  seq 1000 | anyquic mqtt pub mqtts://broker.example --cafile ca.pem -t n -q 2 -l
  anyquic mqtt pub mqtt://broker.example -i meter -t meter/1 -q 1 -m 42 --queue meter.queue`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVarP(&f.topic, "topic", "t", "", "topic to publish to")
	fs.Uint8VarP(&f.qos, "qos", "q", 0, "quality of service: 0, 1 or 2")
	fs.StringVarP(&f.message, "message", "m", "", "the message")
	fs.StringVarP(&f.file, "file", "f", "", "file whose content is the message")
	fs.BoolVarP(&f.lines, "stdin-line", "l", false, "each line of standard input is a message")
	fs.BoolVarP(&f.stdin, "stdin-file", "s", false, "all of standard input is the message")
	fs.BoolVarP(&f.null, "null-message", "n", false, "an empty message; with -r it deletes the retained one")
	fs.BoolVarP(&f.retain, "retain", "r", false, "the broker keeps the message for later subscribers")
	fs.IntVar(&f.repeat, "repeat", 1, "how often to publish the message")
	fs.DurationVar(&f.repeatDelay, "repeat-delay", 0, "time between repetitions")
	f.connectFlags.bind(fs)
	f.queueFlags.bindWait(fs)
	return cmd
}

func (f *pubFlags) run(cmd *cobra.Command, urls []string) error {
	ctx := cmd.Context()
	qos, err := parseQoS(f.qos)
	if err != nil {
		return err
	}
	if f.topic == "" {
		return errors.New("--topic is missing")
	}
	if f.repeat < 1 {
		return fmt.Errorf("--repeat %d: use 1 or more", f.repeat)
	}
	payload, err := f.payload(cmd)
	if err != nil {
		return err
	}
	cfg, err := f.config(cmd, urls)
	if err != nil {
		return err
	}
	p := &packet.Publish{Topic: f.topic, QoS: qos, Retain: f.retain, Payload: payload}
	if f.queueFlags.file != "" {
		return f.queue(cmd, cfg, p)
	}
	cfg.Reconnect.MaxAttempts = 3 // a command says that it failed, rather than wait for ever
	c, err := client.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Close()

	if f.lines {
		err = publishLines(ctx, c, p, cmd.InOrStdin())
	} else {
		err = f.publish(ctx, c, p)
	}
	if err != nil {
		return err
	}
	return c.Disconnect(ctx)
}

// payload returns the message, unless it is read line by line.
func (f *pubFlags) payload(cmd *cobra.Command) ([]byte, error) {
	sources := 0
	for _, given := range []bool{cmd.Flags().Changed("message"), f.file != "", f.lines, f.stdin, f.null} {
		if given {
			sources++
		}
	}
	if sources != 1 {
		return nil, errors.New("one of --message, --file, --stdin-line, --stdin-file and --null-message is needed")
	}
	switch {
	case f.file != "":
		file, err := os.Open(f.file)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer file.Close()
		return readMessage(file)
	case f.stdin:
		return readMessage(cmd.InOrStdin())
	}
	return []byte(f.message), nil
}

func readMessage(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxStdinMessage+1))
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	if len(b) > maxStdinMessage {
		return nil, fmt.Errorf("the message is larger than MQTT allows (%d bytes)", maxStdinMessage)
	}
	return b, nil
}

func (f *pubFlags) publish(ctx context.Context, c *client.Client, p *packet.Publish) error {
	for i := range f.repeat {
		if i > 0 && f.repeatDelay > 0 {
			if err := pause(ctx, f.repeatDelay); err != nil {
				return err
			}
		}
		if _, err := c.Publish(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// publishLines publishes each line of r. Messages with QoS 1 and 2 are in
// flight together; the first refusal is returned.
func publishLines(ctx context.Context, c *client.Client, p *packet.Publish, r io.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxStdinMessage)
	done := func(err error) {
		if err != nil {
			cancel(err)
		}
	}
	for sc.Scan() {
		p.Payload = sc.Bytes()
		if err := c.PublishAsync(ctx, p, done); err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	if err := c.Disconnect(ctx); err != nil { // waits for what is in flight
		return err
	}
	return context.Cause(ctx)
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// queueFlags are for a session that is kept in a file.
type queueFlags struct {
	file string
	sync bool
	wait time.Duration // pub
}

// queueSession is how long the broker keeps the session of a file if nothing else is
// said.
const queueSession = 7 * 24 * time.Hour

func (f *queueFlags) bind(fs *pflag.FlagSet) {
	fs.StringVar(&f.file, "queue", "", "file that keeps the session and what is not delivered yet, for the next command with it")
	fs.BoolVar(&f.sync, "queue-sync", false, "what is in the file survives a loss of power as well")
}

// bindWait adds what only pub has.
func (f *queueFlags) bindWait(fs *pflag.FlagSet) {
	fs.DurationVar(&f.wait, "queue-wait", 10*time.Second, "with --queue, how long to wait for the broker before the rest stays in the file")
}

// apply configures cfg, and the session that goes with the file.
func (f *queueFlags) apply(cfg *client.Config) error {
	if f.file == "" {
		if f.sync {
			return errors.New("--queue-sync is for --queue, which is missing")
		}
		return nil
	}
	if f.wait < 0 {
		return fmt.Errorf("--queue-wait %v: use 0 or more", f.wait)
	}
	cfg.Queue = client.Queue{File: f.file, Sync: f.sync, QoS0: true}
	cfg.CleanStart = false
	if cfg.SessionExpiry == 0 {
		cfg.SessionExpiry = queueSession
	}
	return nil
}

// queue publishes by way of a file: when it returns without an error, every message
// is with the broker or in the file.
func (f *pubFlags) queue(cmd *cobra.Command, cfg *client.Config, p *packet.Publish) error {
	ctx := cmd.Context()
	var refused atomic.Int64
	report := func(topic string, err error) {
		if err == nil || errors.Is(err, client.ErrKept) {
			return
		}
		refused.Add(1)
		fmt.Fprintf(cmd.ErrOrStderr(), "anyquic: %s: %v\n", topic, err)
	}
	cfg.Queue.Restored = func(p *packet.Publish, err error) { report(p.Topic, err) }
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	done := func(err error) { report(f.topic, err) }
	if f.lines {
		err = queueLines(ctx, c, p, cmd.InOrStdin(), done)
	} else {
		for i := 0; i < f.repeat && err == nil; i++ {
			if i > 0 {
				err = pause(ctx, f.repeatDelay)
			}
			if err == nil {
				err = c.PublishAsync(ctx, p, done)
			}
		}
	}
	if err != nil {
		return err
	}
	bye, cancel := context.WithTimeout(ctx, f.queueFlags.wait)
	defer cancel()
	if err := c.Disconnect(bye); err != nil && ctx.Err() == nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "anyquic: no broker within %v: what is not delivered stays in %s\n", f.queueFlags.wait, f.queueFlags.file)
	}
	switch {
	case c.Err() != nil:
		return fmt.Errorf("%w; what is not delivered stays in %s", c.Err(), f.queueFlags.file)
	case refused.Load() > 0:
		return fmt.Errorf("%d messages were not accepted", refused.Load())
	}
	return nil
}

func queueLines(ctx context.Context, c *client.Client, p *packet.Publish, r io.Reader, done func(error)) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxStdinMessage)
	for sc.Scan() {
		p.Payload = sc.Bytes()
		if err := c.PublishAsync(ctx, p, done); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	return nil
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

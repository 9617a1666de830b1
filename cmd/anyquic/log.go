package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
)

// level returns the level that the configuration names.
func (c logConfig) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(strings.ToUpper(c.Level))); err != nil || strings.ContainsAny(c.Level, "+-") {
		return 0, fmt.Errorf("--log-level %q: use debug, info, warn or error", c.Level)
	}
	return l, nil
}

// logger returns a logger to w as configured; c has been checked.
func (c logConfig) logger(w io.Writer) *slog.Logger {
	return slog.New(c.handler(w, c.leveler()))
}

// leveler returns the level as something that can be changed; c has been checked.
func (c logConfig) leveler() *slog.LevelVar {
	v := new(slog.LevelVar) // info
	if l, err := c.level(); err == nil {
		v.Set(l)
	}
	return v
}

func (c logConfig) handler(w io.Writer, level slog.Leveler) slog.Handler {
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.NewJSONHandler(w, opts)
	}
	return slog.NewTextHandler(w, opts)
}

// logLevels are those that lineCounter tells apart.
var logLevels = [...]slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}

// A lineCounter is a [slog.Handler] that counts the lines it passes on. Those
// derived from it count together.
type lineCounter struct {
	slog.Handler
	lines *[len(logLevels)]atomic.Uint64
}

func newLineCounter(h slog.Handler) *lineCounter {
	return &lineCounter{h, new([len(logLevels)]atomic.Uint64)}
}

// Handle counts r and passes it on.
func (c *lineCounter) Handle(ctx context.Context, r slog.Record) error {
	i := len(logLevels) - 1
	for i > 0 && r.Level < logLevels[i] {
		i--
	}
	c.lines[i].Add(1)
	return c.Handler.Handle(ctx, r)
}

// WithAttrs returns a handler that counts together with c.
func (c *lineCounter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lineCounter{c.Handler.WithAttrs(attrs), c.lines}
}

// WithGroup returns a handler that counts together with c.
func (c *lineCounter) WithGroup(name string) slog.Handler {
	return &lineCounter{c.Handler.WithGroup(name), c.lines}
}

// counts returns the lines by level.
func (c *lineCounter) counts() map[string]uint64 {
	m := make(map[string]uint64, len(logLevels))
	for i, l := range logLevels {
		m[strings.ToLower(l.String())] = c.lines[i].Load()
	}
	return m
}

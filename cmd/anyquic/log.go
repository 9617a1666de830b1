package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
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
	level, err := c.level()
	if err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

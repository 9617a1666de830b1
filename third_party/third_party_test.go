package thirdparty_test

import (
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	thirdparty "github.com/anyquic/anyquic/third_party"
)

var update = flag.Bool("update", false, "write the file licences")

// classify returns the SPDX identifier of a licence's text.
func classify(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, l := range []struct{ says, spdx string }{
		{"GNU GENERAL PUBLIC LICENSE Version 3", "GPL-3.0-or-later"},
		{"Apache License Version 2.0", "Apache-2.0"},
		{"Permission is hereby granted, free of charge", "MIT"},
		{"Permission to use, copy, modify, and distribute this software for any purpose with or without fee", "ISC"},
	} {
		if strings.Contains(text, l.says) {
			return l.spdx
		}
	}
	if strings.Contains(text, "Redistribution and use in source and binary forms") {
		if regexp.MustCompile(`(?i)neither the name`).MatchString(text) {
			return "BSD-3-Clause"
		}
		return "BSD-2-Clause"
	}
	return ""
}

// modules returns what the program can be linked with, in some build: the path of
// each Go module, and "go", with the folder of its source.
func modules(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, build := range [][2]string{{"linux", ""}, {"linux", "ngtcp2"}, {"linux", "ngtcp2,wolfssl"}, {"darwin", ""}, {"windows", ""}} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-tags="+build[1],
			"-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}", "../cmd/anyquic")
		cmd.Env = append(os.Environ(), "GOOS="+build[0], "CGO_ENABLED=1") // lists, compiles nothing
		cmd.Stderr = t.Output()
		out, err := cmd.Output()
		require.NoError(t, err)
		for line := range strings.Lines(string(out)) {
			if path, dir, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
				found[path] = dir
			}
		}
	}
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(t, err)
	found["go"] = strings.TrimSpace(string(out))
	return found
}

// texts returns the licence and the notices in a module's folder, or "" if there
// is none.
func texts(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"LICENSE*", "COPYING*", "NOTICE*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		require.NoError(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			all = append(all, strings.TrimSpace(string(b))+"\n")
		}
	}
	return strings.Join(all, "\n")
}

func TestEveryComponentOfTheProgramHasItsLicenceHere(t *testing.T) {
	want := map[string]string{}
	for component, dir := range modules(t) {
		text := texts(t, dir)
		if text == "" && component == "go" {
			want[component] = "BSD-3-Clause" // a distribution's Go may keep its licence elsewhere
			continue
		}
		require.NotEmpty(t, text, component)
		want[component] = classify(text)
		require.NotEmpty(t, want[component], component)
	}
	require.Contains(t, want, "github.com/quic-go/quic-go")
	list := thirdparty.Libraries()
	require.Len(t, list, 4)
	for _, l := range list {
		require.NotEmpty(t, l.Version, l.Name)
		require.NotEmpty(t, l.URL, l.Name)
		want[l.Name] = l.SPDX
		if b, err := os.ReadFile(filepath.Join("..", "build", "out", "licences", l.Name)); err == nil {
			require.Equal(t, l.SPDX, classify(string(b)), l.Name)
		}
	}
	var table strings.Builder
	for _, name := range slices.Sorted(maps.Keys(want)) {
		table.WriteString(name + " " + want[name] + "\n")
	}
	if *update {
		require.NoError(t, os.WriteFile("licences", []byte(table.String()), 0o644))
		return
	}
	have, err := os.ReadFile("licences")
	require.NoError(t, err)
	require.Equal(t, table.String(), string(have), "make licences writes it")
	for name, spdx := range want {
		got, ok := thirdparty.Licence(name)
		require.True(t, ok, name)
		require.Equal(t, spdx, got, name)
	}
	_, ok := thirdparty.Licence("nothing")
	require.False(t, ok)
}

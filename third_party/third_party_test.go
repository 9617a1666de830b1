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
	if all := classifyAll(text); len(all) > 0 {
		return all[0]
	}
	return ""
}

// classifyAll returns those of every licence in a text: a module's own and those
// of its parts.
func classifyAll(text string) (all []string) {
	text = strings.Join(strings.Fields(text), " ")
	for _, l := range []struct{ says, spdx string }{
		{"GNU GENERAL PUBLIC LICENSE Version 3", "GPL-3.0-or-later"},
		{"Apache License Version 2.0", "Apache-2.0"},
		{"Permission is hereby granted, free of charge", "MIT"},
		{"Permission to use, copy, modify, and distribute this software for any purpose with or without fee", "ISC"},
	} {
		if strings.Contains(text, l.says) {
			all = append(all, l.spdx)
		}
	}
	if strings.Contains(text, "Redistribution and use in source and binary forms") {
		if regexp.MustCompile(`(?i)neither the name`).MatchString(text) {
			return append(all, "BSD-3-Clause")
		}
		return append(all, "BSD-2-Clause")
	}
	return all
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
	for _, pattern := range []string{"LICENSE*", "License*", "COPYING*", "NOTICE*"} {
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

// notices returns the sections of what build/notices.sh prints for a build: from
// the name and the version of a component to the text.
func notices(t *testing.T, tags, cgo string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../build/notices.sh", tags)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	require.NoError(t, err)
	found := map[string]string{}
	bar := strings.Repeat("=", 64) + "\n"
	parts := strings.Split(string(out), "\n"+bar)[1:] // a name and its text, in turn
	require.Zero(t, len(parts)%2)
	for i := 0; i < len(parts); i += 2 {
		require.NotContains(t, found, parts[i])
		found[parts[i]] = parts[i+1]
	}
	return found
}

func TestNoticesHaveTheTextsOfWhatABuildLinks(t *testing.T) {
	for _, build := range []struct {
		tags, cgo string
		libraries []string
	}{
		{"", "0", nil},
		{"ngtcp2", "0", nil},
		{"ngtcp2 system", "1", nil},
		{"ngtcp2", "1", []string{"nghttp3", "ngtcp2", "openssl"}},
		{"ngtcp2,wolfssl", "1", []string{"nghttp3", "ngtcp2", "wolfssl"}},
	} {
		t.Run(build.tags+" cgo "+build.cgo, func(t *testing.T) {
			for _, l := range build.libraries {
				if _, err := os.Stat(filepath.Join("..", "build", "out", "licences", l)); err != nil {
					t.Skipf("%s is not in this tree's build/out: make deps", l)
				}
			}
			cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags="+build.tags,
				"-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "../cmd/anyquic")
			cmd.Env = append(os.Environ(), "CGO_ENABLED="+build.cgo)
			cmd.Stderr = t.Output()
			out, err := cmd.Output()
			require.NoError(t, err)
			want := slices.Concat([]string{"anyquic", "go"}, build.libraries)
			for line := range strings.Lines(string(out)) {
				if line = strings.TrimSpace(line); line != "" && !slices.Contains(want, line) {
					want = append(want, line)
				}
			}

			var have []string
			for name, text := range notices(t, build.tags, build.cgo) {
				component, version, _ := strings.Cut(name, " ")
				if component == "go" || slices.Contains(build.libraries, component) {
					require.NotEmpty(t, version, component)
					name = component // its version is that of this machine
				}
				have = append(have, name)
				spdx, listed := thirdparty.Licence(component)
				require.Equal(t, component != "anyquic", listed, component)
				if listed {
					require.Contains(t, classifyAll(text), spdx, name)
				}
			}
			require.ElementsMatch(t, want, have)
		})
	}
}

func TestNoticesHaveThoseOfParts(t *testing.T) {
	modules := notices(t, "", "0")
	const client = "github.com/prometheus/client_golang"
	for name, text := range modules {
		if strings.HasPrefix(name, client+" ") {
			require.Contains(t, text, "Apache License")
			require.Contains(t, text, "The Go Authors", "of a package in a folder of its own, with its own licence")
			require.Contains(t, text, "Prometheus instrumentation library", "NOTICE")
			return
		}
	}
	require.Fail(t, client+" is not linked")
}

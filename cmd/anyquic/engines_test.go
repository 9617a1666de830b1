package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type column struct{ heading, file, tags string }

// columns are the builds in the README's table. What the engine of each says of
// itself is in testdata/engines; the tests of each build check the file of its
// own engines, so that a build without the C libraries can print the whole table.
var columns = []column{
	{"purego", "purego", "none"},
	{"ngtcp2, OpenSSL", "ngtcp2-openssl", "`-tags ngtcp2`"},
	{"ngtcp2, wolfSSL", "ngtcp2-wolfssl", "`-tags \"ngtcp2 wolfssl\"`"},
}

// engineFile returns the file in testdata/engines that is about the engine.
func engineFile(e engineInfo) string {
	name := e.Name
	for _, tls := range []string{"openssl", "wolfssl"} {
		if e.Features.Versions[tls] != "" {
			name += "-" + tls
		}
	}
	return filepath.Join("testdata", "engines", name+".json")
}

func TestTheREADMEsColumnsAreWhatTheEnginesSay(t *testing.T) {
	for _, e := range engineInfos() {
		have, err := json.MarshalIndent(e.Features, "", "  ")
		require.NoError(t, err)
		have = append(have, '\n')
		file := engineFile(e)
		require.True(t, slices.ContainsFunc(columns, func(c column) bool { return filepath.Base(file) == c.file+".json" }), "%s has no column", file)
		if *update {
			require.NoError(t, os.WriteFile(file, have, 0o644))
			continue
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), string(have), "%s is not what the engine says: make readme writes it", file)
	}
}

// engineTable returns the README's table.
func engineTable(t *testing.T) string {
	t.Helper()
	infos := make([]engineInfo, len(columns))
	head, rule, tags := "| feature |", "|---|", "| build tags |"
	for i, c := range columns {
		b, err := os.ReadFile(filepath.Join("testdata", "engines", c.file+".json"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &infos[i].Features))
		head += " " + c.heading + " |"
		rule += "---|"
		tags += " " + c.tags + " |"
	}
	out := head + "\n" + rule + "\n" + tags + "\n"
	for _, row := range featureTable(infos) {
		out += fmt.Sprintf("| %s |\n", strings.Join(row, " | "))
	}
	return out
}

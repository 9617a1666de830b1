package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docs/mqtt-over-quic.md says which test of ours is which behaviour of EMQX's suite.
func TestEachOfThe46BehavioursOfMultiStreamClientsIsATestOfOurs(t *testing.T) {
	read := func(pattern string) string {
		files, err := filepath.Glob(filepath.FromSlash(pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		var all strings.Builder
		for _, f := range files {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			all.Write(b)
		}
		return all.String()
	}
	cases, tests := read("../mqtt/mqtttest/*.go"), read("../mqtt/mqttquic/*_test.go")
	row := regexp.MustCompile("(?m)^\\| `(t_[a-z0-9_]+)` \\| (.+?) \\|")
	name := regexp.MustCompile("`([^`]+)`")
	theirs := map[string]bool{}
	for _, r := range row.FindAllStringSubmatch(read("../docs/mqtt-over-quic.md"), -1) {
		theirs[r[1]] = true
		ours := name.FindAllStringSubmatch(r[2], -1)
		require.NotEmpty(t, ours, r[1])
		for _, o := range ours {
			if test, ok := strings.CutPrefix(o[1], "mqttquic."); ok {
				require.Contains(t, tests, "func "+test+"(t *testing.T)", r[1])
			} else {
				require.Contains(t, cases, `{"`+o[1]+`", func(r *run)`, r[1])
			}
		}
	}
	require.Len(t, theirs, 46)
}

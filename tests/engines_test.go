package tests

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testbuild"
	"github.com/anyquic/anyquic/transport/engine"
)

// An engine that is not there is tested by nobody, and nothing fails: so the build
// is asked what it was told, and the list of engines must follow.
func TestTheBuildHasTheEnginesOfItsTags(t *testing.T) {
	want := []string{"purego"}
	tags := strings.Split(testbuild.Setting("-tags"), ",")
	native := slices.Contains(tags, "ngtcp2") && testbuild.Setting("CGO_ENABLED") == "1"
	if native {
		want = []string{"ngtcp2", "purego"} // the preferred one first
	}
	var have []string
	for _, e := range engine.All() {
		have = append(have, e.Name())
	}
	require.Equal(t, want, have)
	require.Equal(t, want[0], engine.Default().Name())

	if native {
		tls, other := "openssl", "wolfssl"
		if slices.Contains(tags, "wolfssl") {
			tls, other = other, tls
		}
		versions := engine.Default().Features().Versions
		for _, library := range []string{"ngtcp2", "nghttp3", tls} {
			require.NotEmpty(t, versions[library], library)
		}
		require.NotContains(t, versions, other)
	}
}

func TestAnEngineIsFoundByItsName(t *testing.T) {
	for _, e := range engine.All() {
		found, err := engine.Lookup(e.Name())
		require.NoError(t, err)
		require.Equal(t, e.Name(), found.Name())
	}
	e, err := engine.Lookup("")
	require.NoError(t, err)
	require.Equal(t, engine.Default().Name(), e.Name())
	_, err = engine.Lookup("none")
	require.ErrorContains(t, err, `"none" is not compiled in`)
	require.ErrorContains(t, err, "purego")
}

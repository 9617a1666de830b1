package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	thirdparty "github.com/anyquic/anyquic/third_party"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

func TestVersionListsTheLicencesOfWhatIsLinked(t *testing.T) {
	code, stdout, _ := anyquic(t, "version", "--licenses", "--json")
	require.Zero(t, code)
	var v versionInfo
	require.NoError(t, json.Unmarshal([]byte(stdout), &v))
	have := map[string]component{}
	for _, c := range v.Licences {
		require.NotEmpty(t, c.Version, c.Name)
		have[c.Name] = c
	}
	require.Equal(t, "MIT", have["github.com/quic-go/quic-go"].Licence)
	require.Equal(t, "BSD-3-Clause", have["go"].Licence)

	inside := map[string]string{}
	for _, e := range engine.All() {
		for name, version := range e.Features().Versions {
			inside[name] = version
		}
	}
	for _, l := range thirdparty.Libraries() {
		c, listed := have[l.Name]
		require.Equal(t, inside[l.Name] != "", listed, "%s: listed if, and only if, it is linked", l.Name)
		if listed {
			require.Equal(t, component{Name: l.Name, Version: inside[l.Name], Licence: l.SPDX}, c)
		}
	}

	code, list, _ := anyquic(t, "version", "--licenses")
	require.Zero(t, code)
	require.Equal(t, inside["wolfssl"] != "", strings.Contains(list, "wolfSSL is GPL-3.0-or-later"))
	for _, c := range have {
		require.Contains(t, list, c.Licence)
	}
}

// A stub engine only says what it is linked with.
type stub struct {
	transport.Transport
	versions map[string]string
}

func (s stub) Features() transport.Features { return transport.Features{Versions: s.versions} }

func TestAProgramWithWolfSSLSaysWhatItsLicenceMeans(t *testing.T) {
	var b strings.Builder
	list := linked([]transport.Transport{
		stub{versions: map[string]string{"ngtcp2": "1.24.0", "wolfssl": "5.9.2"}},
		stub{versions: map[string]string{"something": "1"}},
	})
	require.NoError(t, printLicences(&b, list))
	require.Contains(t, b.String(), "wolfSSL is GPL-3.0-or-later. Who passes this program on")
	require.Regexp(t, `ngtcp2 +1\.24\.0 +MIT\n`, b.String())
	require.NotContains(t, b.String(), "openssl")
	require.NotContains(t, b.String(), "something")
}

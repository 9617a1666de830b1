package allhttp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAltSvcIsParsedAsRFC7838Says(t *testing.T) {
	const day = 24 * time.Hour
	for value, want := range map[string][]alternative{
		`h3=":443"`:                                   {{"", 443, day, false}},
		`h3=":443"; ma=3600`:                          {{"", 443, time.Hour, false}},
		`h3=":443";ma=3600;persist=1`:                 {{"", 443, time.Hour, true}},
		`h3=":443"; persist=2`:                        {{"", 443, day, false}},
		`h3=":443"; MA="60" ; Persist="1"`:            {{"", 443, time.Minute, true}},
		`h3=":443"; v="46,43"; unknown=x`:             {{"", 443, day, false}},
		`h2="alt.example:443", h3="Alt.Example:8443"`: {{"alt.example", 8443, day, false}},
		`h3="[2001:db8::1]:443"`:                      {{"2001:db8::1", 443, day, false}},
		`h3=":1", , h3=":2",`:                         {{"", 1, day, false}, {"", 2, day, false}},
		`h3=":443"; ma=0`:                             {{"", 443, 0, false}},
		`h3=":443"; ma=99999999999999999999`:          {{"", 443, 365 * day, false}},
		`h3="\:443"`:                                  {{"", 443, day, false}},
		`h3-29=":443", w%3Dx%3Ay#z=":443"`:            nil,
		// Places that nobody could go to are left out.
		`h3="", h3="443", h3=":0", h3=":65536", h3=":-1", h3=":+1", h3=":1 ", h3="a b:1", h3="[::1%eth0]:1", h3="u@h:1", h3="[x]:1:1"`: nil,
	} {
		alts, clear, ok := parseAltSvc(value)
		require.True(t, ok, value)
		require.False(t, clear, value)
		require.Equal(t, want, alts, value)
	}
	for _, value := range []string{"clear", ` clear `, `h3=":443", clear`, `clear, h3=":443"`} {
		_, clear, ok := parseAltSvc(value)
		require.True(t, ok && clear, value)
	}
	alts, clear, ok := parseAltSvc(`Clear=":1", clear=":2"`)
	require.True(t, ok && !clear && len(alts) == 0, "a protocol may have the name")
	for _, value := range []string{
		"", " ", ",", "h3", "Clear", `h3=:443`, `h3=":443`, `h3=":443\`, `h3=":443" ma=1`, `h3=":443"; ma`, `h3=":443"; ma=`,
		`h3=":443"; =1`, `h3=":443"; ma=-1`, `h3=":443"; ma=1.5`, `h3=":443";`, `="x"`, `h3 =":443"`, "h3=\":443\"\x00",
		`h3=":443"; ma=1, junk`, strings.Repeat(" ", maxAltSvc) + `h3=":443"`,
	} {
		_, _, ok := parseAltSvc(value)
		require.False(t, ok, value)
	}
}

func TestNoMoreAlternativesAndOriginsAreKeptThanThereIsRoomFor(t *testing.T) {
	alts, _, ok := parseAltSvc(strings.Repeat(`h3=":443",`, 100))
	require.True(t, ok)
	require.Len(t, alts, maxAlternatives)

	now := time.Now()
	var c altCache
	var b backoff
	for i := range maxOrigins + 10 {
		later := now.Add(time.Duration(i))
		c.set(fmt.Sprint("host", i, ":443"), alts, later, later)
		b.fail(fmt.Sprint("host", i, ":443"), later)
	}
	require.Len(t, c.origins, maxOrigins)
	require.Empty(t, c.get("host9:443", now), "the oldest went")
	require.NotEmpty(t, c.get("host10:443", now))
	require.Len(t, b.failed, maxOrigins)
	require.Equal(t, healthy, b.health("host9:443", now))
	require.Equal(t, broken, b.health("host10:443", now))
}

func FuzzAltSvc(f *testing.F) {
	for _, s := range []string{
		"clear", `h3=":443"; ma=86400`, `h2="a:1", h3="[::1]:2"; ma="1"; persist=1, x%20="\"\\"`, `h3=":443`, ",,", `h3="a:1";ma=9999999999`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		alts, clear, ok := parseAltSvc(value)
		if !ok {
			require.Empty(t, alts)
			require.False(t, clear)
			return
		}
		require.LessOrEqual(t, len(alts), maxAlternatives)
		// What was understood, written anew, is understood in the same way.
		var b strings.Builder
		for _, a := range alts {
			require.NotZero(t, a.port)
			require.True(t, a.maxAge >= 0 && a.maxAge <= maxAltSvcAge)
			require.Equal(t, strings.ToLower(a.host), a.host)
			persist := 0
			if a.persist {
				persist = 1
			}
			fmt.Fprintf(&b, `h3="%s:%d"; ma=%d; persist=%d,`, bracketed(a.host), a.port, int64(a.maxAge/time.Second), persist)
		}
		again, _, ok := parseAltSvc(b.String() + `x="y"`)
		require.True(t, ok)
		require.Equal(t, alts, again)
	})
}

func FuzzAltSvcFile(f *testing.F) {
	f.Add(altFileHead + "h2 example.com 443 h3 example.com 443 \"20300101 00:00:00\" 0 0\n")
	f.Add("h1 [::1] 443 h3 [::2] 9 \"20300101 00:00:00\" 1 0\nh2 a 1 h2 b 2 \"20300101 00:00:00\" 0 0\n")
	f.Add("h3 a 1 h3 b 2 \"\" \"\"\n\"\n")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		var c, d altCache
		if c.load(strings.NewReader(text), now) != nil {
			return
		}
		require.LessOrEqual(t, len(c.origins), maxOrigins)
		c.changes = 1
		written, _ := c.text(now)
		require.NoError(t, d.load(strings.NewReader(written), now))
		again, _ := d.text(now)
		require.Equal(t, written, again)
	})
}

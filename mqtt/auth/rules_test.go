package auth_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/auth"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/topic"
)

func openRules(t testing.TB, lines ...string) *auth.Rules {
	t.Helper()
	r, err := auth.OpenRules(write(t, strings.Join(lines, "\n")))
	require.NoError(t, err)
	return r
}

func may(t testing.TB, r *auth.Rules, c broker.ClientInfo, a broker.Action, topic string) bool {
	t.Helper()
	ok, err := r.Authorize(t.Context(), &c, a, topic)
	require.NoError(t, err)
	return ok
}

const (
	pub = broker.ActionPublish
	sub = broker.ActionSubscribe
)

func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	r := openRules(t,
		"# a comment",
		"allow user=* write devices/%u/#",
		"allow client=panel from=10.0.0.0/8 read devices/#",
		`allow user="Jane Doe" both private/with spaces/+`,
		"deny both secret/#",
		"deny user=* read private/%u/#",
		"allow read public/#",
		"allow user=root both #",
	)
	alice := broker.ClientInfo{Username: "alice", ClientID: "a", Remote: tcp("192.0.2.1:1")}
	panel := broker.ClientInfo{ClientID: "panel", Remote: tcp("10.1.2.3:1")}
	root := broker.ClientInfo{Username: "root", ClientID: "r"}
	for _, tt := range []struct {
		c     broker.ClientInfo
		a     broker.Action
		topic string
		want  bool
	}{
		{alice, pub, "devices/alice/x", true},
		{alice, pub, "devices/alice", true}, // # is the level above too
		{alice, pub, "devices/bob/x", false},
		{alice, sub, "devices/alice/x", false}, // write only
		{alice, sub, "public/x", true},
		{alice, sub, "public/#", true},
		{alice, sub, "public/+/y", true},
		{alice, sub, "#", false},
		{alice, sub, "+/x", false},
		{alice, pub, "public/x", false}, // default
		{alice, sub, "private/alice/x", false},
		{panel, sub, "devices/#", true},
		{panel, sub, "devices/+/x", true},
		{panel, pub, "devices/x", false},
		{broker.ClientInfo{ClientID: "panel", Remote: tcp("192.0.2.1:1")}, sub, "devices/#", false},
		{broker.ClientInfo{ClientID: "panel", Remote: tcp("[::ffff:10.0.0.1]:1")}, sub, "devices/#", true},
		{broker.ClientInfo{ClientID: "panel"}, sub, "devices/#", false},
		{broker.ClientInfo{}, pub, "devices//x", false}, // anonymous is not user=*
		{broker.ClientInfo{}, sub, "public/x", true},
		{broker.ClientInfo{Username: "Jane Doe"}, pub, "private/with spaces/x", true},
		{root, pub, "anything", true},
		{root, pub, "secret/x", false},
		{root, sub, "a/+/c", true},
		{root, sub, "secret/x", false},
		{root, sub, "#", false},         // it would bring what is denied
		{root, sub, "+/x", false},       // likewise
		{root, pub, "$SYS/x", false},    // a wildcard does not begin with $
		{root, sub, "$SYS/#", false},    // likewise
		{root, sub, "private/#", false}, // overlaps private/root
		{root, sub, "private/bob/#", true},
	} {
		require.Equal(t, tt.want, may(t, r, tt.c, tt.a, tt.topic), "%+v", tt)
	}
}

// A name that would change the structure of a filter stands for nothing.
func TestNamesAreAPartOfOneLevelOrNothing(t *testing.T) {
	r := openRules(t, "deny write closed/%c", "allow both %u/own", "allow write closed/#", "allow both both/%c-%u/#", "allow both 100%/x", "allow both odd/%x%")
	ok := broker.ClientInfo{Username: "alice", ClientID: "c1"}
	require.True(t, may(t, r, ok, pub, "alice/own"))
	require.True(t, may(t, r, ok, sub, "both/c1-alice/#"))
	require.False(t, may(t, r, ok, pub, "closed/c1"))
	require.True(t, may(t, r, ok, pub, "closed/c2"))
	require.True(t, may(t, r, ok, pub, "100%/x"))
	require.True(t, may(t, r, ok, pub, "odd/%x%"))
	for _, name := range []string{"+", "#", "a/b", "a+", "$SYS", "", "x#"} {
		bad := broker.ClientInfo{Username: name, ClientID: name}
		require.False(t, may(t, r, bad, pub, name+"/own"), name)
		require.False(t, may(t, r, bad, pub, "alice/own"), name)
		require.False(t, may(t, r, bad, sub, "+/own"), name)
		require.False(t, may(t, r, bad, pub, "closed/other"), "a deny rule that cannot be applied denies: %q", name)
	}
}

func TestAMistakeInARuleIsNamedWithItsLine(t *testing.T) {
	_, err := auth.OpenRules(write(t, strings.Join([]string{
		"allow read ok",
		"permit read a",
		"allow",
		"allow a/#",
		"allow read",
		"allow read a/#/b",
		"allow user= read a",
		"allow user=a user=b read a",
		"allow from=10.0.0.1/8 read a",
		"allow from=nowhere read a",
		"allow group=a read a",
		`allow user="a read a`,
		"allow read $share/g/a",
		"allow write write a#",
	}, "\n")))
	for _, want := range []string{
		`:2: "permit"`, ":3: no access", `:4: "a/#"`, ":5: no topic filter", ":6: topic filter", ":7: user: the value is empty", ":8: user= is there twice",
		":9: from=10.0.0.1/8: has bits", ":10: from=nowhere", ":11: group=", ":12: user:", ":13: topic filter", ":14: topic filter",
	} {
		require.ErrorContains(t, err, "file"+want)
	}
	require.NotContains(t, err.Error(), "file:1:")
}

func TestAReloadOfRulesIsDoneAtOnceOrNotAtAll(t *testing.T) {
	file := write(t, "allow both a")
	r, err := auth.OpenRules(file)
	require.NoError(t, err)
	was := r.Revision()
	rewrite(t, file, "allow both b\nmistake")
	require.ErrorContains(t, r.Reload(), ":2:")
	require.Equal(t, was, r.Revision())
	require.True(t, may(t, r, broker.ClientInfo{}, pub, "a"))
	rewrite(t, file, "allow both b")
	require.NoError(t, r.Reload())
	require.NotEqual(t, was, r.Revision())
	require.False(t, may(t, r, broker.ClientInfo{}, pub, "a"))
	require.True(t, may(t, r, broker.ClientInfo{}, pub, "b"))
	rewrite(t, file, "")
	require.NoError(t, r.Reload())
	require.False(t, may(t, r, broker.ClientInfo{}, pub, "b"), "what no rule matches is denied")
}

// The decision about a filter is held against what it would bring, topic by topic.
func FuzzRules(f *testing.F) {
	f.Add("a/#", "a/+/c", "a/b/c")
	f.Add("#", "$SYS/#", "$SYS/x")
	f.Add("+/b", "a/#", "a/b")
	f.Add("a/#", "a", "a")
	f.Add("a/+", "+/b", "a/b")
	f.Fuzz(func(t *testing.T, rule, filter, name string) {
		for _, f := range []string{rule, filter} { // what a line can say
			if topic.ValidFilter(f) != nil || strings.Contains(f, "%") || strings.HasPrefix(f, "$share/") ||
				strings.TrimSpace(f) != f || strings.ContainsAny(f, "\n\r") || len(f) > 1000 {
				t.Skip()
			}
		}
		if topic.ValidName(name) != nil {
			t.Skip()
		}
		allow, err := auth.OpenRules(write(t, "allow both "+rule))
		require.NoError(t, err)
		deny, err := auth.OpenRules(write(t, "deny both "+rule+"\nallow both #\nallow both "+filter))
		require.NoError(t, err)
		if !topic.Matches(filter, name) {
			return
		}
		matches := topic.Matches(rule, name)
		require.Equal(t, matches, may(t, allow, broker.ClientInfo{}, pub, name))
		if may(t, allow, broker.ClientInfo{}, sub, filter) {
			require.True(t, matches, "allowed %q brings %q, which %q does not allow", filter, name, rule)
		}
		if may(t, deny, broker.ClientInfo{}, sub, filter) {
			require.False(t, matches, "allowed %q brings %q, which %q denies", filter, name, rule)
		}
	})
}

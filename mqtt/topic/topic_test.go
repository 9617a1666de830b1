package topic_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/topic"
)

func TestAStringIsANameOrAFilterAsSection4_7Says(t *testing.T) {
	for _, c := range []struct {
		s            string
		name, filter error // nil: valid
	}{
		{"a", nil, nil},
		{"/", nil, nil},
		{"/finance", nil, nil},
		{"a//b", nil, nil},
		{"Accounts payable", nil, nil},
		{"$SYS/uptime", nil, nil},
		{"\ufeffa", nil, nil}, // [MQTT-1.5.4-3]: U+FEFF is a character
		{strings.Repeat("x", 65535), nil, nil},
		{strings.Repeat("/", 10_000), nil, nil},
		{"", topic.ErrSyntax, topic.ErrSyntax},
		{strings.Repeat("x", 65536), topic.ErrEncoding, topic.ErrEncoding},
		{"a\x00b", topic.ErrEncoding, topic.ErrEncoding},
		{"a\xffb", topic.ErrEncoding, topic.ErrEncoding},
		{"a\xed\xa0\x80b", topic.ErrEncoding, topic.ErrEncoding}, // U+D800
		{"#", topic.ErrSyntax, nil},
		{"+", topic.ErrSyntax, nil},
		{"+/+", topic.ErrSyntax, nil},
		{"/+", topic.ErrSyntax, nil},
		{"+/tennis/#", topic.ErrSyntax, nil},
		{"sport/+/player1", topic.ErrSyntax, nil},
		{"sport/tennis/#", topic.ErrSyntax, nil},
		{"sport/tennis#", topic.ErrSyntax, topic.ErrSyntax},
		{"sport/tennis/#/ranking", topic.ErrSyntax, topic.ErrSyntax},
		{"#/", topic.ErrSyntax, topic.ErrSyntax},
		{"##", topic.ErrSyntax, topic.ErrSyntax},
		{"sport+", topic.ErrSyntax, topic.ErrSyntax},
		{"+sport/a", topic.ErrSyntax, topic.ErrSyntax},
		{"a/++", topic.ErrSyntax, topic.ErrSyntax},
		{"$share", nil, nil},
		{"$shared/a", nil, nil},
		{"$share/g/a", nil, nil},
		{"$share/g//", nil, nil},
		{"$share/g/#", topic.ErrSyntax, nil},
		{"$share/g/+/a", topic.ErrSyntax, nil},
		{"$share/", nil, topic.ErrSyntax},
		{"$share/g", nil, topic.ErrSyntax},
		{"$share/g/", nil, topic.ErrSyntax},
		{"$share//a", nil, topic.ErrSyntax},
		{"$share/g+/a", topic.ErrSyntax, topic.ErrSyntax},
		{"$share/#/a", topic.ErrSyntax, topic.ErrSyntax},
		{"$share/g/a#", topic.ErrSyntax, topic.ErrSyntax},
	} {
		short := c.s[:min(len(c.s), 30)]
		require.ErrorIs(t, topic.ValidName(c.s), c.name, "name %q", short)
		require.ErrorIs(t, topic.ValidFilter(c.s), c.filter, "filter %q", short)
	}
}

func TestParseShareTakesASharedSubscriptionApart(t *testing.T) {
	group, rest, ok, err := topic.ParseShare("$share/consumer1/sport/+/x")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "consumer1", group)
	require.Equal(t, "sport/+/x", rest)

	for _, plain := range []string{"sport", "$share", "$sharegroup/a", "$SHARE/g/a", "/$share/g/a"} {
		_, _, ok, err = topic.ParseShare(plain)
		require.NoError(t, err, plain)
		require.False(t, ok, plain)
	}
	for _, bad := range []string{"$share/", "$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/a#/b"} {
		_, _, ok, err = topic.ParseShare(bad)
		require.ErrorIs(t, err, topic.ErrSyntax, bad)
		require.False(t, ok, bad)
	}
}

// The examples of Section 4.7, and what lies next to them.
var matchCases = []struct {
	filter, name string
	want         bool
}{
	{"sport/tennis/player1/#", "sport/tennis/player1", true},
	{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
	{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
	{"sport/tennis/player1/#", "sport/tennis/player10", false},
	{"sport/#", "sport", true},
	{"sport/#", "sport/", true},
	{"sport/#", "sports", false},
	{"sport/tennis/+", "sport/tennis/player1", true},
	{"sport/tennis/+", "sport/tennis/player1/ranking", false},
	{"sport/+", "sport", false},
	{"sport/+", "sport/", true},
	{"+/+", "/finance", true},
	{"/+", "/finance", true},
	{"+", "/finance", false},
	{"#", "/finance", true},
	{"#", "$SYS/monitor/Clients", false},
	{"+/monitor/Clients", "$SYS/monitor/Clients", false},
	{"+", "$SYS", false},
	{"$SYS/#", "$SYS/monitor/Clients", true},
	{"$SYS/#", "$SYS", true},
	{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
	{"a/+", "a/$SYS", true},
	{"a/#", "a/$SYS/b", true},
	{"ACCOUNTS", "Accounts", false},
	{"/finance", "finance", false},
	{"a/b", "a/b/", false},
	{"a/b/", "a/b", false},
	{"a//b", "a//b", true},
	{"a/+/b", "a//b", true},
	{"a/+/b", "a/b", false},
	{"+/+/#", "a", false},
	{"+/+/#", "a/b", true},
	{"+/#", "a", true},
	{"+/#", "/", true},
	{"a/+/+/#", "a/b", false},
	{"ab", "a", false},
	{"a", "ab", false},
}

func TestAFilterMatchesANameAsSection4_7Says(t *testing.T) {
	for _, c := range matchCases {
		require.Equal(t, c.want, topic.Matches(c.filter, c.name), "filter %q, name %q", c.filter, c.name)
	}
}

func TestLevelsCountsEmptyLevelsToo(t *testing.T) {
	for s, want := range map[string]int{"a": 1, "/": 2, "a/b": 2, "a//b/": 4, "$share/g/a": 3} {
		require.Equal(t, want, topic.Levels(s), s)
	}
}

// naiveMatches is Section 4.7 by the letter, on split strings.
func naiveMatches(filter, name string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(name, "/")
	if strings.HasPrefix(name, "$") && (f[0] == "#" || f[0] == "+") {
		return false
	}
	if f[len(f)-1] == "#" {
		f = f[:len(f)-1]
		if len(n) < len(f) {
			return false
		}
		n = n[:len(f)]
	}
	if len(f) != len(n) {
		return false
	}
	for i := range f {
		if f[i] != "+" && f[i] != n[i] {
			return false
		}
	}
	return true
}

func FuzzMatches(f *testing.F) {
	for _, c := range matchCases {
		f.Add(c.filter, c.name)
	}
	f.Fuzz(func(t *testing.T, filter, name string) {
		if topic.ValidFilter(filter) != nil || topic.ValidName(name) != nil {
			return
		}
		require.Equal(t, naiveMatches(filter, name), topic.Matches(filter, name))
	})
}

// What is valid must be what the sentences of the specification say, each looked at alone.
func FuzzValid(f *testing.F) {
	for _, s := range []string{"", "a", "a/+/b", "#", "a#", "$share/g/a", "$share//", "\x00", "\xff", "a/#/b", "$share/g/#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		str := s != "" && len(s) <= 65535 && !strings.ContainsRune(s, 0) && strings.ToValidUTF8(s, "") == s
		require.Equal(t, str && !strings.ContainsAny(s, "+#"), topic.ValidName(s) == nil)

		want, parts := str, strings.Split(s, "/")
		if parts[0] == "$share" && len(parts) > 1 {
			want = want && len(parts) > 2 && parts[1] != "" && !strings.ContainsAny(parts[1], "+#") &&
				strings.Join(parts[2:], "/") != ""
			parts = parts[min(2, len(parts)):]
		}
		for i, l := range parts {
			want = want && (!strings.ContainsAny(l, "+#") || l == "+" || l == "#" && i == len(parts)-1)
		}
		require.Equal(t, want, topic.ValidFilter(s) == nil)
	})
}

package rewrite_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/rewrite"
	"github.com/anyquic/anyquic/mqtt/topic"
)

func TestNamesAndFiltersAreMapped(t *testing.T) {
	const none, bad = "(the rule is not for it)", "(no result)"
	for _, c := range []struct {
		filter, match, to string
		name, want        string // also for filters, if it is one
	}{
		{"a/b", "", "c", "a/b", "c"},
		{"a/b", "", "c", "a/c", none},
		{"+/temp", "", "t/$1", "7/temp", "t/7"},
		{"+/temp", "", "t/$1", "$x/temp", none},
		{"+/+", "", "$2/$1", "a/b", "b/a"},
		{"+/+", "", "$2$1", "a/b", "ba"},
		{"+/+", "", "$2/$1", "a/+", "+/a"},
		{"+/+", "", "$2$1", "a/+", bad},
		{"+/+", "", "$1", "/b", bad},
		{"+", "", "x/$1", "#", none},
		{"+", "", "x/$1", "+", "x/+"},
		{"#", "", "all/$1", "a/b", "all/a/b"},
		{"#", "", "all/$1", "#", "all/#"},
		{"#", "", "all/$1", "a/#", "all/a/#"},
		{"#", "", "all/$1", "$SYS/#", none},
		{"a/#", "", "b/$1", "a/x/y", "b/x/y"},
		{"a/#", "", "b/$1", "a/", "b/"},
		{"a/#", "", "b/$1", "a", "b"},
		{"a/#", "", "b/$1", "a/#", "b/#"},
		{"a/#", "", "b/$1/c", "a", "b/c"},
		{"a/#", "", "b/$1/c", "a/#", bad},
		{"a/#", "", "b/$1/c", "a/+", "b/+/c"},
		{"a/#", "", "$1", "a", bad},
		{"a/#", "", "b/$1", "+/x", none},
		{"a/+/b", "", "$0/$1", "a/x/b", "a/x/b/x"},
		{"a", "", "$$SYS/$0", "a", "$SYS/a"},
		{"a", "", "${0}0", "a", "a0"},
		{"y/#", "y/(.+)/z/(.+)", "y/z/$2", "y/a/z/b", "y/z/b"},
		{"y/#", "y/(.+)/z/(.+)", "y/z/$2", "y/+/z/#", "y/z/#"},
		{"y/#", "y/(.+)/z/(.+)", "y/z/$2", "y/a/q/b", none},
		{"y/#", "y/(.+)", "x/$1", "yy/b", none},
		{"y/#", "y/a", "x", "y/a/b", none}, // the whole topic must match
		{"y/#", "y/(a)?(.*)", "x$1/$2", "y/b", "x/b"},
		{"$share", "", "x", "$share", "x"},
		{"+/" + strings.Repeat("a/", 20) + "b", "", strings.Repeat("$0/", 6) + "z", "q/" + strings.Repeat("a/", 20) + "b", bad}, // too many levels
	} {
		t.Run(fmt.Sprintf("%s and %s to %s: %s", c.filter, c.match, c.to, c.name), func(t *testing.T) {
			m, err := rewrite.New(rewrite.Rule{Filter: c.filter, Match: c.match, To: c.to})
			require.NoError(t, err)
			check := func(kind func(string) (string, bool, error), name, want string) {
				got, ok, err := kind(name)
				switch want {
				case none:
					require.False(t, ok, got)
					require.NoError(t, err)
				case bad:
					require.True(t, ok)
					require.Error(t, err)
				default:
					require.True(t, ok)
					require.NoError(t, err)
					require.Equal(t, want, got)
				}
			}
			if topic.ValidName(c.name) == nil {
				check(m.Name, c.name, c.want)
			}
			check(m.Filter, c.name, c.want)
			if c.want != none && c.want != bad && !strings.HasPrefix(c.want, "$") {
				check(m.Filter, "$share/g/"+c.name, "$share/g/"+c.want)
			}
		})
	}
}

func TestRulesThatAreWrongAreRefusedWithAReason(t *testing.T) {
	for _, c := range []struct {
		rule rewrite.Rule
		want string
	}{
		{rewrite.Rule{Filter: "", To: "x"}, "empty"},
		{rewrite.Rule{Filter: "a/#/b", To: "x"}, "# is not the last level"},
		{rewrite.Rule{Filter: "$share/g/a", To: "x"}, "shared subscription"},
		{rewrite.Rule{Filter: "a", To: ""}, "empty"},
		{rewrite.Rule{Filter: "a/+", To: "x/$2"}, "no $2: the groups are $0 to $1"},
		{rewrite.Rule{Filter: "a/+", Match: "a/(.)(.)", To: "x/$3"}, "no $3"},
		{rewrite.Rule{Filter: "a/+", To: "x/$"}, "write $$"},
		{rewrite.Rule{Filter: "a/+", To: "x/${1"}, "write $$"},
		{rewrite.Rule{Filter: "a/+", To: "x/${}"}, "write $$"},
		{rewrite.Rule{Filter: "a/+", To: "x/${1x}"}, "write $$"},
		{rewrite.Rule{Filter: "a/+", To: "x/${12345}"}, "write $$"},
		{rewrite.Rule{Filter: "a/+", To: "$SYS/x"}, "write $$"},
		{rewrite.Rule{Filter: "a/+", To: "x/#"}, "contains + or #"},
		{rewrite.Rule{Filter: "a/+", To: "x/\x00"}, "U+0000"},
		{rewrite.Rule{Filter: "a/+", To: "$$share/g/$1"}, "shared subscription"},
		{rewrite.Rule{Filter: "a/+", Match: "(", To: "x"}, "missing closing )"},
		{rewrite.Rule{Filter: "a/+", Match: `(a)\1`, To: "x"}, "invalid escape"},
	} {
		_, err := rewrite.New(c.rule)
		require.ErrorContains(t, err, c.want, "%+v", c.rule)
		_, err = rewrite.NewRules([]rewrite.Rule{{Filter: "a", To: "b"}, c.rule})
		require.ErrorContains(t, err, "rule 2: ", "%+v", c.rule)
	}
}

func TestTheFirstRuleThatIsForATopicCounts(t *testing.T) {
	rules, err := rewrite.NewRules([]rewrite.Rule{{Filter: "a/b", To: "x"}, {Filter: "a/+", To: "y/$1"}, {Filter: "y/#", To: "z"}})
	require.NoError(t, err)
	for name, want := range map[string]string{"a/b": "x", "a/c": "y/c", "y/c": "z", "q": "q"} {
		got, err := rules.Name(name)
		require.NoError(t, err)
		require.Equal(t, want, got)
		got, err = rules.Filter(name)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	got, err := rules.Filter("a/+")
	require.NoError(t, err)
	require.Equal(t, "y/+", got)
}

// What a subscription becomes matches what the topics that it matches become.
func FuzzSubscriptionsFollowTheirTopics(f *testing.F) {
	f.Add("a/+/#", "", "b/$2/$1", "a/+/c", "a/x/c")
	f.Add("#", "", "x/$1", "#", "y")
	f.Add("a/#", "", "b/$1", "a/#", "a")
	f.Add("a/#", "a/(.*)", "b/$1", "a/+", "a/x")
	f.Add("+", "", "${1}", "+", "$")
	f.Fuzz(func(t *testing.T, ruleFilter, match, to, filter, name string) {
		m, err := rewrite.New(rewrite.Rule{Filter: ruleFilter, Match: match, To: to})
		if err != nil || topic.ValidFilter(filter) != nil || topic.ValidName(name) != nil {
			return
		}
		mapped, forFilter, filterErr := m.Filter(filter)
		if forFilter && filterErr == nil {
			require.NoError(t, topic.ValidFilter(mapped))
		}
		target, forName, nameErr := m.Name(name)
		if forName && nameErr == nil {
			require.NoError(t, topic.ValidName(target))
		}
		if match != "" || !topic.Matches(filter, name) || strings.HasPrefix(filter, "$share/") || !forFilter {
			return
		}
		require.True(t, forName, "the rule is for a subscription but not for its topics")
		if filterErr == nil && nameErr == nil && !strings.HasPrefix(target, "$") {
			require.True(t, topic.Matches(mapped, target), "%q becomes %q, which does not match %q", filter, mapped, target)
		}
	})
}

func TestAnExpressionIsForASubscriptionIfItIsForItsTopics(t *testing.T) {
	for _, c := range []struct{ rule, match, to, filter, want string }{
		{"y/#", "y/(.+)/z/(.+)", "y/z/$2", "y/+/z/#", "y/z/#"},
		{"y/#", "y/(.+)/z/(.+)", "y/z/$2", "y/a/z/b", "y/z/b"},
		{"a/#", "a/(.+)", "b/$1", "a/#", "b/#"},
		{"a/#", "a/.+", "b", "a/+", "b"},
		{"a/#", "a/([^/]+)", "b/$1", "a/+", "b/+"},
		{"a/#", "a/([^/]+)", "b/$1", "a/#", ""}, // not for a/x/y
		{"a/#", "a/(.)", "b/$1", "a/+", ""},     // not for a/long
		{"a/#", "a/([^a-z]+)", "b/$1", "a/+", ""},
		{"a/#", "a/([+0-9]+)", "b/$1", "a/+", ""},
		{"a/#", "a/(.)(.*)", "b/$1/$2", "a/+", ""}, // + becomes +/, which a/long, now b/l/ong, is not
		{"a/+/b", "a/(.+)/b", "c/$1", "a/#", ""},   // the filter is not for all of it
		{"a/#", "a/([0-9]+)", "b/$1", "a/7", "b/7"},
	} {
		m, err := rewrite.New(rewrite.Rule{Filter: c.rule, Match: c.match, To: c.to})
		require.NoError(t, err)
		got, ok, err := m.Filter(c.filter)
		require.NoError(t, err, c.match)
		require.Equal(t, c.want, got, c.match)
		require.Equal(t, c.want != "", ok, c.match)
	}
}

// Package rewrite maps topic names and topic filters to others, by rules that
// an operator writes: a filter that says which topics a rule is for, and a target
// made of what they have in common.
//
//	filter                  to                  maps                to
//	sensors/+/temp          t/$1                sensors/7/temp      t/7
//	sensors/#               site1/sensors/$1    sensors/a/b         site1/sensors/a/b
//	#                       all/$1              x                   all/x
//
// The wildcards of the filter are $1, $2 and so on, from the left. With a regular
// expression the groups of that are, and the expression must match the whole
// topic: filter "y/#", match "y/(.+)/z/(.+)", to "y/z/$2". Regular expressions are
// those of package regexp, which take time in proportion to the topic.
//
// A subscription is mapped as the topics that it stands for: its own wildcards take
// the place of what they match, so "sensors/+/temp" becomes "t/+". A rule is for a
// subscription if it is for every topic of it; "sensors/#" is none for the first
// rule above.
//
// An expression is applied to the text of a subscription, wildcards and all. Whether
// it is for every topic of it cannot be told from that: "a/(.)" takes the + of "a/+",
// but little of what that stands for. So it is tried with a few names that the
// subscription has, and unless they all become names that the mapped subscription
// has, the rule is not for it.
package rewrite

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/anyquic/anyquic/mqtt/topic"
)

// A Rule says which topics are mapped, and to what.
type Rule struct {
	// Filter matches the topics that the rule is for. It is no shared one.
	Filter string

	// Match is a regular expression that matches the whole topic, or the rule is
	// not for it. Empty: there is none, and the wildcards of Filter are the groups.
	Match string

	// To is the target: $1 to $9 and ${10} are the groups, $0 is the whole topic, $$
	// is a dollar sign.
	To string
}

// A Mapping is a [Rule] that can be applied, by any number of goroutines at once.
type Mapping struct {
	filter string
	levels []string
	match  *regexp.Regexp // nil: none
	to     []piece
}

// A piece of a target is text or a group.
type piece struct {
	text  string
	group int // -1: text
}

// What a mapping makes of a topic that it cannot map.
var (
	errName   = errors.New("rewrite: the result is no topic name")
	errFilter = errors.New("rewrite: the result is no topic filter")
)

// New returns the mapping of a rule. The error says what is wrong with it.
func New(r Rule) (*Mapping, error) {
	if err := topic.ValidFilter(r.Filter); err != nil {
		return nil, fmt.Errorf("rewrite: filter %q: %w", r.Filter, err)
	}
	if strings.HasPrefix(r.Filter, "$share/") {
		return nil, fmt.Errorf("rewrite: filter %q: a shared subscription is mapped by a rule for its filter", r.Filter)
	}
	m := &Mapping{filter: r.Filter, levels: strings.Split(r.Filter, "/")}
	groups := 0
	if r.Match != "" {
		re, err := regexp.Compile(`\A(?:` + r.Match + `)\z`)
		if err != nil {
			return nil, fmt.Errorf("rewrite: match %q: %w", r.Match, err)
		}
		m.match, groups = re, re.NumSubexp()
	} else {
		for _, l := range m.levels {
			if l == "+" || l == "#" {
				groups++
			}
		}
	}
	var err error
	if m.to, err = parse(r.To, groups); err != nil {
		return nil, fmt.Errorf("rewrite: to %q: %w", r.To, err)
	}
	return m, nil
}

// parse takes a target apart.
func parse(to string, groups int) (pieces []piece, err error) {
	if to == "" {
		return nil, errors.New("empty")
	}
	text := ""
	for rest := to; rest != ""; {
		before, after, found := strings.Cut(rest, "$")
		text += before
		if !found {
			break
		}
		if strings.HasPrefix(after, "$") {
			text, rest = text+"$", after[1:]
			continue
		}
		group, n := number(after)
		switch {
		case n == 0:
			return nil, errors.New("a $ that is followed by no number: write $$ for a dollar sign")
		case group > groups:
			return nil, fmt.Errorf("there is no $%d: the groups are $0 to $%d", group, groups)
		}
		if text != "" {
			pieces = append(pieces, piece{text, -1})
		}
		pieces, text, rest = append(pieces, piece{"", group}), "", after[n:]
	}
	if text != "" {
		pieces = append(pieces, piece{text, -1})
	}
	for _, p := range pieces {
		if p.group >= 0 {
			continue
		}
		if err := topic.ValidName(p.text); err != nil {
			return nil, err
		}
	}
	if pieces[0].group < 0 && strings.HasPrefix(pieces[0].text, "$share/") {
		return nil, errors.New("a topic cannot become a shared subscription")
	}
	return pieces, nil
}

// number reads "1" or "{12}" at the start of s and says how many bytes that was, 0
// if it is neither.
func number(s string) (value, bytes int) {
	if s == "" {
		return 0, 0
	}
	if '0' <= s[0] && s[0] <= '9' {
		return int(s[0] - '0'), 1
	}
	digits, _, found := strings.Cut(s[1:], "}")
	if s[0] != '{' || !found || len(digits) < 1 || len(digits) > 4 {
		return 0, 0
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, 0
		}
		value = 10*value + int(c-'0')
	}
	return value, len(digits) + 2
}

// Name maps a topic name. ok is false if the rule is not for it. An error says that
// the result is no topic name: it would be empty, too long or have too many levels.
func (m *Mapping) Name(name string) (mapped string, ok bool, err error) {
	if !topic.Matches(m.filter, name) {
		return "", false, nil
	}
	groups, ok := m.groups(name)
	if !ok {
		return "", false, nil
	}
	mapped = m.expand(groups)
	if topic.ValidName(mapped) != nil || topic.Levels(mapped) > topic.MaxLevels {
		return "", true, errName
	}
	return mapped, true, nil
}

// Filter maps a topic filter. That of a shared subscription stays one. ok is false
// if the rule is not for everything that the filter matches. An error says that
// the result is no topic filter: a wildcard of the filter would not fill its level.
func (m *Mapping) Filter(filter string) (mapped string, ok bool, err error) {
	prefix := ""
	if _, rest, shared, err := topic.ParseShare(filter); err != nil {
		return "", false, nil //nolint:nilerr // not one that a rule can be for
	} else if shared {
		prefix, filter = filter[:len(filter)-len(rest)], rest
	}
	if !m.covers(filter) {
		return "", false, nil
	}
	groups, ok := m.groups(filter)
	if !ok {
		return "", false, nil
	}
	mapped = m.expand(groups)
	if m.match != nil && !m.bears(filter, mapped) {
		return "", false, nil
	}
	if strings.HasPrefix(mapped, "$share/") {
		return "", true, errFilter
	}
	mapped = prefix + mapped
	if topic.ValidFilter(mapped) != nil || topic.Levels(mapped) > topic.MaxLevels {
		return "", true, errFilter
	}
	return mapped, true, nil
}

// covers reports whether the rule's filter matches every topic that filter does.
func (m *Mapping) covers(filter string) bool {
	if (m.levels[0] == "+" || m.levels[0] == "#") && strings.HasPrefix(filter, "$") {
		return false // [MQTT-4.7.2-1]
	}
	rest, more := filter, true
	for _, want := range m.levels {
		if want == "#" {
			return true
		}
		if !more {
			return false
		}
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if level == "#" || want != "+" && want != level {
			return false
		}
	}
	return !more
}

// probes take the place of wildcards in names to try: levels that are short and long,
// of digits, of letters and of what is neither.
var probes = []string{"7", "Probe-level_x.1 y"}

// bears reports whether names that filter matches become names that mapped matches,
// which is what the rule makes of the filter's text.
func (m *Mapping) bears(filter, mapped string) bool {
	if !strings.ContainsAny(filter, "+#") || topic.ValidFilter(mapped) != nil {
		return true
	}
	for _, p := range probes {
		name := strings.ReplaceAll(filter, "+", p)
		tried := []string{name}
		if prefix, ok := strings.CutSuffix(name, "#"); ok {
			tried = []string{prefix + p, prefix + p + "/" + p}
		}
		for _, name := range tried {
			if got, ok, err := m.Name(name); !ok || err == nil && !topic.Matches(mapped, got) {
				return false
			}
		}
	}
	return true
}

// A group is what a wildcard or a group of the expression matched.
type group struct {
	text   string
	absent bool // the # matched no level, not even an empty one
}

// groups returns $0 and the groups for a topic that the filter is for.
func (m *Mapping) groups(s string) ([]group, bool) {
	groups := []group{{text: s}}
	if m.match != nil {
		found := m.match.FindStringSubmatch(s)
		if found == nil {
			return nil, false
		}
		for _, text := range found[1:] {
			groups = append(groups, group{text: text})
		}
		return groups, true
	}
	rest, more := s, true
	for _, want := range m.levels {
		if want == "#" {
			return append(groups, group{text: rest, absent: !more}), true
		}
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if want == "+" {
			groups = append(groups, group{text: level})
		}
	}
	return groups, true
}

// expand puts the groups into the target. The # of a filter that matched its parent
// level takes the separator before it along.
func (m *Mapping) expand(groups []group) string {
	var b strings.Builder
	for i, p := range m.to {
		if p.group >= 0 {
			b.WriteString(groups[p.group].text)
			continue
		}
		text := p.text
		if i+1 < len(m.to) && m.to[i+1].group >= 0 && groups[m.to[i+1].group].absent {
			text = strings.TrimSuffix(text, "/")
		}
		b.WriteString(text)
	}
	return b.String()
}

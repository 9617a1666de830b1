package app

import (
	"errors"
	"fmt"
	"strings"

	"github.com/anyquic/anyquic/mqtt/topic"
)

// A pattern is a topic filter whose wildcards may have names.
type pattern struct {
	text   string
	filter string   // as it is subscribed to
	levels []string // of the filter, without the share
	names  []string // of the wildcards, in order; empty: no name
}

func parsePattern(s string) (pattern, error) {
	p := pattern{text: s}
	share, rest := "", s
	if strings.HasPrefix(s, "$share/") {
		group, after, ok := strings.Cut(s[len("$share/"):], "/")
		if !ok {
			return p, errors.New("a shared subscription needs a filter after its group")
		}
		share, rest = "$share/"+group+"/", after
	}
	p.levels = strings.Split(rest, "/")
	for i, level := range p.levels {
		wild, name, err := wildcard(level)
		if err != nil {
			return p, err
		}
		if wild == "" {
			continue
		}
		for _, other := range p.names {
			if name != "" && name == other {
				return p, fmt.Errorf("two wildcards have the name %q", name)
			}
		}
		p.levels[i] = wild
		p.names = append(p.names, name)
	}
	p.filter = share + strings.Join(p.levels, "/")
	_, _, shared, err := topic.ParseShare(p.filter)
	if err == nil && !shared {
		err = topic.ValidFilter(p.filter)
	}
	return p, err
}

// wildcard returns the wildcard that a level stands for, and its name; none if it
// is an ordinary level.
func wildcard(level string) (wild, name string, err error) {
	if level == "+" || level == "#" {
		return level, "", nil
	}
	if !strings.HasPrefix(level, "{") || !strings.HasSuffix(level, "}") {
		return "", "", nil
	}
	wild = "+"
	name = level[1 : len(level)-1]
	if rest, ok := strings.CutSuffix(name, "..."); ok {
		wild, name = "#", rest
	}
	if name == "" || strings.ContainsAny(name, "{}.") {
		return "", "", fmt.Errorf("%s is no name for a wildcard", level)
	}
	return wild, name, nil
}

// params returns what the wildcards matched in a topic that the filter matches.
// For # that is all levels that are left, which may be none.
func (p *pattern) params(name string) []string {
	if len(p.names) == 0 {
		return nil
	}
	out := make([]string, 0, len(p.names))
	for _, level := range p.levels {
		if level == "#" {
			return append(out, name)
		}
		head, rest, _ := strings.Cut(name, "/")
		if level == "+" {
			out = append(out, head)
		}
		name = rest
	}
	return out
}

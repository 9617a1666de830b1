package rewrite

import "fmt"

// Rules are mappings of which the first that is for a topic counts. What it makes
// is not mapped again.
type Rules []*Mapping

// NewRules returns the mappings of rules. The error names the one that is wrong,
// counted from 1.
func NewRules(rules []Rule) (Rules, error) {
	var all Rules
	for i, r := range rules {
		m, err := New(r)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// Name maps a topic name, or returns it if no rule is for it.
func (r Rules) Name(name string) (string, error) {
	for _, m := range r {
		if mapped, ok, err := m.Name(name); ok {
			return mapped, err
		}
	}
	return name, nil
}

// Filter maps a topic filter, or returns it if no rule is for it.
func (r Rules) Filter(filter string) (string, error) {
	for _, m := range r {
		if mapped, ok, err := m.Filter(filter); ok {
			return mapped, err
		}
	}
	return filter, nil
}

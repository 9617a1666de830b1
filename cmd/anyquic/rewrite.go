package main

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/rewrite"
)

// A rewriteRule is an entry of `rewrite` in the YAML file of `anyquic serve`.
type rewriteRule struct {
	Filter string `yaml:"filter"`
	Match  string `yaml:"match,omitempty"` // a regular expression
	To     string `yaml:"to"`
	On     string `yaml:"on,omitempty"` // publish or subscribe; empty: both
}

func (r *rewriteRule) rule() rewrite.Rule {
	return rewrite.Rule{Filter: r.Filter, Match: r.Match, To: r.To}
}

// UnmarshalYAML checks a rule where its line is known.
func (r *rewriteRule) UnmarshalYAML(node ast.Node) error {
	type plain rewriteRule
	return decodeRule(node, (*plain)(r), func() error {
		if r.On != "" && r.On != "publish" && r.On != "subscribe" {
			return fmt.Errorf("on %q: use publish or subscribe, or leave it out for both", r.On)
		}
		_, err := rewrite.New(r.rule())
		return err
	})
}

// rewriting returns the rules for the broker.
func (c *serveConfig) rewriting() (broker.Rewrite, error) {
	var all broker.Rewrite
	for i := range c.Rewrite {
		r := &c.Rewrite[i]
		m, err := rewrite.New(r.rule())
		if err != nil {
			return all, fmt.Errorf("rewrite: entry %d: %w", i+1, err)
		}
		if r.On != "subscribe" {
			all.Publish = append(all.Publish, m)
		}
		if r.On != "publish" {
			all.Subscribe = append(all.Subscribe, m)
		}
	}
	return all, nil
}

package main

import (
	"fmt"
	"strings"
)

// tableFile is the table in git, which a test compares with what the tests prove.
const tableFile = "docs/mqtt-conformance.md"

const preamble = `# MQTT: conformance by statement

The numbered statements of MQTT 5.0 and MQTT 3.1.1 (Appendix B of both), and the tests of this
repository that prove them for our broker, our client, or both, as each statement demands.
The words are ours and short: read them beside the standard.

This file is written by ` + "`make conformance-mqtt`" + `. A test says itself what it proves
(` + "`t.Attr(\"mqtt5\", \"MQTT-3.1.2-22\")`" + `), and only one that ran and passed counts. A test in
` + "`tests/mqttstatements`" + ` fails if this file says more, or less, than the tests prove.

- A statement that binds both is proven when there is a test for the client and one for the server.
- *never*: what the statement speaks of cannot happen here; the test shows that it does not.
- *open*: not proven, and why.
`

// table makes the file. A proof of what is no statement is an error, and so is one
// of what is said to be open for no one: the data must then say less.
func table(specs []*spec, proofs []proof) (string, error) {
	var b strings.Builder
	b.WriteString(preamble)
	for _, s := range specs {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n", s.name, strings.TrimPrefix(s.sum(proofs), s.name+": "))
		b.WriteString("| statement | binds | what it is about | proven by |\n|---|---|---|---|\n")
		for i := range s.statements {
			st := &s.statements[i]
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", st.id, st.binds(), st.about, s.evidence(st, proofs))
		}
	}
	for i := range proofs {
		p := &proofs[i]
		for _, s := range specs {
			if p.key == s.key && !s.has(p.id) {
				return "", fmt.Errorf("%s: %s has no statement %s", p.test, s.name, p.id)
			}
		}
	}
	return b.String(), nil
}

// evidence is the last column: for each side that is bound, its tests.
func (s *spec) evidence(st *statement, proofs []proof) string {
	var parts []string
	switch {
	case st.open != "":
		parts = append(parts, "*open*: "+st.open)
	case !s.proven(st, proofs):
		parts = append(parts, "*open*: no test for the "+s.lacking(st, proofs))
	case st.never != "":
		parts = append(parts, "*never*: "+st.never)
	}
	var tests []string
	for i := range proofs {
		p := &proofs[i]
		if p.key == s.key && p.id == st.id && (p.client && st.client || p.server && st.server) {
			tests = append(tests, "`"+p.test+"`")
		}
	}
	if len(tests) > 0 {
		parts = append(parts, strings.Join(tests, ", "))
	}
	return strings.Join(parts, "; ")
}

// lacking says for whom there is no test.
func (s *spec) lacking(st *statement, proofs []proof) string {
	client, server := !st.client, !st.server
	for i := range proofs {
		if p := &proofs[i]; p.key == s.key && p.id == st.id {
			client, server = client || p.client, server || p.server
		}
	}
	switch {
	case !client && !server:
		return "client and the server"
	case !client:
		return "client"
	}
	return "server"
}

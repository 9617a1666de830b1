package main

import (
	"bufio"
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

var (
	//go:embed statements5.txt
	statements5 string
	//go:embed statements311.txt
	statements311 string
)

// A spec is a version of MQTT with its numbered statements.
type spec struct {
	name       string // "MQTT 5.0"
	key        string // of the attribute of tests
	statements []statement
}

// A statement is one line of the data files.
type statement struct {
	id     string // "MQTT-3.1.2-22"
	client bool   // whom it binds
	server bool
	about  string
	never  string // why it cannot come to what it speaks of, "" if it can
	open   string // why it is not proven, "" if it should be
}

func (s *statement) binds() string {
	switch {
	case s.client && s.server:
		return "both"
	case s.client:
		return "client"
	}
	return "server"
}

// numbered finds the number of a statement in any text.
var numbered = regexp.MustCompile(`MQTT-[0-9]+\.[0-9]+\.[0-9]+-[0-9]+`)

func readSpecs() ([]*spec, error) {
	specs := []*spec{{name: "MQTT 5.0", key: "mqtt5"}, {name: "MQTT 3.1.1", key: "mqtt3.1.1"}}
	for i, data := range []string{statements5, statements311} {
		var err error
		if specs[i].statements, err = parseStatements(data); err != nil {
			return nil, fmt.Errorf("%s: %w", specs[i].name, err)
		}
	}
	return specs, nil
}

func parseStatements(data string) ([]statement, error) {
	var all []statement
	known := map[string]bool{}
	lines := bufio.NewScanner(strings.NewReader(data))
	for lines.Scan() {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, err := parseStatement(line)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		if known[s.id] {
			return nil, fmt.Errorf("%s is there twice", s.id)
		}
		known[s.id] = true
		all = append(all, s)
	}
	return all, lines.Err()
}

func parseStatement(line string) (statement, error) {
	fields := strings.Split(line, " | ")
	if len(fields) < 3 || len(fields) > 4 {
		return statement{}, fmt.Errorf("%d columns", len(fields))
	}
	s := statement{id: fields[0], about: fields[2]}
	if numbered.FindString(s.id) != s.id {
		return s, fmt.Errorf("%s is not the number of a statement", s.id)
	}
	switch fields[1] {
	case "client":
		s.client = true
	case "server":
		s.server = true
	case "both":
		s.client, s.server = true, true
	default:
		return s, fmt.Errorf("binds %q", fields[1])
	}
	if len(fields) == 4 {
		var never, open bool
		s.never, never = strings.CutPrefix(fields[3], "never: ")
		s.open, open = strings.CutPrefix(fields[3], "open: ")
		if !never {
			s.never = ""
		}
		if !open {
			s.open = ""
		}
		if never == open {
			return s, fmt.Errorf("remark %q", fields[3])
		}
	}
	return s, nil
}

// has reports whether id is a statement of s.
func (s *spec) has(id string) bool {
	for i := range s.statements {
		if s.statements[i].id == id {
			return true
		}
	}
	return false
}

// proven reports whether st is proven for all whom it binds.
func (s *spec) proven(st *statement, proofs []proof) bool {
	if st.open != "" {
		return false
	}
	client, server := !st.client, !st.server
	for i := range proofs {
		if p := &proofs[i]; p.key == s.key && p.id == st.id {
			client, server = client || p.client, server || p.server
		}
	}
	return client && server
}

// sum is the last line for a version.
func (s *spec) sum(proofs []proof) string {
	n, never := 0, 0
	for i := range s.statements {
		if st := &s.statements[i]; s.proven(st, proofs) {
			n++
			if st.never != "" {
				never++
			}
		}
	}
	return fmt.Sprintf("%s: %d of %d proven, %d of them because it cannot come to it", s.name, n, len(s.statements), never)
}

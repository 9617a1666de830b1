// Package transporttest checks that QUIC engines do what package transport
// promises, and that they do it together.
//
// [TestPair] runs every case of a table for one client engine and one server
// engine. A case names the rows of the feature table that it covers and quotes
// the sentence of the contract that it checks. Cases know what an engine can do
// only by its Features; a case is skipped when, and only when, one of the two
// declares that a feature is absent.
//
// Cases run in a testing/synctest bubble on a simulated [Network]: time is
// virtual, so that a case can wait for an idle timeout or move 10 MB through a
// bad link without costing real time. Some are repeated over UDP on loopback.
// A bubble ends only when all its goroutines have, so each case also checks
// that closing its endpoints leaves none behind.
package transporttest

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/anyquic/anyquic/transport"
)

// A testCase checks one promise.
type testCase struct {
	name  string
	rows  string // of the feature table
	says  string // the contract's sentence
	needs func(transport.Features) bool
	run   func(*lab)
	udp   bool // repeat over loopback UDP, as name + "OverUDP"
	alone bool // measures the whole program: no other case may run
}

// What a case may need. The zero value of testCase.needs asks for nothing.
var (
	needsEarlyData = func(f transport.Features) bool { return f.EarlyData }
	needsDatagrams = func(f transport.Features) bool { return f.Datagrams }
	needsMigration = func(f transport.Features) bool { return f.Migration }
	needsQLog      = func(f transport.Features) bool { return f.QLog }
)

// cases returns the table, in the order of the report.
func cases() []testCase {
	return slices.Concat(
		endpointCases, listenerCases, handshakeCases, optionCases, timeoutCases,
		streamCases, cancelCases, limitCases, deadlineCases, closeCases, afterEndCases,
		datagramCases, earlyCases, tlsCases, lossCases, migrateCases, retryCases,
		priorityCases, statsCases,
	)
}

// A Result says how a case ended for a pair of engines.
type Result struct {
	Pair, Case, Rows string
	Outcome          string // "pass", "fail" or "skip"
}

// TestPair runs the suite with connections dialled by client and accepted by
// server, as subtests of t named after the cases. It returns when all are done.
func TestPair(t *testing.T, client, server transport.Transport) []Result {
	pair := client.Name() + "-" + server.Name()
	var (
		mu      sync.Mutex
		results []Result
	)
	t.Run(pair, func(t *testing.T) {
		one := func(c testCase, name string, body func(*testing.T, testCase)) {
			t.Run(name, func(t *testing.T) {
				if !c.alone {
					t.Parallel() // with the other cases of this pair
				}
				t.Cleanup(func() {
					outcome := "pass"
					switch {
					case t.Failed():
						outcome = "fail"
						t.Logf("rows %s; the contract says: %s", c.rows, c.says)
					case t.Skipped():
						outcome = "skip"
					}
					mu.Lock()
					defer mu.Unlock()
					results = append(results, Result{pair, name, c.rows, outcome})
				})
				for _, e := range []transport.Transport{client, server} {
					if c.needs != nil && !c.needs(e.Features()) {
						t.Skipf("%s declares that it cannot", e.Name())
					}
				}
				body(t, c)
			})
		}
		for _, c := range cases() {
			one(c, c.name, func(t *testing.T, c testCase) {
				bubble(t, func(t *testing.T) { c.run(newLab(t, client, server, true)) })
			})
			if c.udp {
				one(c, c.name+"OverUDP", func(t *testing.T, c testCase) {
					c.run(newLab(t, client, server, false))
				})
			}
		}
		for _, c := range realCases {
			one(c, c.name, func(t *testing.T, c testCase) { c.run(newLab(t, client, server, false)) })
		}
	})
	return results
}

// bubble is synctest.Test, but a deadlock of the bubble fails t, and shows
// where its goroutines stand, instead of ending the program.
func bubble(t *testing.T, f func(*testing.T)) {
	var id string
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%v\n%s", r, stacks(id))
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		id = bubbleID()
		f(t)
	})
}

// bubbleID returns "synctest bubble N" for the caller's bubble.
func bubbleID() string {
	b := make([]byte, 200)
	b = b[:runtime.Stack(b, false)]
	_, rest, _ := strings.Cut(string(b), "synctest bubble ")
	n, _, _ := strings.Cut(rest, "]")
	return "synctest bubble " + n
}

// bubbleGoroutines counts the goroutines of the case's bubble.
func bubbleGoroutines(l *lab) int {
	l.Helper()
	synctest.Wait() // those that need no time to end have ended
	id := bubbleID() + "]"
	b := make([]byte, 16<<20)
	b = b[:runtime.Stack(b, true)]
	return strings.Count(string(b), id)
}

// stacks returns the stacks of a bubble's goroutines.
func stacks(bubble string) string {
	b := make([]byte, 4<<20)
	b = b[:runtime.Stack(b, true)]
	var out strings.Builder
	for g := range strings.SplitSeq(string(b), "\n\n") {
		head, _, _ := strings.Cut(g, "\n")
		if strings.Contains(head, bubble+"]") && out.Len() < 16<<10 {
			fmt.Fprintf(&out, "%s\n\n", g)
		}
	}
	return out.String()
}

// WriteMatrix prints the results as a table, a row for each case and a column
// for each pair, with the sums below. A case failed in any form is printed so.
func WriteMatrix(w io.Writer, results []Result) error {
	var pairs, names []string
	cell, rows := map[string]string{}, map[string]string{}
	sums := map[string]map[string]int{}
	for _, r := range results {
		if !slices.Contains(pairs, r.Pair) {
			pairs = append(pairs, r.Pair)
			sums[r.Pair] = map[string]int{}
		}
		if _, seen := rows[r.Case]; !seen {
			names = append(names, r.Case)
		}
		rows[r.Case] = r.Rows
		cell[r.Pair+"/"+r.Case] = r.Outcome
		sums[r.Pair][r.Outcome]++
	}
	slices.Sort(names)
	var b strings.Builder
	line := func(name, rows string, cell func(pair string) string) {
		fmt.Fprintf(&b, "%-28s %-14s", name, rows)
		for _, p := range pairs {
			fmt.Fprintf(&b, " %-*s", max(len(p), 8), cell(p))
		}
		b.WriteByte('\n')
	}
	line("case", "rows", func(p string) string { return p })
	for _, n := range names {
		line(n, rows[n], func(p string) string { return cell[p+"/"+n] })
	}
	for _, o := range []string{"pass", "fail", "skip"} {
		line("total "+o, "", func(p string) string { return fmt.Sprint(sums[p][o]) })
	}
	_, err := io.WriteString(w, b.String())
	return err
}

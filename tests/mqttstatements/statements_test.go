package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the module's folder.
const root = "../.."

func specsOf(t *testing.T) []*spec {
	specs, err := readSpecs()
	require.NoError(t, err)
	return specs
}

func TestTheListsAreWhole(t *testing.T) {
	specs := specsOf(t)
	require.Len(t, specs[0].statements, 251)
	require.Len(t, specs[1].statements, 141)
	for _, s := range specs {
		for i := range s.statements {
			words := strings.Fields(s.statements[i].about)
			require.NotEmpty(t, words)
			require.LessOrEqual(t, len(words), 12, s.statements[i].id)
		}
	}
}

func TestALineThatIsNotAStatementIsRefused(t *testing.T) {
	for _, line := range []string{
		"MQTT-1.5.4-1 | both", "MQTT-1.5.4 | both | words", "MQTT-1.5.4-1 | broker | words",
		"MQTT-1.5.4-1 | both | words | maybe", "MQTT-1.5.4-1 | both | words | open: a | b",
	} {
		_, err := parseStatements(line)
		require.Error(t, err, line)
	}
	_, err := parseStatements("MQTT-1.5.4-1 | both | words\nMQTT-1.5.4-1 | both | words")
	require.ErrorContains(t, err, "twice")
}

// Whoever cites a statement, in code or in a test, cites one that exists.
func TestEveryNumberInTheCodeIsAStatement(t *testing.T) {
	specs := specsOf(t)
	cited := 0
	require.NoError(t, eachFile(root, func(name string) error {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		for _, id := range numbered.FindAllString(string(text), -1) {
			require.True(t, specs[0].has(id) || specs[1].has(id), "%s: %s", name, id)
			cited++
		}
		return nil
	}))
	require.Greater(t, cited, 500)
}

// An attribute names statements of its own version.
func TestEveryAttributeNamesStatementsOfItsVersion(t *testing.T) {
	specs := specsOf(t)
	seen := 0
	require.NoError(t, eachFile(root, func(name string) error {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !marks(call) || len(call.Args) != 2 {
				return true
			}
			key, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				return true
			}
			s := specs[0]
			if key.Value != `"mqtt5"` {
				s = specs[1]
			}
			ast.Inspect(call.Args[1], func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok {
					for _, id := range numbered.FindAllString(lit.Value, -1) {
						require.True(t, s.has(id), "%s: %s has no statement %s", name, s.name, id)
						seen++
					}
				}
				return true
			})
			return true
		})
		return nil
	}))
	require.Greater(t, seen, 400)
}

func TestOnlyATestThatPassedProves(t *testing.T) {
	const out = `{"Action":"attr","Package":"github.com/anyquic/anyquic/mqtt/session","Test":"TestA","Key":"mqtt5","Value":"MQTT-3.1.2-22 MQTT-4.1.0-1"}
{"Action":"pass","Package":"github.com/anyquic/anyquic/mqtt/session","Test":"TestA"}
{"Action":"attr","Package":"github.com/anyquic/anyquic/mqtt/session","Test":"TestB","Key":"mqtt5","Value":"MQTT-3.1.2-23"}
{"Action":"skip","Package":"github.com/anyquic/anyquic/mqtt/session","Test":"TestB"}
{"Action":"attr","Package":"github.com/anyquic/anyquic/mqtt/session","Test":"TestC","Key":"mqtt5","Value":"MQTT-3.1.2-24"}
{"Action":"output","Package":"github.com/anyquic/anyquic/mqtt/session","Test":"TestC","Output":"it broke\n"}
{"Action":"fail","Package":"github.com/anyquic/anyquic/mqtt/session","Test":"TestC"}
{"Action":"attr","Package":"github.com/anyquic/anyquic/mqtt/client","Test":"TestD","Key":"mqtt3.1.1","Value":"MQTT-2.3.1-3"}
{"Action":"attr","Package":"github.com/anyquic/anyquic/mqtt/client","Test":"TestD","Key":"other","Value":"x"}
{"Action":"pass","Package":"github.com/anyquic/anyquic/mqtt/client","Test":"TestD"}
{"Action":"attr","Package":"github.com/anyquic/anyquic/mqtt/packet","Test":"TestE","Key":"mqtt5","Value":"MQTT-1.5.4-1"}
{"Action":"pass","Package":"github.com/anyquic/anyquic/mqtt/packet","Test":"TestE"}
{"Action":"attr","Package":"github.com/anyquic/anyquic/mqtt/mqttweb","Test":"TestF","Key":"mqtt5","Value":"client: MQTT-6.0.0-3"}
{"Action":"pass","Package":"github.com/anyquic/anyquic/mqtt/mqttweb","Test":"TestF"}
`
	proofs, failed, err := readEvents([]byte(out))
	require.NoError(t, err)
	require.Equal(t, []proof{
		{key: "mqtt5", id: "MQTT-3.1.2-22", server: true, test: "session TestA"},
		{key: "mqtt5", id: "MQTT-4.1.0-1", server: true, test: "session TestA"},
		{key: "mqtt3.1.1", id: "MQTT-2.3.1-3", client: true, test: "client TestD"},
		{key: "mqtt5", id: "MQTT-1.5.4-1", client: true, server: true, test: "packet TestE"},
		{key: "mqtt5", id: "MQTT-6.0.0-3", client: true, test: "mqttweb TestF"},
	}, proofs)
	require.Equal(t, "it broke\n", failed)

	specs := specsOf(t)
	for id, want := range map[string]bool{
		"MQTT-3.1.2-22": true, "MQTT-3.1.2-23": false, "MQTT-1.5.4-1": true, "MQTT-6.0.0-3": true,
		"MQTT-4.1.0-1": false, // it binds both
	} {
		for i := range specs[0].statements {
			if st := &specs[0].statements[i]; st.id == id {
				require.Equal(t, want, specs[0].proven(st, proofs), id)
			}
		}
	}
	_, err = table(specs, append(proofs, proof{key: "mqtt5", id: "MQTT-9.9.9-9", test: "session TestG"}))
	require.ErrorContains(t, err, "no statement MQTT-9.9.9-9")
}

func TestAnAttributeThatNamesNothingIsAnError(t *testing.T) {
	for _, value := range []string{"", "MQTT-3.1.2", "3.1.2-22", "broker: MQTT-3.1.2-22", "MQTT-3.1.2-22, MQTT-3.1.2-23"} {
		_, err := proofsOf(event{Key: "mqtt5", Value: value})
		require.Error(t, err, value)
	}
}

// The table in git is what the tests prove, no more and no less. They run for it
// once more, on one carrier.
func TestTheTableSaysWhatTheTestsProve(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs other tests")
	}
	specs := specsOf(t)
	proofs, err := prove(root)
	require.NoError(t, err)
	got, err := table(specs, proofs)
	require.NoError(t, err)
	want, err := os.ReadFile(filepath.Join(root, tableFile))
	require.NoError(t, err)
	was, is := statementLines(string(want)), statementLines(got)
	for key, line := range was {
		if !strings.Contains(line, "*open*") {
			require.NotContains(t, is[key], "*open*", "it was proven")
		}
	}
	require.Equal(t, string(want), got, "make conformance-mqtt writes it anew")
}

var row = regexp.MustCompile(`(?m)^\| (MQTT-\S+) .*$`)

// statementLines are the rows of a table by version and statement.
func statementLines(text string) map[string]string {
	all := map[string]string{}
	for part := range strings.SplitSeq(text, "\n## ") {
		name, _, _ := strings.Cut(part, "\n")
		for _, m := range row.FindAllStringSubmatch(part, -1) {
			all[name+" "+m[1]] = m[0]
		}
	}
	return all
}

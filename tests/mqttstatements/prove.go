package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const module = "github.com/anyquic/anyquic/"

// both are the packages of which client and server are made: what holds for
// them holds for both.
var both = []string{"mqtt", "mqtt/packet", "mqtt/topic"}

// suites are the packages whose cases are not in files of tests, and the part of
// their tests to run: one carrier, as any, since all run the same cases.
var suites = map[string]string{"mqtt/mqtttest": "^TestBroker$/^tcp$"}

// A proof is a test that passed and says that it proves a statement.
type proof struct {
	key, id        string
	client, server bool
	test           string // "session TestSessionExpiry"
}

// prove runs the tests of the module in a folder that say that they prove
// something.
func prove(root string) ([]proof, error) {
	tests, err := provingTests(root)
	if err != nil {
		return nil, err
	}
	var all []proof
	var packages []string
	var names []string
	for pkg, of := range tests {
		if pattern, ok := suites[pkg]; ok {
			proofs, err := runTests(root, pattern, pkg)
			if err != nil {
				return nil, err
			}
			all = append(all, proofs...)
			continue
		}
		packages = append(packages, pkg)
		names = append(names, of...)
	}
	slices.Sort(names)
	proofs, err := runTests(root, "^("+strings.Join(slices.Compact(names), "|")+")$", packages...)
	if err != nil {
		return nil, err
	}
	all = append(all, proofs...)
	slices.SortFunc(all, func(a, b proof) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.id, b.id), cmp.Compare(a.test, b.test))
	})
	return slices.CompactFunc(all, func(a, b proof) bool { return a == b }), nil
}

// provingTests finds the packages below mqtt with tests, or cases of suites, that
// say what they prove, and the names of the former.
func provingTests(root string) (map[string][]string, error) {
	found := map[string][]string{}
	err := eachFile(root, func(name string) error {
		pkg := path.Dir(name)
		if _, suite := suites[pkg]; !suite && !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, isFunc := decl.(*ast.FuncDecl)
			if !marks(decl) {
				continue
			}
			if isFunc && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				found[pkg] = append(found[pkg], f.Name.Name)
			} else if _, suite := suites[pkg]; suite {
				found[pkg] = append(found[pkg], "")
			}
		}
		return nil
	})
	return found, err
}

// marks reports whether there is a call of Attr with one of our keys in n.
func marks(n ast.Node) bool {
	found := false
	ast.Inspect(n, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		key, isLit := call.Args[0].(*ast.BasicLit)
		if ok && isLit && sel.Sel.Name == "Attr" && (key.Value == `"mqtt5"` || key.Value == `"mqtt3.1.1"`) {
			found = true
		}
		return true
	})
	return found
}

// eachFile calls f with the name of each Go file below mqtt, and of the program.
func eachFile(root string, f func(name string) error) error {
	for _, below := range []string{"mqtt", "cmd"} {
		err := fs.WalkDir(os.DirFS(root), below, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
				return err
			}
			return f(name)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// An event is what we need of a line of go test -json (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Key     string
	Value   string
}

// runTests runs the tests of packages whose names match, and returns what those
// prove that passed. That one fails is an error: nothing is proven then.
func runTests(root, pattern string, packages ...string) ([]proof, error) {
	slices.Sort(packages)
	args := []string{"test", "-json", "-timeout", "8m", "-run", pattern}
	for _, pkg := range packages {
		args = append(args, "./"+pkg)
	}
	cmd := exec.Command("go", args...) //nolint:gosec // G204: names of our own packages and tests
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	proofs, failed, badErr := readEvents(out)
	if badErr != nil {
		return nil, badErr
	}
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s%s", strings.Join(args, " "), err, stderr.Bytes(), failed)
	}
	return proofs, nil
}

// readEvents returns what the tests that passed say that they prove, and what the
// failed ones have printed.
func readEvents(out []byte) (proofs []proof, failed string, err error) {
	said := map[string][]event{}
	printed := map[string]*strings.Builder{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // what a build prints
		}
		test := e.Package + " " + e.Test
		switch e.Action {
		case "attr":
			said[test] = append(said[test], e)
		case "output":
			if printed[test] == nil {
				printed[test] = new(strings.Builder)
			}
			printed[test].WriteString(e.Output)
		case "pass":
			for _, e := range said[test] {
				more, err := proofsOf(e)
				if err != nil {
					return nil, "", err
				}
				proofs = append(proofs, more...)
			}
		case "fail":
			if p := printed[test]; p != nil {
				failed += p.String()
			}
		}
	}
	return proofs, failed, lines.Err()
}

// proofsOf reads an attribute of a test.
func proofsOf(e event) ([]proof, error) {
	if e.Key != "mqtt5" && e.Key != "mqtt3.1.1" {
		return nil, nil
	}
	pkg := strings.TrimPrefix(e.Package, module)
	value := e.Value
	p := proof{key: e.Key}
	side, rest, ok := strings.Cut(value, ": ")
	switch {
	case !ok:
		p.client = pkg == "mqtt/client" || slices.Contains(both, pkg)
		p.server = pkg != "mqtt/client"
	case side == "client":
		p.client, value = true, rest
	case side == "server":
		p.server, value = true, rest
	case side == "both":
		p.client, p.server, value = true, true, rest
	default:
		return nil, fmt.Errorf("%s %s: attribute %q", e.Package, e.Test, e.Value)
	}
	name := e.Test
	if _, suite := suites[pkg]; suite {
		name = name[strings.LastIndex(name, "/")+1:]
	}
	p.test = path.Base(pkg) + " " + name
	var all []proof
	for id := range strings.FieldsSeq(value) {
		if numbered.FindString(id) != id {
			return nil, fmt.Errorf("%s %s: attribute %q", e.Package, e.Test, e.Value)
		}
		p.id = id
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil, errors.New(p.test + ": an attribute without a statement")
	}
	return all, nil
}

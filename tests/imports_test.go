package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/anyquic/anyquic"

// A rule says what a package may import; so may those below it, unless the
// table has a longer prefix for them.
type rule struct {
	prefix string
	ours   []string // of this module, with what is below; nil: nothing
	any    bool     // everything of ours
	entry  bool     // a program or a test: may read flags and choose an engine
}

// rules is section 3 of the design: the arrows between the folders.
var rules = []rule{
	{prefix: "transport"},
	{prefix: "transport/tickets", ours: []string{"transport", "internal"}},
	{prefix: "transport/engine", ours: []string{"transport", "purego", "ngtcp2"}},
	{prefix: "transport/transporttest", ours: []string{"transport", "internal"}},
	{prefix: "purego", ours: []string{"transport", "internal"}},
	{prefix: "ngtcp2", ours: []string{"transport", "internal", "ngtcp2"}},
	{prefix: "nghttp3"},
	{prefix: "http3", ours: []string{"transport", "nghttp3", "internal"}},
	{prefix: "http3/allhttp", ours: []string{"transport", "internal", "http3"}},
	{prefix: "http3/websocket", ours: []string{"transport", "internal", "http3"}},
	{prefix: "http3/webtransport", ours: []string{"transport", "internal", "http3"}},
	{prefix: "mqtt", ours: []string{"mqtt", "internal"}},
	{prefix: "mqtt/mqttweb", ours: []string{"mqtt", "internal", "transport", "http3"}},
	{prefix: "mqtt/mqttquic", ours: []string{"mqtt", "internal", "transport"}},
	{prefix: "third_party"},
	{prefix: "internal", ours: []string{"internal"}},
	{prefix: "cmd", any: true, entry: true},
	{prefix: "tests", any: true, entry: true},
	{prefix: "examples", any: true, entry: true},
}

// An exclusive is a package, ours or not, that few may import outside of test
// files. What is below it is meant too, unless it has a line of its own.
type exclusive struct {
	path string
	by   []string // of this module, with what is below
}

var exclusives = []exclusive{
	{"github.com/quic-go/quic-go", []string{"purego", "tests"}},
	{"github.com/quic-go/quic-go/testutils/simnet", []string{"transport/transporttest", "tests"}},
	{module + "/transport/engine", []string{"cmd", "tests", "examples"}},
	{module + "/transport/transporttest", []string{"tests"}},
	{module + "/nghttp3", []string{"http3", "tests"}},
	{module + "/purego", []string{"transport/engine"}},
	{module + "/ngtcp2", []string{"transport/engine"}},
	{module + "/ngtcp2/internal/capi", []string{"ngtcp2"}},
	{module + "/third_party", []string{"cmd"}},
	{module + "/internal/testcert", []string{"transport/transporttest", "mqtt/mqtttest", "cmd", "tests", "examples"}},
	{"flag", []string{"cmd", "tests", "examples"}},
	{"github.com/spf13/cobra", []string{"cmd"}},
}

// cgo are the packages that may say import "C".
var cgo = []string{"ngtcp2/internal/capi", "nghttp3"}

// standardOnly import nothing but the standard library outside of test files.
var standardOnly = []string{"transport", "mqtt/packet", "mqtt/topic", "third_party"}

// A listedPackage is what go list says about a package.
type listedPackage struct {
	ImportPath string
	Imports    []string // of files that are no tests
	CgoFiles   []string
	Standard   bool
}

// within reports whether path is parent or below it.
func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

func withinAny(path string, parents []string) bool {
	return slices.ContainsFunc(parents, func(p string) bool { return within(path, p) })
}

// longest returns the entry with the longest key that path is within.
func longest[T any](path string, list []T, key func(T) string) (best T, found bool) {
	for _, e := range list {
		if within(path, key(e)) && (!found || len(key(e)) > len(key(best))) {
			best, found = e, true
		}
	}
	return best, found
}

// checkImports returns what is wrong with the packages.
func checkImports(packages []listedPackage) (problems []string) {
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		problem := func(format string, args ...any) {
			problems = append(problems, name+": "+fmt.Sprintf(format, args...))
		}
		r, ok := longest(name, rules, func(r rule) string { return r.prefix })
		if !ok {
			problem("not in the table of imports")
			continue
		}
		if len(p.CgoFiles) > 0 && !slices.Contains(cgo, name) {
			problem("uses cgo")
		}
		for _, imp := range p.Imports {
			if imp == "C" && !slices.Contains(cgo, name) {
				problem(`imports "C"`)
			}
			ours := within(imp, module)
			if ours && !r.any {
				if short := strings.TrimPrefix(imp, module+"/"); !withinAny(short, r.ours) {
					problem("imports %s", short)
				}
			}
			if e, ok := longest(imp, exclusives, func(e exclusive) string { return e.path }); ok &&
				!withinAny(name, e.by) && !within(p.ImportPath, e.path) {
				problem("imports %s, which is for %s", imp, strings.Join(e.by, ", "))
			}
			if slices.Contains(standardOnly, name) && !ours && strings.Contains(strings.Split(imp, "/")[0], ".") {
				problem("imports %s, which is not in the standard library", imp)
			}
		}
	}
	return problems
}

// listPackages returns the packages of the module in a build with the tags.
func listPackages(t *testing.T, tags string) []listedPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-tags="+tags, "-json=ImportPath,Imports,CgoFiles,Standard", module+"/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1") // lists, compiles nothing
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var list []listedPackage
	for d := json.NewDecoder(out); ; {
		var p listedPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		list = append(list, p)
	}
	require.NoError(t, cmd.Wait())
	return list
}

func TestPackagesImportOnlyWhatTheTableAllows(t *testing.T) {
	for _, tags := range []string{"", "ngtcp2", "ngtcp2,wolfssl", "ngtcp2,system"} {
		t.Run("tags="+tags, func(t *testing.T) {
			list := listPackages(t, tags)
			names := make([]string, len(list))
			for i, p := range list {
				names[i] = strings.TrimPrefix(p.ImportPath, module+"/")
			}
			require.Subset(t, names, []string{"transport", "transport/engine", "transport/transporttest", "purego", "tests"},
				"the list is of this module")
			require.Empty(t, checkImports(list))
		})
	}
}

func TestTheCheckerFindsForbiddenImports(t *testing.T) {
	pkg := func(name string, imports ...string) listedPackage {
		return listedPackage{ImportPath: module + "/" + name, Imports: imports}
	}
	const quicGo = "github.com/quic-go/quic-go"
	for _, tt := range []struct {
		name string
		p    listedPackage
		want string // part of the problem, "" if there is none
	}{
		{"the contract stands alone", pkg("transport", "net", "time"), ""},
		{"the contract knows no engine", pkg("transport", module+"/purego"), "imports purego"},
		{"the contract knows nothing internal", pkg("transport", module+"/internal/testcert"), "imports internal/testcert"},
		{"the contract needs the standard library only", pkg("transport", "golang.org/x/net/nettest"), "standard library"},
		{"an engine implements the contract", pkg("purego", module+"/transport", quicGo, quicGo+"/qlog"), ""},
		{"an engine knows no other", pkg("purego", module+"/ngtcp2"), "imports ngtcp2"},
		{"an engine reads no flags", pkg("purego", "flag"), "flag"},
		{"an engine does not choose engines", pkg("ngtcp2", module+"/transport/engine"), "transport/engine"},
		{"quic-go is for purego", pkg("http3", quicGo), "quic-go"},
		{"quic-go is not for programs", pkg("cmd/anyquic", quicGo), "quic-go"},
		{"quic-go is not for the suite", pkg("transport/transporttest", quicGo), "quic-go"},
		{"quic-go's network is for the suite", pkg("transport/transporttest", quicGo+"/testutils/simnet"), ""},
		{"quic-go's network is not for engines", pkg("purego", quicGo+"/testutils/simnet"), "simnet"},
		{"quic-go is a foreign peer in tests", pkg("tests/interop", quicGo), ""},
		{"the suite knows no engine", pkg("transport/transporttest", module+"/purego"), "imports purego"},
		{"the suite is for tests", pkg("mqtt/mqtttest", module+"/transport/transporttest"), "transporttest"},
		{"mqtt knows no transport", pkg("mqtt/broker", module+"/transport"), "imports transport"},
		{"mqttquic knows it", pkg("mqtt/mqttquic", module+"/transport", module+"/mqtt"), ""},
		{"and so do those below", pkg("mqtt/mqttquic/mux", module+"/transport"), ""},
		{"a similar name is not below", pkg("mqtt/mqttquicker", module+"/transport"), "imports transport"},
		{"mqttquic chooses no engine", pkg("mqtt/mqttquic", module+"/transport/engine"), "transport/engine"},
		{"mqtt's codec needs nothing", pkg("mqtt/packet", "github.com/prometheus/client_golang"), "standard library"},
		{"internal imports internal", pkg("internal/udp", module+"/internal/varint"), ""},
		{"internal imports nothing else of ours", pkg("internal/udp", module+"/transport"), "imports transport"},
		{"nghttp3 is for http3", pkg("http3", module+"/nghttp3"), ""},
		{"nghttp3 is not for others", pkg("http3/websocket", module+"/nghttp3"), "imports nghttp3"},
		{"C stays in its place", pkg("ngtcp2", "C"), `imports "C"`},
		{"which is capi", pkg("ngtcp2/internal/capi", "C"), ""},
		{"and nghttp3", pkg("nghttp3", "C"), ""},
		{"cgo files too", listedPackage{ImportPath: module + "/ngtcp2", CgoFiles: []string{"a.go"}}, "uses cgo"},
		{"programs may do anything", pkg("cmd/anyquic", module+"/transport/engine", module+"/mqtt/broker", "flag"), ""},
		{"a new folder needs a line in the table", pkg("util"), "not in the table"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			problems := checkImports([]listedPackage{pkg("internal/varint"), tt.p})
			if tt.want == "" {
				require.Empty(t, problems)
				return
			}
			require.NotEmpty(t, problems)
			require.Contains(t, strings.Join(problems, "\n"), tt.want)
			require.NotContains(t, strings.Join(problems, "\n"), "internal/varint:", "the other package is fine")
		})
	}
}

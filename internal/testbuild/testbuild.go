// Package testbuild builds programs for tests that run them.
package testbuild

import (
	"os"
	"os/exec"
	"runtime/debug"
	"testing"
)

// Root is the import path of the module.
const Root = "github.com/anyquic/anyquic"

// Env returns the environment for a program that Program built: at its end, the
// race detector is not to wait a second for what other threads may have to say.
func Env() []string { return append(os.Environ(), "GORACE=atexit_sleep_ms=0") }

// Setting returns what the toolchain was told when it built the test: "-tags",
// "CGO_ENABLED" and so on.
func Setting(key string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == key {
				return s.Value
			}
		}
	}
	return ""
}

// Program builds the package and writes the program to the file out. It is built
// as the test is: with the same tags, and so the same engines; and if the test
// runs with the race detector, so does the program: then it finds races too, and
// the packages need not be compiled a second time.
func Program(t testing.TB, out, pkg string, flags ...string) {
	t.Helper()
	args := []string{"build", "-o", out, "-tags=" + Setting("-tags")}
	if Race {
		args = append(args, "-race")
	}
	args = append(append(args, flags...), pkg)
	if printed, err := exec.Command("go", args...).CombinedOutput(); err != nil { //nolint:gosec // a test's own arguments
		t.Fatalf("go build %s: %v\n%s", pkg, err, printed)
	}
}

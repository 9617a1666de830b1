//go:build interop

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testbuild"
)

// providers print a folder with the program, or the reason why there is none.
var providers = map[string]string{
	"mosquitto_pub":  "build/mosquitto.sh",
	"mosquitto_sub":  "build/mosquitto.sh",
	"mosquitto_rr":   "build/mosquitto.sh",
	"mqttjs-node":    "build/peers.sh",
	"aioquic-python": "build/peers.sh",
	"gtlsclient":     "build/peers.sh",
	"gtlsserver":     "build/peers.sh",
	"web-curl":       "build/peers.sh",
	"web-nginx":      "build/peers.sh",
	"web-chromium":   "build/peers.sh",
	"web-firefox":    "build/peers.sh",
}

// foreignProgram returns the path of a foreign program. A test without it is left
// out, but not in CI (CI=true), where that is a failure.
func foreignProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil && strings.HasPrefix(name, "mosquitto_") {
		err = speaksWebSocket(path)
	}
	ranWith(t, name)
	if err != nil {
		text := fmt.Sprintf("%v: %s prints a folder with it, for PATH", err, providers[name])
		if os.Getenv("CI") == "true" {
			t.Fatal(text)
		}
		t.Skip("left out: " + text)
	}
	return path
}

// helps keeps what a program says of itself.
var helps sync.Map // path -> func() string

// speaksWebSocket returns an error if a client of mosquitto is older than 2.1.
func speaksWebSocket(path string) error {
	ask := sync.OnceValue(func() string {
		cmd := exec.Command(path, "--help")
		cmd.Env = testbuild.Env()
		out, _ := cmd.Output() // its status is 1
		return string(out)
	})
	help, _ := helps.LoadOrStore(path, ask)
	if !strings.Contains(help.(func() string)(), "--ws") {
		return fmt.Errorf("%s is older than 2.1 and knows no --ws", path)
	}
	return nil
}

// foreignLog is the environment variable that names a file for what became of the
// tests with foreign peers: a line "PEER OUTCOME" each. The outcome is pass, fail
// or skip.
const foreignLog = "ANYQUIC_FOREIGN_LOG"

// using are the tests that will log their outcome for a peer.
var using struct {
	sync.Mutex
	tests map[[2]string]bool // peer and test
}

// ranWith logs, at the end of the test, that it was one with this peer.
func ranWith(t *testing.T, peer string) {
	t.Helper()
	file := os.Getenv(foreignLog)
	key := [2]string{peer, t.Name()}
	using.Lock()
	defer using.Unlock()
	if file == "" || using.tests[key] {
		return
	}
	if using.tests == nil {
		using.tests = make(map[[2]string]bool)
	}
	using.tests[key] = true
	t.Cleanup(func() {
		using.Lock()
		defer using.Unlock()
		delete(using.tests, key) // the test may run again
		outcome := "pass"
		switch {
		case t.Failed():
			outcome = "fail"
		case t.Skipped():
			outcome = "skip"
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		require.NoError(t, err)
		_, err = fmt.Fprintln(f, peer, outcome)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	})
}

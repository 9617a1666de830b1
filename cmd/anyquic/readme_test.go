package main

import (
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/selfcert"
	"github.com/anyquic/anyquic/internal/testbuild"
)

var update = flag.Bool("update", false, "write the generated parts of README.md and the files of testdata/engines")

const root = "../.."

// TestREADMEIsWhatTheCodeSays compares the parts of the README between markers
// with the files and the engines they come from.
func TestREADMEIsWhatTheCodeSays(t *testing.T) {
	file := filepath.Join(root, "README.md")
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	have := string(b)
	n := 0
	want := regexp.MustCompile(`(?s)<!-- begin: ([^ ]+) -->\n.*?<!-- end -->`).ReplaceAllStringFunc(have, func(part string) string {
		n++
		source := strings.Fields(part)[2]
		return fmt.Sprintf("<!-- begin: %s -->\n%s<!-- end -->", source, generated(t, source))
	})
	require.Equal(t, 6, n, "parts between markers")
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
		return
	}
	if want != have {
		t.Error("README.md is not what the code says: make readme writes it")
	}
}

func generated(t *testing.T, source string) string {
	t.Helper()
	if source == "engines" {
		return engineTable(t)
	}
	code, err := os.ReadFile(filepath.Join(root, source))
	require.NoError(t, err)
	_, body, ok := strings.Cut(string(code), "\nfunc main() {")
	require.True(t, ok)
	return "```go\nfunc main() {" + body + "```\n\nThe whole file, with its imports: [" + source + "](" + source + ").\n"
}

// examples builds programs of the README, with a port of the page replaced by a free
// one, in a folder with a certificate.
func examples(t *testing.T, addr string, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cert, err := selfcert.New(time.Now())
	require.NoError(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	port := freePort(t)
	for _, name := range names {
		// The README's port may be taken on this machine, by the README's own server.
		code, err := os.ReadFile(filepath.Join(root, "examples", name, "main.go"))
		require.NoError(t, err)
		require.Contains(t, string(code), addr)
		moved := strings.ReplaceAll(string(code), addr, "localhost:"+port)
		overlay := filepath.Join(dir, name+".go")
		require.NoError(t, os.WriteFile(overlay, []byte(moved), 0o600))
		original, err := filepath.Abs(filepath.Join(root, "examples", name, "main.go"))
		require.NoError(t, err)
		list := filepath.Join(dir, name+".json")
		require.NoError(t, os.WriteFile(list, fmt.Appendf(nil, `{"Replace":{%q:%q}}`, original, overlay), 0o600))
		testbuild.Program(t, filepath.Join(dir, name), testbuild.Root+"/examples/"+name, "-overlay", list)
	}
	return dir
}

// example is the command of a program that examples has built.
func example(dir, name string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(dir, name))
	cmd.Dir, cmd.Env = dir, testbuild.Env()
	return cmd
}

// startExample starts one that runs until the test ends.
func startExample(t *testing.T, dir, name string, log io.Writer) {
	t.Helper()
	cmd := example(dir, name)
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// TestREADMEProgramsRun runs the MQTT programs of the README against each other.
func TestREADMEProgramsRun(t *testing.T) {
	dir := examples(t, "localhost:14567", "broker", "client")
	var log buffer
	startExample(t, dir, "broker", &log)
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "serving") }, patience, time.Millisecond)
	out, err := example(dir, "client").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "greetings/world: hello over quic\n", string(out))
}

// TestREADMEHandlersRun runs the program with handlers and a client of it.
func TestREADMEHandlersRun(t *testing.T) {
	dir := examples(t, "localhost:14567", "app", "client")
	var log buffer
	startExample(t, dir, "app", &log)
	// It says when it listens, and not when its handlers have subscribed.
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		out, err := example(dir, "client").CombinedOutput()
		require.NoError(c, err, "%s%s", out, log.String())
		require.Equal(c, "greetings/world: hello over quic\n", string(out))
		require.Contains(c, log.String(), "quic says hello to world")
	}, patience, 10*time.Millisecond)
}

// TestREADMEWebProgramsRun does so with those of HTTP.
func TestREADMEWebProgramsRun(t *testing.T) {
	dir := examples(t, "localhost:8443", "webserver", "fetch")
	var log buffer
	startExample(t, dir, "webserver", &log)
	// It does not say when it listens.
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		out, err := example(dir, "fetch").CombinedOutput()
		require.NoError(c, err, "%s%s", out, log.String())
		require.Equal(c, "hello over HTTP/3.0\n", string(out))
	}, patience, 10*time.Millisecond)
}

// freePort returns a port for UDP and TCP that nobody uses. It is below those that a kernel
// gives to who asks for any: no other test gets it while the programs are built.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := net.JoinHostPort("localhost", strconv.Itoa(10_000+rand.IntN(6000)))
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		ln, err := net.Listen("tcp", addr)
		require.NoError(t, pc.Close())
		if err != nil {
			continue
		}
		require.NoError(t, ln.Close())
		_, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		return port
	}
	t.Fatal("no port is free")
	return ""
}

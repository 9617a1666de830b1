//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testbuild"
)

// A chromium is a browser without a window, at the other end of two pipes with the
// DevTools protocol.
type chromium struct {
	log     *logBuffer
	cmd     *exec.Cmd
	to      *os.File
	mu      sync.Mutex
	waiting map[int]chan json.RawMessage // guarded by mu; for answers
	last    int                          // guarded by mu
}

func startChromium(t *testing.T, options ...string) *chromium {
	t.Helper()
	b := &chromium{log: newLogBuffer(t), waiting: make(map[int]chan json.RawMessage)}
	args := append([]string{
		"--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "--user-data-dir=" + t.TempDir(), "--window-size=900,600",
	}, options...)
	b.cmd = exec.Command(foreignProgram(t, "web-chromium"), args...)
	b.cmd.Env = testbuild.Env()
	b.cmd.Stderr = b.log
	theirIn, to, err := os.Pipe()
	require.NoError(t, err)
	from, theirOut, err := os.Pipe()
	require.NoError(t, err)
	b.to = to
	b.cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	require.NoError(t, b.cmd.Start())
	theirIn.Close()
	theirOut.Close()
	var g sync.WaitGroup
	g.Go(func() { b.read(from) }) // ends with the browser
	t.Cleanup(func() {
		b.cmd.Process.Kill() // and with it all that it has started
		_ = b.cmd.Wait()     // it was killed
		g.Wait()
		to.Close()
		from.Close()
	})
	return b
}

func (b *chromium) said() string { return b.log.String() }

// read hands out answers and logs events. Messages end with a NUL.
func (b *chromium) read(from io.Reader) {
	r := bufio.NewReader(from)
	for {
		line, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		line = bytes.TrimSuffix(line, []byte{0})
		var m struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
		}
		if json.Unmarshal(line, &m) != nil || m.ID == 0 || m.Result == nil {
			fmt.Fprintf(b.log, "%.1000s\n", line)
		}
		b.mu.Lock()
		if ch := b.waiting[m.ID]; ch != nil {
			ch <- m.Result
			delete(b.waiting, m.ID)
		}
		b.mu.Unlock()
	}
}

// call has the browser do something, for a page if session is not empty.
func (b *chromium) call(t *testing.T, session, method string, params map[string]any, result any) {
	t.Helper()
	ch := make(chan json.RawMessage, 1)
	b.mu.Lock()
	b.last++
	m := map[string]any{"id": b.last, "method": method, "params": params}
	b.waiting[b.last] = ch
	b.mu.Unlock()
	if session != "" {
		m["sessionId"] = session
	}
	line, err := json.Marshal(m)
	require.NoError(t, err)
	_, err = b.to.Write(append(line, 0))
	require.NoError(t, err, "%s", b.log)
	select {
	case answer := <-ch:
		require.NotNil(t, answer, "%s: %s", method, b.log)
		if result != nil {
			require.NoError(t, json.Unmarshal(answer, result), "%s", answer)
		}
	case <-time.After(patience):
		t.Fatalf("Chromium does not answer %s:\n%s", method, b.log)
	}
}

// A tab is a page in Chromium.
type tab struct {
	*chromium
	session string
}

// open opens a page.
func (b *chromium) open(t *testing.T, address string) *tab {
	t.Helper()
	var target struct{ TargetID string }
	b.call(t, "", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call(t, "", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p := &tab{b, attached.SessionID}
	for _, domain := range []string{"Log", "Runtime", "Page"} {
		b.call(t, p.session, domain+".enable", map[string]any{}, nil)
	}
	var where struct{ ErrorText string }
	b.call(t, p.session, "Page.navigate", map[string]any{"url": address}, &where)
	require.Empty(t, where.ErrorText, "%s: %s", address, b.log)
	return p
}

// screenshot keeps what the page shows.
func (p *tab) screenshot(t *testing.T) {
	t.Helper()
	var shot struct{ Data []byte }
	p.call(t, p.session, "Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	require.True(t, bytes.HasPrefix(shot.Data, []byte("\x89PNG")))
	file := filepath.Join(screenshots(t), strings.ReplaceAll(t.Name(), "/", "_")+".png")
	require.NoError(t, os.WriteFile(file, shot.Data, 0o644))
	t.Log("screenshot:", file)
}

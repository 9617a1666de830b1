package allhttp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxAltFile bounds the file, in bytes.
const maxAltFile = 1 << 20

// altFileTime is how the file writes a time, in UTC.
const altFileTime = "20060102 15:04:05"

// altFileHead starts the file.
const altFileHead = "# Alt-Svc cache, in the format of curl: https://curl.se/docs/alt-svc.html\n"

// loadFile adds what a file says that is not expired.
//
// A line is about an alternative: protocol, host and port of the origin, those
// of the alternative, when it expires, whether it persists, and a priority.
func (c *altCache) loadFile(name string, now time.Time) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("allhttp: Alt-Svc file: %w", err)
	}
	defer f.Close()
	return c.load(f, now)
}

func (c *altCache) load(r io.Reader, now time.Time) error {
	found := make(map[string][]alternative)
	lines := bufio.NewScanner(io.LimitReader(r, maxAltFile))
	for lines.Scan() {
		origin, a, ok := parseAltLine(lines.Text(), now)
		if ok && c.allow != nil && !c.allow(origin, a) {
			continue
		}
		if ok && len(found[origin]) < maxAlternatives && !slices.Contains(found[origin], a) {
			found[origin] = append(found[origin], a)
		}
		if len(found) == maxOrigins {
			break
		}
	}
	for origin, alts := range found {
		c.set(origin, alts, now, now)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes = 0
	if err := lines.Err(); err != nil {
		return fmt.Errorf("allhttp: Alt-Svc file: %w", err)
	}
	return nil
}

// parseAltLine parses a line that is about HTTP/3.
func parseAltLine(line string, now time.Time) (origin string, a alternative, ok bool) {
	head, rest, ok := strings.Cut(line, `"`)
	expiry, tail, ok2 := strings.Cut(rest, `"`)
	f, flags := strings.Fields(head), strings.Fields(tail)
	if !ok || !ok2 || len(f) != 6 || len(flags) < 1 || f[3] != "h3" || strings.HasPrefix(line, "#") {
		return "", a, false
	}
	originHost, originPort := splitAltAuthority(f[1] + ":" + f[2])
	host, port := splitAltAuthority(f[4] + ":" + f[5])
	expires, err := time.ParseInLocation(altFileTime, expiry, time.UTC)
	if err != nil || originHost == "" || originPort == 0 || port == 0 || !expires.After(now) {
		return "", a, false
	}
	if host == originHost {
		host = ""
	}
	a = alternative{host: host, port: port, maxAge: min(expires.Sub(now), maxAltSvcAge), persist: flags[0] == "1"}
	return net.JoinHostPort(originHost, strconv.Itoa(int(originPort))), a, true
}

// saveFile writes the file if there is something new. What becomes of the file
// is all of the old or all of the new.
func (c *altCache) saveFile(name string, now time.Time) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("allhttp: Alt-Svc file: %w", err)
		}
	}()
	c.saving.Lock()
	defer c.saving.Unlock()
	text, changes := c.text(now)
	if changes == 0 {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes -= changes
	return nil
}

// text returns the content of the file, and how many changes it has.
func (c *altCache) text(now time.Time) (string, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for origin, e := range c.origins {
		host, port, err := net.SplitHostPort(origin)
		if err != nil {
			continue
		}
		var b strings.Builder
		for _, a := range e.fresh(now) {
			altHost := a.host
			if altHost == "" {
				altHost = host
			}
			persist := 0
			if a.persist {
				persist = 1
			}
			fmt.Fprintf(&b, "h2 %s %s h3 %s %d %q %d 0\n", bracketed(host), port, bracketed(altHost), a.port,
				e.said.Add(a.maxAge).UTC().Format(altFileTime), persist)
		}
		lines = append(lines, b.String())
	}
	slices.Sort(lines)
	return altFileHead + strings.Join(lines, ""), c.changes
}

// bracketed returns a host as it stands in a URL.
func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

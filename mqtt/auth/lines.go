package auth

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxFile bounds the files that are read, in bytes; maxErrors what is said of one.
const (
	maxFile   = 256 << 20
	maxErrors = 20
)

// readFile reads a file, bounded.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("auth: %s: larger than %d bytes", name, maxFile)
	}
	return b, nil
}

// eachLine calls f with every line that is neither empty nor a comment, and
// returns what it says, with the numbers of the lines.
func eachLine(name string, text []byte, f func(n int, line string) error) error {
	var all []error
	s := bufio.NewScanner(bytes.NewReader(text))
	s.Buffer(nil, 256<<10)
	n := 0
	for s.Scan() {
		n++
		line := strings.TrimSpace(s.Text())
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if line == "" || line[0] == '#' {
			continue
		}
		if err := f(n, line); err != nil {
			if all = append(all, fmt.Errorf("auth: %s:%d: %w", name, n, err)); len(all) == maxErrors {
				break
			}
		}
	}
	if err := s.Err(); err != nil {
		all = append(all, fmt.Errorf("auth: %s:%d: %w", name, n+1, err))
	}
	return errors.Join(all...)
}

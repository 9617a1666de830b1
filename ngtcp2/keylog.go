//go:build ngtcp2 && cgo

package ngtcp2

import (
	"io"
	"reflect"
	"sync"
)

// Several connections, and several configurations, may have one key log: their
// lines stay whole. Who waits for a slow writer holds up nobody with another.
var keyLogs struct {
	mu sync.Mutex
	m  map[any]*keyLog // guarded by mu: those that are in use
}

type keyLog struct {
	users int // guarded by keyLogs.mu
	mu    sync.Mutex
}

// writeKeyLog writes a line, without others between.
func writeKeyLog(w io.Writer, line string) error {
	var key any = w
	if !reflect.ValueOf(w).Comparable() {
		key = reflect.TypeOf(w) // which of them it is cannot be told
	}
	keyLogs.mu.Lock()
	l := keyLogs.m[key]
	if l == nil {
		if keyLogs.m == nil {
			keyLogs.m = make(map[any]*keyLog)
		}
		l = new(keyLog)
		keyLogs.m[key] = l
	}
	l.users++
	keyLogs.mu.Unlock()
	defer func() {
		keyLogs.mu.Lock()
		defer keyLogs.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(keyLogs.m, key)
		}
	}()

	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := io.WriteString(w, line+"\n")
	return err
}

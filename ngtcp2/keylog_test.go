//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A slowWriter is not comparable.
type slowWriter struct {
	started, goOn chan struct{}
	_             []byte
}

func (w slowWriter) Write(p []byte) (int, error) {
	w.started <- struct{}{}
	<-w.goOn
	return len(p), nil
}

func TestASlowKeyLogHoldsUpNoOther(t *testing.T) {
	slow := slowWriter{started: make(chan struct{}, 2), goOn: make(chan struct{})}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { assert.NoError(t, writeKeyLog(slow, "line")) })
	}
	<-slow.started
	var b bytes.Buffer
	require.NoError(t, writeKeyLog(&b, "one"))
	require.NoError(t, writeKeyLog(&b, "two"))
	require.Equal(t, "one\ntwo\n", b.String())
	require.Empty(t, slow.started, "one at a time has a writer")
	close(slow.goOn)
	wg.Wait()
	require.ErrorIs(t, writeKeyLog(brokenWriter{}, "x"), io.ErrClosedPipe)
	require.Empty(t, keyLogs.m)
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

package allhttp

import (
	"io"
	"net"
	"net/http"
	"sync"
)

// A heldBody is a request's body that can be had back as long as nobody has
// read from it: closing it waits for release.
type heldBody struct {
	body io.ReadCloser

	mu     sync.Mutex
	read   bool // it was touched; guarded by mu
	gone   bool // it was had back; guarded by mu
	closed bool // the Close that waits; guarded by mu
	free   bool // nobody wants it back; guarded by mu
}

func (b *heldBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.gone {
		b.mu.Unlock()
		return 0, net.ErrClosed
	}
	b.read = true
	b.mu.Unlock()
	return b.body.Read(p)
}

func (b *heldBody) Close() error {
	b.mu.Lock()
	switch {
	case b.gone:
		b.mu.Unlock()
		return nil
	case !b.read && !b.free:
		b.closed = true
		b.mu.Unlock()
		return nil
	}
	b.mu.Unlock()
	return b.body.Close()
}

// release lets the body be closed, and closes it if that was wanted before.
func (b *heldBody) release() {
	b.mu.Lock()
	b.free = true
	closed := b.closed
	b.closed = false
	b.mu.Unlock()
	if closed {
		b.body.Close()
	}
}

// takeBack reports whether the body can be used again by somebody else.
func (b *heldBody) takeBack() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read || b.free {
		return false
	}
	b.gone, b.closed = true, false
	return true
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// again returns req for another attempt, or nil if its body is gone. held is the
// body of the attempt before; nil: there was none.
func again(req *http.Request, held *heldBody) (*http.Request, error) {
	switch {
	case held == nil:
		return req, nil
	case held.takeBack():
		return req, nil
	case req.GetBody == nil:
		return nil, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	held.release()
	r := *req
	r.Body = body
	return &r, nil
}

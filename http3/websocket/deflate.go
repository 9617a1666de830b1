package websocket

import (
	"compress/flate"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/gobwas/ws/wsflate"
)

// deflateFrom is the size of the smallest message that is compressed, in bytes:
// less is hardly worth a packet's bytes.
const deflateFrom = 512

// An inflater decompresses a message. Nothing of a former one is needed, since
// this side asks for no context takeover.
//
// https://www.rfc-editor.org/rfc/rfc7692#section-7.2.2
type inflater struct {
	r   *wsflate.Reader
	src contentReader
}

var inflaters = sync.Pool{New: func() any {
	f := new(inflater)
	f.r = wsflate.NewReader(nil, func(r io.Reader) wsflate.Decompressor { return resetReader{flate.NewReader(r)} })
	return f
}}

// A resetReader can be used for the next message.
type resetReader struct{ io.ReadCloser }

func (r resetReader) Reset(src io.Reader) {
	_ = r.ReadCloser.(flate.Resetter).Reset(src, nil) // which does not fail
}

// A contentReader reads the content of the message's frames, and not more of it
// than asked for.
type contentReader struct{ c *Conn }

func (r *contentReader) Read(p []byte) (int, error) { return r.c.readContent(p) }

func (r *contentReader) ReadByte() (byte, error) {
	m := &r.c.message
	if m.left > 0 && r.c.br.Buffered() > 0 {
		var p [1]byte
		p[0], _ = r.c.br.ReadByte() // it is there
		m.consume(p[:])
		return p[0], nil
	}
	var p [1]byte
	_, err := io.ReadFull(r, p[:])
	return p[0], err
}

// inflate reads decompressed content. The next call must not follow an error.
// readMu is held.
func (c *Conn) inflate(p []byte) (int, error) {
	m := &c.message
	if m.inflater == nil {
		m.inflater = inflaters.Get().(*inflater)
		m.inflater.src.c = c
		m.inflater.r.Reset(&m.inflater.src)
	}
	if m.limit >= 0 {
		p = p[:min(int64(len(p)), m.limit-m.size+1)]
	}
	for {
		n, err := m.inflater.r.Read(p)
		switch {
		case err == nil:
			return n, nil
		case !errors.Is(err, io.EOF):
			c.dropInflater()
			if reason := c.reason(); reason != nil {
				return 0, reason
			}
			if isTimeout(err) { // the decompressor cannot go on
				return 0, c.lost(context.Cause(c.readCtx))
			}
			return 0, c.fail(StatusInvalidPayload, "invalid compressed data")
		case m.final && m.left == 0:
			return n, io.EOF
		}
		// A block that says that it is the last need not be.
		//
		// https://www.rfc-editor.org/rfc/rfc7692#section-7.2.3.4
		m.inflater.r.Reset(&m.inflater.src)
		if n > 0 {
			return n, nil
		}
	}
}

func (c *Conn) dropInflater() {
	if f := c.message.inflater; f != nil {
		f.src.c = nil
		c.message.inflater = nil
		inflaters.Put(f)
	}
}

var deflaters = sync.Pool{New: func() any {
	return wsflate.NewWriter(nil, func(w io.Writer) wsflate.Compressor {
		f, _ := flate.NewWriter(w, flate.BestSpeed) // a level that exists
		return f
	})
}}

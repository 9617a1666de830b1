package purego

import (
	"bufio"
	"context"
	"io"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"

	"github.com/anyquic/anyquic/transport"
)

// tracer returns a function for quic.Config.Tracer, which quic-go calls when it
// makes a connection: the only moment at which it tells the connection's ID. A
// connection that is not logged gets a nil Trace, which costs nothing.
func (e *endpoint) tracer(cfg *transport.Config, setID func(context.Context, quic.ConnectionID)) func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
	return func(ctx context.Context, client bool, id quic.ConnectionID) qlogwriter.Trace {
		setID(ctx, id)
		if cfg.QLog == nil {
			return nil
		}
		w := cfg.QLog(id.Bytes(), client)
		if w == nil {
			return nil
		}
		seq := qlogwriter.NewConnectionFileSeq(&qlogFile{w: w, buf: bufio.NewWriter(w)}, client, id)
		if !e.group.run(seq.Run) { // until the connection's end
			w.Close()
			return nil
		}
		return seq
	}
}

// A qlogFile buffers, and keeps errors to itself: quic-go would print them.
type qlogFile struct {
	w   io.WriteCloser
	buf *bufio.Writer
}

func (f *qlogFile) Write(p []byte) (int, error) {
	_, _ = f.buf.Write(p) // a bufio.Writer does nothing after an error
	return len(p), nil
}

func (f *qlogFile) Close() error {
	f.buf.Flush()
	return f.w.Close()
}

package benchproc

import (
	"encoding/binary"
	"fmt"
	"io"
)

// ALPN is the application protocol of a QUIC server to measure. On each
// bidirectional stream it does what [ServeStream] does.
const ALPN = "anyquic-bench"

// The first byte of a stream says what the server does with it.
const (
	OpSink   = 's' // read all, then write how many bytes came, as a big-endian uint64
	OpSource = 'g' // write as many bytes as the big-endian uint64 after it says
	OpEcho   = 'e' // write what is read
)

// Chunk is how many bytes are written at once.
const Chunk = 64 << 10

// ServeStream answers one stream and closes it.
func ServeStream(s io.ReadWriteCloser) error {
	defer s.Close()
	var op [1]byte
	if _, err := io.ReadFull(s, op[:]); err != nil {
		return err
	}
	switch op[0] {
	case OpSink:
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, Chunk))
		if err != nil {
			return err
		}
		_, err = s.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
		return err
	case OpSource:
		var size [8]byte
		if _, err := io.ReadFull(s, size[:]); err != nil {
			return err
		}
		buf := make([]byte, Chunk)
		for left := binary.BigEndian.Uint64(size[:]); left > 0; {
			n, err := s.Write(buf[:min(left, Chunk)])
			if err != nil {
				return err
			}
			left -= uint64(n)
		}
		return nil
	case OpEcho:
		_, err := io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{s}, make([]byte, 256))
		return err
	}
	return fmt.Errorf("benchproc: unknown operation %q", op[0])
}

package websocket_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Opcodes, as in RFC 6455, Section 5.2.
const (
	opCont   = 0x0
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xa
)

// A frame is what a framer sends and receives.
type frame struct {
	op      byte
	part    bool // FIN is not set
	rsv     byte // 1 to 7
	content string
}

// A framer is the other end of a connection: it sends what it is told to, and
// keeps what comes.
type framer struct {
	*testing.T
	*rawStream
	mask bool // a client masks

	out  chan func() // what is to be sent; nil ends
	got  chan frame  // closed at the end of the stream
	ends error       // how it ended; io.EOF: as it should; set before got is closed
}

func newFramer(t *testing.T, s *rawStream, mask bool) *framer {
	f := &framer{T: t, rawStream: s, mask: mask, got: make(chan frame, 1<<14), out: make(chan func(), 1<<10)}
	var wg sync.WaitGroup
	wg.Go(f.receive) // ends with the stream
	wg.Go(func() {   // ends with the test
		for send := range f.out {
			send()
		}
	})
	t.Cleanup(func() {
		s.reset()
		close(f.out)
		wg.Wait()
	})
	return f
}

// receive parses what comes, and checks what every frame of ours must keep to.
func (f *framer) receive() {
	defer close(f.got)
	br := bufio.NewReader(f.rawStream)
	for {
		fr, err := readFrame(br, !f.mask)
		if err != nil {
			f.ends = err
			return
		}
		f.got <- fr
	}
}

var errNotAFrame = errors.New("not a frame of ours")

// readFrame reads a frame whose mask is as it must be.
func readFrame(r io.Reader, masked bool) (frame, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return frame{}, err
	}
	fr := frame{op: head[0] & 15, part: head[0]&0x80 == 0, rsv: head[0] >> 4 & 7}
	if (head[1]&0x80 != 0) != masked {
		return frame{}, errNotAFrame
	}
	n := uint64(head[1] & 0x7f)
	switch n {
	case 126:
		if _, err := io.ReadFull(r, head[:2]); err != nil {
			return frame{}, err
		}
		if n = uint64(binary.BigEndian.Uint16(head[:2])); n < 126 {
			return frame{}, errNotAFrame
		}
	case 127:
		if _, err := io.ReadFull(r, head[:8]); err != nil {
			return frame{}, err
		}
		if n = binary.BigEndian.Uint64(head[:8]); n < 1<<16 || n > 1<<26 {
			return frame{}, errNotAFrame
		}
	}
	var key [4]byte
	if masked {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			return frame{}, err
		}
	}
	content := make([]byte, n)
	if _, err := io.ReadFull(r, content); err != nil {
		return frame{}, io.ErrUnexpectedEOF
	}
	for i := range content {
		content[i] ^= key[i%4]
	}
	fr.content = string(content)
	return fr, nil
}

// encode returns the bytes of frames.
func (f *framer) encode(frames ...frame) []byte {
	var b []byte
	for _, fr := range frames {
		head := fr.op | fr.rsv<<4
		if !fr.part {
			head |= 0x80
		}
		b = append(b, head)
		mask := byte(0)
		if f.mask {
			mask = 0x80
		}
		switch n := len(fr.content); {
		case n < 126:
			b = append(b, mask|byte(n))
		case n < 1<<16:
			b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
		default:
			b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
		}
		var key [4]byte
		if f.mask {
			key = [4]byte{0x37, 0xfa, 0x21, byte(len(b))}
			b = append(b, key[:]...)
		}
		for i := range len(fr.content) {
			b = append(b, fr.content[i]^key[i%4])
		}
	}
	return b
}

// send sends frames at once, behind what was sent before. It does not wait.
func (f *framer) send(frames ...frame) { f.sendBytes(f.encode(frames...), 0) }

// sendBytes sends bytes in pieces. That the other end has heard enough is no
// failure: what it says counts.
func (f *framer) sendBytes(b []byte, piece int) {
	f.out <- func() {
		for p := range slices.Chunk(b, max(piece, 1)) {
			if piece == 0 {
				p = b
			}
			if _, err := f.Write(p); err != nil || piece == 0 {
				return
			}
		}
	}
}

// finish ends what this end sends.
func (f *framer) finish() { f.out <- f.closeWrite }

// next returns the next frame.
func (f *framer) next() frame {
	f.Helper()
	fr, ok := <-f.got
	if !ok {
		require.NoError(f, f.ends, "the stream has ended")
	}
	return fr
}

// rest returns the frames until the end of the stream, which must be orderly.
func (f *framer) rest() []frame {
	f.Helper()
	var all []frame
	for fr := range f.got {
		all = append(all, fr)
		if fr.op == opClose {
			f.finish() // a peer that is done
		}
	}
	// A server of HTTP/1.1 has closed all. One of HTTP/2 resets what is left of a
	// request when it is done, and the client does so too.
	if !errors.Is(f.ends, io.ErrClosedPipe) && !strings.Contains(f.ends.Error(), "NO_ERROR") {
		require.Equal(f, io.EOF, f.ends, "how the stream ends")
	}
	return all
}

// silent reports whether nothing comes for a second.
func (f *framer) silent() bool {
	select {
	case <-f.got:
		return false
	case <-time.After(time.Second):
		return true
	}
}

// closing returns a Close frame.
func closing(code uint16, reason string) frame {
	return frame{op: opClose, content: string(binary.BigEndian.AppendUint16(nil, code)) + reason}
}

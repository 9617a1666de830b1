package mqtt

import (
	"errors"
	"io"
	"sync"

	"github.com/anyquic/anyquic/mqtt/packet"
)

const (
	idleBuffer  = 1 << 10  // bytes that every Reader holds
	burstBuffer = 64 << 10 // bytes that a Reader borrows while more than that arrives at once
)

var burstBuffers = sync.Pool{New: func() any { return new([burstBuffer]byte) }}

// A Reader splits what a [Stream] delivers into control packets.
//
// It is made for many connections that are mostly silent: between packets it
// holds one kibibyte; while a burst or a large packet arrives it borrows more,
// and beyond that its buffer grows only as bytes arrive, never because a header
// announced them. A Reader is for one goroutine.
type Reader struct {
	src    io.Reader
	max    int // largest packet with its header, bytes
	idle   []byte
	burst  *[burstBuffer]byte // borrowed; nil: none
	buf    []byte             // idle, burst[:] or one made for a large packet
	pos    int                // buf[pos:end] has been read and not returned
	end    int
	full   bool // the last read filled the buffer: more is likely waiting
	header packet.Header
	hlen   int // length of header at pos; 0: not parsed
}

// NewReader returns a Reader of src that refuses packets larger than maxPacket
// bytes, header included. Zero means that only the protocol's maximum holds.
func NewReader(src io.Reader, maxPacket uint32) *Reader {
	r := &Reader{src: src, idle: make([]byte, idleBuffer)}
	r.buf = r.idle
	r.SetMaxPacket(maxPacket)
	return r
}

// SetMaxPacket changes the largest packet that Next accepts, as in [NewReader].
func (r *Reader) SetMaxPacket(maxPacket uint32) {
	if maxPacket == 0 || maxPacket > packet.MaxRemainingLength {
		maxPacket = packet.MaxRemainingLength + 5
	}
	r.max = int(maxPacket)
}

// Next returns the next packet's header and body, which is valid until the next
// call. It blocks until the packet is complete.
//
// The error is io.EOF if the stream ended between packets,
// io.ErrUnexpectedEOF within one, a [*packet.Error] for a malformed header or,
// with packet.PacketTooLarge, for a packet above the maximum before any of its
// body is kept; otherwise it is the stream's.
func (r *Reader) Next() (packet.Header, []byte, error) {
	for {
		ok, err := r.parse()
		if err != nil {
			return packet.Header{}, nil, err
		}
		if ok {
			body := r.buf[r.pos+r.hlen : r.pos+r.hlen+r.header.Length]
			r.pos += r.hlen + r.header.Length
			r.hlen = 0
			return r.header, body, nil
		}
		r.makeRoom()
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		r.full = r.end == len(r.buf)
		if n > 0 {
			continue // an error comes again with the next read
		}
		if errors.Is(err, io.EOF) && r.pos < r.end {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return packet.Header{}, nil, err
		}
	}
}

// Ready reports whether Next would return without reading from the stream.
func (r *Reader) Ready() bool {
	ok, err := r.parse()
	return ok || err != nil
}

// Buffered returns how many bytes were read from the stream and not returned by
// Next.
func (r *Reader) Buffered() int { return r.end - r.pos }

// Release gives back what the Reader borrowed. The Reader and the body that it
// returned last must not be used again.
func (r *Reader) Release() {
	r.useIdle()
	r.pos, r.end = 0, 0
}

// parse reports whether a complete packet is buffered.
func (r *Reader) parse() (bool, error) {
	if r.hlen == 0 {
		h, n, err := packet.ParseHeader(r.buf[r.pos:r.end])
		if err != nil {
			return false, err
		}
		if n == 0 {
			return false, nil
		}
		if n+h.Length > r.max {
			return false, &packet.Error{Code: packet.PacketTooLarge, Reason: "packet larger than the maximum packet size"}
		}
		r.header, r.hlen = h, n
	}
	return r.end-r.pos >= r.hlen+r.header.Length, nil
}

// makeRoom prepares buf for a read that may block for long: it holds no more
// than what the bytes at hand need, unless more is likely on its way.
func (r *Reader) makeRoom() {
	rest := r.buf[r.pos:r.end]
	switch {
	case !r.full && len(rest) < idleBuffer:
		if len(r.buf) > idleBuffer {
			copy(r.idle, rest)
			r.useIdle()
			r.pos, r.end = 0, len(rest)
			return
		}
	case len(rest) == len(r.buf) || len(r.buf) == idleBuffer:
		r.grow(rest)
		return
	case len(r.buf) > burstBuffer && len(rest) < burstBuffer:
		r.borrow(rest)
		return
	}
	if r.pos > 0 {
		copy(r.buf, rest)
		r.pos, r.end = 0, len(rest)
	}
}

func (r *Reader) grow(rest []byte) {
	if len(rest) < burstBuffer {
		r.borrow(rest)
		return
	}
	buf := make([]byte, min(2*len(rest), r.hlen+r.header.Length))
	copy(buf, rest)
	r.useIdle()
	r.buf, r.pos, r.end = buf, 0, len(rest)
}

// borrow moves rest to a burst buffer.
func (r *Reader) borrow(rest []byte) {
	if r.burst == nil {
		r.burst = burstBuffers.Get().(*[burstBuffer]byte)
	}
	n := copy(r.burst[:], rest)
	r.buf, r.pos, r.end = r.burst[:], 0, n
}

func (r *Reader) useIdle() {
	if r.burst != nil {
		burstBuffers.Put(r.burst)
		r.burst = nil
	}
	r.buf = r.idle
}

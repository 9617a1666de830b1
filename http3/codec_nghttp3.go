//go:build ngtcp2 && cgo

package http3

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anyquic/anyquic/nghttp3"
	"github.com/anyquic/anyquic/transport"
)

const (
	// dynamicTable is the size in bytes of the table that the peer's encoder may
	// fill. It is what others allow, and costs a connection as much C memory.
	dynamicTable = 4 << 10

	// maxEncoderBacklog is how many bytes may wait for the encoder stream before
	// nothing more is put into the peer's table.
	maxEncoderBacklog = 16 << 10

	// maxDecoderBacklog is how many bytes may wait for the decoder stream before a
	// peer that leaves it unread, and makes more, has lost the connection.
	maxDecoderBacklog = 64 << 10
)

var nghttp3Kind = codecKind{
	info: CodecInfo{
		Name:         "nghttp3",
		DynamicTable: true,
		Versions:     map[string]string{"nghttp3": nghttp3.Version()},
	},
	make: newNghttp3Codec,
}

func newNghttp3Codec(cfg codecConfig) (codec, error) { return newNghttp3CodecSize(cfg, dynamicTable) }

// newNghttp3CodecSize makes a codec that allows the peer a table of that many bytes.
func newNghttp3CodecSize(cfg codecConfig, table uint32) (codec, error) {
	coder, err := nghttp3.New(table)
	if err != nil {
		return nil, err
	}
	said := new(atomic.Bool)
	return newFraming(cfg, said, &nghttp3Table{said: said, table: table, coder: coder}), nil
}

// An nghttp3Table is the compression by libnghttp3, with a dynamic table in both
// directions. Where that cannot serve, sections are encoded and decoded as in
// staticTable, which is always allowed: before the peer's settings are known, when
// it allows no table or does not acknowledge, for literals that libnghttp3 does not
// read, and after the end of the connection.
type nghttp3Table struct {
	said  *atomic.Bool
	table uint32 // bytes that the peer's encoder may fill

	// Of the peer's settings and its decoder stream; one caller at a time. Until
	// the peer's encoder is known to have a table, and within an instruction that
	// began before, the stream is that of a static table.
	settled bool
	early   decoderStreamReader

	mu    sync.Mutex
	coder *nghttp3.Coder     // guarded by mu
	out   [ownStreams][]byte // not of ownControl; guarded by mu
	begun [ownStreams]bool   // the stream's type was said; guarded by mu
}

func (c *nghttp3Table) capacity() uint64 { return uint64(c.table) }

func (c *nghttp3Table) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coder.Close()
	c.out = [ownStreams][]byte{}
}

func (c *nghttp3Table) pending(own ownStream, dst []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	dst = append(dst, c.out[own]...)
	c.out[own] = c.out[own][:0]
	return dst
}

func (c *nghttp3Table) unsent(own ownStream, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out[own] = slices.Concat(p, c.out[own])
	c.said.Store(true)
}

// say appends p to what is pending. A stream that nothing was said on yet begins with
// its type. mu is held.
func (c *nghttp3Table) say(own ownStream, p []byte) {
	if len(p) == 0 {
		return
	}
	if !c.begun[own] {
		c.begun[own] = true
		typ := uint64(streamEncoder)
		if own == ownDecoder {
			typ = streamDecoder
		}
		c.out[own] = appendVarint(c.out[own], typ)
	}
	c.out[own] = append(c.out[own], p...)
	c.said.Store(true)
}

func (c *nghttp3Table) appendFields(dst []byte, id transport.StreamID, fields []field) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out[ownEncoder]) > maxEncoderBacklog {
		return appendFields(dst, fields)
	}
	for _, f := range fields {
		c.coder.Add(f.name, f.value)
	}
	prefix, section, err := c.coder.Encode(int64(id))
	if err != nil {
		return appendFields(dst, fields)
	}
	dst = slices.Grow(dst, 16+len(prefix)+len(section))
	dst = appendVarint(dst, frameHeaders)
	dst = appendVarint(dst, uint64(len(prefix)+len(section)))
	dst = append(append(dst, prefix...), section...)
	c.say(ownEncoder, c.coder.EncoderStream())
	c.coder.Trim()
	return dst
}

func (c *nghttp3Table) decodeFields(dst []field, id transport.StreamID, p []byte, limit uint64) ([]field, error) {
	if oversized(p) {
		return c.decodeOversized(dst, id, p, limit)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.coder.Decode(int64(id), p, limit)
	switch {
	case err == nil:
		dst = slices.Grow(dst, c.coder.Len())
		for name, value := range c.coder.Fields() {
			dst = append(dst, field{name, value})
		}
		err = c.reply()
	case errors.Is(err, nghttp3.ErrLimit):
		if err = c.reply(); err == nil {
			err = &Error{Code: ErrExcessiveLoad, Reason: "field section over the limit", Err: errFieldsTooLarge}
		}
	case errors.Is(err, nghttp3.ErrMalformed):
		// https://www.rfc-editor.org/rfc/rfc9204#section-2.2.3
		err = connError(ErrQPACKDecompression, "%v", err)
	case errors.Is(err, nghttp3.ErrClosed):
		return decodeFields(dst, p, limit)
	default:
		err = connError(ErrInternal, "%v", err)
	}
	c.coder.Trim()
	return dst, err
}

// reply takes what the coder has to say to the peer's encoder. mu is held.
func (c *nghttp3Table) reply() error {
	c.say(ownDecoder, c.coder.DecoderStream())
	if n := len(c.out[ownDecoder]); n > maxDecoderBacklog {
		return connError(ErrExcessiveLoad, "%d bytes of the decoder stream are not taken", n)
	}
	return nil
}

// oversized reports whether a section has a literal that libnghttp3 does not read:
// a name or a value as long is not forbidden. What is malformed is not oversized.
//
// https://www.rfc-editor.org/rfc/rfc9204#section-4.5
func oversized(p []byte) bool {
	if len(p) <= nghttp3.MaxName {
		return false
	}
	_, p, ok := sectionPrefix(p)
	var n uint64
	for ok && len(p) > 0 {
		b := p[0]
		switch {
		case b&0x80 != 0: // indexed field line
			_, p, ok = prefixInteger(p, 6)
			continue
		case b&0xf0 == 0x10: // with post-base index
			_, p, ok = prefixInteger(p, 4)
			continue
		case b&0xc0 == 0x40: // literal with name reference
			_, p, ok = prefixInteger(p, 4)
		case b&0xf0 == 0x00: // with post-base name reference
			_, p, ok = prefixInteger(p, 3)
		default: // with literal name
			if n, p, ok = prefixInteger(p, 3); !ok || n > uint64(len(p)) {
				return false
			}
			if n > nghttp3.MaxName {
				return true
			}
			p = p[n:]
		}
		if !ok {
			return false
		}
		if n, p, ok = prefixInteger(p, 7); !ok || n > uint64(len(p)) {
			return false
		}
		if n > nghttp3.MaxValue {
			return true
		}
		p = p[n:]
	}
	return false
}

// decodeOversized decodes a section with a literal that libnghttp3 does not read, if
// it does not refer to the dynamic table.
func (c *nghttp3Table) decodeOversized(dst []field, id transport.StreamID, p []byte, limit uint64) ([]field, error) {
	c.mu.Lock()
	inserts := c.coder.Inserts()
	c.mu.Unlock()
	if insertCount, _, _ := sectionPrefix(p); insertCount == 0 || inserts == 0 {
		return decodeFields(dst, p, limit)
	}
	c.cancel(id)
	// https://www.rfc-editor.org/rfc/rfc9204#section-7.4
	return dst, streamError(ErrQPACKDecompression, "literal of more than %d bytes, or name of more than %d, beside a reference to the dynamic table",
		nghttp3.MaxValue, nghttp3.MaxName)
}

// cancel implements compression. Without an insert of the peer there is nothing that
// it could wait for.
func (c *nghttp3Table) cancel(id transport.StreamID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.coder.Inserts() == 0 || len(c.out[ownDecoder]) > maxDecoderBacklog {
		return
	}
	if c.coder.Cancel(int64(id)) == nil {
		c.say(ownDecoder, c.coder.DecoderStream())
	}
}

func (c *nghttp3Table) setPeer(capacity uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Without memory there is no encoder: that is the peer's disadvantage only.
	_ = c.coder.SetPeer(capacity)
	c.settled = capacity > 0
	return nil
}

func (c *nghttp3Table) encoderStream(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.coder.ReadEncoder(p)
	switch {
	case err == nil:
		return c.reply()
	case errors.Is(err, nghttp3.ErrMalformed):
		return connError(ErrQPACKEncoderStream, "%v", err)
	}
	return connError(ErrInternal, "%v", err)
}

func (c *nghttp3Table) decoderStream(p []byte) error {
	for len(p) > 0 && (!c.settled || c.early.more) {
		if err := c.early.receive(p[:1]); err != nil {
			return err
		}
		p = p[1:]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.coder.ReadDecoder(p)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nghttp3.ErrMalformed):
		return connError(ErrQPACKDecoderStream, "%v", err)
	}
	return connError(ErrInternal, "%v", err)
}

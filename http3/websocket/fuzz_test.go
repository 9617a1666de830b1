package websocket

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// A memoryDuplex reads bytes that are there, and keeps what is written.
type memoryDuplex struct {
	*bytes.Reader
	out     bytes.Buffer
	aborted bool
}

func (d *memoryDuplex) Write(p []byte) (int, error)     { return d.out.Write(p) }
func (d *memoryDuplex) SetReadDeadline(time.Time) error { return nil }
func (d *memoryDuplex) CloseWrite() bool                { return true }
func (d *memoryDuplex) close()                          {}
func (d *memoryDuplex) abort()                          { d.aborted = true }
func (d *memoryDuplex) LocalAddr() net.Addr             { return nil }
func (d *memoryDuplex) RemoteAddr() net.Addr            { return nil }

// Whatever comes, a Conn ends with a reason, gives away no message that is over
// the limit or no text, and ends its own side as that reason says.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x81\x05Hello\x88\x02\x03\xe8"), false)
	f.Add([]byte("\x01\x03Hel\x89\x00\x80\x02lo"), false)
	f.Add([]byte("\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"), true)
	f.Add([]byte("\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00\x8a\x01x"), true)
	f.Add([]byte("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), false)
	f.Add([]byte("\x82\x7e\x01\x00"), false)
	f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"), false)
	f.Fuzz(func(t *testing.T, b []byte, compress bool) {
		for _, client := range []bool{true, false} {
			const limit = 1000
			d := &memoryDuplex{Reader: bytes.NewReader(b)}
			c := newConn(d, config{client: client, compress: compress, readLimit: limit})
			total := 0
			for {
				typ, p, err := c.Read(context.Background())
				if err != nil {
					var e *CloseError
					require.ErrorAs(t, err, &e)
					break
				}
				require.LessOrEqual(t, len(p), limit)
				require.True(t, typ == Binary || typ == Text && utf8.Valid(p))
				total++
			}
			require.LessOrEqual(t, total, len(b)/2)
			<-c.ctx.Done()
			c.wg.Wait()
			e := context.Cause(c.ctx).(*CloseError)
			require.Equal(t, e.Code == StatusAbnormal && !e.Remote, d.aborted)
			if !d.aborted {
				require.True(t, e.Code.onWire() || e.Code == StatusNoStatus && e.Remote)
				require.Contains(t, d.out.String(), "\x88")
			}
		}
	})
}

func FuzzTextCheck(f *testing.F) {
	f.Add([]byte("Gr\xc3\xbc\xc3\x9fe \xe2\x98\x83 \xf0\x9f\x8c\x8d"), uint8(3))
	f.Add([]byte("\xf4\x90\x80\x80"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		var c textCheck
		ok := true
		for rest := b; len(rest) > 0 && ok; {
			n := min(int(size%7)+1, len(rest))
			ok = c.add(rest[:n])
			rest = rest[n:]
		}
		require.Equal(t, utf8.Valid(b), ok && c.complete())
		if ok {
			return
		}
		// It must not have been possible to say so earlier than at the last byte
		// of what was added one by one.
		var one textCheck
		for i := range b {
			if !one.add(b[i : i+1]) {
				require.False(t, utf8.Valid(b[:i+1]))
				prefix := b[:i]
				for len(prefix) > 0 && !utf8.Valid(prefix) {
					prefix = prefix[:len(prefix)-1]
				}
				require.Less(t, i-len(prefix), utf8.UTFMax, "seen too late")
				return
			}
		}
	})
}

func FuzzHandshake(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits=15", "https://a.example", "mqtt, chat")
	f.Add("permessage-deflate;server_max_window_bits=\"10\"", "null", ",,")
	f.Fuzz(func(t *testing.T, extensions, origin, protocols string) {
		h := http.Header{headerExtensions: {extensions}, "Origin": {origin}, headerProtocol: {protocols}}
		if a := chooseDeflate(h); a != "" {
			ok, err := checkDeflate(http.Header{headerExtensions: {a}}, true)
			require.NoError(t, err)
			require.True(t, ok)
		}
		_, _ = checkDeflate(h, true)
		r := &http.Request{Host: "b.example", Header: h}
		if checkOrigin(r, []string{"*.a.example", "https://c.example"}) == nil && origin != "" {
			require.Regexp(t, `(?i)b\.example|a\.example|c\.example`, origin)
		}
		if p := chooseSubprotocol(h, []string{"mqtt"}); p != "" {
			require.Contains(t, protocols, "mqtt")
		}
	})
}

func FuzzCloseFrame(f *testing.F) {
	f.Add([]byte("\x03\xe8bye"))
	f.Add([]byte("\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		code, reason, ok := parseClose(b)
		if ok {
			require.Equal(t, b, append([]byte{}, appendClose(nil, &CloseError{Code: code, Reason: reason})...))
		}
		cut := cutReason(reason)
		require.True(t, utf8.ValidString(cut) && len(cut) <= maxReason)
	})
}

var _ io.Reader = (*memoryDuplex)(nil)

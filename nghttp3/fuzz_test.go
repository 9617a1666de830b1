//go:build ngtcp2 && cgo

package nghttp3

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzNghttp3Receive gives a coder what a peer can give it, in any order. Each step of
// the script is a byte that says what, a length, and that many bytes.
func FuzzNghttp3Receive(f *testing.F) {
	step := func(what byte, p ...byte) []byte { return append([]byte{what, byte(len(p))}, p...) }
	a, err := New(4096)
	require.NoError(f, err)
	defer a.Close()
	require.NoError(f, a.SetPeer(4096))
	b, err := New(4096)
	require.NoError(f, err)
	defer b.Close()
	var script []byte
	for i := range int64(3) {
		section, instructions := encode(f, a, 4*i, request)
		script = append(script, step(0, instructions...)...)
		script = append(script, step(1, section...)...)
		require.NoError(f, b.ReadEncoder(instructions))
		require.NoError(f, a.ReadDecoder(b.DecoderStream()))
	}
	f.Add(script)
	f.Add(bytes.Join([][]byte{
		step(0, 0x3f, 0xe1, 0x1f, 0xc0, 1, 'a', 0x41, 'b', 1, 'c', 0x00, 0x80, 1, 'd'), step(1, 5, 0, 0x80, 0x81, 0x82, 0x83),
		step(3), step(3), step(2, 0x01, 0x80, 0x40), step(1, 3, 0x80, 0x10, 0x00, 1, 'a'), step(4), step(0, 0x20), step(1, 5, 0, 0x80),
	}, nil))
	f.Fuzz(func(t *testing.T, script []byte) {
		const limit = 5000
		before := Memory()
		c, err := New(4096)
		require.NoError(t, err)
		require.NoError(t, c.SetPeer(300))
		for i := int64(0); len(script) >= 2; i++ {
			what := script[0]
			n := min(int(script[1]), len(script)-2)
			p := bytes.Clone(script[2 : 2+n])
			script = script[2+n:]
			switch what % 5 {
			case 0:
				err = c.ReadEncoder(p)
			case 1:
				if err = c.Decode(i, p, limit); err == nil {
					size := 0
					for name, value := range c.Fields() {
						size += len(name) + len(value) + 32
					}
					require.LessOrEqual(t, size, limit)
				}
			case 2:
				err = c.ReadDecoder(p)
			case 3:
				c.Add("server", string(p))
				c.Add("x", "y")
				_, _, err = c.Encode(i % 3)
			case 4:
				err = c.Cancel(i)
				c.Trim()
			}
			require.Less(t, Memory()-before, int64(400<<10))
			if err != nil && err != ErrLimit && err != ErrNoEncoder {
				require.ErrorIs(t, err, ErrMalformed)
				break // the connection has ended
			}
		}
		c.Close()
		require.Equal(t, before, Memory())
	})
}

//go:build ngtcp2 && cgo && !system

package nghttp3

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// libnghttp3 asserts that a stream's number is not negative.
func TestAnAssertionThatFailsEndsTheCoderOnly(t *testing.T) {
	for name, breaks := range map[string]func(*Coder) error{
		"encode": func(c *Coder) error { _, _, err := c.Encode(-1); return err },
		"decode": func(c *Coder) error { return c.Decode(-1, []byte{0, 0}, 100) },
		"cancel": func(c *Coder) error { return c.Cancel(-1) },
	} {
		t.Run(name, func(t *testing.T) {
			memory, leaked := Memory(), Leaked()
			c, err := New(4096)
			require.NoError(t, err)
			require.NoError(t, c.SetPeer(4096))
			require.ErrorContains(t, breaks(c), "assertion failed: stream_id >= 0")
			require.NotErrorIs(t, err, ErrMalformed)

			require.ErrorContains(t, c.Decode(0, []byte{0, 0, 0xd1}, 100), "assertion failed", "it is not entered again")
			c.Add("a", "b")
			_, _, err = c.Encode(0)
			require.ErrorContains(t, err, "assertion failed")
			require.Error(t, c.ReadEncoder([]byte{0x20}))
			c.Trim()
			c.Close()
			require.Equal(t, leaked+1, Leaked())
			require.Greater(t, Memory(), memory, "nor to be freed")

			other := newCoder(t, 4096)
			require.NoError(t, other.Decode(0, []byte{0, 0, 0xd1}, 100), "others go on")
		})
	}
}

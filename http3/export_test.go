package http3

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// UseCodec makes the named codec serve every connection until the test ends, and
// returns a function that counts the connections since.
func UseCodec(t testing.TB, name string) func() int64 {
	var n atomic.Int64
	before := codecs
	t.Cleanup(func() { codecs = before })
	for _, k := range before {
		if k.info.Name == name {
			counted := k
			counted.make = func(cfg codecConfig) (codec, error) {
				n.Add(1)
				return k.make(cfg)
			}
			codecs = []codecKind{counted}
			return n.Load
		}
	}
	require.FailNow(t, "no codec", name)
	return nil
}

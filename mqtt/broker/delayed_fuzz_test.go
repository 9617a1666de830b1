package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func FuzzDelayedTopics(f *testing.F) {
	for _, s := range []string{"$delayed/5/x", "$delayed/", "$delayed/4294967296/x", "$delayed//", "x"} {
		f.Add(s)
	}
	limit := Delayed{MaxDelay: time.Hour}
	f.Fuzz(func(t *testing.T, name string) {
		prefix, target := splitDelayed(name)
		require.Equal(t, name, prefix+target)
		require.Equal(t, strings.HasPrefix(name, "$delayed/"), prefix != "")
		if delay, ok := limit.delayOf(prefix); ok {
			require.True(t, 0 <= delay && delay <= time.Hour)
			require.True(t, target == "" || strings.Count(prefix, "/") == 2, "a prefix that lacks its end has no topic behind it")
		}
	})
}

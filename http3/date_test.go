package http3

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDateIsTheTimeOfEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 {
			require.Equal(t, time.Now().UTC().Format(http.TimeFormat), dateNow())
			time.Sleep(300 * time.Millisecond)
		}
	})
}

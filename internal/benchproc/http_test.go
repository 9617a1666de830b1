package benchproc

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnHTTPServerToMeasureSendsAndCounts(t *testing.T) {
	for _, tt := range []struct {
		method, path, body string
		status, length     int
		want               string
	}{
		{http.MethodGet, "/bytes/100000", "", http.StatusOK, 100000, ""},
		{http.MethodGet, "/bytes/0", "", http.StatusOK, 0, ""},
		{http.MethodGet, "/bytes/-1", "", http.StatusBadRequest, 0, "not a number of bytes: -1\n"},
		{http.MethodPost, "/sink", strings.Repeat("x", 70000), http.StatusOK, 0, "70000"},
	} {
		w := httptest.NewRecorder()
		HTTPHandler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
		require.Equal(t, tt.status, w.Code, tt.path)
		if tt.want != "" {
			require.Equal(t, tt.want, w.Body.String())
		} else {
			require.Equal(t, tt.length, w.Body.Len())
		}
	}
}

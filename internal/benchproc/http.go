package benchproc

import (
	"io"
	"net/http"
	"strconv"
)

// HTTPHandler is what an HTTP server to measure answers: GET /bytes/N with N
// bytes, POST /sink with how many came.
func HTTPHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes/{n}", source)
	mux.HandleFunc("POST /sink", sink)
	return mux
}

func source(w http.ResponseWriter, r *http.Request) {
	left, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err != nil || left < 0 {
		http.Error(w, "not a number of bytes: "+r.PathValue("n"), http.StatusBadRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(left, 10))
	for left > 0 {
		n, err := w.Write(zeros[:min(left, Chunk)])
		if err != nil {
			return // the client reports what it misses
		}
		left -= int64(n)
	}
}

var zeros [Chunk]byte

func sink(w http.ResponseWriter, r *http.Request) {
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, Chunk))
	if err != nil {
		return
	}
	_, _ = io.WriteString(w, strconv.FormatInt(n, 10)) // the client reports what it misses
}

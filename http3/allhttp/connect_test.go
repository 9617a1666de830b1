package allhttp_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/transport"
)

const debugHTTP2 = "http2xconnect=1"

// TestExtendedCONNECTWorksOverHTTP3AndWhereNetHTTPAllowsOverHTTP2 runs itself
// once more with the GODEBUG that the package comment names.
func TestExtendedCONNECTWorksOverHTTP3AndWhereNetHTTPAllowsOverHTTP2(t *testing.T) {
	allowed := strings.Contains(os.Getenv("GODEBUG"), debugHTTP2)
	engines(t, func(t *testing.T, e transport.Transport) {
		s := open(t, &allhttp.Server{Engine: e, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodConnect || r.ProtoMajor == 2 && r.Header.Get(":protocol") != "echo" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			if r.ProtoMajor == 3 {
				stream, err := http3.TakeStream(w)
				if noError(t, err) {
					_, _ = io.Copy(stream, stream)
					_ = stream.Close()
				}
				return
			}
			rc := http.NewResponseController(w)
			_ = rc.Flush()
			for buf := make([]byte, 1024); ; {
				n, err := r.Body.Read(buf)
				_, _ = w.Write(buf[:n])
				_ = rc.Flush()
				if err != nil {
					return
				}
			}
		})})
		for _, versions := range []allhttp.Versions{allhttp.HTTP2, allhttp.HTTP3} {
			tr := &allhttp.Transport{Engine: e, Versions: versions, QUIC: patient, Base: &http.Transport{TLSClientConfig: s.ca.Client("localhost")}}
			defer func() { require.NoError(t, tr.Close()) }()
			read, write := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, s.url()+"/", nil)
			require.NoError(t, err)
			if versions == allhttp.HTTP2 {
				req.Body = read
			}
			req.Header[":protocol"] = []string{"echo"}
			resp, err := tr.RoundTrip(req)
			if versions == allhttp.HTTP2 && !allowed {
				require.ErrorContains(t, err, "extended connect not supported")
				continue
			}
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			var to io.WriteCloser = write
			var from io.Reader = resp.Body
			if stream, ok := http3.ResponseStream(resp); ok {
				to, from = stream, stream
			} else {
				require.Equal(t, proto2, resp.Proto)
			}
			for _, text := range []string{"there", "and back"} {
				_, err = io.WriteString(to, text)
				require.NoError(t, err)
				buf := make([]byte, len(text))
				_, err = io.ReadFull(from, buf)
				require.NoError(t, err)
				require.Equal(t, text, string(buf))
			}
			require.NoError(t, to.Close())
			rest, err := io.ReadAll(from)
			require.NoError(t, err)
			require.Empty(t, rest)
			require.NoError(t, resp.Body.Close())
		}
	})
	if allowed {
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG="+debugHTTP2)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
}

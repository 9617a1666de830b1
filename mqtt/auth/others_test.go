package auth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt/auth"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestAVerifiedCertificateNamesTheUser(t *testing.T) {
	leaf := &x509.Certificate{
		Subject: pkix.Name{CommonName: "device-1"}, DNSNames: []string{"d1.example"}, EmailAddresses: []string{"d1@example"},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "example", Path: "/d1"}}, NotAfter: time.Now().Add(time.Hour),
	}
	verified := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
	for from, want := range map[string]string{"cn": "device-1", "dns": "d1.example", "uri": "spiffe://example/d1", "email": "d1@example"} {
		n, err := auth.ParseNameFrom(from)
		require.NoError(t, err)
		id := admits(t, auth.Certificate{From: n}, withTLS(verified), want)
		require.Equal(t, leaf.NotAfter, id.Expires)
		nameless := &x509.Certificate{}
		refuses(t, auth.Certificate{From: n}, withTLS(&tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{nameless}}}), packet.NotAuthorized, "no name")
	}
	_, err := auth.ParseNameFrom("serial")
	require.ErrorContains(t, err, `"serial"`)
	passes(t, auth.Certificate{}, withTLS(nil))
	passes(t, auth.Certificate{}, withTLS(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})) // not verified
}

type fixed struct {
	id  broker.Identity
	err error
}

func (f fixed) Authenticate(context.Context, *broker.Credentials) (broker.Identity, error) {
	return f.id, f.err
}

func TestAChainAsksUntilSomeoneKnowsTheClient(t *testing.T) {
	failure := errors.New("no backend")
	users := scramUsers(t, "user:"+scramOfPencil)
	last := fixed{id: broker.Identity{Username: "last"}}
	c := auth.Chain{auth.Certificate{}, users, last}
	admits(t, c, password("user", "pencil"), "user")
	refuses(t, c, password("user", "pen"), packet.BadUserNameOrPassword, "wrong") // the last is not asked
	admits(t, c, password("other", "pen"), "last")
	refuses(t, c[:2], password("other", "pen"), packet.BadUserNameOrPassword, "unknown user")
	_, err := auth.Chain{fixed{err: failure}, last}.Authenticate(t.Context(), password("a", "b"))
	require.ErrorIs(t, err, failure, "a failure is not a reason to ask the next")
	require.NotNil(t, c.NewExchange(auth.SCRAMSHA256, &broker.Credentials{}))
	require.Nil(t, c.NewExchange("other", &broker.Credentials{}))
	require.NoError(t, c.Reload())

	c = auth.Chain{users, auth.Anonymous{}}
	admits(t, c, &broker.Credentials{}, "")
	refuses(t, c, password("other", "pen"), packet.BadUserNameOrPassword, "unknown user")
	admits(t, auth.Anonymous{Everyone: true}, password("other", "pen"), "")
}

// patience is what a question to a web server may take on a busy machine.
const patience = time.Minute

func webServer(t *testing.T, answer func(w http.ResponseWriter, q map[string]any)) (*auth.Web, *httptest.Server) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q map[string]any
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || json.NewDecoder(r.Body).Decode(&q) != nil {
			http.Error(w, "?", http.StatusBadRequest)
			return
		}
		answer(w, q)
	}))
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	web, err := auth.NewWeb(auth.WebConfig{
		URL: s.URL + "/auth?key=hidden", TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Timeout: patience, Rest: time.Hour,
	})
	require.NoError(t, err)
	t.Cleanup(func() { web.Close() })
	return web, s
}

func TestAWebServerIsAskedAndObeyed(t *testing.T) {
	var asked map[string]any
	reply := ""
	web, _ := webServer(t, func(w http.ResponseWriter, q map[string]any) {
		asked = q
		io.WriteString(w, reply)
	})
	c := password("alice", "secret")
	c.Client.ClientID, c.Client.Version, c.Client.Carrier, c.Client.Remote = "c1", packet.V5, "quic", tcp("192.0.2.1:47")
	c.Client.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "cn"}}}}}
	reply = `{"result":"allow"}`
	require.Zero(t, admits(t, web, c, "alice").Expires)
	require.Equal(t, map[string]any{
		"client_id": "c1", "username": "alice", "password": "secret", "remote": "192.0.2.1:47", "carrier": "quic", "version": 5.0, "certificate": "cn",
	}, asked)
	reply = `{"result":"allow","username":"Alice","expires":4102444800}`
	require.Equal(t, time.Unix(4102444800, 0), admits(t, web, c, "Alice").Expires)
	reply = `{"result":"deny"}`
	refuses(t, web, c, packet.NotAuthorized, "web server")
	reply = `{"result":"ignore"}`
	passes(t, web, password("a", "\xff\x00"))
	require.Equal(t, "/wA=", asked["password_base64"])
	require.NotContains(t, asked, "password")
	passes(t, web, &broker.Credentials{})
	require.NotContains(t, asked, "username")
}

func TestAWebServerThatFailsDeniesAndIsLeftAloneForAWhile(t *testing.T) {
	var calls atomic.Int64
	var answer atomic.Value
	answer.Store(http.HandlerFunc(http.NotFound))
	web, s := webServer(t, func(w http.ResponseWriter, _ map[string]any) {
		calls.Add(1)
		answer.Load().(http.HandlerFunc)(w, nil)
	})
	ask := func() error {
		_, err := web.Authenticate(t.Context(), password("alice", "secret"))
		require.Error(t, err)
		var d *broker.Denied
		require.False(t, errors.As(err, &d), "a failure is no decision")
		require.NotContains(t, err.Error(), "secret")
		require.NotContains(t, err.Error(), "hidden")
		return err
	}
	require.ErrorContains(t, ask(), "status 404")
	for _, body := range []string{"", "null", `{"result":"maybe"}`, "[]"} {
		answer.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
		ask()
	}
	n := calls.Load()
	require.EqualValues(t, 5, n)
	require.ErrorContains(t, ask(), "left alone after 5 failures")
	require.Equal(t, n, calls.Load())
	s.Close()

	// A redirect, an endless answer and nobody there.
	web, s = webServer(t, func(w http.ResponseWriter, _ map[string]any) {
		w.Header().Set("Location", "https://example.com/")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	require.ErrorContains(t, ask(), "status 307")
	s.Close()
	ask()
	web, _ = webServer(t, func(w http.ResponseWriter, _ map[string]any) { w.Write(make([]byte, 100<<10)) })
	require.ErrorContains(t, ask(), "above")
}

// The transport needs no network when the server cannot be reached, so the rest
// can be waited for in virtual time.
func TestAWebServerThatIsBackIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web, err := auth.NewWeb(auth.WebConfig{URL: "http://127.0.0.1:1/", Failures: 2, Rest: time.Minute})
		require.NoError(t, err)
		late, cancel := context.WithTimeout(t.Context(), 0) // no attempt gets as far as a socket
		defer cancel()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		askAs := func(ctx context.Context) string {
			_, err := web.Authenticate(ctx, password("a", "b"))
			require.Error(t, err)
			return err.Error()
		}
		for range 5 { // that clients go says nothing of the server
			require.Contains(t, askAs(gone), "canceled")
		}
		ask := func() string { return askAs(late) }
		require.Contains(t, ask(), "deadline")
		require.Contains(t, ask(), "deadline")
		require.Contains(t, ask(), "left alone")
		time.Sleep(59 * time.Second)
		require.Contains(t, ask(), "left alone")
		time.Sleep(time.Second)
		require.Contains(t, askAs(gone), "canceled", "one tries, and goes")
		require.Contains(t, ask(), "deadline", "one finds out")
		require.Contains(t, ask(), "left alone after 3")
	})
}

func TestAWebServerThatIsNotSafeToAskIsRefused(t *testing.T) {
	for want, cfg := range map[string]auth.WebConfig{
		"in the clear":       {URL: "http://example.com/"},
		`scheme "ftp"`:       {URL: "ftp://example.com/"},
		"no host":            {URL: "/auth"},
		"cannot be parsed":   {URL: "https://user:secret@host:port/"},
		"must be verified":   {URL: "https://example.com/", TLS: &tls.Config{InsecureSkipVerify: true}},
		"WebConfig is negat": {URL: "https://example.com/", Timeout: -1},
	} {
		_, err := auth.NewWeb(cfg)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	defer untrusted.Close()
	web, err := auth.NewWeb(auth.WebConfig{URL: untrusted.URL, Timeout: patience})
	require.NoError(t, err)
	_, err = web.Authenticate(t.Context(), password("a", "b"))
	require.ErrorContains(t, err, "certificate")
}

func TestTheAuthoritiesOfAWebServerAreReadAgain(t *testing.T) {
	_, s := webServer(t, func(w http.ResponseWriter, _ map[string]any) { io.WriteString(w, `{"result":"allow"}`) })
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	// httptest's servers share their certificate.
	trusted := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	der, _ := testcert.New()
	foreign := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der.Certificates[0].Certificate[0]}))
	file := write(t, foreign)
	web, err := auth.NewWeb(auth.WebConfig{URL: s.URL, CAFile: file, Timeout: patience})
	require.NoError(t, err)
	t.Cleanup(func() { web.Close() })
	_, err = web.Authenticate(t.Context(), password("a", "b"))
	require.ErrorContains(t, err, "certificate")
	rewrite(t, file, trusted)
	require.NoError(t, auth.Chain{web}.Reload())
	admits(t, web, password("a", "b"), "a")
	rewrite(t, file, "?")
	require.ErrorContains(t, web.Reload(), "no PEM certificate")
	admits(t, web, password("a", "b"), "a")
	rewrite(t, file, foreign)
	require.NoError(t, web.Reload())
	_, err = web.Authenticate(t.Context(), password("a", "b"))
	require.ErrorContains(t, err, "certificate", "connections that were trusted before are not used again")

	_, err = auth.NewWeb(auth.WebConfig{URL: s.URL, CAFile: "/nowhere"})
	require.ErrorContains(t, err, "/nowhere")
	web, err = auth.NewWeb(auth.WebConfig{URL: s.URL})
	require.NoError(t, err)
	require.NoError(t, web.Reload(), "without a file there is nothing to read")
}

//go:build interop

package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testbuild"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// newBrowserIdentity makes a certificate that a page can name by its hash: with a P-256
// key, and valid for at most two weeks.
//
// https://www.w3.org/TR/webtransport/#custom-certificate-requirements
func newBrowserIdentity(t *testing.T) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "anyquic test"},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(10 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	id := &identity{
		tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"),
	}
	writePEM(t, id.certFile, "CERTIFICATE", der)
	writePEM(t, id.keyFile, "PRIVATE KEY", keyDER)
	return id
}

// hash is what serverCertificateHashes has.
func (id *identity) hash() string {
	sum := sha256.Sum256(id.cert.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// spki is how Chromium is told to trust a certificate.
func (id *identity) spki() string {
	sum := sha256.Sum256(id.cert.Leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Pages are what a browser gets and says. The page is testdata/web/page.html, and sends
// the result of its steps to /report.
type pages struct {
	http.Handler
	reports chan map[string]string
	next    chan string // where the browser goes from a page that has reported
}

func newPages(other http.Handler) *pages {
	p := &pages{reports: make(chan map[string]string, 16), next: make(chan string, 16)}
	mux := http.NewServeMux()
	mux.Handle("/", other)
	mux.Handle("/page.html", http.FileServer(http.Dir("testdata/web")))
	mux.Handle("/page.js", http.FileServer(http.Dir("testdata/web")))
	mux.HandleFunc("POST /report", func(w http.ResponseWriter, r *http.Request) {
		var results map[string]string
		if err := json.NewDecoder(r.Body).Decode(&results); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.reports <- results
		select {
		case next := <-p.next:
			fmt.Fprint(w, next)
		default:
		}
	})
	p.Handler = mux
	return p
}

// report waits for what a page has found out.
func (p *pages) report(t *testing.T, b interface{ said() string }) map[string]string {
	t.Helper()
	select {
	case r := <-p.reports:
		return r
	case <-time.After(3 * patience):
		t.Fatalf("the page reports nothing:\n%s", b.said())
		return nil
	}
}

// A webSite is a site with pages, which notes how it answers those who want to connect.
type webSite struct {
	*site
	*pages
	mu      sync.Mutex
	answers []string // guarded by mu; "PATH VERSION ORIGIN STATUS"
}

func startWebSite(t *testing.T, e transport.Transport, id *identity) *webSite {
	t.Helper()
	s := new(webSite)
	s.pages = newPages(siteHandler())
	s.site = startAllHTTPWith(t, e, id, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.pages.ServeHTTP(&noteStatus{w, func(status int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.answers = append(s.answers, fmt.Sprintf("%s %s %s %d", r.URL.Path, r.Proto, r.Header.Get("Origin"), status))
		}}, r)
	}))
	return s
}

func (s *webSite) answered() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.answers...)
}

// A noteStatus notes the status that a handler gives to a response.
type noteStatus struct {
	http.ResponseWriter
	note func(status int)
}

func (n *noteStatus) WriteHeader(status int) {
	n.note(status)
	n.ResponseWriter.WriteHeader(status)
}

func (n *noteStatus) Unwrap() http.ResponseWriter { return n.ResponseWriter }

// pageURL is the page at an origin, for a server that is to allow another origin.
func pageURL(origin, server string, id *identity, allow, steps string) string {
	return origin + "/page.html?" + url.Values{
		"server": {server}, "hash": {id.hash()}, "origin": {allow}, "steps": {steps},
	}.Encode()
}

// screenshots is a folder outside the tree for what browsers show.
func screenshots(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("ANYQUIC_SCREENSHOTS")
	if dir == "" {
		cache, err := os.UserCacheDir()
		require.NoError(t, err)
		dir = filepath.Join(cache, "anyquic", "screenshots")
	}
	require.NoError(t, os.MkdirAll(dir, 0o755))
	return dir
}

// browserWorks are the results of the steps of a page with a site.
var browserWorks = map[string]string{
	"navigation":   "h3",
	"fetch":        "intact over h3",
	"upload":       "POST 1000000 HTTP/3.0 h3 " + sumOf(pattern(1_000_000)),
	"websocket":    "echo HTTP/3.0 text binary 1000 clean",
	"webtransport": "hello from the server, bidirectional, unidirectional, datagram",
}

func TestChromiumSpeaksHTTP3WebSocketAndWebTransport(t *testing.T) {
	id := newBrowserIdentity(t)
	var sites []*webSite
	var addrs []string
	for _, e := range engine.All() {
		s := startWebSite(t, e, id)
		sites = append(sites, s)
		addrs = append(addrs, s.addr)
	}
	elsewhere := newPages(http.NotFoundHandler())
	other := httptest.NewServer(elsewhere)
	t.Cleanup(other.Close)
	b := startChromium(t,
		"--origin-to-force-quic-on="+strings.Join(addrs, ","), "--ignore-certificate-errors-spki-list="+id.spki(),
		"--enable-features=EnableWebsocketsOverHttp3")

	for _, s := range sites {
		t.Run(s.engine.Name(), func(t *testing.T) {
			ranWith(t, "web-chromium")
			t.Run("a page over HTTP/3", func(t *testing.T) {
				page := b.open(t, pageURL(s.url(""), s.url(""), id, "", "navigation,fetch,upload,websocket,webtransport"))
				require.Equal(t, browserWorks, s.report(t, b), "server %s, ALPN h3: %s", s.engine.Name(), b.log)
				page.screenshot(t)
			})
			t.Run("a page of another origin", func(t *testing.T) {
				page := b.open(t, pageURL(other.URL, s.url(""), id, "", "websocket,webtransport"))
				got := elsewhere.report(t, b)
				require.Equal(t, "error: refused", got["websocket"])
				require.Contains(t, got["webtransport"], "error: Opening handshake failed")
				for _, path := range []string{pathWS, pathWT} {
					require.Contains(t, s.answered(), path+" HTTP/3.0 "+other.URL+" 403", "server %s", s.engine.Name())
				}
				page.screenshot(t)
			})
			t.Run("a page of another origin that is allowed", func(t *testing.T) {
				b.open(t, pageURL(other.URL, s.url(""), id, other.URL, "websocket,webtransport"))
				got := elsewhere.report(t, b)
				for _, step := range []string{"websocket", "webtransport"} {
					require.Equal(t, browserWorks[step], got[step], "server %s, ALPN h3: %s", s.engine.Name(), b.log)
				}
			})
		})
	}
}

// The page publishes with MQTT over WebTransport; `anyquic mqtt sub` gets it.
func TestChromiumPublishesWithMQTTOverWebTransport(t *testing.T) {
	id := newBrowserIdentity(t)
	elsewhere := newPages(http.NotFoundHandler())
	other := httptest.NewServer(elsewhere)
	t.Cleanup(other.Close)
	b := startChromium(t)
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			ranWith(t, "web-chromium")
			s := start(t, "--engine", e.Name(), "--cert", id.certFile, "--key", id.keyFile, "--origins", other.URL)
			s.caFile = id.certFile
			run(t, s.bin, s.anyquic("pub", "quic", "-q", "1", "-r", "-t", "ready", "-m", "ready")...).wait(t)
			// WebTransport shares its UDP port with HTTPS, and with MQTT over QUIC.
			for _, shared := range []string{"wss", "quic"} {
				sub := s.subscribedAnyquic(t, "quic", "-q", "1", "-t", "browser", "-C", "2")
				page := b.open(t, pageURL(other.URL, "https://"+s.url[shared].Host, id, "", "mqtt"))
				require.Equal(t, map[string]string{"mqtt": "published"}, elsewhere.report(t, b), "server %s, port of %s: %s", e.Name(), shared, b.log)
				require.Equal(t, "hello from the browser", sub.line(t))
				sub.wait(t)
				page.screenshot(t)
			}
			require.NoError(t, s.stop(t))
		})
	}
}

// A firefox is a browser without a window, and with a profile of its own.
type firefox struct{ log *logBuffer }

func (b firefox) said() string { return b.log.String() }

// startFirefox opens a page.
func startFirefox(t *testing.T, address string) firefox {
	t.Helper()
	b := firefox{newLogBuffer(t)}
	home := t.TempDir()
	cmd := exec.Command(foreignProgram(t, "web-firefox"), "--headless", "--no-remote", "--profile", home, address)
	cmd.Env = append(testbuild.Env(), "WEB_HOME="+home)
	cmd.Stdout, cmd.Stderr = b.log, b.log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill() // and with it all that it has started
		_ = cmd.Wait()     // it was killed
	})
	return b
}

// Firefox takes a certificate by its hash for WebTransport only.
func TestFirefoxSpeaksWebTransport(t *testing.T) {
	id := newBrowserIdentity(t)
	elsewhere := newPages(http.NotFoundHandler())
	other := httptest.NewServer(elsewhere)
	t.Cleanup(other.Close)
	var sites []*webSite
	for _, e := range engine.All() {
		s := startWebSite(t, e, id)
		sites = append(sites, s)
		elsewhere.next <- pageURL(other.URL, s.url(""), id, other.URL, "webtransport")
	}
	b := startFirefox(t, <-elsewhere.next)
	for _, s := range sites {
		t.Run(s.engine.Name(), func(t *testing.T) {
			ranWith(t, "web-firefox")
			require.Equal(t, map[string]string{"webtransport": browserWorks["webtransport"]}, elsewhere.report(t, b), "server %s, ALPN h3", s.engine.Name())
		})
	}
}

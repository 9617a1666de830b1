package allhttp_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
)

// pemFiles are a certificate and its key in a directory of the test.
type pemFiles struct{ cert, key string }

func newPEMFiles(t *testing.T) pemFiles {
	t.Helper()
	dir := t.TempDir()
	return pemFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

// writeFile replaces a file as programs for certificates do.
func writeFile(t *testing.T, name string, blocks ...*pem.Block) {
	t.Helper()
	var b []byte
	for _, block := range blocks {
		b = append(b, pem.EncodeToMemory(block)...)
	}
	require.NoError(t, os.WriteFile(name+".new", b, 0o600))
	require.NoError(t, os.Rename(name+".new", name))
}

func (f pemFiles) writeCert(t *testing.T, c tls.Certificate) {
	t.Helper()
	var blocks []*pem.Block
	for _, der := range c.Certificate {
		blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	writeFile(t, f.cert, blocks...)
}

func (f pemFiles) writeKey(t *testing.T, c tls.Certificate) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(t, err)
	writeFile(t, f.key, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (f pemFiles) write(t *testing.T, c tls.Certificate) {
	t.Helper()
	f.writeCert(t, c)
	f.writeKey(t, c)
}

func TestChangedFilesAreReadAnewAndBrokenOnesAreNotUsed(t *testing.T) {
	ca := testcert.NewCA()
	first, second, third := ca.Certificate("localhost"), ca.Certificate("localhost"), ca.Certificate("localhost")
	synctest.Test(t, func(t *testing.T) {
		log := new(logBuffer)
		files := newPEMFiles(t)
		_, err := allhttp.LoadCertFiles(files.cert, files.key, nil)
		require.ErrorIs(t, err, os.ErrNotExist, "there is none to go on with")
		files.write(t, first)
		certs, err := allhttp.LoadCertFiles(files.cert, files.key, slog.New(slog.NewTextHandler(log, nil)))
		require.NoError(t, err)
		uses := func(want tls.Certificate) {
			t.Helper()
			got, err := certs.GetCertificate(nil)
			require.NoError(t, err)
			require.Equal(t, want.Certificate, got.Certificate)
		}
		uses(first)

		files.writeCert(t, second)
		uses(first) // files are looked at once a second
		time.Sleep(time.Second)
		uses(first) // the key is not there yet
		time.Sleep(time.Second)
		uses(first)
		require.Equal(t, 1, log.count("is of no use"), "what has not changed is not tried again")
		files.writeKey(t, second)
		time.Sleep(time.Second)
		uses(second)
		require.Equal(t, 1, log.count("new certificate\""))

		require.NoError(t, os.Remove(files.cert))
		time.Sleep(time.Second)
		uses(second)
		require.Equal(t, 2, log.count("is of no use"))
		files.write(t, third)
		require.NoError(t, certs.Reload())
		uses(third)

		require.NoError(t, os.WriteFile(files.cert, []byte("junk"), 0o600))
		require.Error(t, certs.Reload())
		uses(third)
	})
}

func TestACertificateOutOfItsTimeIsRefused(t *testing.T) {
	cert := testcert.NewCA().Certificate("localhost") // valid from 1999 to 2099
	files := newPEMFiles(t)
	files.write(t, cert)
	synctest.Test(t, func(t *testing.T) {
		certs, err := allhttp.LoadCertFiles(files.cert, files.key, nil)
		require.NoError(t, err)
		time.Sleep(100 * 366 * 24 * time.Hour)
		require.ErrorContains(t, certs.Reload(), "it expired on 2099-01-01")
		got, err := certs.GetCertificate(nil)
		require.NoError(t, err)
		require.Equal(t, cert.Certificate, got.Certificate)
	})
}

func TestASelfSignedCertificateServesThreeVersions(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		cfg, err := allhttp.SelfSigned("192.0.2.1")
		require.NoError(t, err)
		s := open(t, &allhttp.Server{Engine: e, TLS: cfg, Handler: answerProto})
		roots := x509.NewCertPool()
		roots.AddCert(cfg.Certificates[0].Leaf)
		for _, name := range []string{"localhost", "192.0.2.1"} {
			for _, proto := range []string{proto1, proto2, proto3} {
				_, body := get(t, clientOf(t, e, &tls.Config{RootCAs: roots, ServerName: name}, proto), s.url())
				require.Equal(t, proto, body)
			}
		}
	})
}

// leafOf returns the certificate that a new connection gets.
func leafOf(t *testing.T, s *site, cfg *tls.Config, proto string) []byte {
	t.Helper()
	resp, _ := get(t, clientOf(t, s.engine, cfg, proto), s.url())
	require.Equal(t, proto, resp.Proto)
	return resp.TLS.PeerCertificates[0].Raw
}

func TestANewCertificateIsServedUnderLoadWithoutLosingARequest(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		ca := testcert.NewCA()
		files := newPEMFiles(t)
		files.write(t, ca.Certificate("localhost"))
		var conns atomic.Int64
		s := open(t, &allhttp.Server{
			Engine: e, CertFile: files.cert, KeyFile: files.key, Handler: answerProto,
			ConnContext:      func(ctx context.Context, _ net.Conn) context.Context { conns.Add(1); return ctx },
			HTTP3ConnContext: func(ctx context.Context, _ *http3.Conn) context.Context { conns.Add(1); return ctx },
		})
		stop := make(chan struct{})
		var load sync.WaitGroup
		var requests atomic.Int64
		for _, proto := range []string{proto1, proto2, proto3} {
			c := clientOf(t, e, ca.Client("localhost"), proto)
			if proto == proto1 {
				c = &http.Client{Transport: dialOnce(t, s.addrs[0].String(), ca.Client("localhost"))}
			}
			get(t, c, s.url()) // before others, so that one connection is enough
			load.Go(func() {   // ends with stop
				for {
					resp, err := c.Get(s.url())
					if !noError(t, err) {
						return
					}
					body, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if !noError(t, err) {
						return
					}
					if string(body) != proto {
						t.Errorf("got %q, want %q", body, proto)
						return
					}
					requests.Add(1)
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		before := conns.Load()
		for range 5 {
			next := ca.Certificate("localhost")
			files.write(t, next)
			require.NoError(t, s.srv.ReloadCertificate())
			for _, proto := range []string{proto1, proto2, proto3} {
				require.Equal(t, next.Certificate[0], leafOf(t, s, ca.Client("localhost"), proto))
			}
		}
		require.NoError(t, os.WriteFile(files.key, nil, 0o600))
		require.Error(t, s.srv.ReloadCertificate())
		for _, proto := range []string{proto1, proto2, proto3} {
			leafOf(t, s, ca.Client("localhost"), proto)
		}
		close(stop)
		load.Wait()
		require.Equal(t, before+18, conns.Load(), "the load kept its connections")
		require.Positive(t, requests.Load())
		require.Equal(t, 1, s.log.count("is of no use"))
	})
}

// An onlyConn is a http.RoundTripper with one connection of HTTP/1.1, for one request
// at a time. A http.Transport gives its own up when 50 ms after a response the
// goroutine that has written the request has not had its turn to say so.
type onlyConn struct {
	net.Conn
	r *bufio.Reader
}

func dialOnce(t *testing.T, addr string, cfg *tls.Config) *onlyConn {
	t.Helper()
	c, err := tls.Dial("tcp", addr, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return &onlyConn{c, bufio.NewReader(c)}
}

func (c *onlyConn) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Write(c.Conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.r, req)
}

func noError(t *testing.T, err error) bool {
	if err != nil {
		t.Errorf("a request was lost: %v", err)
	}
	return err == nil
}

func TestReloadNeedsFiles(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		s := open(t, &allhttp.Server{Engine: e, Handler: answerProto})
		get(t, s.client(proto1), s.url())
		require.ErrorContains(t, s.srv.ReloadCertificate(), "no certificate to reload")
	})
}

func TestOneLineServes(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		ca := testcert.NewCA()
		files := newPEMFiles(t)
		files.write(t, ca.Certificate("localhost"))
		l, err := net.Listen("tcp", anyPort)
		require.NoError(t, err)
		defer l.Close()
		err = allhttp.ListenAndServeTLS(e, l.Addr().String(), files.cert, files.key, answerProto)
		var lerr *allhttp.ListenError
		require.True(t, errors.As(err, &lerr), "%v", err)
		require.Equal(t, l.Addr().String(), lerr.TCP)
	})
}

package allhttp_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/internal/pipenet"
)

func TestVersionsSayWhatAClientSpeaks(t *testing.T) {
	for name, c := range map[string]struct {
		client, server allhttp.Versions
		first, later   string // versions of requests; empty: an error
	}{
		"all with all":          {0, 0, proto2, proto3},
		"all with 1.1":          {0, allhttp.HTTP1, proto1, proto1},
		"all with 2":            {0, allhttp.HTTP2, proto2, proto2},
		"all with 1.1 and 3":    {0, allhttp.HTTP1 | allhttp.HTTP3, proto1, proto3},
		"1.1 with all":          {allhttp.HTTP1, 0, proto1, proto1},
		"2 with all":            {allhttp.HTTP2, 0, proto2, proto2},
		"3 with all":            {allhttp.HTTP3, 0, proto3, proto3},
		"1.1 and 2 with all":    {allhttp.HTTP1 | allhttp.HTTP2, 0, proto2, proto2},
		"1.1 and 3 with all":    {allhttp.HTTP1 | allhttp.HTTP3, 0, proto1, proto3},
		"2 and 3 with all":      {allhttp.HTTP2 | allhttp.HTTP3, 0, proto2, proto3},
		"2 with 1.1":            {allhttp.HTTP2, allhttp.HTTP1, "", ""},
		"1.1 with 2":            {allhttp.HTTP1, allhttp.HTTP2, "", ""},
		"3 with 1.1 and 2":      {allhttp.HTTP3, allhttp.HTTP1 | allhttp.HTTP2, "", ""},
		"2 with 3":              {allhttp.HTTP2, allhttp.HTTP3, "", ""},
		"all with 3, untold":    {0, allhttp.HTTP3, "", ""},
		"1.1 and 3 with 2 only": {allhttp.HTTP1 | allhttp.HTTP3, allhttp.HTTP2, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			worlds(t, func(w *world) {
				w.serve(serverAddr, seen, func(s *allhttp.Server) { s.Versions = c.server }, host)
				w.tr.Versions = c.client
				if !c.client.Has(allhttp.HTTP3) {
					w.tr.Engine = nil // it is not needed
				}
				for i, want := range []string{c.first, c.first, c.later} {
					if want == "" {
						resp, err := w.tr.RoundTrip(w.request(http.MethodGet, url, nil))
						if err == nil {
							resp.Body.Close()
						}
						require.Error(w, err)
						continue
					}
					if i == 2 || i == 1 && c.first == c.later {
						settle()
					}
					w.get2(url, want)
				}
				if !c.client.Has(allhttp.HTTP3) {
					require.Zero(w, w.udpDials())
				}
				if c.client == allhttp.HTTP3 {
					require.Zero(w, w.tcpDials())
				}
			})
		})
	}
}

func TestAnAlternativeMayBeElsewhereIfItHasTheOriginsCertificate(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, nil, host)
		w.serve("203.0.113.2:8443", seen, nil, host, "alt.example")
		w.mu.Lock()
		w.names[host] = w.names[host][:1]
		w.mu.Unlock()
		require.NoError(w, w.tr.AddAltSvc(url, `h3="alt.example:8443"; ma=60`))
		resp := w.get(url, proto3, allhttp.ReasonRace)
		require.Equal(w, "203.0.113.2:8443", w.choice().Addr.String())
		require.Equal(w, "alt.example:8443", w.choice().Alternative)
		require.Equal(w, "alt.example:8443", resp.Header.Get("Seen-Alt-Used"))
		require.Equal(w, host, resp.Header.Get("Seen-Host"))

		time.Sleep(time.Minute)
		w.get(url, proto3, allhttp.ReasonConnected) // a connection is used as long as it lasts
		w.closeIdle()
		w.get(url, proto2, allhttp.ReasonUnknown)
	})
}

func TestAnAlternativeThatAServerNamesHasItsHostUnlessOthersAreAllowed(t *testing.T) {
	worlds(t, func(w *world) {
		says := ""
		w.serve(serverAddr, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Alt-Svc", says)
			seen(rw, r)
		}), func(s *allhttp.Server) { s.AltSvcMaxAge = -1 }, host)
		// It has the origin's certificate, and all the same nobody shall go there.
		for _, inside := range []string{"127.0.0.1:8443", "10.0.0.1:8443", "203.0.113.2:8443"} {
			w.serve(inside, seen, func(s *allhttp.Server) { s.AltSvcMaxAge = -1 }, host, "alt.example")
		}
		w.serve("203.0.113.1:9443", seen, func(s *allhttp.Server) { s.AltSvcMaxAge = -1 }, host)
		w.mu.Lock()
		w.names[host] = w.names[host][:1]
		w.mu.Unlock()
		for _, says = range []string{`h3="alt.example:8443"`, `h3="127.0.0.1:8443"`, `h3="10.0.0.1:8443"`, `h3="[::1]:8443"`} {
			w.get2(url, proto2)
			w.get(url, proto2, allhttp.ReasonUnknown)
		}
		require.Zero(w, w.udpDials())

		var asked []string
		w.tr = w.transport()
		w.tr.AllowAlternative = func(origin, alternative string) bool {
			asked = append(asked, origin+" "+alternative)
			return alternative == "alt.example:8443"
		}
		says = `h3="10.0.0.1:8443", h3="alt.example:8443"`
		w.get2(url, proto2)
		w.closeIdle()
		settle()
		w.get2(url, proto3)
		require.Equal(w, "alt.example:8443", w.choice().Alternative)
		require.Equal(w, []string{host + ":443 10.0.0.1:8443", host + ":443 alt.example:8443"}, asked)

		w.tr = w.transport()
		says = `h3=":9443"` // another port needs no permission
		w.get2(url, proto2)
		w.closeIdle()
		settle()
		w.get2(url, proto3)
		require.Equal(w, "203.0.113.1:9443", w.choice().Addr.String())
	})
}

func TestAFileNamesNoOtherHostUnlessThatIsAllowed(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, func(s *allhttp.Server) { s.AltSvcMaxAge = -1 }, host)
		w.serve("203.0.113.2:8443", seen, nil, host, "alt.example")
		w.mu.Lock()
		w.names[host] = w.names[host][:1]
		w.mu.Unlock()
		file := filepath.Join(w.TempDir(), "alt-svc")
		line := fmt.Sprintf("h2 %s 443 h3 alt.example 8443 %q 0 0\n", host, time.Now().Add(time.Hour).UTC().Format("20060102 15:04:05"))
		require.NoError(w, os.WriteFile(file, []byte(line), 0o600))
		w.tr = w.transport()
		w.tr.AltSvcFile = file
		w.get2(url, proto2)
		require.Zero(w, w.udpDials())
		w.tr = w.transport()
		w.tr.AltSvcFile = file
		w.tr.AllowAlternative = func(string, string) bool { return true }
		w.get2(url, proto3)
	})
}

func TestAnAlternativeWithAnotherCertificateIsNotUsed(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, func(s *allhttp.Server) { s.AltSvcMaxAge = -1 }, host)
		w.serve("203.0.113.2:8443", seen, nil, "alt.example")
		require.NoError(w, w.tr.AddAltSvc(url, `h3="alt.example:8443", h3=":443"`))
		w.get(url, proto2, allhttp.ReasonFailed)
		require.Equal(w, 1, w.log.count("HTTP/3 failed"))
		w.closeIdle()
		w.get(url, proto3, allhttp.ReasonRace) // the next one is better
		require.Equal(w, serverAddr, w.choice().Addr.String())
	})
}

func TestAnOriginCanTakeItsWordBack(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/clear" {
				rw.Header().Set("Alt-Svc", "clear")
			}
			seen(rw, r)
		}), func(s *allhttp.Server) { s.AltSvcMaxAge = -1 }, host)
		w.hint()
		w.get(url, proto3, allhttp.ReasonRace)
		w.get(url+"/clear", proto3, allhttp.ReasonConnected)
		w.get(url, proto2, allhttp.ReasonUnknown)
	})
}

func TestAMisdirectedRequestIsSentToTheOrigin(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, func(s *allhttp.Server) { s.AltSvcMaxAge = -1 }, host)
		w.serve("203.0.113.2:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Alt-Svc", `h3=":1"`) // must be ignored
			rw.WriteHeader(http.StatusMisdirectedRequest)
		}), nil, host, "alt.example")
		w.mu.Lock()
		w.names[host] = w.names[host][:1]
		w.mu.Unlock()
		require.NoError(w, w.tr.AddAltSvc(url, `h3="alt.example:443"`))
		resp := w.send(w.request(http.MethodPost, url, strings.NewReader("text"))) // which can be had again
		require.Equal(w, proto2, resp.Proto)
		require.Equal(w, allhttp.ReasonMisdirected, w.choice().Reason)
		body, _ := io.ReadAll(resp.Body)
		require.Equal(w, "text", string(body))
		w.closeIdle()
		w.get(url, proto2, allhttp.ReasonBroken)

		// A body that was read is not had back: the caller gets the response.
		w.tr.NetworkChanged()
		w.closeIdle()
		require.NoError(w, w.tr.AddAltSvc(url, `h3="alt.example:443"`))
		resp, err := w.tr.RoundTrip(w.request(http.MethodPost, url, &onceBody{Reader: strings.NewReader("text")}))
		require.NoError(w, err)
		require.NoError(w, resp.Body.Close())
		require.Equal(w, http.StatusMisdirectedRequest, resp.StatusCode)
	})
}

func TestResponsesAgeCountsAgainstAltSvc(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Alt-Svc", `h3=":443"; ma=100`)
			rw.Header().Set("Age", "90")
			seen(rw, r)
		}), nil, host)
		w.get(url, proto2, allhttp.ReasonUnknown)
		w.closeIdle()
		time.Sleep(9 * time.Second)
		w.get(url, proto3, allhttp.ReasonRace)
		w.closeIdle()
		time.Sleep(10 * time.Second)
		w.get(url, proto2, allhttp.ReasonUnknown)
	})
}

func TestProxiesAreReachedOverTCP(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, nil, host)
		w.hint()
		var proxied atomic.Int64
		proxy := pipenet.Listen(&net.TCPAddr{IP: net.IPv4(203, 0, 113, 8), Port: 3128}, 0)
		w.mu.Lock()
		w.tcp["203.0.113.8:3128"] = proxy
		w.names["proxy.example"] = append(w.names["proxy.example"], w.names[host]...)
		w.names["proxy.example"][0] = addrOf("203.0.113.8")
		server := w.tcp[serverAddr]
		w.mu.Unlock()
		go func() { // ends with the listener
			for {
				c, err := proxy.Accept()
				if err != nil {
					return
				}
				go func() { // ends with the connection
					req, err := http.ReadRequest(bufio.NewReader(c))
					if err != nil || req.Method != http.MethodConnect || req.Host != host+":443" {
						c.Close()
						return
					}
					proxied.Add(1)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
					onward, err := server.Dial(w.Context())
					if err != nil {
						c.Close()
						return
					}
					go func() { _, _ = io.Copy(onward, c); onward.Close() }() // ends with c
					_, _ = io.Copy(c, onward)
					c.Close()
				}()
			}
		}()
		w.Cleanup(func() { proxy.Close() })
		proxyURL, err := neturl.Parse("http://proxy.example:3128")
		require.NoError(w, err)
		w.tr.Close()
		w.tr = w.transport()
		w.tr.Base.Proxy = http.ProxyURL(proxyURL)
		w.tr.Race = true
		w.get(url, proto2, allhttp.ReasonProxy)
		require.Equal(w, int64(1), proxied.Load())
		require.Zero(w, w.udpDials())

		w.tr = w.transport()
		w.tr.Base.Proxy = http.ProxyURL(proxyURL)
		w.tr.Versions = allhttp.HTTP3
		_, err = w.tr.RoundTrip(w.request(http.MethodGet, url, nil))
		require.ErrorContains(w, err, "does not go through a proxy")
		require.Zero(w, w.udpDials())
	})
}

func TestUpgradesUseHTTP1(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") == "" {
				seen(rw, r)
				return
			}
			c, buf, err := http.NewResponseController(rw).Hijack()
			if !noError(t, err) {
				return
			}
			defer c.Close()
			_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
			_ = buf.Flush()
		}), nil, host)
		w.hint()
		w.get(url, proto3, allhttp.ReasonRace)
		req := w.request(http.MethodGet, url, nil)
		req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
		resp, err := w.tr.RoundTrip(req)
		require.NoError(w, err)
		require.Equal(w, http.StatusSwitchingProtocols, resp.StatusCode)
		require.Equal(w, allhttp.ReasonUpgrade, w.choice().Reason)
		require.Equal(w, proto1, w.choice().Proto)
		require.Implements(w, (*io.ReadWriteCloser)(nil), resp.Body)
		text, _ := io.ReadAll(resp.Body)
		require.Equal(w, "hello", string(text))
		resp.Body.Close() // the server has gone
	})
}

func TestAltSvcIsKeptInAFile(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, nil, host)
		name := filepath.Join(w.TempDir(), "alt-svc")
		w.tr.AltSvcFile = name
		w.get(url, proto2, allhttp.ReasonUnknown)
		require.NoError(w, w.tr.AddAltSvc("https://other.example:8443", `h3="[2001:db8::1]:9"; persist=1`))
		time.Sleep(2 * time.Second)
		text, err := os.ReadFile(name)
		require.NoError(w, err)
		require.Equal(w, []string{
			`h2 example.com 443 h3 example.com 443 "20000102 00:00:00" 0 0`,
			`h2 other.example 8443 h3 [2001:db8::1] 9 "20000102 00:00:00" 1 0`,
		}, strings.Split(strings.TrimSpace(string(text)), "\n")[1:])

		w.tr = w.transport()
		w.tr.AltSvcFile = name
		w.get(url, proto3, allhttp.ReasonRace)

		// A file of another program, with what is of no use in it.
		require.NoError(w, os.WriteFile(name, []byte(fmt.Sprint(
			"junk\n# h1 example.com 443 h3 example.com 1 \"20300101 00:00:00\" 0 0\n",
			"h1 example.com 443 h2 example.com 2 \"20300101 00:00:00\" 0 0\n",
			"h1 example.com 443 h3 example.com 3 \"19990101 00:00:00\" 0 0\n",
			"h1 example.com 443 h3 example.com 66666 \"20300101 00:00:00\" 0 0\n",
			"h1 example.com 443 h3 example.com 443 \"20300101 00:00:00\" 0 0\n",
		)), 0o600))
		w.tr = w.transport()
		w.tr.AltSvcFile = name
		w.get(url, proto3, allhttp.ReasonRace)
		require.Equal(w, serverAddr, w.udpSent[len(w.udpSent)-1])

		w.tr = w.newTransport()
		w.tr.AltSvcFile = filepath.Join(name, "not-a-directory")
		w.get(url, proto2, allhttp.ReasonUnknown)
		time.Sleep(2 * time.Second)
		require.Equal(w, 1, w.log.count("starting without Alt-Svc file"))
		require.Equal(w, 1, w.log.count("Alt-Svc file not written"))
		require.ErrorContains(w, w.tr.Close(), "Alt-Svc file: ")
	})
}

func TestInAnotherNetworkOnlyWhatPersistsCounts(t *testing.T) {
	worlds(t, func(w *world) {
		m := w.serve(serverAddr, seen, func(s *allhttp.Server) { s.AltSvcMaxAge = -1 }, host)
		require.NoError(w, w.tr.AddAltSvc(url, `h3=":443"; persist=1, h3=":1"`))
		m.cut(true)
		w.get(url, proto2, allhttp.ReasonRace)
		time.Sleep(15 * time.Second)
		w.closeIdle()
		m.cut(false)
		w.tr.NetworkChanged()
		w.get(url, proto3, allhttp.ReasonRace)
		w.closeIdle()
		w.hint()
		w.tr.NetworkChanged()
		w.get(url, proto2, allhttp.ReasonUnknown)
	})
}

func TestAClosedTransportTakesNoRequest(t *testing.T) {
	worlds(t, func(w *world) {
		m := w.serve(serverAddr, seen, nil, host)
		w.hint()
		w.get(url, proto3, allhttp.ReasonRace)
		require.NoError(w, w.tr.Close())
		require.NoError(w, w.tr.Close())
		body := &onceBody{Reader: strings.NewReader("x")}
		_, err := w.tr.RoundTrip(w.request(http.MethodPost, url, body))
		require.ErrorIs(w, err, net.ErrClosed)
		require.Equal(w, 1, body.closed)

		w.tr = w.transport()
		w.hint()
		m.cut(true)
		failed := make(chan error, 1)
		go func() { // ends with Close
			_, err := w.tr.RoundTrip(w.request(http.MethodGet, url, nil))
			failed <- err
		}()
		time.Sleep(100 * time.Millisecond) // in the middle of a race
		require.Less(w, took(func() { require.NoError(w, w.tr.Close()) }), time.Second)
		require.ErrorIs(w, <-failed, net.ErrClosed)
	})
}

func TestHTTPTraceIsToldWithEveryVersion(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, nil, host)
		for _, versions := range []allhttp.Versions{allhttp.HTTP1, allhttp.HTTP2, allhttp.HTTP3} {
			w.tr = w.transport()
			w.tr.Versions = versions
			var mu sync.Mutex
			var got []string
			add := func(what string) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, what)
			}
			req := w.request(http.MethodGet, url, nil)
			req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
				GotConn:              func(httptrace.GotConnInfo) { add("conn") },
				WroteRequest:         func(httptrace.WroteRequestInfo) { add("wrote") },
				GotFirstResponseByte: func() { add("first") },
			}))
			w.send(req)
			synctest.Wait()
			mu.Lock()
			require.Subset(w, got, []string{"conn", "wrote", "first"}, versions)
			mu.Unlock()
		}
	})
}

func TestOriginsAreTheSameHoweverTheyAreWritten(t *testing.T) {
	worlds(t, func(w *world) {
		const punycode = "xn--bcher-kva.example"
		w.serve(serverAddr, seen, nil, host, punycode)
		w.hint()
		w.get(url, proto3, allhttp.ReasonRace)
		w.get("https://EXAMPLE.com:443/", proto3, allhttp.ReasonConnected)
		require.NoError(w, w.tr.AddAltSvc("https://"+punycode, hint))
		resp := w.get("https://Bücher.example/", proto3, allhttp.ReasonRace)
		require.Equal(w, punycode, resp.Header.Get("Seen-Host"))
		require.Equal(w, 2, w.udpDials())
	})
}

func TestWhatCannotBeHintedIsRefused(t *testing.T) {
	worlds(t, func(w *world) {
		for _, origin := range []string{"http://example.com", "example.com", "https://", "https://example.com/path", "https://u@example.com", "://"} {
			require.Error(w, w.tr.AddAltSvc(origin, hint), origin)
		}
		require.ErrorContains(w, w.tr.AddAltSvc(url, "h3"), "malformed")
		require.NoError(w, w.tr.AddAltSvc(url, "clear"))
	})
}

func TestATransportThatCannotWorkSaysWhy(t *testing.T) {
	for want, tr := range map[string]*allhttp.Transport{
		"Transport.Engine is not set": {},
		"unknown Versions":            {Versions: 128},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		_, err = tr.RoundTrip(req)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, tr.AddAltSvc(url, hint), want)
		tr.CloseIdleConnections()
		tr.NetworkChanged()
		require.NoError(t, tr.Close())
	}
}

func TestRequestsThatAreWrongAreRefusedAsByNetHTTP(t *testing.T) {
	worlds(t, func(w *world) {
		for _, versions := range []allhttp.Versions{0, allhttp.HTTP3} {
			w.tr = w.transport()
			w.tr.Versions = versions
			for _, to := range []string{"ftp://example.com", "https:///path", "//example.com"} {
				_, err := w.tr.RoundTrip(w.request(http.MethodGet, to, nil))
				require.Error(w, err, to)
			}
			_, err := w.tr.RoundTrip(&http.Request{})
			require.Error(w, err)
		}
	})
}

package allhttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/allhttp"
)

const (
	serverAddr = "203.0.113.1:443"
	hint       = `h3=":443"`
)

func (w *world) hint() {
	w.Helper()
	require.NoError(w, w.tr.AddAltSvc(url, hint))
}

func TestAClientFindsHTTP3ByAltSvc(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, nil, host)
		w.get(url, proto2, allhttp.ReasonUnknown)
		w.get(url, proto2, allhttp.ReasonConnected) // it need not wait
		settle()
		w.get(url, proto3, allhttp.ReasonConnected)
		require.Equal(w, host+":443", w.choice().Alternative)
		require.Equal(w, serverAddr, w.choice().Addr.String())
		require.Equal(w, 1, w.tcpDials())
		require.Equal(w, 1, w.udpDials())
	})
}

func TestAHintMakesTheFirstRequestHTTP3(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, nil, host)
		w.hint()
		d := took(func() { w.get(url, proto3, allhttp.ReasonRace) })
		require.Less(w, d, 4*rtt)
		require.Zero(w, w.tcpDials(), "TCP has its turn later")
	})
}

func TestABlackHoleCostsLittleOnce(t *testing.T) {
	worlds(t, func(w *world) {
		m := w.serve(serverAddr, seen, nil, host)
		w.serve("203.0.113.2:443", seen, nil, "other.example")
		m.cut(true)
		w.hint()
		d := took(func() { w.get(url, proto2, allhttp.ReasonRace) })
		require.Less(w, d, 300*time.Millisecond)
		require.GreaterOrEqual(w, d, 250*time.Millisecond)
		require.GreaterOrEqual(w, w.choice().Wait, 250*time.Millisecond)
		fast := func(reason allhttp.Reason) {
			w.Helper()
			d := took(func() { w.get(url, proto2, reason) })
			require.Less(w, d, 3*rtt)
		}
		fast(allhttp.ReasonConnected)
		w.closeIdle()
		fast(allhttp.ReasonRace) // which QUIC still takes part in

		time.Sleep(15 * time.Second) // until QUIC has given up
		w.closeIdle()
		require.Equal(w, 1, w.udpDials())
		fast(allhttp.ReasonBroken)
		fast(allhttp.ReasonBroken)
		require.Equal(w, 1, w.udpDials(), "it is remembered")

		// While QUIC is not heard of at all, others do not wait either.
		require.NoError(w, w.tr.AddAltSvc("https://other.example", hint))
		d = took(func() { w.get("https://other.example", proto3, allhttp.ReasonRace) })
		require.Less(w, d, 4*rtt)
		require.Equal(w, 1, w.log.count("HTTP/3 failed"))

		time.Sleep(time.Minute)
		m.cut(false)
		w.closeIdle()
		settle()
		d = took(func() { w.get(url, proto3, allhttp.ReasonRace) })
		require.Less(w, d, 4*rtt)
		w.get(url, proto3, allhttp.ReasonConnected)
	})
}

func TestWhatFailedIsTriedAtGrowingIntervals(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, func(s *allhttp.Server) { s.Versions = allhttp.HTTP1 | allhttp.HTTP2 }, host)
		w.hint()
		get := func(limit time.Duration) {
			w.Helper()
			require.Less(w, took(func() { w.get2(url, proto2) }), limit)
			w.closeIdle()
			time.Sleep(15 * time.Second) // until QUIC has given up, in 10s
		}
		get(300 * time.Millisecond)
		for i, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 240, 240} { // minutes
			require.Equal(w, i+1, w.udpDials())
			time.Sleep(wait*time.Minute - 30*time.Second)
			get(3 * rtt) // only the first waits
			require.Equal(w, i+1, w.udpDials(), "%d minutes are not over", wait)
			time.Sleep(10 * time.Second)
			get(3 * rtt)
		}
	})
}

// get2 fetches, for whatever reason.
func (w *world) get2(to, proto string) {
	w.Helper()
	require.Equal(w, proto, w.send(w.request(http.MethodGet, to, nil)).Proto)
}

func TestABodyIsSentOnce(t *testing.T) {
	worlds(t, func(w *world) {
		var requests atomic.Int64
		m := w.serve(serverAddr, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			seen(rw, r)
		}), nil, host)
		m.cut(true)
		w.hint()
		text := strings.Repeat("once ", 10000)
		body := &onceBody{Reader: strings.NewReader(text)}
		resp := w.send(w.request(http.MethodPost, url, body))
		require.Equal(w, proto2, resp.Proto)
		got, _ := io.ReadAll(resp.Body)
		require.Equal(w, text, string(got))
		require.Equal(w, int64(1), requests.Load())
		synctest.Wait()
		require.Equal(w, 1, body.closed)
	})
}

func TestRequestsAtOnceShareARace(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, nil, host)
		w.hint()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				resp, err := w.tr.RoundTrip(w.request(http.MethodGet, url, nil))
				if noError(t, err) {
					resp.Body.Close()
					if resp.Proto != proto3 {
						t.Errorf("got %s", resp.Proto)
					}
				}
			})
		}
		wg.Wait()
		require.Equal(w, 1, w.udpDials())
		require.Zero(w, w.tcpDials())
	})
}

func TestTCPTakesOverAtOnceWhenQUICIsRefused(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, nil, host)
		require.NoError(w, w.tr.AddAltSvc(url, `h3="no-such-host.example:443"`))
		d := took(func() { w.get(url, proto2, allhttp.ReasonFailed) })
		require.Less(w, d, 3*rtt)
	})
}

func TestQUICServesWhenTCPIsRefused(t *testing.T) {
	worlds(t, func(w *world) {
		m := w.serve(serverAddr, seen, func(s *allhttp.Server) { s.Versions = allhttp.HTTP3 }, host)
		m.udp.Links(linkOf(300*time.Millisecond), linkOf(0)) // so that TCP starts
		w.tr.Race = true
		w.get(url, proto3, allhttp.ReasonFailed)
		require.Equal(w, 1, w.tcpDials())
	})
}

func TestWhatFailedIsTheLastResort(t *testing.T) {
	worlds(t, func(w *world) {
		m := w.serve(serverAddr, seen, nil, host)
		m.cut(true)
		w.hint()
		w.get(url, proto2, allhttp.ReasonRace)
		time.Sleep(15 * time.Second)
		w.closeIdle()
		m.cut(false)
		w.mu.Lock()
		delete(w.tcp, serverAddr)
		w.mu.Unlock()
		w.get(url, proto3, allhttp.ReasonFailed)
	})
}

func TestWhenNothingConnectsTheErrorSaysBoth(t *testing.T) {
	worlds(t, func(w *world) {
		w.mu.Lock()
		w.names[host] = append(w.names[host], netip.MustParseAddr("203.0.113.9"))
		w.mu.Unlock()
		w.tr.Race = true
		body := &onceBody{Reader: strings.NewReader("x")}
		_, err := w.tr.RoundTrip(w.request(http.MethodPost, url, body))
		require.ErrorContains(w, err, "connection refused")
		require.ErrorContains(w, err, "allhttp: HTTP/3: dial 203.0.113.9:443: ")
		require.Equal(w, 1, body.closed)
	})
}

func TestARequestThatIsCancelledLeavesTheRaceToOthers(t *testing.T) {
	worlds(t, func(w *world) {
		m := w.serve(serverAddr, seen, nil, host)
		m.cut(true)
		w.hint()
		ctx, cancel := context.WithTimeout(w.Context(), 5*time.Millisecond)
		defer cancel()
		body := &onceBody{Reader: strings.NewReader("x")}
		_, err := w.tr.RoundTrip(w.request(http.MethodPost, url, body).WithContext(ctx))
		require.ErrorIs(w, err, context.DeadlineExceeded)
		require.Equal(w, 1, body.closed)
		w.get(url, proto2, allhttp.ReasonRace)
		require.Equal(w, 1, w.udpDials())
	})
}

func TestTheDelayOfTCPCanBeSet(t *testing.T) {
	worlds(t, func(w *world) {
		m := w.serve(serverAddr, seen, nil, host)
		m.cut(true)
		for delay, want := range map[time.Duration]time.Duration{-1: 0, 100 * time.Millisecond: 100 * time.Millisecond} {
			w.tr = w.transport()
			w.tr.Race, w.tr.RaceDelay = true, delay
			d := took(func() { w.get2(url, proto2) })
			require.GreaterOrEqual(w, d, want)
			require.Less(w, d, want+4*rtt)
		}
	})
}

func TestAddressesAreTriedInTurnsOfTheFamilies(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve("203.0.113.1:443", seen, nil, host) // the only one that answers
		w.mu.Lock()
		var ips []netip.Addr
		for _, ip := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "::ffff:203.0.113.7", "203.0.113.1"} {
			ips = append(ips, netip.MustParseAddr(ip))
		}
		w.names[host] = ips
		w.mu.Unlock()
		w.tr.Versions = allhttp.HTTP3
		d := took(func() { w.get(url, proto3, allhttp.ReasonOnly) })
		require.Equal(w, []string{"[2001:db8::1]:443", "203.0.113.7:443", "[2001:db8::2]:443", "203.0.113.1:443"}, w.udpSent)
		require.GreaterOrEqual(w, d, 750*time.Millisecond)
		require.Less(w, d, 750*time.Millisecond+4*rtt)
		settle()
		w.mu.Lock()
		defer w.mu.Unlock()
		require.Len(w, w.dials, 4)
		for _, d := range w.dials {
			require.Equal(w, d.Addr.String() == "203.0.113.1:443", d.Err == nil, fmt.Sprint(d))
		}
	})
}

func TestTheAddressThatWorkedLastIsTriedFirst(t *testing.T) {
	worlds(t, func(w *world) {
		w.serve(serverAddr, seen, nil, host)
		w.mu.Lock()
		w.names[host] = append([]netip.Addr{addrOf("2001:db8::1")}, w.names[host]...)
		w.mu.Unlock()
		w.hint()
		w.tr.RaceDelay = time.Second
		w.get(url, proto3, allhttp.ReasonRace)
		settle()
		w.closeIdle()
		require.Less(w, took(func() { w.get(url, proto3, allhttp.ReasonRace) }), 4*rtt)
		require.Equal(w, []string{"[2001:db8::1]:443", serverAddr, serverAddr}, w.udpSent)
	})
}

func TestAConnectionThatIsLostFallsBackToTCP(t *testing.T) {
	worlds(t, func(w *world) {
		m := w.serve(serverAddr, seen, nil, host)
		w.hint()
		w.get(url, proto3, allhttp.ReasonRace)
		m.cut(true)
		w.get(url, proto2, allhttp.ReasonNotTaken) // no error is seen
		w.closeIdle()
		w.get(url, proto2, allhttp.ReasonBroken)
	})
}

func TestAServerThatGivesUpHTTP3IsReachedOverTCP(t *testing.T) {
	worlds(t, func(w *world) {
		m := w.serve(serverAddr, seen, nil, host)
		w.hint()
		w.get(url, proto3, allhttp.ReasonRace)
		m.stop()
		w.serve(serverAddr, seen, func(s *allhttp.Server) { s.Versions = allhttp.HTTP1 | allhttp.HTTP2 }, host)
		body := &onceBody{Reader: strings.NewReader("x")}
		resp := w.send(w.request(http.MethodPost, url, body))
		require.Equal(w, proto2, resp.Proto)
		got, _ := io.ReadAll(resp.Body)
		require.Equal(w, "x", string(got))
		synctest.Wait()
		require.Equal(w, 1, body.closed)
	})
}

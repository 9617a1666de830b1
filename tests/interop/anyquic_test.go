//go:build interop

package interop

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// carriers are all that the broker listens on, by listener.
var carriers = []string{"tcp", "tls", "ws", "wss", "quic"}

// anyquic returns the arguments with which our own client connects.
func (s *server) anyquic(command, carrier string, args ...string) []string {
	return append([]string{"mqtt", command, s.url[carrier].String(), "--cafile", s.caFile}, args...)
}

func (s *server) subscribedAnyquic(t *testing.T, carrier string, args ...string) *process {
	t.Helper()
	p := run(t, s.bin, s.anyquic("sub", carrier, append(args, "-t", "ready")...)...)
	require.Equal(t, "ready", p.line(t))
	return p
}

func TestAnyquicExchangesMessagesOverEveryCarrier(t *testing.T) {
	s := start(t)
	s.ready(t)
	for _, carrier := range carriers {
		for qos := range 3 {
			t.Run(fmt.Sprintf("%s/qos%d", carrier, qos), func(t *testing.T) {
				topic, q := fmt.Sprintf("a/%s/%d", carrier, qos), fmt.Sprint(qos)
				sub := s.subscribedAnyquic(t, carrier, "-q", q, "-t", topic, "-C", "2")
				run(t, s.bin, s.anyquic("pub", carrier, "-q", q, "-t", topic, "-m", "hello")...).wait(t)
				require.Equal(t, "hello", sub.line(t))
				sub.wait(t)
			})
		}
	}
	for _, carrier := range carriers {
		require.Contains(t, s.metrics(t), fmt.Sprintf("anyquic_mqtt_connections_total{carrier=%q}", carrier))
		require.NotContains(t, s.metrics(t), fmt.Sprintf("anyquic_mqtt_connections_total{carrier=%q} 0\n", carrier), "nobody came by this carrier")
	}
	require.NoError(t, s.stop(t))
}

func TestAnyquicReadsWhatMosquittoPublishesAcrossCarriers(t *testing.T) {
	s := start(t)
	s.ready(t)
	for _, from := range mosquittoCarriers {
		t.Run(from+"-quic", func(t *testing.T) {
			sub := s.subscribedAnyquic(t, "quic", "-q", "2", "-t", "x/"+from, "-C", "2")
			run(t, foreignProgram(t, "mosquitto_pub"), s.mosquitto(from, "-q", "2", "-t", "x/"+from, "-m", "across")...).wait(t)
			require.Equal(t, "across", sub.line(t))
			sub.wait(t)
		})
	}
}

func TestAnyquicGetsRetainedWillAndResumedMessagesOverEveryCarrier(t *testing.T) {
	s := start(t)
	s.ready(t)
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			topic := "k/" + carrier
			run(t, s.bin, s.anyquic("pub", carrier, "-q", "1", "-r", "-t", topic, "-m", "kept")...).wait(t)
			sub := run(t, s.bin, s.anyquic("sub", carrier, "-t", topic, "-C", "1", "-v")...)
			require.Equal(t, topic+" kept", sub.line(t))
			sub.wait(t)

			watcher := s.subscribedAnyquic(t, carrier, "-t", "w/"+carrier, "-C", "2")
			doomed := s.subscribedAnyquic(t, carrier, "-t", "nothing", "--will-topic", "w/"+carrier, "--will-payload", "gone", "-k", "4s")
			require.NoError(t, doomed.cmd.Process.Kill())
			require.Equal(t, "gone", watcher.line(t))
			watcher.wait(t)

			session := []string{"-i", "resume-" + carrier, "-c", "-x", "1h", "-q", "2", "-k", "4s", "-t", "s/" + carrier}
			first := s.subscribedAnyquic(t, carrier, session...)
			require.NoError(t, first.cmd.Process.Kill())
			<-first.exited
			run(t, s.bin, s.anyquic("pub", carrier, "-q", "2", "-t", "s/"+carrier, "-m", "missed")...).wait(t)
			second := run(t, s.bin, s.anyquic("sub", carrier, append(session, "-C", "1")...)...)
			require.Equal(t, "missed", second.line(t))
			second.wait(t)
		})
	}
}

func TestAnyquicPublishesEveryLineOfStandardInput(t *testing.T) {
	s := start(t)
	s.ready(t)
	const n = 1000
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			sub := s.subscribedAnyquic(t, carrier, "-q", "1", "-t", "l/"+carrier, "-C", fmt.Sprint(n+1))
			var lines strings.Builder
			for i := range n {
				fmt.Fprintln(&lines, i)
			}
			pub := runWithInput(t, lines.String(), s.bin, s.anyquic("pub", carrier, "-q", "1", "-t", "l/"+carrier, "-l")...)
			for i := range n {
				require.Equal(t, fmt.Sprint(i), sub.line(t))
			}
			pub.wait(t)
			sub.wait(t)
		})
	}
}

func TestTheServerTellsItsHealthAndDrains(t *testing.T) {
	s := start(t)
	s.ready(t)
	resp, err := http.Get("http://" + s.http + "/healthz")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)

	// A client that stays gets DISCONNECT with Server shutting down (0x8B) and
	// says so before it tries again.
	var subs []*process
	for _, carrier := range carriers {
		subs = append(subs, s.subscribedAnyquic(t, carrier, "-t", "d"))
	}
	require.NoError(t, s.stop(t))
	for i, sub := range subs {
		require.NoError(t, sub.cmd.Process.Signal(sigterm))
		<-sub.exited
		require.Contains(t, sub.out.String(), "0x8b", carriers[i])
	}
}

func (s *server) metrics(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+s.http+"/metrics", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

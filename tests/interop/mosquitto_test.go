//go:build interop

package interop

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mosquittoCarriers are the carriers that mosquitto's clients speak.
var mosquittoCarriers = []string{"tcp", "tls", "ws", "wss"}

// mosquitto returns the arguments with which mosquitto's clients connect.
func (s *server) mosquitto(carrier string, args ...string) []string {
	u := s.url[carrier]
	base := []string{"-h", u.Hostname(), "-p", u.Port()}
	if strings.HasPrefix(carrier, "ws") {
		base = append(base, "--ws")
	}
	if carrier == "tls" || carrier == "wss" {
		base = append(base, "--cafile", s.caFile)
	}
	return append(base, args...)
}

// subscribed starts mosquitto_sub and waits until the broker has granted its
// subscription.
func (s *server) subscribed(t *testing.T, carrier string, args ...string) *process {
	t.Helper()
	// With a retained message under a second filter that the broker sends
	// after the SUBACK, the first line says that the subscription stands.
	p := run(t, foreignProgram(t, "mosquitto_sub"), s.mosquitto(carrier, append(args, "-t", "ready")...)...)
	require.Equal(t, "ready", p.line(t))
	return p
}

// ready makes subscribed work. The message has QoS 0: with another, a client
// that is killed before it acknowledges it would get it again.
func (s *server) ready(t *testing.T) {
	t.Helper()
	run(t, foreignProgram(t, "mosquitto_pub"), s.mosquitto("tcp", "-t", "ready", "-m", "ready", "-r")...).wait(t)
	stored := run(t, foreignProgram(t, "mosquitto_sub"), s.mosquitto("tcp", "-t", "ready", "-C", "1")...)
	require.Equal(t, "ready", stored.line(t))
	stored.wait(t)
}

func TestMosquittoExchangesMessagesOfEveryQoSAndVersion(t *testing.T) {
	s := start(t)
	s.ready(t)
	for _, carrier := range mosquittoCarriers {
		for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
			for qos := range 3 {
				t.Run(fmt.Sprintf("%s/%s/qos%d", carrier, version, qos), func(t *testing.T) {
					topic := "m/" + strings.ReplaceAll(t.Name(), "/", "_")
					q := fmt.Sprint(qos)
					sub := s.subscribed(t, carrier, "-V", version, "-q", q, "-t", topic, "-C", "4")
					for i := range 3 {
						run(t, foreignProgram(t, "mosquitto_pub"), s.mosquitto(carrier, "-V", version, "-q", q, "-t", topic, "-m", fmt.Sprint(i))...).wait(t)
					}
					for i := range 3 {
						require.Equal(t, fmt.Sprint(i), sub.line(t))
					}
					sub.wait(t)
				})
			}
		}
	}
	require.NoError(t, s.stop(t))
}

func TestMosquittoGetsRetainedMessagesUntilTheyAreDeleted(t *testing.T) {
	s := start(t)
	s.ready(t)
	for _, carrier := range mosquittoCarriers {
		t.Run(carrier, func(t *testing.T) {
			topic := "retained/" + carrier
			run(t, foreignProgram(t, "mosquitto_pub"), s.mosquitto(carrier, "-t", topic, "-m", "kept", "-r", "-q", "1")...).wait(t)
			sub := run(t, foreignProgram(t, "mosquitto_sub"), s.mosquitto(carrier, "-t", topic, "-C", "1", "-F", "%r %p")...)
			require.Equal(t, "1 kept", sub.line(t))
			sub.wait(t)

			run(t, foreignProgram(t, "mosquitto_pub"), s.mosquitto(carrier, "-t", topic, "-n", "-r", "-q", "1")...).wait(t)
			sub = run(t, foreignProgram(t, "mosquitto_sub"), s.mosquitto(carrier, "-t", topic, "-t", "ready", "-C", "1", "-F", "%t")...)
			require.Equal(t, "ready", sub.line(t), "the deleted message came")
			sub.wait(t)
		})
	}
}

func TestMosquittoThatIsKilledLeavesItsWill(t *testing.T) {
	s := start(t)
	s.ready(t)
	for _, carrier := range mosquittoCarriers {
		t.Run(carrier, func(t *testing.T) {
			topic := "will/" + carrier
			watcher := s.subscribed(t, carrier, "-t", topic, "-C", "2")
			doomed := s.subscribed(t, carrier, "-t", "nothing", "--will-topic", topic, "--will-payload", "gone", "--will-qos", "1")
			require.NoError(t, doomed.cmd.Process.Kill())
			require.Equal(t, "gone", watcher.line(t))
			watcher.wait(t)
		})
	}
}

func TestMosquittoResumesItsSessionAfterItsConnectionWasKilled(t *testing.T) {
	s := start(t)
	s.ready(t)
	for _, carrier := range mosquittoCarriers {
		versions := []string{"mqttv311", "mqttv5"}
		if strings.HasPrefix(carrier, "ws") {
			// Over WebSocket, mosquitto 2.1.2 leaves the Session Expiry
			// Interval out of its CONNECT: there is no session to resume.
			versions = versions[:1]
		}
		for _, version := range versions {
			t.Run(carrier+"/"+version, func(t *testing.T) {
				topic := "resume/" + carrier + version
				session := []string{"-i", "resume-" + carrier + version, "-c", "-q", "2", "-V", version, "-t", topic}
				if version == "mqttv5" {
					session = append(session, "-x", "3600")
				}
				first := s.subscribed(t, carrier, session...)
				require.NoError(t, first.cmd.Process.Kill())
				<-first.exited

				for qos := 1; qos <= 2; qos++ {
					run(t, foreignProgram(t, "mosquitto_pub"), s.mosquitto(carrier, "-q", fmt.Sprint(qos), "-t", topic, "-m", fmt.Sprint("missed ", qos))...).wait(t)
				}
				second := run(t, foreignProgram(t, "mosquitto_sub"), s.mosquitto(carrier, append(session, "-C", "2")...)...)
				require.Equal(t, "missed 1", second.line(t))
				require.Equal(t, "missed 2", second.line(t))
				second.wait(t)
			})
		}
	}
}

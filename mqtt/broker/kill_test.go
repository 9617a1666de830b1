package broker_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/store/pebblestore"
)

// storeForKill in the environment makes the test's own binary a broker that keeps
// everything in that folder and prints where it listens.
const storeForKill = "ANYQUIC_TEST_STORE"

// killRounds in the environment is how often it is killed, in place of 5.
const killRounds = "ANYQUIC_KILL_ROUNDS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(storeForKill); dir != "" {
		if err := serveForKill(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serveForKill(dir string) error {
	s, err := pebblestore.Open(dir, &pebblestore.Config{MemTableBytes: 1 << 20}) // flushes and compactions
	if err != nil {
		return err
	}
	b, err := broker.New(&broker.Config{Store: s, Delayed: broker.Delayed{Enabled: true}})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr(), b.Stats().Store.Damaged)
	return b.Serve(l, mqtt.TCP)
}

// killable starts a broker of its own process and returns how to reach and to end it.
func killable(t *testing.T, dir string) (addr string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), storeForKill+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ended := false
	kill = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill() // SIGKILL
			_ = cmd.Wait()         // says that it was killed
		}
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	addr, damaged, _ := strings.Cut(strings.TrimSpace(line), " ")
	require.Equal(t, "0", damaged)
	return addr, kill
}

// A process that serves publishers of QoS 1 and 2 and a subscriber is killed at
// any moment, again and again.
func TestAKilledProcessLosesAndDuplicatesNothing(t *testing.T) {
	rounds := 5
	if v := os.Getenv(killRounds); v != "" {
		var err error
		rounds, err = strconv.Atoi(v)
		require.NoError(t, err)
	}
	dir := t.TempDir()
	var addr string
	dialTCP := func() *peer {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		return &peer{t: t, conn: conn, r: mqtt.NewReader(conn, 0), v: packet.V5}
	}
	addr, kill := killable(t, dir)
	live := newFaithful(t, "live")
	live.filter = "t/#"
	require.True(t, together(t, dialTCP, nil, live))

	pubs := []*faithful{newFaithful(t, "p"), newFaithful(t, "q"), newFaithful(t, "r")}
	all := append(pubs, live)
	live.want = 1 << 30
	for range rounds {
		for _, p := range pubs {
			p.total = 1 << 30
		}
		// After so many packets, whatever time they take, and a moment.
		packets, moment := 40+rand.IntN(300), time.Duration(rand.IntN(5000))*time.Microsecond
		due, stop := make(chan struct{}), make(chan struct{})
		live.came = func() {
			if packets--; packets == 0 {
				close(due)
			}
		}
		go func() { // ends with the packets
			defer close(stop)
			<-due
			time.Sleep(moment)
			kill()
		}()
		require.False(t, together(t, dialTCP, stop, all...))
		<-stop
		addr, kill = killable(t, dir)
	}
	live.want, live.came = 0, nil
	for _, p := range pubs {
		p.total = p.sent
		live.want += p.sent
	}
	require.True(t, together(t, dialTCP, nil, all...))
	kill()
	require.Greater(t, live.want, 10*rounds)
	require.Len(t, live.got, live.want, "lost")
	again := 0
	for payload, times := range live.got {
		n, err := strconv.Atoi(payload[2:])
		require.NoError(t, err)
		if n%2 == 1 {
			require.Equal(t, 1, times, "QoS 2 message %s", payload)
		} else if times > 1 {
			again++
		}
	}
	t.Logf("%d kills, %d messages, %d of QoS 1 more than once", rounds, live.want, again)
}

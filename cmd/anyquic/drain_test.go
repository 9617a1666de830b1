package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestServeDrainsOverTimeWithAServerReference(t *testing.T) {
	// The drain lasts until the second client is told, half of the spread after the first:
	// until then there is time to look. The broker itself ends the connection of one who was
	// told, and does not wait long for that.
	const half = 10 * time.Second
	s := startServe(t, "--server-reference", "b.example:1883", "--drain-spread", (2 * half).String())
	told := make(chan time.Time, 2)
	for _, id := range []string{"a", "b"} {
		p := s.connect(t, id)
		go func() { // ends with the broker
			for {
				q, err := p.read()
				if err != nil {
					return
				}
				if d, ok := q.(*packet.Disconnect); ok && d.Code == packet.UseAnotherServer && d.Properties.ServerReference == "b.example:1883" {
					told <- time.Now()
					p.conn.Close()
				}
			}
		}()
	}
	stopped, began := make(chan struct{}), time.Now()
	go func() { // as by SIGTERM
		defer close(stopped)
		s.stop()
	}()
	first := <-told
	status, body := s.get(t, "/healthz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "draining\n", body)
	require.EqualValues(t, 1, s.scrape(t)["draining"])
	late := s.dialPeer(t)
	ack := late.hello("late")
	require.Equal(t, packet.UseAnotherServer, ack.Code)
	require.Equal(t, "b.example:1883", ack.Properties.ServerReference)
	late.conn.Close()
	// When one was told only its own goroutine knows, and that may have been late: so may
	// what it says of it. But one of them is told half of the time after the drain began.
	last := <-told
	if first.After(last) {
		last = first
	}
	require.GreaterOrEqual(t, last.Sub(began), half)
	<-stopped
	require.Contains(t, s.stderr.String(), "draining")
}

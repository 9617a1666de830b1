package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestServeDrainsOverTimeWithAServerReference(t *testing.T) {
	s := startServe(t, "--server-reference", "b.example:1883", "--drain-spread", "500ms")
	told, looked := make(chan time.Time, 2), make(chan struct{})
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
					<-looked // the drain lasts until both have gone
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
	<-told
	status, body := s.get(t, "/healthz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "draining\n", body)
	require.EqualValues(t, 1, s.scrape(t)["draining"])
	late := s.dialPeer(t)
	ack := late.hello("late")
	require.Equal(t, packet.UseAnotherServer, ack.Code)
	require.Equal(t, "b.example:1883", ack.Properties.ServerReference)
	late.conn.Close()
	// When the first was told only its own goroutine knows, and that may have been
	// late; the second is told half of the time after the drain began.
	require.GreaterOrEqual(t, (<-told).Sub(began), 250*time.Millisecond)
	close(looked)
	<-stopped
	require.Contains(t, s.stderr.String(), "draining")
}

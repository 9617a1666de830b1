package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestServeDrainsOverTimeWithAServerReference(t *testing.T) {
	s := startServe(t, "--server-reference", "b.example:1883", "--drain-spread", "500ms")
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
					time.Sleep(200 * time.Millisecond) // so that the drain can be looked at
					p.conn.Close()
				}
			}
		}()
	}
	stopped := make(chan struct{})
	go func() { // as by SIGTERM
		defer close(stopped)
		s.stop()
	}()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		status, body := s.get(t, "/healthz")
		require.Equal(c, http.StatusServiceUnavailable, status)
		require.Equal(c, "draining\n", body)
	}, 10*time.Second, 5*time.Millisecond)
	require.EqualValues(t, 1, s.scrape(t)["draining"])
	late := s.dialPeer(t)
	ack := late.hello("late")
	require.Equal(t, packet.UseAnotherServer, ack.Code)
	require.Equal(t, "b.example:1883", ack.Properties.ServerReference)
	late.conn.Close()
	first, second := <-told, <-told
	require.GreaterOrEqual(t, second.Sub(first), 240*time.Millisecond)
	<-stopped
	require.Contains(t, s.stderr.String(), "draining")
}

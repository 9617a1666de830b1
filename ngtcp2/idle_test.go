//go:build ngtcp2 && cgo

package ngtcp2

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

// wakeups is how often the loops of both sides have woken.
func (r *rig) wakeups() (client, server uint64) {
	synctest.Wait()
	return r.client.socket.(*plainSocket).wakeups.Load(), r.server.socket.(*plainSocket).wakeups.Load()
}

func TestNobodyWakesForAConnectionOnWhichNothingHappens(t *testing.T) {
	simulated(t, func(t *testing.T) {
		quiet := func(c *transport.Config) { c.KeepAlive, c.IdleTimeout = -1, time.Minute }
		r := newRig(t, quiet, quiet)
		c, s := r.dial()
		r.works(c, s)
		time.Sleep(5 * time.Second) // what follows a handshake and data
		client, server := r.wakeups()
		packets := c.Stats().PacketsSent + s.Stats().PacketsSent
		time.Sleep(10 * time.Second)
		nowClient, nowServer := r.wakeups()
		require.Equal(t, client, nowClient)
		require.Equal(t, server, nowServer)
		require.Equal(t, packets, c.Stats().PacketsSent+s.Stats().PacketsSent)
	})
}

// What is left to do after data takes few timers.
func TestLittleWakesSoonAfterTheLastData(t *testing.T) {
	simulated(t, func(t *testing.T) {
		quiet := func(c *transport.Config) { c.KeepAlive, c.IdleTimeout = -1, time.Minute }
		r := newRig(t, quiet, quiet)
		c, s := r.dial()
		time.Sleep(5 * time.Second)
		client, server := r.wakeups()
		r.works(c, s)
		time.Sleep(10 * time.Second)
		nowClient, nowServer := r.wakeups()
		require.LessOrEqual(t, nowClient-client, uint64(12))
		require.LessOrEqual(t, nowServer-server, uint64(12))
	})
}

package bench

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// relayed returns both ends of a relay.
func relayed(t *testing.T, path LossyPath) (r *relay, client, server net.PacketConn) {
	t.Helper()
	listen := func() net.PacketConn {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, pc.SetDeadline(time.Now().Add(10*time.Minute)))
		t.Cleanup(func() { pc.Close() })
		return pc
	}
	client, server = listen(), listen()
	r, err := newRelay(server.LocalAddr().String(), path)
	require.NoError(t, err)
	t.Cleanup(r.close)
	return r, client, server
}

func relayAddr(t *testing.T, r *relay) net.Addr {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp", r.addr())
	require.NoError(t, err)
	return addr
}

func TestRelayDelaysPacketsBothWaysAndKeepsTheirOrder(t *testing.T) {
	const rtt = 40 * time.Millisecond
	r, client, server := relayed(t, LossyPath{RTT: rtt})
	to := relayAddr(t, r)
	start := time.Now()
	const n = 200
	for i := range uint32(n) {
		_, err := client.WriteTo(binary.BigEndian.AppendUint32(nil, i), to)
		require.NoError(t, err)
	}
	buf := make([]byte, 100)
	for i := range uint32(n) {
		size, from, err := server.ReadFrom(buf)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(start), rtt/2)
		require.Equal(t, i, binary.BigEndian.Uint32(buf[:size]))
		_, err = server.WriteTo(buf[:size], from)
		require.NoError(t, err)
	}
	for i := range uint32(n) {
		size, _, err := client.ReadFrom(buf)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(start), rtt)
		require.Equal(t, i, binary.BigEndian.Uint32(buf[:size]))
	}
	lost, total := r.counters()
	require.Zero(t, lost)
	require.Equal(t, uint64(2*n), total)
}

func TestRelayDropsThePacketsThatItsSeedSays(t *testing.T) {
	const n = 1000
	pass := func(seed uint64) (arrived []uint32) {
		r, client, server := relayed(t, LossyPath{Loss: 0.1, Seed: seed})
		to := relayAddr(t, r)
		buf := make([]byte, 100)
		for i := range uint32(n) {
			_, err := client.WriteTo(binary.BigEndian.AppendUint32(nil, i), to)
			require.NoError(t, err)
			there := r.way[0]
			for there.total.Load() <= uint64(i) { // one by one, so that no buffer overflows
				time.Sleep(10 * time.Microsecond) // counters would ask the kernel each time
			}
			for uint64(len(arrived)) < uint64(i)+1-there.lost.Load() {
				size, _, err := server.ReadFrom(buf)
				require.NoError(t, err)
				arrived = append(arrived, binary.BigEndian.Uint32(buf[:size]))
			}
		}
		lost, total := r.counters()
		require.Equal(t, uint64(n), total)
		require.InDelta(t, n/10, lost, n/40)
		return arrived
	}
	first := pass(1)
	require.Equal(t, first, pass(1))
	require.NotEqual(t, first, pass(2))
}

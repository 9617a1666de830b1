//go:build ngtcp2 && cgo

package ngtcp2

import (
	"crypto/tls"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// RFC 9000, Section 8.1: before an address is validated, a server sends there no more
// than three times what came from it. Not by a byte, after each packet that came.
func TestAServerNeverPassesTheAmplificationLimit(t *testing.T) {
	names := make([]string, 400) // a certificate that is much larger
	for i := range names {
		names[i] = fmt.Sprintf("host-%d.with-a-long-name.example", i)
	}
	for _, gap := range []time.Duration{0, time.Millisecond, time.Second} {
		t.Run(fmt.Sprint("packets ", gap, " apart"), func(t *testing.T) {
			simulated(t, func(t *testing.T) {
				r := newRig(t, func(c *transport.Config) {
					c.TLS.Certificates = []tls.Certificate{testcert.NewCA().Certificate(names...)}
					c.HandshakeTimeout = time.Minute
				}, nil)
				packets := firstPackets(t, r.network, r.server.Addr())
				const mute = "203.0.113.1:1"
				pc := r.network.Socket(mute, transporttest.Link{}, transporttest.Link{})
				seen := r.network.Capture()
				received := 0
				sent := func() (n int) {
					for _, p := range seen.Packets() {
						if p.To.String() == mute {
							n += len(p.Data)
						}
					}
					return n
				}
				for _, p := range packets {
					n, err := pc.WriteTo(p, r.server.Addr())
					require.NoError(t, err)
					received += n
					time.Sleep(gap)
					synctest.Wait()
					require.LessOrEqual(t, sent(), 3*received)
				}
				time.Sleep(50 * time.Second) // it sends again what nobody acknowledges
				require.LessOrEqual(t, sent(), 3*received)
				require.Greater(t, sent(), 2*received, "the limit was not what stopped it")
				require.NoError(t, pc.Close())
			})
		})
	}
}

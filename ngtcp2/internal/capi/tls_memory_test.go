//go:build ngtcp2 && cgo

package capi

import (
	"crypto/tls"
	"fmt"
	"runtime"
	"testing"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/stretchr/testify/require"
)

// The library may not have been used before.
var tlsMemoryIsWatched = watchTLSMemory()

// refusals calls f with each allocation of the TLS library refused in turn, and
// later ones with growing steps, until f needs fewer. f says whether it got what
// it wanted. Nothing may be left behind: what f has made it frees.
func refusals(t *testing.T, f func() error) {
	require.True(t, tlsMemoryIsWatched)
	checkMemory(t)
	// The library keeps things by thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	require.NoError(t, f())
	sweep := func() (failed int) {
		for n := int64(1); ; n += 1 + n/32 {
			refuseTLSMemory(n)
			err := f()
			refused := tlsMemoryWasRefused()
			refuseTLSMemory(0)
			if !refused {
				require.NoError(t, err)
				return failed
			}
			if err != nil {
				failed++
			}
		}
	}
	require.NotZero(t, sweep())
	was := tlsBlocks()
	require.NotZero(t, sweep())
	require.LessOrEqual(t, tlsBlocks(), was, "pieces of memory of the TLS library")
}

func TestAHandshakeWithoutMemoryForTheTLSLibraryEndsWithAnError(t *testing.T) {
	both := []option{tickets([32]byte{1}), tlsOption(func(s, c *TLSConfig) {
		s.ClientAuth, c.Callbacks = ClientAuthRequest, &testCallbacks{cert: testCertificate(t)}
		s.EarlyData, c.EarlyData = true, true
	})}
	session, params := resumable(t, [32]byte{1}, both...)
	for _, c := range []struct {
		name    string
		session []byte
		server  []uint16
	}{
		{"full", nil, nil},
		{"resumed", session, nil},
		{"retried", nil, []uint16{uint16(tls.CurveP384)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			buf := make([]byte, MinWriteBuffer)
			refusals(t, func() error {
				refused := armed()
				w := newWorld(t, append(both, func(w *world, _ *Settings, o *ClientOptions, ct *TLSConfig) {
					w.buf, w.delay = buf, microsecond
					ct.Curves, w.serverTLS.Curves = nil, c.server
					if ct.Session = c.session; c.session != nil {
						o.EarlyParams = params
					}
				})...)
				defer w.close()
				refuseTLSMemory(refused)
				for w.now < 20*second && w.step() {
					if w.client.err != nil || w.server.err != nil {
						return fmt.Errorf("client: %v, server: %v", w.client.err, w.server.err)
					}
					if w.client.count[Session] > 0 {
						return nil
					}
				}
				return fmt.Errorf("not complete at %d", w.now)
			})
		})
	}
}

func TestAConnectionIsNotMadeWithoutMemoryForTheTLSLibrary(t *testing.T) {
	refusals(t, func() error {
		s := testSettings()
		c, err := NewClient(&s, &ClientOptions{Path: Path{clientAddr, serverAddr}, DCID: make([]byte, 12), SCID: make([]byte, 8)},
			&TLSConfig{NextProtos: []string{"test"}, ServerName: "localhost", Callbacks: &testCallbacks{}})
		if err == nil {
			c.Free()
		}
		return err
	})
}

func TestACertificateIsNotMadeWithoutMemoryForTheTLSLibrary(t *testing.T) {
	conf, _ := testcert.New("test")
	for name, key := range map[string]any{
		"key": conf.Certificates[0].PrivateKey, "signer": &holder{key: newKey(t, "P-256")},
	} {
		t.Run(name, func(t *testing.T) {
			chain := conf.Certificates[0].Certificate
			if h, ok := key.(*holder); ok {
				chain = newChain(t, h.Public())
			}
			refusals(t, func() error {
				c, err := NewCertificate(chain, nil, nil, key)
				if err == nil {
					c.Close()
				}
				return err
			})
		})
	}
}

// armed takes off what refuseTLSMemory put up, so that it can be put up later.
func armed() int64 {
	n := tlsMemoryCountdown()
	refuseTLSMemory(0)
	return n
}

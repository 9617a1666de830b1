//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// sessionMap is a transport.SessionCache.
type sessionMap struct {
	mu sync.Mutex
	m  map[string][]byte // guarded by mu
}

func (c *sessionMap) Take(name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.m[name]
	delete(c.m, name)
	return b
}

func (c *sessionMap) Put(name string, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string][]byte)
	}
	c.m[name] = b
}

// newEarlyRig is a rig whose client has a session, of which server says whether
// it allows early data.
func newEarlyRig(t *testing.T, server, client func(*transport.Config)) (*rig, *sessionMap) {
	cache := &sessionMap{}
	r := newRig(t, server, func(c *transport.Config) {
		c.EarlyData, c.Sessions = true, cache
		if client != nil {
			client(c)
		}
	})
	c, s := r.dial()
	require.NoError(t, c.Handshake(r.Context()))
	require.Eventually(t, func() bool {
		cache.mu.Lock()
		defer cache.mu.Unlock()
		return len(cache.m) > 0
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, c.CloseWithError(0, ""))
	<-s.Context().Done()
	if capi.TLSLibrary() == "wolfssl" {
		// A client tells the age of its ticket by the host's clock, and a server takes
		// what is from a second more to eleven less than virtual time says: so the next
		// handshake may be late on a busy machine.
		time.Sleep(8 * time.Second)
	}
	return r, cache
}

// RFC 8446, Section 4.6.1: a server says how long a ticket may be used. OpenSSL
// leaves an older one out of its first message, but not the early data, whose key
// is then made of what everybody knows.
func TestNoEarlyDataIsSentWithASessionThatIsTooOld(t *testing.T) {
	if capi.TLSLibrary() != "openssl" {
		t.Skip("the session that is made old is OpenSSL's")
	}
	simulated(t, func(t *testing.T) {
		const age = 25 * 3600
		var offered []uint16 // extensions
		r, cache := newEarlyRig(t, func(c *transport.Config) {
			c.EarlyData = true
			c.TLS.GetConfigForClient = func(i *tls.ClientHelloInfo) (*tls.Config, error) {
				offered = slices.Clone(i.Extensions)
				return nil, nil
			}
		}, nil)
		s, err := decodeSession(cache.Take("localhost"))
		require.NoError(t, err)
		// SSL_SESSION_ASN1: [1] time, [9] ticket_lifetime_hint.
		at := bytes.Index(s.tls, []byte{0xa1, 6, 2, 4})
		require.Positive(t, at)
		made := s.tls[at+4:]
		binary.BigEndian.PutUint32(made, binary.BigEndian.Uint32(made)-age)
		at = bytes.Index(s.tls, []byte{0xa9, 5, 2, 3, 9, 0x3a, 0x80}) // 7 days
		require.Positive(t, at)
		copy(s.tls[at+4:], []byte{1, 0, 0}) // 65536 seconds
		s.created = s.created.Add(-age * time.Second)
		b, err := s.encode()
		require.NoError(t, err)
		cache.Put("localhost", b)

		c, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
		require.NoError(t, err)
		require.True(t, c.(*conn).complete.Load(), "Dial waits: there is no early data")
		require.False(t, c.State().TLS.DidResume)
		const earlyData, preSharedKey = 42, 41
		require.NotContains(t, offered, uint16(earlyData))
		require.NotContains(t, offered, uint16(preSharedKey))
	})
}

func TestASessionWithinItsLifetimeBringsEarlyData(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r, _ := newEarlyRig(t, func(c *transport.Config) { c.EarlyData = true }, nil)
		if capi.TLSLibrary() != "wolfssl" { // which tells the age by the host's clock
			time.Sleep(time.Minute) // it is what the client says by its clock
		}
		c, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
		require.NoError(t, err)
		require.False(t, c.(*conn).complete.Load())
		require.NoError(t, c.Handshake(r.Context()))
		require.True(t, c.State().EarlyData)
	})
}

func TestDialWaitsForTheHandshakeIfTheSessionAllowsNoEarlyData(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r, _ := newEarlyRig(t, nil, nil)
		c, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
		require.NoError(t, err)
		require.True(t, c.(*conn).complete.Load())
		require.True(t, c.State().TLS.DidResume)
	})
}

func TestVerifyConnectionIsAskedBeforeEarlyDataIsDelivered(t *testing.T) {
	simulated(t, func(t *testing.T) {
		var refuse atomic.Bool
		var asked atomic.Int64
		r, _ := newEarlyRig(t, func(c *transport.Config) {
			c.EarlyData = true
			c.TLS.VerifyConnection = func(s tls.ConnectionState) error {
				asked.Add(1)
				if refuse.Load() {
					return errors.New("not this one")
				}
				return nil
			}
		}, nil)
		refuse.Store(true)
		asked.Store(0)
		c, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
		require.NoError(t, err)
		require.False(t, c.(*conn).complete.Load())
		w, err := c.OpenStream(r.Context())
		require.NoError(t, err)
		_, err = w.Write([]byte("early"))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		_, err = r.ln.Accept(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded, "the application must not see it")
		require.EqualValues(t, 1, asked.Load())
		var protocolErr *transport.ProtocolError
		require.ErrorAs(t, c.Handshake(r.Context()), &protocolErr)
		require.EqualValues(t, 0x100+alertBadCertificate, protocolErr.Code)
		require.True(t, protocolErr.Remote)
	})
}

func TestTheClientsCertificateIsKnownWhenItsEarlyDataIsDelivered(t *testing.T) {
	simulated(t, func(t *testing.T) {
		var asked atomic.Int64
		r, _ := newEarlyRig(t, func(c *transport.Config) {
			c.EarlyData = true
			c.TLS.ClientAuth = tls.RequireAnyClientCert
			c.TLS.VerifyConnection = func(s tls.ConnectionState) error {
				asked.Add(1)
				if len(s.PeerCertificates) == 0 {
					return errors.New("nobody")
				}
				return nil
			}
		}, func(c *transport.Config) {
			c.TLS.Certificates = []tls.Certificate{testcert.NewCA().ClientCertificate("alice")}
		})
		asked.Store(0)
		c, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
		require.NoError(t, err)
		w, err := c.OpenStream(r.Context())
		require.NoError(t, err)
		_, err = w.Write([]byte("early"))
		require.NoError(t, err)
		s, err := r.ln.Accept(r.Context())
		require.NoError(t, err)
		require.NotEmpty(t, s.State().TLS.PeerCertificates)
		a, err := s.AcceptStream(r.Context())
		require.NoError(t, err)
		_, err = io.ReadFull(a, make([]byte, 5))
		require.NoError(t, err)
		require.NoError(t, c.Handshake(r.Context()))
		require.NoError(t, s.Handshake(r.Context()))
		require.True(t, s.State().EarlyData)
		require.EqualValues(t, 1, asked.Load(), "once")
	})
}

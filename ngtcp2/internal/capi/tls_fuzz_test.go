//go:build ngtcp2 && cgo

package capi

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// prefixed puts a length of size bytes before b.
func prefixed(size int, b []byte) []byte {
	n := binary.BigEndian.AppendUint64(nil, uint64(len(b)))
	return append(n[8-size:], b...)
}

func extension(t uint16, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, t), prefixed(2, body)...)
}

// clientHello is a ClientHello with these extensions.
func clientHello(extensions ...[]byte) []byte {
	b := append(make([]byte, 2+32), prefixed(1, []byte("session"))...)
	b = append(b, prefixed(2, []byte{0x13, 1})...)
	b = append(b, prefixed(1, []byte{0})...)
	b = append(b, prefixed(2, bytes.Join(extensions, nil))...)
	return append([]byte{1}, prefixed(3, b)...)
}

// certificateRequest is a CertificateRequest with these extensions.
func certificateRequest(extensions ...[]byte) []byte {
	b := append(prefixed(1, nil), prefixed(2, bytes.Join(extensions, nil))...)
	return append([]byte{13}, prefixed(3, b)...)
}

func TestTheListsOfAClientHelloAreFound(t *testing.T) {
	alpn := []byte("\x01a\x02bc")
	hello := clientHello(extension(7, nil), extension(10, prefixed(2, []byte{0, 29})),
		extension(51, prefixed(2, []byte{0, 29, 0, 1, 9})), extension(16, prefixed(2, alpn)))
	groups, shares, protocols, ok := helloExtensions(hello)
	require.True(t, ok)
	require.Equal(t, []byte{0, 29}, groups)
	require.Equal(t, []byte{0, 29, 0, 1, 9}, shares)
	require.Equal(t, alpn, protocols)
	for n := range hello {
		_, _, protocols, _ := helloExtensions(hello[:n])
		require.Nil(t, protocols, "cut at %d", n)
	}
}

func TestACertificateRequestIsGatheredFromPieces(t *testing.T) {
	names := prefixed(2, []byte{0x30, 0})
	msg := append([]byte{8}, prefixed(3, []byte("encrypted extensions"))...)
	msg = append(msg, certificateRequest(extension(13, prefixed(2, []byte{4, 3, 8, 4})), extension(47, prefixed(2, names)))...)
	msg = append(msg, 11, 0, 0, 1, 0)
	for size := 1; size <= len(msg); size++ {
		var pieces [][]byte
		for b := msg; len(b) > 0; b = b[min(size, len(b)):] {
			pieces = append(pieces, b[:min(size, len(b))])
		}
		gotNames, schemes := gatherRequest(pieces)
		require.Equal(t, names, gotNames)
		require.Equal(t, []byte{4, 3, 8, 4}, schemes)
	}
	long := append([]byte{13}, 0x10, 0, 0)
	gotNames, _ := gatherRequest([][]byte{long, msg})
	require.Nil(t, gotNames, "what is too long is not kept")
}

// RFC 6962, Section 3.3: SerializedSCT<1..2^16-1>, sct_list<1..2^16-1>.
func TestAListOfTimestampsIsTakenWholeOrNotAtAll(t *testing.T) {
	body := prefixed(2, bytes.Join([][]byte{prefixed(2, []byte("one")), prefixed(2, []byte{0})}, nil))
	list, ok := timestampList(body)
	require.True(t, ok)
	require.Equal(t, [][]byte{[]byte("one"), {0}}, list)
	for n := range body {
		_, ok := timestampList(body[:n])
		require.False(t, ok, "cut at %d", n)
	}
	for _, bad := range [][]byte{
		append(bytes.Clone(body), 0), prefixed(2, nil), prefixed(2, prefixed(2, nil)), prefixed(2, []byte{0}),
		prefixed(2, append(prefixed(2, []byte{1}), 0)),
	} {
		_, ok := timestampList(bad)
		require.False(t, ok, "%x", bad)
	}
}

func FuzzTimestamps(f *testing.F) {
	f.Add(prefixed(2, prefixed(2, []byte("one"))))
	f.Add(prefixed(2, append(prefixed(2, []byte{1}), prefixed(2, []byte{2, 3})...)))
	f.Add([]byte{0, 2, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, ok := timestampList(b)
		if !ok {
			return
		}
		again, err := packTimestamps(list)
		if len(b) > 65535-4 {
			return // more than fits into a message
		}
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("%x: read as %x, %v", b, again, err)
		}
	})
}

func FuzzClientHello(f *testing.F) {
	f.Add(clientHello())
	f.Add(clientHello(extension(16, prefixed(2, []byte("\x01a"))), extension(10, prefixed(2, []byte{0, 29}))))
	f.Add([]byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		groups, shares, protocols, ok := helloExtensions(b)
		if !ok && (groups != nil || shares != nil || protocols != nil) {
			t.Fatal("lists of a broken ClientHello")
		}
		for _, list := range [][]byte{groups, shares, protocols} {
			if !bytes.Contains(b, list) {
				t.Fatal("a list that is not in the ClientHello")
			}
		}
	})
}

func FuzzCertificateRequest(f *testing.F) {
	f.Add(certificateRequest(extension(13, prefixed(2, []byte{4, 3})), extension(47, prefixed(2, []byte{0, 2, 48, 0}))), uint16(3))
	f.Add([]byte{13, 0, 0, 0, 13, 0, 0, 1, 0}, uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		was := Memory()
		names, schemes := gatherRequest([][]byte{b})
		n := int(cut) % (len(b) + 1)
		again, schemesAgain := gatherRequest([][]byte{b[:n], b[n:]})
		if !bytes.Equal(names, again) || !bytes.Equal(schemes, schemesAgain) {
			t.Fatal("the pieces count")
		}
		if now := Memory(); now != was {
			t.Fatalf("%d bytes of C memory are left", now-was)
		}
	})
}

// FuzzSession gives the TLS library sessions that an application stored.
func FuzzSession(f *testing.F) {
	session, _ := resumable(f, [32]byte{1}, tlsOption(func(s, c *TLSConfig) { s.EarlyData, c.EarlyData = true, true }))
	f.Add(session)
	f.Add(session[:len(session)/2])
	for i := range session {
		b := bytes.Clone(session)
		b[i] ^= 0xff
		f.Add(b)
	}
	buf := make([]byte, 65536)
	f.Fuzz(func(t *testing.T, b []byte) {
		was := Memory()
		s := testSettings()
		c, err := NewClient(&s, &ClientOptions{Path: Path{clientAddr, serverAddr}, DCID: make([]byte, 12), SCID: make([]byte, 8)},
			&TLSConfig{NextProtos: []string{"test"}, ServerName: "localhost", EarlyData: true, Tickets: true, Session: b, Callbacks: &testCallbacks{}})
		if err == nil {
			_, _ = c.WritePackets(buf, s.Now)
			c.Free()
		}
		if now := Memory(); now != was {
			t.Fatalf("%d bytes of C memory are left", now-was)
		}
	})
}

//go:build ngtcp2 && cgo && fuzzplain

package capi

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainWorld is a world without cryptography, with its handshake done or not.
func plainWorld(t testing.TB, established bool) *world {
	return plainWorldWith(t, established, func(*Settings) {})
}

// plainWorldWith is plainWorld with other settings, of both sides.
func plainWorldWith(t testing.TB, established bool, change func(*Settings)) *world {
	setPlain(true)
	t.Cleanup(func() { setPlain(false) })
	w := &world{t: t, now: second, rand: rand.New(rand.NewPCG(1, 2)), delay: 10 * millisecond, buf: plainBuf, serverSettings: testSettings()}
	w.server = &peer{w: w, name: "server", streams: map[int64]*half{}, count: map[EventType]int{}}
	w.client = &peer{w: w, name: "client", streams: map[int64]*half{}, count: map[EventType]int{}}
	s := testSettings()
	change(&s)
	change(&w.serverSettings)
	var err error
	w.client.Conn, err = newPlainClient(&s, &ClientOptions{Path: Path{clientAddr, serverAddr}, DCID: id(w.rand, 12), SCID: id(w.rand, 8)})
	if err != nil {
		t.Fatal(err)
	}
	if established {
		w.handshake()
	}
	return w
}

var (
	plainBuf  = make([]byte, MinWriteBuffer)
	otherAddr = netip.MustParseAddrPort("192.0.2.9:9")

	// The connection IDs that every world chooses, in this order.
	plainRand                   = rand.New(rand.NewPCG(1, 2))
	_, plainClient, plainServer = id(plainRand, 12), id(plainRand, 8), id(plainRand, 8)
)

// frames of RFC 9000, Section 19, and RFC 9221, Section 4, to begin with.
var plainFrames = [][]byte{
	{0x00, 0x00},
	{0x01},
	{0x02, 0x01, 0x00, 0x00, 0x01},
	{0x03, 0x05, 0x00, 0x01, 0x01, 0x00, 0x00, 0x01, 0x01, 0x01},
	{0x04, 0x00, 0x07, 0x0a},
	{0x05, 0x00, 0x07},
	{0x06, 0x00, 0x04, 1, 2, 3, 4},
	{0x06, 0x44, 0x00, 0x04, 1, 2, 3, 4},
	{0x07, 0x04, 1, 2, 3, 4},
	{0x08, 0x00, 'h', 'e', 'l', 'l', 'o'},
	{0x0f, 0x04, 0x00, 0x05, 'h', 'e', 'l', 'l', 'o'},
	{0x0e, 0x02, 0x09, 0x02, 'h', 'i', 0x0a, 0x02, 0x01, 0x01, 'x'},
	{0x0b, 0x18, 'x'},
	{0x10, 0x80, 0x10, 0x00, 0x00},
	{0x11, 0x00, 0x80, 0x10, 0x00, 0x00},
	{0x12, 0x44, 0x00},
	{0x13, 0x44, 0x00},
	{0x14, 0x44, 0x00},
	{0x15, 0x00, 0x44, 0x00},
	{0x16, 0x44, 0x00},
	{0x17, 0x44, 0x00},
	append([]byte{0x18, 0x08, 0x01, 0x08, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 16)...),
	{0x19, 0x00},
	{0x1a, 1, 2, 3, 4, 5, 6, 7, 8},
	{0x1b, 1, 2, 3, 4, 5, 6, 7, 8},
	{0x1c, 0x07, 0x00, 0x02, 'n', 'o'},
	{0x1d, 0x07, 0x02, 'n', 'o'},
	{0x1e},
	{0x30, 'x'},
	{0x31, 0x01, 'x'},
}

// plainPacket makes a packet of frames for to: a packet of the kind that the first byte of
// the script chose. Its number is the next that to expects.
func plainPacket(w *world, to *peer, kind byte, number uint32, frames []byte) []byte {
	dcid, scid := plainClient, plainServer
	if to == w.server {
		dcid, scid = scid, dcid
	}
	pn := []byte{byte(number >> 24), byte(number >> 16), byte(number >> 8), byte(number)}
	for len(frames) < 4 {
		frames = append(frames, 0)
	}
	switch kind % 4 {
	case 1, 2: // Initial, Handshake
		b := []byte{0xc3, 0, 0, 0, 1, byte(len(dcid))}
		if kind%4 == 2 {
			b[0] = 0xe3
		}
		b = append(b, dcid...)
		b = append(append(b, byte(len(scid))), scid...)
		if kind%4 == 1 {
			b = append(b, 0)
			for len(frames) < 1150 {
				frames = append(frames, 0)
			}
		}
		n := len(frames) + 4 + 16
		b = append(b, byte(n>>8)|0x40, byte(n))
		b = append(append(b, pn...), frames...)
		return append(b, make([]byte, 16)...)
	}
	b := append([]byte{0x43 | kind&4}, dcid...) // the key phase may change
	b = append(append(b, pn...), frames...)
	return append(b, make([]byte, 16)...)
}

// FuzzFrames lets frames of the fuzzer's choice arrive in packets that are as
// they should be: in both roles, before and after the handshake.
//
// A script is a sequence of: a control byte (who, what), two bytes of length,
// and as many bytes of frames.
func FuzzFrames(f *testing.F) {
	for _, fr := range plainFrames {
		for _, established := range []bool{false, true} {
			for _, control := range []byte{0, 1, 0x10, 0x21} {
				f.Add(append([]byte{control, 0, byte(len(fr))}, fr...), established)
			}
		}
	}
	f.Fuzz(func(t *testing.T, script []byte, established bool) {
		was := Memory()
		playFrames(t, script, established)
		if now := Memory(); now != was {
			t.Fatalf("%d bytes of C memory are left", now-was)
		}
	})
}

func playFrames(t *testing.T, script []byte, established bool) {
	w := plainWorld(t, established)
	defer w.close()
	if established {
		w.client.open(false).send(plainBuf[:3000], false)
		w.server.open(true).send(plainBuf[:30], true)
		w.client.SendDatagram([]byte("x"))
	}
	w.flush(w.client)
	w.flush(w.server)
	number := uint32(1000)
	for i := 0; i < 64 && len(script) >= 3; i++ {
		control, n := script[0], min(int(script[1])<<8|int(script[2]), len(script)-3, 1300)
		frames := script[3 : 3+n]
		script = script[3+n:]
		to := w.client
		if control&1 != 0 {
			to = w.server
		}
		switch control >> 4 & 3 {
		case 1:
			w.now += uint64(n) * 20 * millisecond
			w.step()
		case 2:
			useAPI(w, n, control)
		case 3:
			w.step()
		}
		if to.Conn == nil || to.err != nil {
			continue
		}
		number++
		kind := control >> 1 & 7
		if established {
			kind &= 4
		}
		path := Path{clientAddr, serverAddr}
		if to == w.server {
			path = Path{serverAddr, clientAddr}
			if control&0x80 != 0 {
				path.Remote = otherAddr
			}
		}
		to.err = to.ReadPackets(path, control>>6, plainPacket(w, to, kind, number, frames), 0, w.now)
		to.drain()
		w.flush(to)
	}
	for range 4 {
		w.step()
	}
	for _, p := range []*peer{w.client, w.server} {
		if p.Conn != nil {
			p.WriteClose(w.buf, ClosePending, 0, "", w.now)
		}
	}
}

func TestHandshakeDoneBeforeOurFinishedEndsTheConnectionOnly(t *testing.T) {
	checkMemory(t)
	w := plainWorld(t, false)
	defer w.close()
	w.flush(w.client)
	require.True(t, w.stepUntil(w.now+w.delay), "the server answers")
	w.flush(w.server)
	// The server's flight and, in the same batch, HANDSHAKE_DONE: RFC 9001,
	// Section 4.1.2 wants that after the Finished.
	for _, f := range w.queue {
		require.NoError(t, w.client.ReadPackets(f.path, 0, f.pkt, 0, w.now))
	}
	err := w.client.ReadPackets(Path{clientAddr, serverAddr}, 0, plainPacket(w, w.client, 0, 1000, []byte{0x1e}), 0, w.now)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.True(t, e.Fatal)
	_, err = w.client.WritePackets(w.buf, w.now)
	require.ErrorAs(t, err, &e)
	require.Error(t, w.client.HandleExpiry(w.now+second))
	_, err = w.client.WriteClose(w.buf, ClosePending, 0, "", w.now)
	require.NoError(t, err)
}

func TestCryptoDataAfterReleaseTLSEndsTheConnection(t *testing.T) {
	checkMemory(t)
	w := connected(t)
	defer w.close()
	w.wait(second)
	w.server.ReleaseTLS()
	w.server.ReleaseTLS()
	require.NoError(t, w.client.sendCrypto([]byte{4, 0, 0, 1, 0}))
	w.until("end", func() bool { return w.server.err != nil })
	var e *Error
	require.ErrorAs(t, w.server.err, &e)
	require.Equal(t, 10, e.Alert, "unexpected_message")
	require.Equal(t, "test", w.server.TLSState().ALPN)
}

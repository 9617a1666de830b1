package mqtt_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// pieces delivers its bytes in reads of random size.
type pieces struct {
	b   []byte
	rng *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b[:1+p.rng.IntN(min(len(p.b), 1<<p.rng.IntN(18)))])
	p.b = p.b[n:]
	return n, nil
}

func TestAReaderFindsEveryPacketHoweverTheBytesArrive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		var all []byte
		var want [][]byte
		for range 40 {
			payload := make([]byte, rng.IntN(1<<rng.IntN(19)))
			for i := range payload {
				payload[i] = byte(i * len(payload))
			}
			var err error
			all, err = (&packet.Publish{Topic: "t", Payload: payload}).Append(all, packet.V5)
			require.NoError(t, err)
			want = append(want, payload)
		}
		r := mqtt.NewReader(&pieces{all, rng}, 0)
		for i := range want {
			h, body, err := r.Next()
			require.NoError(t, err)
			var p packet.Publish
			require.NoError(t, p.Decode(h, body, packet.V5))
			require.True(t, bytes.Equal(want[i], p.Payload), "packet %d", i)
		}
		_, _, err := r.Next()
		require.Equal(t, io.EOF, err)
		r.Release()
	}
}

func TestAReadersErrors(t *testing.T) {
	var bad *packet.Error
	_, _, err := mqtt.NewReader(bytes.NewReader([]byte{0x30, 5, 0}), 0).Next()
	require.Equal(t, io.ErrUnexpectedEOF, err)

	_, _, err = mqtt.NewReader(bytes.NewReader([]byte{0x00, 0}), 0).Next()
	require.ErrorAs(t, err, &bad)
	require.Equal(t, packet.MalformedPacket, bad.Code)

	// On the header alone, and exactly at the limit.
	_, _, err = mqtt.NewReader(bytes.NewReader([]byte{0x30, 99}), 100).Next()
	require.ErrorAs(t, err, &bad)
	require.Equal(t, packet.PacketTooLarge, bad.Code)
	_, _, err = mqtt.NewReader(bytes.NewReader(append([]byte{0x30, 98}, make([]byte, 98)...)), 100).Next()
	require.NoError(t, err)

	broken := errors.New("broken")
	_, _, err = mqtt.NewReader(iotest.ErrReader(broken), 0).Next()
	require.Equal(t, broken, err)
}

func TestAReaderKeepsNoMemoryForWhatWasOnlyAnnounced(t *testing.T) {
	announced := append([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, make([]byte, 200)...)
	require.Less(t, testing.AllocsPerRun(10, func() {
		r := mqtt.NewReader(bytes.NewReader(announced), 0)
		_, _, err := r.Next()
		require.Equal(t, io.ErrUnexpectedEOF, err)
		require.Equal(t, len(announced), r.Buffered())
		r.Release()
	}), 20.0)
}

func TestAReaderDoesNotAllocateInABurst(t *testing.T) {
	one, err := (&packet.Publish{Topic: "t", Payload: make([]byte, 100)}).Append(nil, packet.V5)
	require.NoError(t, err)
	src := &endless{b: bytes.Repeat(one, 1000)}
	r := mqtt.NewReader(src, 0)
	for range 5000 {
		_, _, err := r.Next()
		require.NoError(t, err)
	}
	require.Zero(t, testing.AllocsPerRun(5000, func() { r.Next() }))
}

// endless delivers b again and again.
type endless struct {
	b   []byte
	pos int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.pos:])
	e.pos = (e.pos + n) % len(e.b)
	return n, nil
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{0x30, 3, 0, 1, 't', 0xc0, 0}, uint32(0), uint64(1))
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f, 0}, uint32(100), uint64(2))
	f.Add([]byte{0x30, 0x80, 0x80, 0x80, 0x80, 1}, uint32(0), uint64(3))
	f.Fuzz(func(t *testing.T, in []byte, most uint32, seed uint64) {
		r := mqtt.NewReader(&pieces{bytes.Clone(in), rand.New(rand.NewPCG(seed, 0))}, most)
		rest := in
		for {
			h, body, err := r.Next()
			want, n, perr := packet.ParseHeader(rest)
			if err != nil {
				if perr == nil && n > 0 && n+want.Length <= len(rest) && (most == 0 || n+want.Length <= int(most)) {
					t.Fatalf("%v for a complete packet", err)
				}
				return
			}
			if perr != nil || h != want || !bytes.Equal(body, rest[n:n+h.Length]) {
				t.Fatalf("got %v %x, want %v of %x", h, body, want, rest)
			}
			rest = rest[n+h.Length:]
		}
	})
}

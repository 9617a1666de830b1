package packet_test

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	. "github.com/anyquic/anyquic/mqtt/packet"
)

// FuzzDecode decodes bytes as a packet of one version; what decodes must encode
// to a packet that decodes to the same.
func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, level byte, data []byte) {
		v := V31 + Version(level%3)
		p, err := decode(data, v)
		if err != nil {
			require.Nil(t, p)
			if !errors.Is(err, errIncomplete) {
				requireError(t, err, "")
			}
			return
		}
		require.LessOrEqual(t, footprint(p), 1024+32*len(data))
		out, err := p.Append(nil, v)
		require.NoError(t, err)
		require.LessOrEqual(t, len(out), len(data), "Append is never longer than what was decoded")
		again, err := decode(out, v)
		require.NoError(t, err)
		require.Equal(t, p, again)
		if m, ok := p.(*Publish); ok {
			require.Equal(t, len(out), m.Size(v))
		}
	})
}

// footprint is the memory of what decoding allocates in slices and structs, in
// bytes.
func footprint(p Packet) int {
	of := func(p *Properties) int {
		if p == nil {
			return 0
		}
		return int(unsafe.Sizeof(*p)) + cap(p.SubscriptionIDs)*4 + cap(p.User)*int(unsafe.Sizeof(UserProperty{}))
	}
	switch p := p.(type) {
	case *Connect:
		if p.Will != nil {
			return of(p.Properties) + of(p.Will.Properties)
		}
		return of(p.Properties)
	case *Publish:
		return of(p.Properties)
	case *Subscribe:
		return of(p.Properties) + cap(p.Subscriptions)*int(unsafe.Sizeof(Subscription{}))
	case *Unsubscribe:
		return of(p.Properties) + cap(p.Filters)*int(unsafe.Sizeof(""))
	case *Suback:
		return of(p.Properties) + cap(p.Codes)
	case *Unsuback:
		return of(p.Properties) + cap(p.Codes)
	case *Puback:
		return of(p.Properties)
	}
	return 0
}

// FuzzParseHeader checks headers against a decoder written in another way.
func FuzzParseHeader(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		h, n, err := ParseHeader(data)
		if err != nil {
			requireError(t, err, "")
			require.Zero(t, n)
			return
		}
		if n == 0 {
			require.Less(t, len(data), 5)
			for _, c := range data[min(1, len(data)):] {
				require.GreaterOrEqual(t, c, byte(0x80))
			}
			return
		}
		require.Equal(t, data[0], byte(h.Type)<<4|h.Flags)
		length := 0
		for i := n - 1; i >= 1; i-- {
			length = length*128 + int(data[i]%128)
		}
		require.Equal(t, length, h.Length)
		require.LessOrEqual(t, h.Length, MaxRemainingLength)
		// The shortest form: one byte less could not hold it.
		require.True(t, n == 2 || h.Length >= 1<<(7*(n-2)))
		// The rest of data does not matter.
		again, m, err := ParseHeader(data[:n])
		require.NoError(t, err)
		require.Equal(t, h, again)
		require.Equal(t, n, m)
	})
}

// FuzzPublishDecode decodes two bodies into one Publish: the second must be as
// if there had been no first.
func FuzzPublishDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, level, first, second byte, a, b []byte) {
		v := V31 + Version(level%3)
		var reused Publish
		_ = reused.Decode(Header{PUBLISH, first & 15, len(a)}, a, v)
		err := reused.Decode(Header{PUBLISH, second & 15, len(b)}, b, v)
		var fresh Publish
		require.Equal(t, fresh.Decode(Header{PUBLISH, second & 15, len(b)}, b, v), err)
		if err != nil {
			requireError(t, err, "")
			return
		}
		require.Equal(t, fresh, reused)
		out, err := reused.Append(nil, v)
		require.NoError(t, err)
		require.Equal(t, len(out), reused.Size(v))
		again, err := decode(out, v)
		require.NoError(t, err)
		require.Equal(t, &fresh, again)
	})
}

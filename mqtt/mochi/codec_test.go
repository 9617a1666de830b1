package mochi_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	paho "github.com/eclipse/paho.golang/packets"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A codec is another implementation of MQTT's packets.
type codec struct {
	name string
	// decode decodes one packet, and encodes what it understood.
	decode func(b []byte, h packet.Header, body []byte, v packet.Version) (again []byte, err error)
}

var codecs = []codec{{"mochi", decodeMochi}, {"paho", decodePaho}}

func decodeMochi(b []byte, h packet.Header, body []byte, v packet.Version) (again []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	pk := packets.Packet{ProtocolVersion: byte(v), Mods: packets.Mods{AllowResponseInfo: true}}
	if err := pk.FixedHeader.Decode(b[0]); err != nil {
		return nil, err
	}
	pk.FixedHeader.Remaining = h.Length
	body = bytes.Clone(body)
	valid := func(code packets.Code) error {
		if code != packets.CodeSuccess {
			return code
		}
		return nil
	}
	var encode func(*bytes.Buffer) error
	switch h.Type {
	case packet.CONNECT:
		if err = pk.ConnectDecode(body); err == nil {
			err = valid(pk.ConnectValidate())
		}
		encode = pk.ConnectEncode
	case packet.CONNACK:
		err, encode = pk.ConnackDecode(body), pk.ConnackEncode
	case packet.PUBLISH:
		if err = pk.PublishDecode(body); err == nil {
			err = valid(pk.PublishValidate(65535))
		}
		encode = pk.PublishEncode
	case packet.PUBACK:
		err, encode = pk.PubackDecode(body), pk.PubackEncode
	case packet.PUBREC:
		err, encode = pk.PubrecDecode(body), pk.PubrecEncode
	case packet.PUBREL:
		err, encode = pk.PubrelDecode(body), pk.PubrelEncode
	case packet.PUBCOMP:
		err, encode = pk.PubcompDecode(body), pk.PubcompEncode
	case packet.SUBSCRIBE:
		if err = pk.SubscribeDecode(body); err == nil {
			err = valid(pk.SubscribeValidate())
		}
		encode = pk.SubscribeEncode
	case packet.SUBACK:
		err, encode = pk.SubackDecode(body), pk.SubackEncode
	case packet.UNSUBSCRIBE:
		if err = pk.UnsubscribeDecode(body); err == nil {
			err = valid(pk.UnsubscribeValidate())
		}
		encode = pk.UnsubscribeEncode
	case packet.UNSUBACK:
		err, encode = pk.UnsubackDecode(body), pk.UnsubackEncode
	case packet.PINGREQ:
		encode = pk.PingreqEncode
	case packet.PINGRESP:
		encode = pk.PingrespEncode
	case packet.DISCONNECT:
		err, encode = pk.DisconnectDecode(body), pk.DisconnectEncode
	default:
		if err = pk.AuthDecode(body); err == nil {
			err = valid(pk.AuthValidate())
		}
		encode = pk.AuthEncode
	}
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := encode(&buf); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return buf.Bytes(), nil
}

func decodePaho(b []byte, _ packet.Header, _ []byte, _ packet.Version) (again []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	cp, err := paho.ReadPacket(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if _, err := cp.WriteTo(&buf); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return buf.Bytes(), nil
}

// parse decodes the packet at the start of b, of which it returns the bytes.
func parse(b []byte, v packet.Version) (whole, body []byte, h packet.Header, p packet.Packet, err error) {
	h, n, err := packet.ParseHeader(b)
	if err != nil || n == 0 || len(b) < n+h.Length {
		return nil, nil, h, nil, err
	}
	whole, body = b[:n+h.Length], b[n:n+h.Length]
	p, err = packet.Decode(h, body, v)
	return whole, body, h, p, err
}

// level returns the protocol level in the body of a CONNECT.
func level(body []byte) byte {
	if len(body) < 2 {
		return 0
	}
	if at := 2 + int(body[0])<<8 + int(body[1]); at < len(body) {
		return body[at]
	}
	return 0
}

// differs decodes one packet with every codec and returns the first difference
// that the tables do not have.
func differs(b []byte, v packet.Version) error {
	whole, body, h, ours, err := parse(b, v)
	if whole == nil {
		return nil // no packet
	}
	if c, ok := ours.(*packet.Connect); ok {
		v = c.Version
	}
	for _, c := range codecs {
		if c.name == "paho" && (v != packet.V5 || h.Type == packet.CONNECT && level(body) < 5) {
			continue // it has no other version
		}
		again, theirErr := c.decode(whole, h, body, v)
		switch {
		case err != nil && theirErr != nil:
			continue
		case err != nil:
			if !agreed(strict, c.name, err.Error()) {
				return fmt.Errorf("only %s takes % x of version %v: we say %w", c.name, whole, v, err)
			}
			continue
		case theirErr != nil:
			if !agreed(lenient, c.name, fmt.Sprintf("%v: %v", h.Type, theirErr)) {
				return fmt.Errorf("%s refuses % x of version %v, %#v: %w", c.name, whole, v, ours, theirErr)
			}
			continue
		}
		_, _, _, theirs, err := parse(again, v)
		if err == nil && reflect.DeepEqual(ours, theirs) {
			continue
		}
		if !agreed(different, c.name, h.Type.String()) {
			return fmt.Errorf("%s understands % x of version %v as % x (%w): %#v is not %#v", c.name, whole, v, again, err, theirs, ours)
		}
	}
	return nil
}

// seeds are the packets that the codec's own fuzz target begins with.
func seeds(t testing.TB) (all []seed) {
	t.Helper()
	files, err := filepath.Glob("../packet/testdata/fuzz/FuzzDecode/*")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		lines := strings.Split(string(text), "\n")
		require.GreaterOrEqual(t, len(lines), 3, file)
		level, err := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(lines[1], "byte("), ")"))
		require.NoError(t, err, file)
		data, err := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(lines[2], "[]byte("), ")"))
		require.NoError(t, err, file)
		r, _ := utf8.DecodeRuneInString(level)
		all = append(all, seed{packet.V31 + packet.Version(r%3), []byte(data)})
	}
	return all
}

type seed struct {
	v packet.Version
	b []byte
}

// TestTheCodecDiffersFromOthersOnlyWhereTheStandardSaysSo changes known packets at random,
// always in the same way; FuzzCodecs goes on from there.
func TestTheCodecDiffersFromOthersOnlyWhereTheStandardSaysSo(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := seeds(t)
	n := 50_000
	if testing.Short() {
		n = 5_000
	}
	for range n {
		s := all[rng.IntN(len(all))]
		require.NoError(t, differs(mutate(rng, s.b), s.v))
	}
}

func TestEveryAgreedDifferenceIsOne(t *testing.T) {
	for _, table := range []*[]rule{&lenient, &different} {
		rules := *table
		for i, r := range rules {
			b, err := hex.DecodeString(digits(r.example))
			require.NoError(t, err)
			v := packet.V5
			require.NoError(t, differs(b, v), r.statement)
			*table = slices.Delete(slices.Clone(rules), i, i+1)
			require.Error(t, differs(b, v), "%s: %s is no difference any more", r.codec, r.what)
			*table = rules
		}
	}
}

// FuzzCodecs decodes a packet with our codec and with the others.
func FuzzCodecs(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(byte(s.v-packet.V31), s.b)
	}
	f.Fuzz(func(t *testing.T, level byte, b []byte) {
		require.NoError(t, differs(b, packet.V31+packet.Version(level%3)))
	})
}

// mutate returns b with a few changes, and its remaining length corrected for most.
func mutate(rng *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range rng.IntN(4) {
		if len(b) < 2 {
			break
		}
		i := rng.IntN(len(b))
		switch rng.IntN(5) {
		case 0:
			b[i] = byte(rng.Uint32())
		case 1:
			b[i] ^= 1 << rng.IntN(8)
		case 2:
			b = slices.Delete(b, i, min(len(b), i+1+rng.IntN(4)))
		case 3:
			b = slices.Insert(b, i, byte(rng.IntN(0x2B)))
		case 4:
			j := rng.IntN(len(b))
			b = slices.Insert(b, i, bytes.Clone(b[j:min(len(b), j+8)])...)
		}
	}
	if len(b) >= 2 && len(b) < 130 && b[1] < 0x80 && rng.IntN(8) > 0 {
		b[1] = byte(len(b) - 2)
	}
	return b
}

// digits replaces text between quotes by its hexadecimal digits and takes out spaces.
func digits(s string) string {
	parts := strings.Split(s, "'")
	for i := range parts {
		if i%2 == 1 {
			parts[i] = hex.EncodeToString([]byte(parts[i]))
		}
	}
	return strings.ReplaceAll(strings.Join(parts, ""), " ", "")
}

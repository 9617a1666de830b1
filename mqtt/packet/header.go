package packet

import "slices"

// A Header is a fixed header (MQTT 5, Section 2.1).
type Header struct {
	Type   Type
	Flags  byte // the low four bits
	Length int  // of what follows the header, bytes
}

const (
	flagDup    byte = 0x8 // PUBLISH; and in MQTT 3.1 PUBREL, SUBSCRIBE, UNSUBSCRIBE
	flagQoS    byte = 0x6
	flagRetain byte = 0x1
)

// ParseHeader decodes the fixed header at the beginning of src. n is its length:
// the packet ends n + h.Length bytes into src. n is zero if src has too little
// of the header to decode it.
//
// It fails, as soon as the bytes are there, if the type is reserved, the flags
// are not those of the type, or the remaining length is not encoded as the
// specification says. The error is an [*Error].
func ParseHeader(src []byte) (h Header, n int, err error) {
	if len(src) == 0 {
		return Header{}, 0, nil
	}
	h = Header{Type: Type(src[0] >> 4), Flags: src[0] & 0xf}
	if e := h.check(); e != nil {
		return Header{}, 0, e
	}
	v, n, bad := readVarint(src[1:])
	if bad != "" {
		return Header{}, 0, malformed("%v: remaining length %s", h.Type, bad)
	}
	if n == 0 {
		return Header{}, 0, nil
	}
	h.Length = int(v)
	return h, 1 + n, nil
}

// check returns an error for a type or flags that no version has. What only
// some versions allow is left to checkVersion.
func (h Header) check() *Error {
	flags := h.Flags
	switch h.Type {
	case 0:
		return malformed("packet type is 0, which is reserved")
	case PUBLISH:
		switch {
		case flags&flagQoS == flagQoS:
			return malformed("PUBLISH: QoS is 3") // [MQTT-3.3.1-4]
		case flags&flagDup != 0 && flags&flagQoS == 0:
			return malformed("PUBLISH: DUP is set with QoS 0") // [MQTT-3.3.1-2]
		}
		return nil
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE: // [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1]
		if flags&^flagDup == 0x2 {
			return nil
		}
	default:
		if flags == 0 && h.Type <= AUTH { // [MQTT-2.1.3-1]
			return nil
		}
	}
	return malformed("%v: fixed header flags are %#x", h.Type, flags)
}

// checkVersion returns an error for what version v does not allow.
func (h Header) checkVersion(v Version) *Error {
	if err := h.check(); err != nil {
		return err
	}
	switch {
	case !v.valid():
		return violation("%v: the protocol version is %d", h.Type, uint8(v))
	case h.Type == AUTH && v < V5:
		return malformed("packet type is 15, which is reserved before MQTT 5")
	case h.Type != PUBLISH && h.Flags&flagDup != 0 && v != V31:
		// MQTT 3.1 sends these with QoS 1 and repeats them with DUP (Section
		// 2.1); later versions have fixed flags.
		return malformed("%v: fixed header flags are %#x", h.Type, h.Flags)
	}
	return nil
}

// appendHeader makes room for the whole packet and appends its header.
func appendHeader(dst []byte, t Type, flags byte, length int) ([]byte, error) {
	if length > MaxRemainingLength {
		return dst, &Error{PacketTooLarge, t.String() + ": remaining length does not fit into four bytes"}
	}
	dst = slices.Grow(dst, 1+varintSize(length)+length)
	dst = append(dst, byte(t)<<4|flags)
	return appendVarint(dst, uint32(length)), nil
}

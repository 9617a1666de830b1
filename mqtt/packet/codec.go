package packet

import "encoding/binary"

// packets is a set of packet types; inWill stands for the properties of a will.
type packets uint16

// inWill is the place of a will's properties, in the role of a Type: they are in
// a CONNECT, but other properties are allowed in them.
const inWill Type = 0

func in(types ...Type) packets {
	var p packets
	for _, t := range types {
		p |= 1 << t
	}
	return p
}

func (p packets) has(t Type) bool { return p&(1<<t) != 0 }

// A decoder takes fields from the front of a packet's body. After the first
// error it returns zero values and keeps that error.
type decoder struct {
	b   []byte
	t   Type // for error texts
	err *Error
}

func (d *decoder) fail(err *Error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) truncated(field string) {
	d.fail(malformed("%v: truncated %s", place(d.t), field))
}

func (d *decoder) byte(field string) byte {
	if len(d.b) < 1 {
		d.truncated(field)
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uint16(field string) uint16 {
	if len(d.b) < 2 {
		d.truncated(field)
		return 0
	}
	v := binary.BigEndian.Uint16(d.b)
	d.b = d.b[2:]
	return v
}

func (d *decoder) uint32(field string) uint32 {
	if len(d.b) < 4 {
		d.truncated(field)
		return 0
	}
	v := binary.BigEndian.Uint32(d.b)
	d.b = d.b[4:]
	return v
}

func (d *decoder) varint(field string) uint32 {
	v, n, bad := readVarint(d.b)
	switch {
	case bad != "":
		d.fail(malformed("%v: %s %s", place(d.t), field, bad))
		return 0
	case n == 0:
		d.truncated(field)
		return 0
	}
	d.b = d.b[n:]
	return v
}

// binary returns bytes with a length of two bytes before them; they alias the
// buffer and are not nil, unless there is an error.
func (d *decoder) binary(field string) []byte {
	if len(d.b) < 2 {
		d.truncated(field)
		return nil
	}
	end := 2 + int(binary.BigEndian.Uint16(d.b))
	if len(d.b) < end {
		d.truncated(field)
		return nil
	}
	v := d.b[2:end:end]
	d.b = d.b[end:]
	return v
}

// text is binary that is valid UTF-8.
func (d *decoder) text(field string) []byte {
	v := d.binary(field)
	if bad := checkUTF8(v); bad != "" {
		d.fail(malformed("%v: %s %s", place(d.t), field, bad)) // [MQTT-1.5.4-1], [MQTT-1.5.4-2]
		return nil
	}
	return v
}

func (d *decoder) string(field string) string { return string(d.text(field)) }

// packetID is an identifier that must not be zero.
func (d *decoder) packetID() uint16 {
	id := d.uint16("packet identifier")
	if id == 0 && d.err == nil {
		d.fail(zeroID(d.t))
	}
	return id
}

func zeroID(t Type) *Error {
	return violation("%v: packet identifier is zero", t) // [MQTT-2.2.1-3], [MQTT-2.2.1-4]
}

// end returns the error, or one if something is left.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail(malformed("%v: %d bytes too many", place(d.t), len(d.b)))
	}
	if d.err != nil {
		return d.err // not a nil *Error in an error
	}
	return nil
}

// place names a packet, or the will, in error texts.
type place Type

func (p place) String() string {
	if Type(p) == inWill {
		return "CONNECT: will"
	}
	return Type(p).String()
}

// readVarint decodes a variable byte integer (MQTT 5, Section 1.5.5). n is zero
// if b is too short; bad says what is wrong with it.
func readVarint(b []byte) (v uint32, n int, bad string) {
	for i, c := range b {
		v |= uint32(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, 0, "is not encoded in as few bytes as possible" // [MQTT-1.5.5-1]
			}
			return v, i + 1, ""
		}
		if i == 3 {
			return 0, 0, "is longer than four bytes"
		}
	}
	return 0, 0, ""
}

func appendVarint(dst []byte, v uint32) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func varintSize(v int) int {
	switch {
	case v < 1<<7:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<21:
		return 3
	}
	return 4
}

// checkLength returns an error if a string or bytes do not fit into a field.
func checkLength(t Type, field string, n int) error {
	if n > 65535 {
		return malformed("%v: %s is longer than 65535 bytes", place(t), field)
	}
	return nil
}

func checkText(t Type, field, s string) error {
	if err := checkLength(t, field, len(s)); err != nil {
		return err
	}
	if bad := checkUTF8(s); bad != "" {
		return malformed("%v: %s %s", place(t), field, bad)
	}
	return nil
}

func appendBytes[S string | []byte](dst []byte, s S) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

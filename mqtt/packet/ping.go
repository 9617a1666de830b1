package packet

// A Pingreq asks for a sign of life (MQTT 5, Section 3.12).
type Pingreq struct{}

// A Pingresp answers a Pingreq (MQTT 5, Section 3.13).
type Pingresp struct{}

// Type returns PINGREQ.
func (*Pingreq) Type() Type { return PINGREQ }

// Type returns PINGRESP.
func (*Pingresp) Type() Type { return PINGRESP }

// Append encodes the packet.
func (*Pingreq) Append(dst []byte, v Version) ([]byte, error) { return appendEmpty(dst, PINGREQ, v) }

// Append encodes the packet.
func (*Pingresp) Append(dst []byte, v Version) ([]byte, error) { return appendEmpty(dst, PINGRESP, v) }

// appendEmpty encodes a packet that has nothing but a header.
func appendEmpty(dst []byte, t Type, v Version) ([]byte, error) {
	if err := (Header{Type: t}).checkVersion(v); err != nil {
		return dst, err
	}
	return appendHeader(dst, t, 0, 0)
}

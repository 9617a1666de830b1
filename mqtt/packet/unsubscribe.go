package packet

import "encoding/binary"

// An Unsubscribe ends subscriptions (MQTT 5, Section 3.10).
type Unsubscribe struct {
	PacketID   uint16
	Filters    []string // at least one
	Properties *Properties
}

// Type returns UNSUBSCRIBE.
func (*Unsubscribe) Type() Type { return UNSUBSCRIBE }

func (u *Unsubscribe) decode(d *decoder, v Version) error {
	u.PacketID = d.packetID()
	if v >= V5 {
		u.Properties = d.properties(UNSUBSCRIBE)
	}
	if d.err == nil && len(d.b) == 0 {
		d.fail(noFilters(UNSUBSCRIBE)) // [MQTT-3.10.3-2]
	}
	if d.err == nil {
		u.Filters = make([]string, 0, countFilters(d.b, 0))
	}
	for len(d.b) > 0 {
		u.Filters = append(u.Filters, d.filter(v))
	}
	return d.end()
}

// Append encodes u.
func (u *Unsubscribe) Append(dst []byte, v Version) ([]byte, error) {
	if err := (Header{Type: UNSUBSCRIBE, Flags: 2}).checkVersion(v); err != nil {
		return dst, err
	}
	if u.PacketID == 0 {
		return dst, zeroID(UNSUBSCRIBE)
	}
	if len(u.Filters) == 0 {
		return dst, noFilters(UNSUBSCRIBE)
	}
	props, err := u.Properties.encodable(UNSUBSCRIBE, v)
	if err != nil {
		return dst, err
	}
	n := 2 + props.total(v)
	for _, f := range u.Filters {
		if err := encodableFilter(UNSUBSCRIBE, f, v); err != nil {
			return dst, err
		}
		n += 2 + len(f)
	}
	out, err := appendHeader(dst, UNSUBSCRIBE, 2, n)
	if err != nil {
		return dst, err
	}
	out = binary.BigEndian.AppendUint16(out, u.PacketID)
	out = props.append(out, v)
	for _, f := range u.Filters {
		out = appendBytes(out, f)
	}
	return out, nil
}

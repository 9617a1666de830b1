package packet

import "encoding/binary"

// A Suback answers a SUBSCRIBE (MQTT 5, Section 3.9).
type Suback struct {
	PacketID uint16
	// Codes has a reason code for each topic filter, in order. Before MQTT 5
	// every failure is 0x80 on the wire.
	Codes      []ReasonCode
	Properties *Properties
}

// Type returns SUBACK.
func (*Suback) Type() Type { return SUBACK }

func (s *Suback) decode(d *decoder, v Version) error {
	s.PacketID = d.packetID()
	if v >= V5 {
		s.Properties = d.properties(SUBACK)
	}
	s.Codes = d.codes(v)
	return d.end()
}

// codes takes the reason codes that the rest consists of.
func (d *decoder) codes(v Version) []ReasonCode {
	if d.err != nil {
		return nil
	}
	if len(d.b) == 0 {
		d.fail(malformed("%v: no reason code", d.t)) // one for each topic filter, of which there is one
		return nil
	}
	codes := make([]ReasonCode, len(d.b))
	for i, b := range d.b {
		codes[i] = ReasonCode(b)
		if !codes[i].AllowedIn(d.t) || v < V5 && codes[i] > UnspecifiedError {
			d.fail(codeNotAllowed(d.t, codes[i])) // [MQTT-3.9.3-2]
			return nil
		}
	}
	d.b = nil
	return codes
}

// Append encodes s.
func (s *Suback) Append(dst []byte, v Version) ([]byte, error) {
	return appendCodes(dst, SUBACK, s.PacketID, s.Codes, s.Properties, v)
}

// appendCodes encodes a SUBACK or UNSUBACK.
func appendCodes(dst []byte, t Type, id uint16, codes []ReasonCode, p *Properties, v Version) ([]byte, error) {
	if err := (Header{Type: t}).checkVersion(v); err != nil {
		return dst, err
	}
	if id == 0 {
		return dst, zeroID(t)
	}
	if t == UNSUBACK && v < V5 {
		codes = nil
	} else if len(codes) == 0 {
		return dst, malformed("%v: no reason code", t)
	}
	for _, c := range codes {
		if !c.AllowedIn(t) {
			return dst, codeNotAllowed(t, c)
		}
	}
	props, err := p.encodable(t, v)
	if err != nil {
		return dst, err
	}
	out, err := appendHeader(dst, t, 0, 2+props.total(v)+len(codes))
	if err != nil {
		return dst, err
	}
	out = binary.BigEndian.AppendUint16(out, id)
	out = props.append(out, v)
	for _, c := range codes {
		if v < V5 && c.Failed() {
			c = UnspecifiedError // the only failure there is: MQTT 3.1.1, [MQTT-3.9.3-2]
		}
		out = append(out, byte(c))
	}
	return out, nil
}

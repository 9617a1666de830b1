package packet

// A Disconnect is the last packet of a connection (MQTT 5, Section 3.14). Before
// MQTT 5 only clients send it, and it has neither code nor properties.
type Disconnect struct {
	Code       ReasonCode
	Properties *Properties
}

// Type returns DISCONNECT.
func (*Disconnect) Type() Type { return DISCONNECT }

func (p *Disconnect) decode(d *decoder, v Version) error {
	if v >= V5 {
		p.Code, p.Properties = d.codeAndProperties()
	}
	return d.end()
}

// Append encodes p.
func (p *Disconnect) Append(dst []byte, v Version) ([]byte, error) {
	return appendTail(dst, DISCONNECT, p.Code, p.Properties, v)
}

// appendTail encodes a packet that has nothing but a reason code and properties.
func appendTail(dst []byte, t Type, code ReasonCode, p *Properties, v Version) ([]byte, error) {
	if err := (Header{Type: t}).checkVersion(v); err != nil {
		return dst, err
	}
	tail, err := p.tail(t, code, v)
	if err != nil {
		return dst, err
	}
	out, err := appendHeader(dst, t, 0, tail.size())
	if err != nil {
		return dst, err
	}
	return tail.append(out), nil
}

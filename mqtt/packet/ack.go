package packet

import "encoding/binary"

// An Ack is what the four packets have in common that acknowledge a PUBLISH or
// an acknowledgement (MQTT 5, Sections 3.4 to 3.7).
type Ack struct {
	PacketID   uint16
	Code       ReasonCode  // not on the wire before MQTT 5
	Properties *Properties // reason string and user properties
}

// A Puback answers a PUBLISH of QoS 1.
type Puback struct{ Ack }

// A Pubrec answers a PUBLISH of QoS 2.
type Pubrec struct{ Ack }

// A Pubrel answers a PUBREC.
type Pubrel struct{ Ack }

// A Pubcomp answers a PUBREL.
type Pubcomp struct{ Ack }

// Type returns PUBACK.
func (*Puback) Type() Type { return PUBACK }

// Type returns PUBREC.
func (*Pubrec) Type() Type { return PUBREC }

// Type returns PUBREL.
func (*Pubrel) Type() Type { return PUBREL }

// Type returns PUBCOMP.
func (*Pubcomp) Type() Type { return PUBCOMP }

// Append encodes p.
func (p *Puback) Append(dst []byte, v Version) ([]byte, error) { return p.append(dst, PUBACK, 0, v) }

// Append encodes p.
func (p *Pubrec) Append(dst []byte, v Version) ([]byte, error) { return p.append(dst, PUBREC, 0, v) }

// Append encodes p.
func (p *Pubrel) Append(dst []byte, v Version) ([]byte, error) { return p.append(dst, PUBREL, 2, v) }

// Append encodes p.
func (p *Pubcomp) Append(dst []byte, v Version) ([]byte, error) { return p.append(dst, PUBCOMP, 0, v) }

func (a *Ack) decode(d *decoder, v Version) error {
	a.PacketID = d.packetID()
	if v >= V5 {
		a.Code, a.Properties = d.codeAndProperties()
	}
	return d.end()
}

func (a *Ack) append(dst []byte, t Type, flags byte, v Version) ([]byte, error) {
	h := Header{Type: t, Flags: flags}
	if err := h.checkVersion(v); err != nil {
		return dst, err
	}
	if a.PacketID == 0 {
		return dst, zeroID(t)
	}
	tail, err := a.Properties.tail(t, a.Code, v)
	if err != nil {
		return dst, err
	}
	out, err := appendHeader(dst, t, flags, 2+tail.size())
	if err != nil {
		return dst, err
	}
	return tail.append(binary.BigEndian.AppendUint16(out, a.PacketID)), nil
}

// codeAndProperties takes what ends an acknowledgement, a DISCONNECT or an AUTH
// in MQTT 5: nothing, a reason code, or a reason code and properties (Sections
// 3.4.2.1, 3.4.2.2.1, 3.14.2.1, 3.14.2.2.1, 3.15.2.1).
func (d *decoder) codeAndProperties() (ReasonCode, *Properties) {
	if d.err != nil || len(d.b) == 0 {
		return Success, nil
	}
	code := ReasonCode(d.byte("reason code"))
	if !code.AllowedIn(d.t) {
		d.fail(codeNotAllowed(d.t, code))
	}
	if d.err != nil || len(d.b) == 0 {
		return code, nil
	}
	return code, d.properties(d.t)
}

// A tail is what codeAndProperties takes, ready to be encoded as short as the
// specification allows.
type tail struct {
	block
	code ReasonCode
	v    Version
}

func (p *Properties) tail(t Type, code ReasonCode, v Version) (tail, error) {
	if v < V5 {
		return tail{v: v}, nil
	}
	if !code.AllowedIn(t) {
		return tail{}, codeNotAllowed(t, code)
	}
	b, err := p.encodable(t, v)
	return tail{b, code, v}, err
}

func (t tail) size() int {
	switch {
	case t.v < V5 || t.code == Success && t.ids == 0:
		return 0
	case t.ids == 0:
		return 1
	}
	return 1 + t.total(t.v)
}

func (t tail) append(dst []byte) []byte {
	switch t.size() {
	case 0:
		return dst
	case 1:
		return append(dst, byte(t.code))
	}
	return t.block.append(append(dst, byte(t.code)), t.v)
}

package packet

// An Unsuback answers an UNSUBSCRIBE (MQTT 5, Section 3.11).
type Unsuback struct {
	PacketID   uint16
	Codes      []ReasonCode // one for each topic filter, in order; none before MQTT 5
	Properties *Properties
}

// Type returns UNSUBACK.
func (*Unsuback) Type() Type { return UNSUBACK }

func (u *Unsuback) decode(d *decoder, v Version) error {
	u.PacketID = d.packetID()
	if v >= V5 {
		u.Properties = d.properties(UNSUBACK)
		u.Codes = d.codes(v)
	}
	return d.end()
}

// Append encodes u. Before MQTT 5 it leaves the codes out.
func (u *Unsuback) Append(dst []byte, v Version) ([]byte, error) {
	return appendCodes(dst, UNSUBACK, u.PacketID, u.Codes, u.Properties, v)
}

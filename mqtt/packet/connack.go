package packet

// A Connack answers a CONNECT (MQTT 5, Section 3.2).
type Connack struct {
	SessionPresent bool // not in MQTT 3.1
	// Code is a reason code of MQTT 5 in every version: it is translated to and
	// from the return codes of earlier ones, see [ReasonCode.ReturnCode].
	Code       ReasonCode
	Properties *Properties
}

// Type returns CONNACK.
func (*Connack) Type() Type { return CONNACK }

func (c *Connack) decode(d *decoder, v Version) error {
	flags := d.byte("acknowledge flags")
	code := d.byte("reason code")
	if d.err != nil {
		return d.end()
	}
	if v == V31 {
		flags = 0 // reserved and not used (MQTT 3.1, Section 3.2)
	}
	if flags > 1 {
		d.fail(malformed("CONNACK: reserved acknowledge flags are set")) // [MQTT-3.2.2-1]
	}
	c.SessionPresent = flags&1 != 0
	if v >= V5 {
		c.Code = ReasonCode(code)
		if !c.Code.AllowedIn(CONNACK) {
			d.fail(codeNotAllowed(CONNACK, c.Code)) // [MQTT-3.2.2-8]
		}
		c.Properties = d.properties(CONNACK)
	} else if int(code) < len(returnCodes) {
		c.Code = returnCodes[code]
	} else {
		d.fail(malformed("CONNACK: return code %d is reserved", code)) // MQTT 3.1.1, Section 3.2.2.3
	}
	if c.SessionPresent && c.Code != Success {
		d.fail(violation("CONNACK: session present in a refusal")) // [MQTT-3.2.2-6]
	}
	return d.end()
}

// Append encodes c. It fails before MQTT 5 if no return code stands for c.Code:
// the server then closes the connection without a CONNACK.
func (c *Connack) Append(dst []byte, v Version) ([]byte, error) {
	if err := (Header{Type: CONNACK}).checkVersion(v); err != nil {
		return dst, err
	}
	if c.SessionPresent && c.Code != Success {
		return dst, violation("CONNACK: session present in a refusal")
	}
	code := byte(c.Code)
	if v >= V5 {
		if !c.Code.AllowedIn(CONNACK) {
			return dst, codeNotAllowed(CONNACK, c.Code)
		}
	} else {
		var ok bool
		if code, ok = c.Code.ReturnCode(); !ok {
			return dst, &Error{c.Code, "CONNACK: no return code before MQTT 5 for this reason"}
		}
	}
	props, err := c.Properties.encodable(CONNACK, v)
	if err != nil {
		return dst, err
	}
	out, err := appendHeader(dst, CONNACK, 0, 2+props.total(v))
	if err != nil {
		return dst, err
	}
	var flags byte
	if c.SessionPresent && v != V31 {
		flags = 1
	}
	return props.append(append(out, flags, code), v), nil
}

package packet

import (
	"encoding/binary"
	"unicode/utf8"
)

// A Will is the message that the server publishes when the connection ends
// without a DISCONNECT (MQTT 5, Section 3.1.2.5).
type Will struct {
	Topic      string
	Payload    []byte // at most 65535 bytes
	QoS        QoS
	Retain     bool
	Properties *Properties // nil: none
}

// A Connect is the first packet of a client (MQTT 5, Section 3.1).
type Connect struct {
	// Version is the version of this packet and of the rest of the connection.
	// Append uses its own argument if Version is zero.
	Version    Version
	ClientID   string // empty: the server assigns one; not in MQTT 3.1
	CleanStart bool   // clean session before MQTT 5
	Bridge     bool   // before MQTT 5: the client is a bridge, see bridgeBit
	KeepAlive  uint16 // seconds; 0: off
	Username   Opt[string]
	Password   []byte // nil: absent; never logged
	Will       *Will  // nil: none
	Properties *Properties
}

// Type returns CONNECT.
func (*Connect) Type() Type { return CONNECT }

// The bits of the connect flags (MQTT 5, Section 3.1.2.3).
const (
	connectReserved   byte = 0x01
	connectCleanStart byte = 0x02
	connectWill       byte = 0x04
	connectWillQoS    byte = 0x18
	connectWillRetain byte = 0x20
	connectPassword   byte = 0x40
	connectUsername   byte = 0x80
)

// bridgeBit in the protocol level of MQTT 3.1 and 3.1.1 is mosquitto's way to say
// that the client is a bridge: its subscriptions are to have what MQTT 5 calls No
// Local and Retain As Published. A server that does not offer that refuses the
// level, and the bridge may connect again without the bit.
const bridgeBit = 0x80

// protocol takes the protocol name and level and returns the version that they
// name. A refusal says in which version to answer it.
func (d *decoder) protocol() (v Version, bridge bool, answer Version) {
	name := d.binary("protocol name")
	level := d.byte("protocol version")
	if d.err != nil {
		return 0, false, 0
	}
	bridge = level&bridgeBit != 0
	switch {
	case string(name) == "MQTT" && level == byte(V5):
		return V5, false, V5
	case string(name) == "MQTT" && level&^bridgeBit == byte(V311):
		return V311, bridge, V311
	case string(name) == "MQIsdp" && level&^bridgeBit == byte(V31):
		return V31, bridge, V31
	case string(name) == "MQIsdp", string(name) == "MQTT" && level&^bridgeBit < byte(V5):
		answer = V311
	case string(name) == "MQTT":
		answer = V5
	default:
		d.fail(&Error{UnsupportedProtocolVersion, "CONNECT: protocol name is neither MQTT nor MQIsdp"}) // [MQTT-3.1.2-1]
		return 0, false, 0
	}
	d.fail(&Error{UnsupportedProtocolVersion, "CONNECT: protocol version is not supported"}) // [MQTT-3.1.2-2]
	return 0, false, answer
}

// decode returns nil or a *ConnectError.
func (c *Connect) decode(h Header, body []byte) error {
	if err := h.check(); err != nil {
		return &ConnectError{Err: err}
	}
	if len(body) != h.Length {
		return &ConnectError{Err: malformed("CONNECT: has %d bytes where the header says %d", len(body), h.Length)}
	}
	d := decoder{b: body, t: CONNECT}
	v, bridge, answer := d.protocol()
	if d.err == nil {
		c.Version, c.Bridge = v, bridge
		c.decodeRest(&d, v)
	}
	if d.end() != nil {
		return &ConnectError{Err: d.err, Version: answer}
	}
	return nil
}

func (c *Connect) decodeRest(d *decoder, v Version) {
	flags := d.byte("connect flags")
	c.CleanStart = flags&connectCleanStart != 0
	c.KeepAlive = d.uint16("keep alive")
	if v == V31 {
		// Section 3.1 of MQTT 3.1: bit 0 is not used, and the will's QoS and
		// RETAIN are disregarded without a will.
		flags &^= connectReserved
		if flags&connectWill == 0 {
			flags &^= connectWillQoS | connectWillRetain
		}
	}
	if d.err == nil {
		if err := checkConnectFlags(flags, v); err != nil {
			d.fail(err)
		}
	}
	if v >= V5 {
		c.Properties = d.properties(CONNECT)
	}
	c.ClientID = d.string("client identifier")
	if flags&connectWill != 0 {
		c.Will = d.will(flags, v)
	}
	// MQTT 3.1, Section 3.1: the remaining length takes precedence over the
	// flags; a user name or password that is missing is valid.
	if flags&connectUsername != 0 && (v != V31 || len(d.b) > 0) {
		c.Username = Some(d.string("user name"))
	}
	if flags&connectPassword != 0 && (v != V31 || len(d.b) > 0) {
		c.Password = d.binary("password")
	}
	if d.end() == nil {
		if err := c.checkClientID(v); err != nil {
			d.fail(err)
		}
	}
}

func checkConnectFlags(flags byte, v Version) *Error {
	switch {
	case flags&connectReserved != 0:
		return malformed("CONNECT: reserved connect flag is set") // [MQTT-3.1.2-3]
	case flags&connectWillQoS == connectWillQoS:
		return malformed("CONNECT: will QoS is 3") // [MQTT-3.1.2-12]
	case flags&connectWill == 0 && flags&connectWillQoS != 0:
		return malformed("CONNECT: will QoS without a will") // [MQTT-3.1.2-11]
	case flags&connectWill == 0 && flags&connectWillRetain != 0:
		return malformed("CONNECT: will retain without a will") // [MQTT-3.1.2-13]
	case v < V5 && flags&connectPassword != 0 && flags&connectUsername == 0:
		return malformed("CONNECT: password without a user name") // MQTT 3.1.1, [MQTT-3.1.2-22]
	}
	return nil
}

func (d *decoder) will(flags byte, v Version) *Will {
	w := &Will{QoS: QoS(flags & connectWillQoS >> 3), Retain: flags&connectWillRetain != 0}
	if v >= V5 {
		w.Properties = d.properties(inWill)
	}
	w.Topic = d.string("will topic")
	w.Payload = d.binary("will payload")
	if d.err == nil {
		if bad := checkTopicName(w.Topic); bad != "" {
			d.fail(malformed("CONNECT: will topic %s", bad))
		}
	}
	return w
}

// checkClientID returns an error for an identifier that the version does not
// allow.
func (c *Connect) checkClientID(v Version) *Error {
	switch v {
	case V31: // Section 3.1, Client Identifier
		if n := utf8.RuneCountInString(c.ClientID); n < 1 || n > 23 {
			return &Error{ClientIDNotValid, "CONNECT: client identifier has not between 1 and 23 characters"}
		}
	case V311: // [MQTT-3.1.3-8] of MQTT 3.1.1
		if c.ClientID == "" && !c.CleanStart {
			return &Error{ClientIDNotValid, "CONNECT: client identifier is empty without a clean session"}
		}
	}
	return nil
}

// Append encodes c in c.Version, or in v if that is zero.
func (c *Connect) Append(dst []byte, v Version) ([]byte, error) {
	if c.Version != 0 {
		v = c.Version
	}
	if err := (Header{Type: CONNECT}).checkVersion(v); err != nil {
		return dst, err
	}
	if err := c.checkClientID(v); err != nil {
		return dst, err
	}
	if err := checkText(CONNECT, "client identifier", c.ClientID); err != nil {
		return dst, err
	}
	level := byte(v)
	if c.Bridge {
		if v >= V5 {
			return dst, &Error{ProtocolError, "CONNECT: the mark of a bridge is of MQTT 3.1 and 3.1.1"}
		}
		level |= bridgeBit
	}
	props, err := c.Properties.encodable(CONNECT, v)
	if err != nil {
		return dst, err
	}
	name := "MQTT"
	if v == V31 {
		name = "MQIsdp"
	}
	n := 2 + len(name) + 1 + 1 + 2 + props.total(v) + 2 + len(c.ClientID)

	var flags byte
	if c.CleanStart {
		flags |= connectCleanStart
	}
	var willProps block
	if w := c.Will; w != nil {
		flags |= connectWill | byte(w.QoS)<<3&connectWillQoS
		if w.Retain {
			flags |= connectWillRetain
		}
		if willProps, err = w.encodable(v); err != nil {
			return dst, err
		}
		n += willProps.total(v) + 2 + len(w.Topic) + 2 + len(w.Payload)
	}
	if c.Username.Set {
		flags |= connectUsername
		if err := checkText(CONNECT, "user name", c.Username.Value); err != nil {
			return dst, err
		}
		n += 2 + len(c.Username.Value)
	}
	if c.Password != nil {
		flags |= connectPassword
		if err := checkLength(CONNECT, "password", len(c.Password)); err != nil {
			return dst, err
		}
		n += 2 + len(c.Password)
	}
	if err := checkConnectFlags(flags, v); err != nil {
		return dst, err
	}

	out, err := appendHeader(dst, CONNECT, 0, n)
	if err != nil {
		return dst, err
	}
	out = appendBytes(out, name)
	out = append(out, level, flags)
	out = binary.BigEndian.AppendUint16(out, c.KeepAlive)
	out = props.append(out, v)
	out = appendBytes(out, c.ClientID)
	if w := c.Will; w != nil {
		out = willProps.append(out, v)
		out = appendBytes(out, w.Topic)
		out = appendBytes(out, w.Payload)
	}
	if c.Username.Set {
		out = appendBytes(out, c.Username.Value)
	}
	if c.Password != nil {
		out = appendBytes(out, c.Password)
	}
	return out, nil
}

func (w *Will) encodable(v Version) (block, error) {
	if w.QoS > ExactlyOnce {
		return block{}, malformed("CONNECT: will QoS is %d", w.QoS)
	}
	if bad := checkTopicName(w.Topic); bad != "" {
		return block{}, malformed("CONNECT: will topic %s", bad)
	}
	if err := checkLength(CONNECT, "will topic", len(w.Topic)); err != nil {
		return block{}, err
	}
	if err := checkLength(CONNECT, "will payload", len(w.Payload)); err != nil {
		return block{}, err
	}
	return w.Properties.encodable(inWill, v)
}

package packet

import (
	"encoding/binary"
	"math/bits"
)

// A UserProperty is a name and a value whose meaning is the application's. Names
// may repeat.
type UserProperty struct{ Key, Value string }

// Properties are the properties of an MQTT 5 packet (Section 2.2.2). Which of
// them are allowed depends on the packet; Decode and Append refuse the others.
// Empty strings and nil slices are absent; an empty slice that is not nil is
// present.
type Properties struct {
	PayloadFormat        Opt[byte]      // 0x01; 1: the payload is UTF-8
	MessageExpiry        Opt[uint32]    // 0x02; seconds
	ContentType          string         // 0x03
	ResponseTopic        string         // 0x08
	CorrelationData      []byte         // 0x09
	SubscriptionIDs      []uint32       // 0x0B; not zero; at most one in a SUBSCRIBE
	SessionExpiry        Opt[uint32]    // 0x11; seconds; 0xFFFFFFFF: never
	AssignedClientID     string         // 0x12
	ServerKeepAlive      Opt[uint16]    // 0x13; seconds
	AuthMethod           string         // 0x15
	AuthData             []byte         // 0x16; never logged
	RequestProblemInfo   Opt[byte]      // 0x17; 0 or 1
	WillDelay            Opt[uint32]    // 0x18; seconds
	RequestResponseInfo  Opt[byte]      // 0x19; 0 or 1
	ResponseInfo         string         // 0x1A
	ServerReference      string         // 0x1C
	ReasonString         string         // 0x1F
	ReceiveMaximum       Opt[uint16]    // 0x21; not zero
	TopicAliasMaximum    Opt[uint16]    // 0x22
	TopicAlias           Opt[uint16]    // 0x23; not zero
	MaximumQoS           Opt[byte]      // 0x24; 0 or 1
	RetainAvailable      Opt[byte]      // 0x25; 0 or 1
	User                 []UserProperty // 0x26; in order
	MaximumPacketSize    Opt[uint32]    // 0x27; bytes, not zero
	WildcardSubAvailable Opt[byte]      // 0x28; 0 or 1
	SubIDsAvailable      Opt[byte]      // 0x29; 0 or 1
	SharedSubAvailable   Opt[byte]      // 0x2A; 0 or 1
}

// A propertyID is the identifier of a property (MQTT 5, Section 2.2.2.2).
type propertyID uint8

const (
	propPayloadFormat        propertyID = 0x01
	propMessageExpiry        propertyID = 0x02
	propContentType          propertyID = 0x03
	propResponseTopic        propertyID = 0x08
	propCorrelationData      propertyID = 0x09
	propSubscriptionID       propertyID = 0x0B
	propSessionExpiry        propertyID = 0x11
	propAssignedClientID     propertyID = 0x12
	propServerKeepAlive      propertyID = 0x13
	propAuthMethod           propertyID = 0x15
	propAuthData             propertyID = 0x16
	propRequestProblemInfo   propertyID = 0x17
	propWillDelay            propertyID = 0x18
	propRequestResponseInfo  propertyID = 0x19
	propResponseInfo         propertyID = 0x1A
	propServerReference      propertyID = 0x1C
	propReasonString         propertyID = 0x1F
	propReceiveMaximum       propertyID = 0x21
	propTopicAliasMaximum    propertyID = 0x22
	propTopicAlias           propertyID = 0x23
	propMaximumQoS           propertyID = 0x24
	propRetainAvailable      propertyID = 0x25
	propUser                 propertyID = 0x26
	propMaximumPacketSize    propertyID = 0x27
	propWildcardSubAvailable propertyID = 0x28
	propSubIDsAvailable      propertyID = 0x29
	propSharedSubAvailable   propertyID = 0x2A
)

// A wireType is how a property's value is encoded.
type wireType uint8

const (
	wireBool wireType = iota + 1 // a byte that is 0 or 1
	wireUint16
	wireUint32
	wireVarint
	wireString
	wireBinary
	wirePair
)

// properties is the table of MQTT 5, Section 2.2.2.2. Only the properties that
// are marked so may occur more than once.
var properties = [0x2B]struct {
	name   string
	wire   wireType
	in     packets
	repeat packets // where more than one is allowed
	least  uint32  // smallest value
}{
	propPayloadFormat:        {name: "payload format indicator", wire: wireBool, in: in(PUBLISH, inWill)},
	propMessageExpiry:        {name: "message expiry interval", wire: wireUint32, in: in(PUBLISH, inWill)},
	propContentType:          {name: "content type", wire: wireString, in: in(PUBLISH, inWill)},
	propResponseTopic:        {name: "response topic", wire: wireString, in: in(PUBLISH, inWill)},
	propCorrelationData:      {name: "correlation data", wire: wireBinary, in: in(PUBLISH, inWill)},
	propSubscriptionID:       {name: "subscription identifier", wire: wireVarint, in: in(PUBLISH, SUBSCRIBE), repeat: in(PUBLISH), least: 1},
	propSessionExpiry:        {name: "session expiry interval", wire: wireUint32, in: in(CONNECT, CONNACK, DISCONNECT)},
	propAssignedClientID:     {name: "assigned client identifier", wire: wireString, in: in(CONNACK)},
	propServerKeepAlive:      {name: "server keep alive", wire: wireUint16, in: in(CONNACK)},
	propAuthMethod:           {name: "authentication method", wire: wireString, in: in(CONNECT, CONNACK, AUTH)},
	propAuthData:             {name: "authentication data", wire: wireBinary, in: in(CONNECT, CONNACK, AUTH)},
	propRequestProblemInfo:   {name: "request problem information", wire: wireBool, in: in(CONNECT)},
	propWillDelay:            {name: "will delay interval", wire: wireUint32, in: in(inWill)},
	propRequestResponseInfo:  {name: "request response information", wire: wireBool, in: in(CONNECT)},
	propResponseInfo:         {name: "response information", wire: wireString, in: in(CONNACK)},
	propServerReference:      {name: "server reference", wire: wireString, in: in(CONNACK, DISCONNECT)},
	propReasonString:         {name: "reason string", wire: wireString, in: in(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)},
	propReceiveMaximum:       {name: "receive maximum", wire: wireUint16, in: in(CONNECT, CONNACK), least: 1},
	propTopicAliasMaximum:    {name: "topic alias maximum", wire: wireUint16, in: in(CONNECT, CONNACK)},
	propTopicAlias:           {name: "topic alias", wire: wireUint16, in: in(PUBLISH), least: 1},
	propMaximumQoS:           {name: "maximum QoS", wire: wireBool, in: in(CONNACK)},
	propRetainAvailable:      {name: "retain available", wire: wireBool, in: in(CONNACK)},
	propUser:                 {name: "user property", wire: wirePair, in: everywhere, repeat: everywhere},
	propMaximumPacketSize:    {name: "maximum packet size", wire: wireUint32, in: in(CONNECT, CONNACK), least: 1},
	propWildcardSubAvailable: {name: "wildcard subscription available", wire: wireBool, in: in(CONNACK)},
	propSubIDsAvailable:      {name: "subscription identifiers available", wire: wireBool, in: in(CONNACK)},
	propSharedSubAvailable:   {name: "shared subscription available", wire: wireBool, in: in(CONNACK)},
}

// everywhere is where user properties are allowed: in all packets that have
// properties.
var everywhere = in(CONNECT, inWill, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP,
	SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT, AUTH)

// A propertySet has bit n for the property with identifier n.
type propertySet uint64

func setOf(ids ...propertyID) propertySet {
	var s propertySet
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

func (s propertySet) has(id propertyID) bool { return s&(1<<id) != 0 }

// next removes the lowest identifier from s and returns it.
func (s *propertySet) next() propertyID {
	id := propertyID(bits.TrailingZeros64(uint64(*s)))
	*s &= *s - 1
	return id
}

// allowed holds, for each packet type, the properties of the table.
var allowed = func() (a [16]propertySet) {
	for id := range properties {
		for t := range Type(16) {
			if properties[id].in.has(t) {
				a[t] |= setOf(propertyID(id))
			}
		}
	}
	return a
}()

func bit(id propertyID, present bool) propertySet {
	if present {
		return 1 << id
	}
	return 0
}

// present returns which properties p has; p may be nil.
func (p *Properties) present() propertySet {
	if p == nil {
		return 0
	}
	return bit(propPayloadFormat, p.PayloadFormat.Set) |
		bit(propMessageExpiry, p.MessageExpiry.Set) |
		bit(propContentType, p.ContentType != "") |
		bit(propResponseTopic, p.ResponseTopic != "") |
		bit(propCorrelationData, p.CorrelationData != nil) |
		bit(propSubscriptionID, len(p.SubscriptionIDs) > 0) |
		bit(propSessionExpiry, p.SessionExpiry.Set) |
		bit(propAssignedClientID, p.AssignedClientID != "") |
		bit(propServerKeepAlive, p.ServerKeepAlive.Set) |
		bit(propAuthMethod, p.AuthMethod != "") |
		bit(propAuthData, p.AuthData != nil) |
		bit(propRequestProblemInfo, p.RequestProblemInfo.Set) |
		bit(propWillDelay, p.WillDelay.Set) |
		bit(propRequestResponseInfo, p.RequestResponseInfo.Set) |
		bit(propResponseInfo, p.ResponseInfo != "") |
		bit(propServerReference, p.ServerReference != "") |
		bit(propReasonString, p.ReasonString != "") |
		bit(propReceiveMaximum, p.ReceiveMaximum.Set) |
		bit(propTopicAliasMaximum, p.TopicAliasMaximum.Set) |
		bit(propTopicAlias, p.TopicAlias.Set) |
		bit(propMaximumQoS, p.MaximumQoS.Set) |
		bit(propRetainAvailable, p.RetainAvailable.Set) |
		bit(propUser, len(p.User) > 0) |
		bit(propMaximumPacketSize, p.MaximumPacketSize.Set) |
		bit(propWildcardSubAvailable, p.WildcardSubAvailable.Set) |
		bit(propSubIDsAvailable, p.SubIDsAvailable.Set) |
		bit(propSharedSubAvailable, p.SharedSubAvailable.Set)
}

// boolean, short, long, text and bytes return the field of a property of that
// wire type, for reading and for writing.

func (p *Properties) boolean(id propertyID) *Opt[byte] {
	switch id {
	case propPayloadFormat:
		return &p.PayloadFormat
	case propRequestProblemInfo:
		return &p.RequestProblemInfo
	case propRequestResponseInfo:
		return &p.RequestResponseInfo
	case propMaximumQoS:
		return &p.MaximumQoS
	case propRetainAvailable:
		return &p.RetainAvailable
	case propWildcardSubAvailable:
		return &p.WildcardSubAvailable
	case propSubIDsAvailable:
		return &p.SubIDsAvailable
	default:
		return &p.SharedSubAvailable
	}
}

func (p *Properties) short(id propertyID) *Opt[uint16] {
	switch id {
	case propServerKeepAlive:
		return &p.ServerKeepAlive
	case propReceiveMaximum:
		return &p.ReceiveMaximum
	case propTopicAliasMaximum:
		return &p.TopicAliasMaximum
	default:
		return &p.TopicAlias
	}
}

func (p *Properties) long(id propertyID) *Opt[uint32] {
	switch id {
	case propMessageExpiry:
		return &p.MessageExpiry
	case propSessionExpiry:
		return &p.SessionExpiry
	case propWillDelay:
		return &p.WillDelay
	default:
		return &p.MaximumPacketSize
	}
}

func (p *Properties) text(id propertyID) *string {
	switch id {
	case propContentType:
		return &p.ContentType
	case propResponseTopic:
		return &p.ResponseTopic
	case propAssignedClientID:
		return &p.AssignedClientID
	case propAuthMethod:
		return &p.AuthMethod
	case propResponseInfo:
		return &p.ResponseInfo
	case propServerReference:
		return &p.ServerReference
	default:
		return &p.ReasonString
	}
}

func (p *Properties) bytes(id propertyID) *[]byte {
	if id == propCorrelationData {
		return &p.CorrelationData
	}
	return &p.AuthData
}

// properties decodes a property length and the properties of the packet or will
// t. It returns nil if there are none.
func (d *decoder) properties(t Type) *Properties {
	length := d.varint("property length")
	if d.err != nil || length == 0 {
		return nil
	}
	if uint64(length) > uint64(len(d.b)) {
		d.truncated("properties")
		return nil
	}
	sub := decoder{b: d.b[:length], t: t}
	d.b = d.b[length:]

	p := new(Properties)
	var seen propertySet
	for len(sub.b) > 0 {
		id := propertyID(sub.byte("property identifier"))
		if int(id) >= len(properties) || !properties[id].in.has(t) {
			// Section 2.2.2.2: an identifier that is not valid for the
			// packet's type makes it malformed.
			sub.fail(notAllowed(t, id))
			break
		}
		if seen.has(id) && !properties[id].repeat.has(t) {
			sub.fail(violation("%v: %s occurs more than once", place(t), properties[id].name))
			break
		}
		seen |= 1 << id
		sub.property(p, id)
	}
	if sub.err == nil {
		if err := p.check(t, p.present()); err != nil {
			sub.fail(err)
		} else if seen.has(propResponseTopic) && p.ResponseTopic == "" {
			sub.fail(malformed("%v: response topic is empty", place(t))) // [MQTT-4.7.3-1]
		}
	}
	if sub.err != nil {
		d.fail(sub.err)
		return nil
	}
	if p.present() == 0 {
		return nil // strings that are present but empty
	}
	return p
}

// property decodes the value of one property.
func (d *decoder) property(p *Properties, id propertyID) {
	name := properties[id].name
	switch properties[id].wire {
	case wireBool:
		*p.boolean(id) = Some(d.byte(name))
	case wireUint16:
		*p.short(id) = Some(d.uint16(name))
	case wireUint32:
		*p.long(id) = Some(d.uint32(name))
	case wireVarint:
		p.SubscriptionIDs = append(p.SubscriptionIDs, d.varint(name))
	case wireString:
		*p.text(id) = d.string(name)
	case wireBinary:
		*p.bytes(id) = d.binary(name)
	case wirePair:
		p.User = append(p.User, UserProperty{d.string("user property name"), d.string("user property value")})
	}
}

func notAllowed(t Type, id propertyID) *Error {
	if int(id) >= len(properties) || properties[id].wire == 0 {
		return malformed("%v: property identifier %#02x is unknown", place(t), uint8(id))
	}
	return malformed("%v: %s is not allowed", place(t), properties[id].name)
}

// check returns an error for values that the specification does not allow. The
// text of strings is not looked at. ids are those properties that are to be
// checked; p has them.
func (p *Properties) check(t Type, ids propertySet) *Error {
	if bad := ids &^ allowed[t]; bad != 0 {
		return notAllowed(t, bad.next())
	}
	for rest := ids; rest != 0; {
		id := rest.next()
		switch properties[id].wire {
		case wireBool:
			if p.boolean(id).Value > 1 {
				return violation("%v: %s is neither 0 nor 1", place(t), properties[id].name)
			}
		case wireUint16:
			if uint32(p.short(id).Value) < properties[id].least {
				if id == propTopicAlias {
					return &Error{TopicAliasInvalid, "PUBLISH: topic alias is 0"} // [MQTT-3.3.2-8]
				}
				return violation("%v: %s is 0", place(t), properties[id].name)
			}
		case wireUint32:
			if p.long(id).Value < properties[id].least {
				return violation("%v: %s is 0", place(t), properties[id].name)
			}
		case wireVarint:
			if len(p.SubscriptionIDs) > 1 && !properties[id].repeat.has(t) {
				return violation("%v: %s occurs more than once", place(t), properties[id].name)
			}
			if err := checkSubscriptionIDs(t, p.SubscriptionIDs); err != nil {
				return err
			}
		}
	}
	if ids.has(propResponseTopic) && hasWildcard(p.ResponseTopic) {
		return malformed("%v: response topic has a wildcard", place(t)) // [MQTT-3.3.2-14]
	}
	if ids.has(propAuthData) && !ids.has(propAuthMethod) {
		return violation("%v: authentication data without an authentication method", place(t)) // Section 3.1.2.11.10
	}
	return nil
}

func checkSubscriptionIDs(t Type, ids []uint32) *Error {
	for _, id := range ids {
		switch {
		case id == 0:
			return violation("%v: subscription identifier is 0", place(t))
		case id > MaxRemainingLength:
			return malformed("%v: subscription identifier is larger than %d", place(t), MaxRemainingLength)
		}
	}
	return nil
}

// checkStrings returns an error for strings and bytes that cannot be encoded.
func (p *Properties) checkStrings(t Type, ids propertySet) error {
	for ids != 0 {
		id := ids.next()
		var err error
		switch properties[id].wire {
		case wireString:
			err = checkText(t, properties[id].name, *p.text(id))
		case wireBinary:
			err = checkLength(t, properties[id].name, len(*p.bytes(id)))
		case wirePair:
			for _, u := range p.User {
				if err == nil {
					err = checkText(t, "user property name", u.Key)
				}
				if err == nil {
					err = checkText(t, "user property value", u.Value)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// size returns how many bytes the properties ids take, without their length.
func (p *Properties) size(ids propertySet) int {
	n := 0
	for ids != 0 {
		id := ids.next()
		switch properties[id].wire {
		case wireBool:
			n += 1 + 1
		case wireUint16:
			n += 1 + 2
		case wireUint32:
			n += 1 + 4
		case wireVarint:
			n += subscriptionIDsSize(p.SubscriptionIDs)
		case wireString:
			n += 1 + 2 + len(*p.text(id))
		case wireBinary:
			n += 1 + 2 + len(*p.bytes(id))
		case wirePair:
			for _, u := range p.User {
				n += 1 + 2 + len(u.Key) + 2 + len(u.Value)
			}
		}
	}
	return n
}

func subscriptionIDsSize(ids []uint32) int {
	n := 0
	for _, id := range ids {
		n += 1 + varintSize(int(id))
	}
	return n
}

// append appends the properties ids, without their length.
func (p *Properties) append(dst []byte, ids propertySet) []byte {
	for ids != 0 {
		id := ids.next()
		switch properties[id].wire {
		case wireBool:
			dst = append(dst, byte(id), p.boolean(id).Value)
		case wireUint16:
			dst = binary.BigEndian.AppendUint16(append(dst, byte(id)), p.short(id).Value)
		case wireUint32:
			dst = binary.BigEndian.AppendUint32(append(dst, byte(id)), p.long(id).Value)
		case wireVarint:
			dst = appendSubscriptionIDs(dst, p.SubscriptionIDs)
		case wireString:
			dst = appendBytes(append(dst, byte(id)), *p.text(id))
		case wireBinary:
			dst = appendBytes(append(dst, byte(id)), *p.bytes(id))
		case wirePair:
			for _, u := range p.User {
				dst = appendBytes(append(dst, byte(id)), u.Key)
				dst = appendBytes(dst, u.Value)
			}
		}
	}
	return dst
}

func appendSubscriptionIDs(dst []byte, ids []uint32) []byte {
	for _, id := range ids {
		dst = appendVarint(append(dst, byte(propSubscriptionID)), id)
	}
	return dst
}

// A block is the properties of a packet that is being encoded, with their size.
type block struct {
	p    *Properties
	ids  propertySet
	size int // without the property length
}

// encodable checks the properties p of the packet or will t and measures them.
// Before MQTT 5 there are none.
func (p *Properties) encodable(t Type, v Version) (block, error) {
	if v < V5 {
		return block{}, nil
	}
	ids := p.present()
	if ids == 0 {
		return block{}, nil
	}
	if err := p.check(t, ids); err != nil {
		return block{}, err
	}
	if err := p.checkStrings(t, ids); err != nil {
		return block{}, err
	}
	return block{p, ids, p.size(ids)}, nil
}

// total is the size with the property length; 0 before MQTT 5.
func (b block) total(v Version) int {
	if v < V5 {
		return 0
	}
	return varintSize(b.size) + b.size
}

func (b block) append(dst []byte, v Version) []byte {
	if v < V5 {
		return dst
	}
	return b.p.append(appendVarint(dst, uint32(b.size)), b.ids)
}

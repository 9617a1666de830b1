package packet

import "encoding/binary"

// A Publish carries an application message (MQTT 5, Section 3.3).
type Publish struct {
	Topic      string // empty only with a topic alias
	Payload    []byte
	PacketID   uint16 // 0 for QoS 0
	QoS        QoS
	Retain     bool
	Dup        bool // not with QoS 0
	Properties *Properties
}

// Type returns PUBLISH.
func (*Publish) Type() Type { return PUBLISH }

// Decode decodes into p, which then aliases body. h is from [ParseHeader] and
// body has the h.Length bytes after it.
//
// It allocates only for a topic other than the one that p.Topic already has and
// for properties, so that a reader that uses one Publish again and again does
// not allocate on a stream of one topic. After an error p is undefined.
func (p *Publish) Decode(h Header, body []byte, v Version) error {
	if h.Type != PUBLISH {
		return violation("PUBLISH: the header is that of %v", h.Type)
	}
	if err := h.checkVersion(v); err != nil {
		return err
	}
	if len(body) != h.Length {
		return malformed("PUBLISH: has %d bytes where the header says %d", len(body), h.Length)
	}
	p.QoS = QoS(h.Flags & flagQoS >> 1)
	p.Dup = h.Flags&flagDup != 0
	p.Retain = h.Flags&flagRetain != 0
	p.PacketID = 0
	p.Properties = nil

	d := decoder{b: body, t: PUBLISH}
	topic := d.binary("topic name")
	if len(topic) > 0 {
		if bad := checkTopicName(topic); bad != "" {
			return malformed("PUBLISH: topic name %s", bad)
		}
	}
	if p.Topic != string(topic) {
		p.Topic = string(topic)
	}
	if p.QoS > AtMostOnce {
		p.PacketID = d.packetID()
	}
	if v >= V5 {
		p.Properties = d.properties(PUBLISH)
	}
	if d.err != nil {
		return d.err
	}
	if len(topic) == 0 && (p.Properties == nil || !p.Properties.TopicAlias.Set) {
		return noTopic(v)
	}
	p.Payload = d.b[:len(d.b):len(d.b)]
	return nil
}

func noTopic(v Version) *Error {
	if v < V5 {
		return malformed("PUBLISH: topic name is empty") // MQTT 3.1.1, [MQTT-4.7.3-1]
	}
	return violation("PUBLISH: topic name is empty and there is no topic alias") // Section 3.3.2.1
}

// A PublishHeader is what differs between the PUBLISH packets that carry one
// message to many receivers.
type PublishHeader struct {
	PacketID        uint16 // 0 for QoS 0
	QoS             QoS
	Dup, Retain     bool
	SubscriptionIDs []uint32
	Alias           uint16      // topic alias; 0: none
	OmitTopic       bool        // the receiver knows the topic of Alias
	Expiry          Opt[uint32] // seconds; if it is set, instead of the message's own

	// Checked says that the message is from Decode, or was encoded before:
	// its topic and properties are not checked again.
	Checked bool
}

// ofHeader are the properties that come from a PublishHeader.
var ofHeader = setOf(propSubscriptionID, propTopicAlias)

// header returns the header that p itself describes.
func (p *Publish) header() PublishHeader {
	h := PublishHeader{PacketID: p.PacketID, QoS: p.QoS, Dup: p.Dup, Retain: p.Retain, OmitTopic: p.Topic == ""}
	if p.Properties != nil {
		h.SubscriptionIDs = p.Properties.SubscriptionIDs
		h.Alias = p.Properties.TopicAlias.Value
		if !p.Properties.TopicAlias.Set {
			h.Alias = 0
		}
	}
	return h
}

// Append encodes p.
func (p *Publish) Append(dst []byte, v Version) ([]byte, error) {
	if v >= V5 && p.Properties != nil && p.Properties.TopicAlias == Some[uint16](0) {
		return dst, &Error{TopicAliasInvalid, "PUBLISH: topic alias is 0"}
	}
	return AppendPublish(dst, v, p, p.header())
}

// Check returns the error that a message of p would have in version v, whatever the
// packet identifier, DUP, topic alias and subscription identifiers that it gets.
func (p *Publish) Check(v Version) error {
	h := PublishHeader{QoS: p.QoS}
	if p.QoS > AtMostOnce {
		h.PacketID = 1
	}
	length, _, own := publishLength(v, p, &h)
	if length > MaxRemainingLength {
		return &Error{PacketTooLarge, "PUBLISH: the message is larger than a packet can be"}
	}
	return checkPublish(v, p, &h, own)
}

// Size returns the length of what Append would append, if it succeeds.
func (p *Publish) Size(v Version) int { return PublishSize(v, p, p.header()) }

// PublishSize returns the length of what [AppendPublish] would append, if it
// succeeds.
func PublishSize(v Version, p *Publish, h PublishHeader) int {
	n, _, _ := publishLength(v, p, &h)
	return 1 + varintSize(n) + n
}

// publishLength returns the remaining length, the length of the properties, and
// which of p's own properties are in it.
func publishLength(v Version, p *Publish, h *PublishHeader) (length, props int, own propertySet) {
	length = 2 + len(p.Payload)
	if !h.OmitTopic {
		length += len(p.Topic)
	}
	if h.QoS > AtMostOnce {
		length += 2
	}
	if v < V5 {
		return length, 0, 0
	}
	own = p.Properties.present() &^ ofHeader
	if h.Expiry.Set {
		own &^= setOf(propMessageExpiry)
		props += 1 + 4
	}
	if h.Alias != 0 {
		props += 1 + 2
	}
	props += subscriptionIDsSize(h.SubscriptionIDs)
	props += p.Properties.size(own)
	return length + varintSize(props) + props, props, own
}

// AppendPublish appends the message of p under the header h, as Append does. It
// ignores p's own packet identifier, QoS, flags, topic alias and subscription
// identifiers; it does not change p, which many goroutines may share.
func AppendPublish(dst []byte, v Version, p *Publish, h PublishHeader) ([]byte, error) {
	length, props, own := publishLength(v, p, &h)
	if err := checkPublish(v, p, &h, own); err != nil {
		return dst, err
	}
	flags := byte(h.QoS) << 1
	if h.Dup {
		flags |= flagDup
	}
	if h.Retain {
		flags |= flagRetain
	}
	out, err := appendHeader(dst, PUBLISH, flags, length)
	if err != nil {
		return dst, err
	}
	if h.OmitTopic {
		out = append(out, 0, 0)
	} else {
		out = appendBytes(out, p.Topic)
	}
	if h.QoS > AtMostOnce {
		out = binary.BigEndian.AppendUint16(out, h.PacketID)
	}
	if v >= V5 {
		out = appendVarint(out, uint32(props))
		if h.Expiry.Set {
			out = binary.BigEndian.AppendUint32(append(out, byte(propMessageExpiry)), h.Expiry.Value)
		}
		if h.Alias != 0 {
			out = binary.BigEndian.AppendUint16(append(out, byte(propTopicAlias)), h.Alias)
		}
		out = appendSubscriptionIDs(out, h.SubscriptionIDs)
		out = p.Properties.append(out, own)
	}
	return append(out, p.Payload...), nil
}

func checkPublish(v Version, p *Publish, h *PublishHeader, own propertySet) error {
	switch {
	case !v.valid():
		return violation("PUBLISH: the protocol version is %d", uint8(v))
	case h.QoS > ExactlyOnce:
		return malformed("PUBLISH: QoS is %d", h.QoS) // [MQTT-3.3.1-4]
	case h.QoS == AtMostOnce && h.Dup:
		return malformed("PUBLISH: DUP is set with QoS 0") // [MQTT-3.3.1-2]
	case h.QoS == AtMostOnce && h.PacketID != 0:
		return violation("PUBLISH: packet identifier with QoS 0") // [MQTT-2.2.1-2]
	case h.QoS > AtMostOnce && h.PacketID == 0:
		return zeroID(PUBLISH)
	}
	if h.OmitTopic {
		if v < V5 || h.Alias == 0 {
			return noTopic(v)
		}
	} else if !h.Checked {
		if bad := checkTopicName(p.Topic); bad != "" {
			return malformed("PUBLISH: topic name %s", bad)
		}
		if err := checkLength(PUBLISH, "topic name", len(p.Topic)); err != nil {
			return err
		}
	}
	if v < V5 {
		return nil
	}
	if err := checkSubscriptionIDs(PUBLISH, h.SubscriptionIDs); err != nil {
		return err
	}
	if own == 0 || h.Checked {
		return nil
	}
	if err := p.Properties.check(PUBLISH, own); err != nil {
		return err
	}
	return p.Properties.checkStrings(PUBLISH, own)
}

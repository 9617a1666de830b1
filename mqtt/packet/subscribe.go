package packet

import "encoding/binary"

// A RetainHandling says which retained messages a SUBSCRIBE asks for (MQTT 5,
// Section 3.8.3.1).
type RetainHandling uint8

// The values there are; 3 is a protocol error.
const (
	RetainSend      RetainHandling = 0 // when subscribing
	RetainSendIfNew RetainHandling = 1 // only if there was no such subscription
	RetainDoNotSend RetainHandling = 2
)

// A Subscription is a topic filter of a SUBSCRIBE with its options. Before MQTT
// 5 there is no option but QoS.
type Subscription struct {
	Filter            string
	QoS               QoS // the most that is asked for
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    RetainHandling
}

// A Subscribe asks for subscriptions (MQTT 5, Section 3.8).
type Subscribe struct {
	PacketID      uint16
	Subscriptions []Subscription // at least one
	Properties    *Properties    // SubscriptionIDs holds at most one
}

// Type returns SUBSCRIBE.
func (*Subscribe) Type() Type { return SUBSCRIBE }

// The bits of the subscription options (MQTT 5, Section 3.8.3.1).
const (
	optionQoS               byte = 0x03
	optionNoLocal           byte = 0x04
	optionRetainAsPublished byte = 0x08
	optionRetainHandling    byte = 0x30
	optionReserved          byte = 0xC0
)

func (s *Subscribe) decode(d *decoder, v Version) error {
	s.PacketID = d.packetID()
	if v >= V5 {
		s.Properties = d.properties(SUBSCRIBE)
	}
	if d.err == nil && len(d.b) == 0 {
		d.fail(noFilters(SUBSCRIBE)) // [MQTT-3.8.3-2]
	}
	if d.err == nil {
		s.Subscriptions = make([]Subscription, 0, countFilters(d.b, 1))
	}
	for len(d.b) > 0 {
		sub := Subscription{Filter: d.filter(v)}
		options := d.byte("subscription options")
		reserved := optionReserved
		if v < V5 {
			reserved = ^optionQoS // MQTT 3.1.1, [MQTT-3-8.3-4]
		}
		if options&reserved != 0 {
			d.fail(malformed("SUBSCRIBE: reserved bits of the subscription options are set")) // [MQTT-3.8.3-5]
		}
		sub.QoS = QoS(options & optionQoS)
		sub.NoLocal = options&optionNoLocal != 0
		sub.RetainAsPublished = options&optionRetainAsPublished != 0
		sub.RetainHandling = RetainHandling(options & optionRetainHandling >> 4)
		if err := sub.checkOptions(); err != nil {
			d.fail(err)
		}
		s.Subscriptions = append(s.Subscriptions, sub)
	}
	return d.end()
}

func (s *Subscription) checkOptions() *Error {
	switch {
	case s.QoS > ExactlyOnce:
		return violation("SUBSCRIBE: maximum QoS is %d", s.QoS) // Section 3.8.3.1
	case s.RetainHandling > RetainDoNotSend:
		return violation("SUBSCRIBE: retain handling is %d", s.RetainHandling) // Section 3.8.3.1
	case s.NoLocal && isShared(s.Filter):
		return violation("SUBSCRIBE: no local on a shared subscription") // [MQTT-3.8.3-4]
	}
	return nil
}

func noFilters(t Type) *Error { return violation("%v: no topic filter", t) }

// filter takes a topic filter.
func (d *decoder) filter(v Version) string {
	s := d.string("topic filter")
	if d.err == nil {
		if bad := checkFilter(s, v); bad != "" {
			d.fail(malformed("%v: topic filter %s", d.t, bad))
		}
	}
	return s
}

// countFilters counts the topic filters in b, with extra bytes behind each, so
// that their slice is allocated once and not larger than needed.
func countFilters(b []byte, extra int) int {
	n := 0
	for len(b) >= 2 {
		n++
		next := 2 + int(binary.BigEndian.Uint16(b)) + extra
		if next > len(b) {
			break
		}
		b = b[next:]
	}
	return n
}

func encodableFilter(t Type, s string, v Version) error {
	if err := checkText(t, "topic filter", s); err != nil {
		return err
	}
	if bad := checkFilter(s, v); bad != "" {
		return malformed("%v: topic filter %s", t, bad)
	}
	return nil
}

// Append encodes s.
func (s *Subscribe) Append(dst []byte, v Version) ([]byte, error) {
	if err := (Header{Type: SUBSCRIBE, Flags: 2}).checkVersion(v); err != nil {
		return dst, err
	}
	if s.PacketID == 0 {
		return dst, zeroID(SUBSCRIBE)
	}
	if len(s.Subscriptions) == 0 {
		return dst, noFilters(SUBSCRIBE)
	}
	props, err := s.Properties.encodable(SUBSCRIBE, v)
	if err != nil {
		return dst, err
	}
	n := 2 + props.total(v)
	for i := range s.Subscriptions {
		sub := &s.Subscriptions[i]
		if err := encodableFilter(SUBSCRIBE, sub.Filter, v); err != nil {
			return dst, err
		}
		if sub.QoS > ExactlyOnce || v >= V5 {
			if err := sub.checkOptions(); err != nil {
				return dst, err
			}
		}
		n += 2 + len(sub.Filter) + 1
	}
	out, err := appendHeader(dst, SUBSCRIBE, 2, n)
	if err != nil {
		return dst, err
	}
	out = binary.BigEndian.AppendUint16(out, s.PacketID)
	out = props.append(out, v)
	for i := range s.Subscriptions {
		out = appendBytes(out, s.Subscriptions[i].Filter)
		out = append(out, s.Subscriptions[i].options(v))
	}
	return out, nil
}

func (s *Subscription) options(v Version) byte {
	o := byte(s.QoS)
	if v < V5 {
		return o
	}
	if s.NoLocal {
		o |= optionNoLocal
	}
	if s.RetainAsPublished {
		o |= optionRetainAsPublished
	}
	return o | byte(s.RetainHandling)<<4
}

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A Kind names what a record is about. It is in the key, in the order in which
// records are loaded.
type Kind byte

const (
	// Epoch counts the starts: numbers given out after a start are above all
	// from before.
	Epoch Kind = 'E'
	// Delayed is a message that is to be published later.
	Delayed Kind = 'D'
	// Message is a message that sessions hold, once for all of them.
	Message Kind = 'M'
	// The records of a session: its State, a Subscription, a message that is
	// Waiting, one that is Inflight, a packet identifier that is Released, one
	// that was Received, and what is known of a QoS 2 message that was not yet
	// Routed to everybody.
	State        Kind = 'a'
	Subscription Kind = 'b'
	Waiting      Kind = 'c'
	Inflight     Kind = 'd'
	Released     Kind = 'e'
	Received     Kind = 'f'
	Partial      Kind = 'g'
	// Retained is the retained message of a topic.
	Retained Kind = 'T'
)

var kindNames = map[Kind]string{
	Epoch: "epoch", Delayed: "delayed message", Message: "message", State: "session", Subscription: "subscription", Waiting: "waiting message",
	Inflight: "message in flight", Released: "released identifier", Received: "received identifier",
	Partial: "partly routed message", Retained: "retained message",
}

// String returns the kind's name for the log.
func (k Kind) String() string {
	if s := kindNames[k]; s != "" {
		return s
	}
	return fmt.Sprintf("unknown kind %q", byte(k))
}

// ofSession begins the keys of all records of sessions.
const ofSession = 'S'

// version is that of the encoding of every value. A change of any of them makes
// it another, so that an older program refuses what it would misread.
const version = 1

// A Record is one record, decoded. Which fields are set depends on Kind.
type Record struct {
	Kind     Kind
	ClientID string // of a session's records
	Number   uint64 // of Epoch; of a Message and a Delayed; Seq of Waiting, Inflight and Released
	ID       uint16 // of Received and Partial: the packet identifier

	State        session.State
	Owner        string  // of State: the user whom the session belongs to
	Client       *Client // of State: whom it had last; of Delayed, with State.Version: who published it; nil: not known
	Subscription session.Subscription
	Asked        string           // of Subscription and Delayed: what its filter or topic was rewritten from; empty: it was not
	Message      *session.Message // of Message, Delayed and Retained
	Due          time.Time        // of Delayed: when it is published
	Entry        session.Entry    // of Waiting and Inflight, without its message:
	MessageID    uint64           // that is in this record
	Order        uint32           // of Released
	Recipient    string           // of Partial: a client that has the message already
	Hash         uint64           // of Partial: of the message
}

// A Client is who has had a connection, as far as [session.State] does not say it.
type Client struct {
	Username         string
	Carrier          string
	Network, Address string // where it was; empty: not known
}

func (c *Client) append(dst []byte) []byte {
	for _, s := range []string{c.Username, c.Carrier, c.Network, c.Address} {
		dst = appendString(dst, s)
	}
	return dst
}

// Flags of State; of Delayed hasClient.
const (
	hasWill   = 1 << 0
	hasClient = 1 << 1
)

// hasAsked is a flag of Subscription.
const hasAsked = 1 << 6

// Errors of Decode. They name no content.
var (
	errChecksum = errors.New("checksum does not match")
	errVersion  = errors.New("written by a newer version")
	errFormat   = errors.New("not well-formed")
	errKey      = errors.New("unknown key")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A value is version, body, CRC-32C of key, version and body.
const frame = 1 + 4

// seal completes the value in dst, which begins at start with the version.
func seal(dst []byte, start int, key []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, dst[start:])
	return binary.LittleEndian.AppendUint32(dst, sum)
}

// AppendKey appends the record's key.
func (r *Record) AppendKey(dst []byte) []byte {
	switch r.Kind {
	case Epoch:
		return append(dst, byte(Epoch))
	case Message, Delayed:
		return binary.BigEndian.AppendUint64(append(dst, byte(r.Kind)), r.Number)
	case Retained:
		return append(append(dst, byte(Retained)), r.Message.Publish.Topic...)
	}
	dst = append(AppendSessionKey(dst, r.ClientID), byte(r.Kind))
	switch r.Kind {
	case Subscription:
		dst = append(dst, r.Subscription.Filter...)
	case Waiting, Inflight, Released:
		dst = binary.BigEndian.AppendUint64(dst, r.Number)
	case Received:
		dst = binary.BigEndian.AppendUint16(dst, r.ID)
	case Partial:
		dst = binary.BigEndian.AppendUint16(dst, r.ID)
		dst = append(dst, r.Recipient...)
	}
	return dst
}

// AppendSessionKey appends what begins the keys of a session's records and of
// no others. A client identifier has no null character [MQTT-1.5.4-2].
func AppendSessionKey(dst []byte, clientID string) []byte {
	return append(append(append(dst, ofSession), clientID...), 0)
}

// AppendValue appends the record's value. key is from AppendKey. It fails for a
// message that cannot be encoded.
func (r *Record) AppendValue(dst, key []byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, version)
	var err error
	switch r.Kind {
	case Epoch:
		dst = binary.AppendUvarint(dst, r.Number)
	case Message, Delayed, Retained:
		if r.Kind == Delayed {
			dst = appendString(appendTime(dst, r.Due), r.Asked)
			dst = append(dst, flag(r.Client != nil, hasClient))
			if r.Client != nil {
				dst = r.Client.append(append(dst, byte(r.State.Version)))
			}
		}
		dst = appendTime(dst, r.Message.Expires)
		dst = appendString(dst, r.Message.From)
		dst, err = appendPublish(dst, &r.Message.Publish)
	case State:
		dst = append(dst, byte(r.State.Version))
		dst = binary.BigEndian.AppendUint32(dst, r.State.Expiry)
		dst = appendTime(dst, r.State.Since)
		dst = appendString(dst, r.Owner)
		dst = append(dst, flag(r.State.Will != nil, hasWill)|flag(r.Client != nil, hasClient))
		if r.Client != nil {
			dst = r.Client.append(dst)
		}
		if w := r.State.Will; w != nil {
			dst = binary.BigEndian.AppendUint32(dst, r.State.WillDelay)
			dst, err = appendPublish(dst, w)
		}
	case Subscription:
		s := &r.Subscription
		dst = append(dst, byte(s.QoS)|byte(s.RetainHandling)<<2|flag(s.NoLocal, 1<<4)|flag(s.RetainAsPublished, 1<<5)|flag(r.Asked != "", hasAsked))
		dst = binary.AppendUvarint(dst, uint64(s.ID))
		dst = append(dst, r.Asked...)
	case Waiting, Inflight:
		dst = append(dst, byte(r.Entry.QoS)|flag(r.Entry.Retain, 1<<2))
		dst = binary.AppendUvarint(dst, r.MessageID)
		for _, id := range r.Entry.SubscriptionIDs {
			dst = binary.AppendUvarint(dst, uint64(id))
		}
	case Released:
		dst = binary.AppendUvarint(dst, uint64(r.Order))
	case Partial:
		dst = binary.BigEndian.AppendUint64(dst, r.Hash)
	}
	if err != nil {
		return dst[:start], fmt.Errorf("store: %v: %w", r.Kind, err)
	}
	return seal(dst, start, key), nil
}

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}

// appendTime appends nanoseconds since 1970; 0: none.
func appendTime(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(dst, 0)
	}
	return binary.AppendVarint(dst, t.UnixNano())
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendPublish appends a message as the PUBLISH packet of MQTT 5 that it would be.
func appendPublish(dst []byte, p *packet.Publish) ([]byte, error) {
	h := packet.PublishHeader{QoS: p.QoS, Retain: p.Retain, Checked: true}
	if p.QoS > packet.AtMostOnce {
		h.PacketID = 1
	}
	return packet.AppendPublish(dst, packet.V5, p, h)
}

// Decode returns the record in a key and a value, which it does not keep. The
// error is about this record alone.
func Decode(key, value []byte) (Record, error) {
	var d Decoder
	return d.Decode(key, value)
}

// A Decoder decodes many records. Publishers that come again share a string, which
// most retained messages do. It is for one goroutine at a time.
type Decoder struct {
	from string         // of the last message
	pub  packet.Publish // scratch
}

// Decode is the function of the same name.
func (dec *Decoder) Decode(key, value []byte) (Record, error) {
	var r Record
	if !r.decodeKey(key) {
		return r, errKey
	}
	if len(value) < frame {
		return r, errFormat
	}
	body := value[:len(value)-4]
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
	if binary.LittleEndian.Uint32(value[len(body):]) != sum {
		return r, errChecksum
	}
	if body[0] != version {
		return r, errVersion
	}
	d := decoder{b: body[1:], Decoder: dec}
	r.decodeBody(&d)
	if d.bad || len(d.b) > 0 {
		return r, errFormat
	}
	return r, nil
}

// decodeKey sets what the key says, and reports whether it is one. The topic
// of a retained message is not set: it is in the value as well.
func (r *Record) decodeKey(key []byte) bool {
	if len(key) == 0 {
		return false
	}
	r.Kind = Kind(key[0])
	rest := key[1:]
	switch key[0] {
	case byte(Epoch):
		return len(rest) == 0
	case byte(Message), byte(Delayed):
		return r.number(rest)
	case byte(Retained):
		return len(rest) > 0
	case ofSession:
	default:
		return false
	}
	for i, c := range rest {
		if c == 0 {
			r.ClientID, rest = string(rest[:i]), rest[i+1:]
			break
		}
		if i == len(rest)-1 {
			return false
		}
	}
	if len(rest) == 0 || len(r.ClientID) == 0 {
		return false
	}
	r.Kind, rest = Kind(rest[0]), rest[1:]
	switch r.Kind {
	case State:
		return len(rest) == 0
	case Subscription:
		r.Subscription.Filter = string(rest)
		return len(rest) > 0
	case Waiting, Inflight, Released:
		ok := r.number(rest)
		r.Entry.Seq = r.Number
		return ok
	case Received, Partial:
		if len(rest) < 2 {
			return false
		}
		r.ID = binary.BigEndian.Uint16(rest)
		r.Recipient = string(rest[2:])
		return r.ID != 0 && (len(rest) > 2) == (r.Kind == Partial)
	}
	return false
}

func (r *Record) number(b []byte) bool {
	if len(b) != 8 {
		return false
	}
	r.Number = binary.BigEndian.Uint64(b)
	return true
}

func (r *Record) decodeBody(d *decoder) {
	switch r.Kind {
	case Epoch:
		r.Number = d.uvarint()
	case Message, Delayed, Retained:
		if r.Kind == Delayed {
			r.Due = d.time()
			r.Asked = d.string()
			flags := d.byte()
			d.bad = d.bad || r.Due.IsZero() || flags&^hasClient != 0
			if flags&hasClient != 0 {
				r.State.Version = d.version()
				r.Client = d.client()
			}
		}
		expires := d.time()
		from := d.publisher()
		if p := d.publish(); p != nil {
			r.Message = session.NewMessage(time.Time{}, p, from)
			r.Message.Expires = expires
		}
	case State:
		r.State.Version = d.version()
		r.State.Expiry = d.uint32()
		r.State.Since = d.time()
		r.Owner = string(d.bytes(d.uvarint()))
		flags := d.byte()
		d.bad = d.bad || flags&^(hasWill|hasClient) != 0
		if flags&hasClient != 0 {
			r.Client = d.client()
		}
		if flags&hasWill != 0 {
			r.State.WillDelay = d.uint32()
			if p := d.publish(); p != nil {
				will := session.NewMessage(time.Time{}, p, "").Publish
				r.State.Will = &will
			}
		}
	case Subscription:
		s := &r.Subscription
		flags := d.byte()
		s.QoS, s.RetainHandling = packet.QoS(flags&3), packet.RetainHandling(flags>>2&3)
		s.NoLocal, s.RetainAsPublished = flags&(1<<4) != 0, flags&(1<<5) != 0
		s.ID = d.subscriptionID()
		if flags&hasAsked != 0 {
			r.Asked = string(d.bytes(uint64(len(d.b))))
			d.bad = d.bad || r.Asked == ""
		}
		d.bad = d.bad || s.QoS > packet.ExactlyOnce || s.RetainHandling > 2 || flags>>7 != 0
	case Waiting, Inflight:
		flags := d.byte()
		r.Entry.QoS, r.Entry.Retain = packet.QoS(flags&3), flags&(1<<2) != 0
		d.bad = d.bad || r.Entry.QoS == 0 || r.Entry.QoS > packet.ExactlyOnce || flags>>3 != 0
		r.MessageID = d.uvarint()
		for len(d.b) > 0 && !d.bad {
			id := d.subscriptionID()
			d.bad = d.bad || id == 0
			r.Entry.SubscriptionIDs = append(r.Entry.SubscriptionIDs, id)
		}
	case Released:
		n := d.uvarint()
		r.Order = uint32(n)
		d.bad = d.bad || n > 1<<32-1
	case Partial:
		if len(d.b) == 8 {
			r.Hash = binary.BigEndian.Uint64(d.bytes(8))
		} else {
			d.bad = true
		}
	}
}

// A decoder takes a value apart. After a mistake it yields zeros.
type decoder struct {
	*Decoder
	b   []byte
	bad bool
}

// publisher takes a client identifier.
func (d *decoder) publisher() string {
	if b := d.bytes(d.uvarint()); d.from != string(b) {
		d.from = string(b)
	}
	return d.from
}

func (d *decoder) bytes(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) string() string { return string(d.bytes(d.uvarint())) }

func (d *decoder) client() *Client {
	return &Client{Username: d.string(), Carrier: d.string(), Network: d.string(), Address: d.string()}
}

func (d *decoder) version() packet.Version {
	v := packet.Version(d.byte())
	d.bad = d.bad || v != packet.V31 && v != packet.V311 && v != packet.V5
	return v
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) subscriptionID() uint32 {
	v := d.uvarint()
	if v >= 1<<28 { // MQTT 5, Section 3.8.2.1.2
		d.bad = true
		return 0
	}
	return uint32(v)
}

func (d *decoder) time() time.Time {
	v, n := binary.Varint(d.b)
	if d.bad || n <= 0 {
		d.bad = true
		return time.Time{}
	}
	d.b = d.b[n:]
	if v == 0 {
		return time.Time{}
	}
	return time.Unix(0, v)
}

// publish takes the rest as a PUBLISH packet; nil if it is none. It aliases the value,
// and is valid until the next.
func (d *decoder) publish() *packet.Publish {
	b := d.b
	if d.bad {
		return nil
	}
	d.b, d.bad = nil, true
	h, n, err := packet.ParseHeader(b)
	if err != nil || h.Type != packet.PUBLISH || h.Length != len(b)-n {
		return nil
	}
	p := &d.pub
	*p = packet.Publish{}
	if err := p.Decode(h, b[n:], packet.V5); err != nil || p.Topic == "" {
		return nil
	}
	if q := p.Properties; q != nil && (q.TopicAlias.Set || len(q.SubscriptionIDs) > 0) {
		return nil
	}
	d.bad = false
	return p
}

package packet

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
)

// Connect, Auth and Properties hold secrets: the password and authentication
// data. However they are printed, logged or marshalled, alone or within
// something else, the secrets' lengths take their place. What has no method is
// only the codec: Append.

// String returns c without its password.
func (c Connect) String() string { return string(c.text(nil)) }

// GoString returns c without its password.
func (c Connect) GoString() string { return c.String() }

// Format prints c without its password, whatever the verb.
func (c Connect) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalText returns c without its password, for loggers that marshal.
func (c Connect) MarshalText() ([]byte, error) { return c.text(nil), nil }

// LogValue returns c without its password.
func (c Connect) LogValue() slog.Value { return slog.StringValue(c.String()) }

func (c Connect) text(b []byte) []byte {
	b = fmt.Appendf(b, "CONNECT version=%v client=%q clean=%t keepalive=%d", c.Version, c.ClientID, c.CleanStart, c.KeepAlive)
	if c.Username.Set {
		b = fmt.Appendf(b, " username=%q", c.Username.Value)
	}
	if c.Password != nil {
		b = secret(append(b, " password="...), c.Password)
	}
	if w := c.Will; w != nil {
		b = fmt.Appendf(b, " will={topic=%q qos=%d retain=%t payload=%dB", w.Topic, w.QoS, w.Retain, len(w.Payload))
		b = append(w.Properties.field(b), '}')
	}
	return c.Properties.field(b)
}

// String returns a without its authentication data.
func (a Auth) String() string { return string(a.text(nil)) }

// GoString returns a without its authentication data.
func (a Auth) GoString() string { return a.String() }

// Format prints a without its authentication data, whatever the verb.
func (a Auth) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.String()) }

// MarshalText returns a without its authentication data, for loggers that marshal.
func (a Auth) MarshalText() ([]byte, error) { return a.text(nil), nil }

// LogValue returns a without its authentication data.
func (a Auth) LogValue() slog.Value { return slog.StringValue(a.String()) }

func (a Auth) text(b []byte) []byte {
	b = fmt.Appendf(b, "AUTH code=%q", a.Code)
	return a.Properties.field(b)
}

// String returns p without its authentication data.
func (p Properties) String() string { return string(p.describe(nil)) }

// GoString returns p without its authentication data.
func (p Properties) GoString() string { return p.String() }

// Format prints p without its authentication data, whatever the verb.
func (p Properties) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// MarshalText returns p without its authentication data, for loggers that marshal.
func (p Properties) MarshalText() ([]byte, error) { return p.describe(nil), nil }

// LogValue returns p without its authentication data.
func (p Properties) LogValue() slog.Value { return slog.StringValue(p.String()) }

// field appends the properties, if there are any, as one more field.
func (p *Properties) field(b []byte) []byte {
	if p.present() == 0 {
		return b
	}
	return p.describe(append(b, " properties="...))
}

func (p *Properties) describe(b []byte) []byte {
	b = append(b, '{')
	ids := p.present()
	for first := true; ids != 0; first = false {
		id := ids.next()
		if !first {
			b = append(b, ", "...)
		}
		b = append(append(b, properties[id].name...), '=')
		switch properties[id].wire {
		case wireBool:
			b = strconv.AppendUint(b, uint64(p.boolean(id).Value), 10)
		case wireUint16:
			b = strconv.AppendUint(b, uint64(p.short(id).Value), 10)
		case wireUint32:
			b = strconv.AppendUint(b, uint64(p.long(id).Value), 10)
		case wireVarint:
			b = fmt.Append(b, p.SubscriptionIDs)
		case wireString:
			b = strconv.AppendQuote(b, *p.text(id))
		case wireBinary:
			b = secret(b, *p.bytes(id))
		case wirePair:
			b = fmt.Appendf(b, "%q", p.User)
		}
	}
	return append(b, '}')
}

func secret(b, hidden []byte) []byte { return fmt.Appendf(b, "(%d bytes)", len(hidden)) }

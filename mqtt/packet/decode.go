package packet

// Decode makes a packet of the header h and the h.Length bytes after it. v is the
// version that the connection's CONNECT named; for a CONNECT itself it is
// ignored.
//
// The error is an [*Error], or a [*ConnectError] for a CONNECT.
func Decode(h Header, body []byte, v Version) (Packet, error) {
	if h.Type == CONNECT {
		c := new(Connect)
		return result(c, c.decode(h, body))
	}
	if err := h.checkVersion(v); err != nil {
		return nil, err
	}
	if len(body) != h.Length {
		return nil, malformed("%v: has %d bytes where the header says %d", h.Type, len(body), h.Length)
	}
	d := decoder{b: body, t: h.Type}
	switch h.Type {
	case CONNACK:
		p := new(Connack)
		return result(p, p.decode(&d, v))
	case PUBLISH:
		p := new(Publish)
		return result(p, p.Decode(h, body, v))
	case PUBACK:
		p := new(Puback)
		return result(p, p.decode(&d, v))
	case PUBREC:
		p := new(Pubrec)
		return result(p, p.decode(&d, v))
	case PUBREL:
		p := new(Pubrel)
		return result(p, p.decode(&d, v))
	case PUBCOMP:
		p := new(Pubcomp)
		return result(p, p.decode(&d, v))
	case SUBSCRIBE:
		p := new(Subscribe)
		return result(p, p.decode(&d, v))
	case SUBACK:
		p := new(Suback)
		return result(p, p.decode(&d, v))
	case UNSUBSCRIBE:
		p := new(Unsubscribe)
		return result(p, p.decode(&d, v))
	case UNSUBACK:
		p := new(Unsuback)
		return result(p, p.decode(&d, v))
	case PINGREQ:
		return result(new(Pingreq), d.end())
	case PINGRESP:
		return result(new(Pingresp), d.end())
	case DISCONNECT:
		p := new(Disconnect)
		return result(p, p.decode(&d, v))
	default: // checkVersion leaves AUTH only
		p := new(Auth)
		return result(p, p.decode(&d, v))
	}
}

// result returns p, or a nil Packet with an error.
func result(p Packet, err error) (Packet, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

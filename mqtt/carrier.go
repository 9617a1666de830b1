package mqtt

// A Carrier says what carries a Link.
type Carrier string

const (
	TCP          Carrier = "tcp"
	TLS          Carrier = "tls"
	WebSocket    Carrier = "ws"     // on HTTP/1.1
	WSS          Carrier = "wss"    // on HTTP/1.1 with TLS
	WSH2         Carrier = "ws+h2"  // WebSocket on HTTP/2 (RFC 8441)
	WSSH2        Carrier = "wss+h2" // the same with TLS
	WSSH3        Carrier = "wss+h3" // WebSocket on HTTP/3 (RFC 9220)
	QUIC         Carrier = "quic"
	WebTransport Carrier = "wt"
)

// Carriers are those that this module has, for tables.
var Carriers = [...]Carrier{TCP, TLS, WebSocket, WSS, WSH2, WSSH2, WSSH3, QUIC, WebTransport}

// Streams reports whether Links on c can have data streams beside the control
// stream.
func (c Carrier) Streams() bool { return c == QUIC || c == WebTransport }

// Secure reports whether Links on c have TLS.
func (c Carrier) Secure() bool { return c != TCP && c != WebSocket && c != WSH2 }

// A Scheme says how the URLs of a carrier look that start with its name.
type Scheme struct {
	Carrier Carrier
	Port    string // of a URL that names none
	Path    string // likewise; empty: they have neither path nor query
}

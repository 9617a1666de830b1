package broker

import (
	"crypto/tls"
	"net"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A ClientInfo says who is at the other end of a connection. It is a copy: the
// broker does not change it later.
type ClientInfo struct {
	ClientID string
	Username string         // as proven to Config.Auth; without one, that of CONNECT
	Version  packet.Version // of the protocol
	Carrier  mqtt.Carrier
	Remote   net.Addr // at this moment: QUIC's clients may move; nil if the carrier has none
	Local    bool     // not a client of the network: the program itself has published
	Offline  bool     // it has no connection: who it was when it had one, without TLS

	// TLS is the state of the connection's handshake; nil on carriers without TLS.
	TLS *tls.ConnectionState
}

// info describes cn's client.
func (cn *conn) info() ClientInfo {
	return ClientInfo{
		ClientID: cn.id, Username: cn.username, Version: cn.version,
		Carrier: cn.link.Carrier(), Remote: cn.link.RemoteAddr(), TLS: cn.link.TLS(),
	}
}

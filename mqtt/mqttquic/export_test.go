package mqttquic

import (
	"net"
	"time"
)

// Linger gives the peer of a connection that DialConn has just made more time to read
// everything after Close.
func Linger(c net.Conn, d time.Duration) { c.(*conn).linger = d }

//go:build ngtcp2 && cgo && !wolfssl && fuzzplain

package capi

// #include "shim.h"
// int aq_plain_make_old(aq_conn *c);
import "C"

// makeOld lets the session that a client is about to offer be too old, as it is
// when the host was suspended between NewClient and the first WritePackets.
func (c *Conn) makeOld() bool { return C.aq_plain_make_old(c.c) != 0 }

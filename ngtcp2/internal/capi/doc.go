// Package capi is QUIC without sockets, clock or goroutines: libngtcp2 and a TLS
// library, behind an API of packets, events and times. It is the only package
// of the engine that imports "C".
//
// A [Conn] takes packets and a time ([Conn.ReadPackets], [Conn.HandleExpiry]) and
// gives packets ([Conn.WritePackets]), events ([Conn.Events]) and the time at
// which it wants to be asked again ([Conn.Expiry]). Times are nanoseconds of
// any clock that does not run backwards and is never 0.
//
// # Rules
//
// A Conn and its Streams have one owner at a time; whoever calls holds the
// engine's lock of that connection. Only chunks that [Stream.RecvChunks]
// detached may be read without it.
//
// C is called once per batch. Expiry, Events, RecvChunks, Consumed and Recycle
// read and write C memory without a call. What crosses as an argument holds no
// pointers, and C keeps no Go pointer. C calls Go only for what a handshake asks
// ([Callbacks]), during ReadPackets, WritePackets, HandleExpiry and StartServerTLS.
//
// C allocates from one counting allocator ([Memory]). When it fails, the call
// returns an [Error] and the connection ends; nothing aborts. Everything a Conn
// has is freed by [Conn.Free], except chunks that are detached.
package capi

// Package nghttp3 is the field compression of HTTP/3 by libnghttp3: QPACK (RFC
// 9204) with its dynamic table in both directions. It does no I/O, has no clock
// and no goroutines, and Go code is never called from C. It is there with the
// build tag ngtcp2 and cgo; otherwise the package is empty.
//
// A [Coder] is the two ends of QPACK at one side of a connection: the encoder of
// what this side sends, and the decoder of what it receives.
//
//	fields  -> Add, Encode  -> a field section, bytes for the encoder stream
//	section -> Decode       -> fields, bytes for the decoder stream
//	the peer's encoder stream -> ReadEncoder -> bytes for the decoder stream
//	the peer's decoder stream -> ReadDecoder
//
// # Why not nghttp3_conn
//
// libnghttp3 also has framing, nghttp3_conn. Package http3 does that in Go for
// both of its codecs, because nghttp3_conn cannot be behind the codec's contract:
//
//   - It judges messages by itself and drops fields that it finds invalid, such as
//     a name that is no token. RFC 9114, Section 4.1.2 calls such a message
//     malformed, and what net/http users see must not depend on the codec.
//   - It keeps the PRIORITY_UPDATE frames (RFC 9218) to itself: there is no callback,
//     and no way to learn of one for a stream that is not open yet.
//   - It has no limit for field sections. A callback that refuses one ends the
//     connection, where RFC 9114, Section 4.2.2 has a 431 response.
//   - It announces no settings but its own, tells of none but its own, and swallows
//     streams and frames that it does not know: no WebTransport.
//   - It sends by pull: content would be announced to C, awaited and acknowledged for
//     the sake of a frame's head, which is two integers. And it reads all content,
//     a call into C for each piece that arrives.
//
// So C is called once for a field section in either direction, and not at all for
// content. Memory in C does not grow with the number of streams, but for what the
// peer has not acknowledged, which is bounded.
//
// # Rules
//
// A Coder has one owner at a time; whoever calls holds a lock. What C gives is a
// view, valid until the next call. C is given memory without pointers and keeps
// none of it. All memory of a Coder is counted ([Memory]) and freed by
// [Coder.Close]; every method of a closed Coder returns [ErrClosed]. An allocation
// that fails is an error of the call. An assertion of libnghttp3 that fails ends the
// Coder, not the process, unless the library is the distribution's (tag system).
//
// # Blocked streams
//
// The decoder allows none (SETTINGS_QPACK_BLOCKED_STREAMS is not announced), and
// the encoder makes none whatever the peer allows: it refers to entries that the
// peer has acknowledged. What a request stream says is complete when its bytes
// are, and a lost packet of the encoder stream delays no message. The price is that
// an entry is of use one round trip after it was sent.
package nghttp3

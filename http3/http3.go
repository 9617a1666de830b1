// Package http3 is HTTP/3 (RFC 9114) for net/http over any QUIC engine of
// package transport.
//
//	server: transport.Listener -> Server.Serve -> http.Handler
//	client: http.Client -> Transport.RoundTrip -> transport.Conn
//
// A handler and a client see what they see with HTTP/1.1 and HTTP/2: bodies,
// trailers, interim responses, deadlines, contexts. What HTTP/3 has beyond that
// is asked for by functions of this package, which say so when a request did not
// come over HTTP/3.
//
// # Streams and datagrams
//
// A CONNECT request, with a :protocol (RFC 9220) or without, becomes a [Stream]:
// [TakeStream] gives it to the handler, [ResponseStream] to the client. It
// carries bytes in both directions and HTTP datagrams (RFC 9297). Protocols that
// open streams of their own, as WebTransport does, register for them in
// [Extensions].
//
// # Codecs
//
// The framing is the same in every build. The compression of heads is without a
// dynamic table in Go, and with one by libnghttp3 where the build has that: see
// [Codecs] and [Conn.Codec]. Nothing else depends on it, and there is nothing to
// choose.
//
// # Limits
//
// What a peer can make this side hold is bounded by the windows and stream limits
// of [transport.Config], and by the limits on field sections. A peer that breaks
// a rule loses the request or the connection, as the RFCs say, with the code that
// they name; see [Error].
package http3

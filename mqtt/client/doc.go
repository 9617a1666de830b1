// Package client is an MQTT client for versions 3.1, 3.1.1 and 5, the same over
// TCP, TLS, QUIC, WebSocket and WebTransport.
//
//	Dial, New -> Client -> Publish, PublishAsync, Subscribe, Unsubscribe, Request
//	             Client -> Disconnect (what is in flight ends first) or Close (at once)
//
// A [Client] stays the same when its network connection is lost: it connects
// again, with a growing delay, resumes the session or makes a new one, and goes
// on with what was pending. Calls that wait do so across connections, until
// their context is done.
//
// # Delivery
//
// A message with QoS 0 is sent at most once. It is handed over when its bytes
// are in the outgoing buffer; if the connection is lost before they are
// written, it is gone. While there is no connection, publishing waits, or puts it
// into the queue, if [Queue] says so.
//
// A message with QoS 1 or 2 belongs to the session. While the server keeps the
// session, it arrives at least once and exactly once. If the server has lost the
// session when the client comes back, then every message that was not
// acknowledged is published again as a new one, so that it arrives at least once;
// a QoS 2 message that the server had accepted already (PUBREC) ends with a
// [*PublishError] instead, for the server alone knows what became of it.
// The session is in memory and ends with the Client, or in a file, from which the
// next one goes on with it: see [Queue].
//
// A [*PublishError] says what became of a message: it matches [ErrNotSent],
// [ErrMaybeSent], [ErrRefused] or [ErrKept]. docs/mqtt-client.md has the table.
//
// Subscriptions are made again if the server has lost them.
//
// # Streams
//
// On QUIC and WebTransport Config.Streams spreads topics over several streams, which
// delay each other no more. One that is lost is opened again; what was on it and
// not acknowledged is sent again, and its subscriptions are made again. [StreamPolicy]
// says what that means for servers that keep a session for each stream.
//
// # Handlers
//
// Handlers and the functions of [Config] are called by one goroutine, in order,
// one at a time. While one runs, the client goes on reading up to a bounded
// amount, so a handler may publish and subscribe; one that is slow for long stops
// the reading, which in the end slows down the publishers. A handler that waits for
// the server while messages arrive faster than it handles them would wait for ever;
// after five seconds the client drops messages with QoS 0 to get at the answer.
// PublishAsync does not wait. A handler that passes messages on to goroutines of
// its own acknowledges them when they are done with [Client.Defer]. A handler must not call [Client.Disconnect] or
// [Client.Close], which wait for it.
//
// # Memory
//
// The packet that a handler gets is valid until it returns. [Clone] makes a copy
// that can be kept. What is given to Publish and Subscribe is not kept after they
// return.
//
// # Structure
//
// The rules of the protocol are a machine without I/O, clock and goroutines
// (machine.go and the files it names). Around it are, per client, the supervisor,
// which connects and watches the keep-alive, and the dispatcher, which calls
// handlers; and, per connection, a reader and a writer.
package client

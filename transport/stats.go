package transport

import "time"

// EndpointStats are the counters of a socket since Open.
type EndpointStats struct {
	ConnsDialed   uint64 // connections opened by Dial, complete or not
	ConnsAccepted uint64 // connections that completed their handshake as server
	ConnsRefused  uint64 // attempts refused: no listener, Options.MaxConns, the accept queue full; a packet that repeats one may count again
	ConnsOpen     uint64 // connections open now
	Retries       uint64 // Retry packets sent (RFC 9000, Section 8.1.2)
	// PacketsDropped counts packets that belong to no connection and start
	// none: junk, unknown connection IDs, unknown versions.
	PacketsDropped uint64
}

// Stats are the counters of a connection. Every engine fills in every field.
type Stats struct {
	MinRTT, LatestRTT, SmoothedRTT, RTTVar time.Duration

	CongestionWindow uint64 // bytes

	PacketsSent, PacketsReceived, PacketsLost uint64
	BytesSent, BytesReceived, BytesLost       uint64 // of UDP payload

	// DatagramsSent counts what was handed to the network, DatagramsReceived
	// what ReceiveDatagram returned or can return, DatagramsDropped what fell
	// out of a full queue on this side.
	DatagramsSent, DatagramsReceived, DatagramsDropped uint64

	// StreamsOpened were opened by this side, StreamsAccepted returned by an
	// Accept; StreamsOpen of both have not ended in every direction they have.
	StreamsOpened, StreamsAccepted, StreamsOpen uint64
}

// StreamStats are the counters of a stream, as the application sees it.
type StreamStats struct {
	BytesRead    uint64 // returned by Read
	BytesWritten uint64 // accepted by Write
}

package transport

// A Priority orders the data of a connection's streams (RFC 9218, Section 4).
type Priority struct {
	// Urgency is 0 (first) to 7 (last). Higher values count as 7.
	// Data of a lower urgency waits while a more urgent stream has data that
	// flow control lets through.
	Urgency uint8

	// Incremental streams share the bandwidth with others of equal urgency;
	// of the streams that are not, the one with the lowest ID is served first.
	Incremental bool
}

// Names for the urgencies that most applications need.
var (
	PriorityCritical   = Priority{Urgency: 0, Incremental: true}
	PriorityHigh       = Priority{Urgency: 1, Incremental: true}
	PriorityNormal     = Priority{Urgency: 3, Incremental: true}
	PriorityLow        = Priority{Urgency: 5, Incremental: true}
	PriorityBackground = Priority{Urgency: 7, Incremental: true}
)

// DefaultPriority is the priority of a new stream: a fair share.
var DefaultPriority = PriorityNormal

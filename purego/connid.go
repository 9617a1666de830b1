package purego

import (
	"fmt"
	"sync"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/transport"
)

// defaultConnIDLen is the length of random connection IDs.
const defaultConnIDLen = 8

// connIDs is a quic.ConnectionIDGenerator on a transport.ConnIDGenerator.
type connIDs struct {
	gen transport.ConnIDGenerator
	len int

	mu    sync.Mutex
	ahead []quic.ConnectionID // made by reserve
}

func (g *connIDs) ConnectionIDLen() int { return g.len }

func (g *connIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	g.mu.Lock()
	if n := len(g.ahead); n > 0 {
		id := g.ahead[n-1]
		g.ahead = g.ahead[:n-1]
		g.mu.Unlock()
		return id, nil
	}
	g.mu.Unlock()
	return g.generate()
}

func (g *connIDs) generate() (quic.ConnectionID, error) {
	b, err := g.gen.GenerateConnID()
	if err != nil {
		return quic.ConnectionID{}, err
	}
	if len(b) != g.len {
		return quic.ConnectionID{}, fmt.Errorf("purego: GenerateConnID returned %d bytes, not %d", len(b), g.len)
	}
	return quic.ConnectionIDFromBytes(b), nil
}

// reserve makes the ID of a connection that is about to be accepted. quic-go
// would drop the client's packet without an answer if the generator failed,
// and would not say so.
func (g *connIDs) reserve() error {
	id, err := g.generate()
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ahead = append(g.ahead, id)
	return nil
}

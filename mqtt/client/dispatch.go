package client

import (
	"sync"
	"sync/atomic"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// The dispatcher calls the application's functions, in order, in a goroutine of its
// own. Batches of messages are bounded by slots, and with them the memory that a
// slow handler costs; beyond that the reader waits.
type dispatcher struct {
	c     *Client
	slots chan struct{} // one for each batch that is not done
	wake  chan struct{} // capacity 1
	done  chan struct{} // closed when run has returned

	delivered atomic.Uint64 // messages that handlers have returned from
	closed    atomic.Bool   // messages are not delivered any more
	handling  atomic.Bool   // a handler has a message that is to be acknowledged; false again with Client.mu
	leaving   atomic.Bool   // messages that are to be acknowledged are not delivered any more
	overdraft atomic.Int64  // bytes of batches that have no slot

	current, spare *acknowledgement                // see begin; run only
	owed           map[ackOrder][]*acknowledgement // guarded by Client.mu; deferred ones and those behind them

	mu    sync.Mutex
	queue []event // guarded by mu
	calls int     // guarded by mu; events in queue that are no batch
}

// An event is a batch of messages or a call.
type event struct {
	batch *batch
	call  func()
}

const (
	batchBytes = 16 << 10 // bytes of packets in a batch, unless there is one that is larger
	batchItems = 256      // messages in a batch
	maxBatches = 32       // of one client that wait for handlers
	maxCalls   = 64       // that wait; older ones are dropped then

	// maxOverdraft is how many bytes of messages with QoS 1 and 2 a handler
	// that waits for the server can cost beyond that.
	maxOverdraft = 16 << 20
)

// A batch is what has arrived together on one stream.
type batch struct {
	stream         mqtt.StreamID
	epoch, session uint64 // of the machine, when it arrived
	arena          []byte // the packets that items alias
	items          []item
	processed      int  // items[:processed] went through the machine
	slot           bool // it has one of the dispatcher's slots
	overdrawn      bool // it has none: messages with QoS 0 have no place in it
}

type item struct {
	publish packet.Publish
	deliver bool
}

var batches = sync.Pool{New: func() any {
	return &batch{arena: make([]byte, 0, batchBytes)}
}}

// fits reports whether a packet of n bytes has room. An empty batch has room for
// any.
func (b *batch) fits(n int) bool {
	return len(b.items) == 0 || len(b.items) < batchItems && len(b.arena)+n <= cap(b.arena)
}

// keep copies body into the batch, which it fits.
func (b *batch) keep(body []byte) []byte {
	at := len(b.arena)
	b.arena = append(b.arena, body...)
	return b.arena[at:]
}

// next returns the next item's message, with the topic that it had last.
func (b *batch) next() *packet.Publish {
	if len(b.items) < cap(b.items) {
		b.items = b.items[:len(b.items)+1]
	} else {
		b.items = append(b.items, item{})
	}
	return &b.items[len(b.items)-1].publish
}

// empty reports whether there is nothing to deliver.
func (b *batch) empty() bool {
	for i := range b.items {
		if b.items[i].deliver {
			return false
		}
	}
	return true
}

func newDispatcher(c *Client) *dispatcher {
	return &dispatcher{
		c: c, slots: make(chan struct{}, maxBatches),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// putBatch gives a batch and its slot back.
func (d *dispatcher) putBatch(b *batch) {
	slot := b.slot
	if b.overdrawn {
		d.overdraft.Add(-int64(len(b.arena)))
	}
	if cap(b.arena) <= batchBytes {
		b.arena, b.items, b.processed = b.arena[:0], b.items[:0], 0
		batches.Put(b)
	}
	if slot {
		<-d.slots
	}
}

func (d *dispatcher) add(e event) {
	d.mu.Lock()
	if e.batch == nil {
		if d.calls++; d.calls > maxCalls {
			d.dropCall()
		}
	}
	d.queue = append(d.queue, e)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// dropCall removes the oldest call: a handler has been busy through more
// connections than anyone wants to hear about. mu is held.
func (d *dispatcher) dropCall() {
	for i := range d.queue {
		if d.queue[i].batch == nil {
			d.queue = append(d.queue[:i], d.queue[i+1:]...)
			d.calls--
			return
		}
	}
}

// close makes run return after the handler that is running now and the calls that
// wait.
func (d *dispatcher) close() {
	d.closed.Store(true)
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *dispatcher) run() {
	defer close(d.done)
	var queue []event
	for {
		closed := d.closed.Load()
		d.mu.Lock()
		queue, d.queue = d.queue, queue[:0]
		d.calls = 0
		d.mu.Unlock()
		if len(queue) == 0 {
			if closed {
				return
			}
			<-d.wake
			continue
		}
		for i, e := range queue {
			queue[i] = event{}
			if e.batch == nil {
				e.call()
			} else {
				d.deliver(e.batch)
				d.putBatch(e.batch)
			}
		}
	}
}

// deliver calls the handlers for the messages of a batch. Those with QoS 1 and 2
// are acknowledged when the handler has returned: a message is the server's until
// then ([MQTT-4.3.2-4], [MQTT-4.3.3-8]).
func (d *dispatcher) deliver(b *batch) {
	c := d.c
	for i := range b.items {
		it := &b.items[i]
		if d.closed.Load() {
			return
		}
		if !it.deliver {
			continue
		}
		p := &it.publish
		qos, id := p.QoS, p.PacketID // the handler may change p
		if qos == packet.AtMostOnce {
			c.deliver(p)
			d.delivered.Add(1)
			continue
		}
		d.handling.Store(true)
		leaving := d.leaving.Load() // behind the Store: either sees what the other does
		if !leaving {
			d.begin(b, qos, id)
			c.deliver(p)
			d.delivered.Add(1)
		}
		c.mu.Lock()
		if !leaving { // or the message stays the server's
			d.end()
			c.flush()
		}
		d.handling.Store(false)
		if c.closing {
			c.changed() // for drain
		}
		c.unlock()
	}
}

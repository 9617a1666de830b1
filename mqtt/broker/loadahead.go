package broker

import (
	"runtime"
	"sync"

	"github.com/anyquic/anyquic/mqtt/store"
)

// Loading goes through a pipeline, since most of its time is spent on decoding: one
// goroutine reads the store and fills chunks, several decode them, and the caller
// takes the records in the order of their keys. A chunk is used again when its
// records were taken, so that the bytes of a few chunks are all that is in memory
// beside what the records have become.

const (
	chunkRecords = 256
	chunkBytes   = 64 << 10 // a chunk is full with the record that goes beyond
	keepChunk    = 1 << 20  // bytes; a buffer that a large record has grown further is given up
)

// A chunk is records that follow one another.
type chunk struct {
	buf     []byte        // keys and values
	ends    []int         // in buf, of each key and each value
	records []decoded     // one for each that was decoded
	done    chan struct{} // has an element when records is complete
}

// A decoded is a record and what was wrong with it.
type decoded struct {
	record store.Record
	err    error
}

func (c *chunk) add(key, value []byte) {
	c.buf = append(c.buf, key...)
	c.ends = append(c.ends, len(c.buf))
	c.buf = append(c.buf, value...)
	c.ends = append(c.ends, len(c.buf))
}

func (c *chunk) full() bool { return len(c.ends) >= 2*chunkRecords || len(c.buf) >= chunkBytes }

// key and value are those of the i-th record.
func (c *chunk) key(i int) []byte {
	start := 0
	if i > 0 {
		start = c.ends[2*i-1]
	}
	return c.buf[start:c.ends[2*i]]
}

func (c *chunk) value(i int) []byte { return c.buf[c.ends[2*i]:c.ends[2*i+1]] }

func (c *chunk) decode(d *store.Decoder) {
	for i := range len(c.ends) / 2 {
		r, err := d.Decode(c.key(i), c.value(i))
		c.records = append(c.records, decoded{r, err})
	}
}

func (c *chunk) reset() {
	if cap(c.buf) > keepChunk {
		c.buf = nil
	}
	clear(c.records) // they are not to keep their messages alive
	c.buf, c.ends, c.records = c.buf[:0], c.ends[:0], c.records[:0]
}

// loadAhead calls take with every record of s in the order of their keys, on the
// caller's goroutine, while others read and decode what follows. key is valid during
// the call.
func loadAhead(s store.Store, take func(key []byte, r *store.Record, err error)) error {
	decoders := runtime.GOMAXPROCS(0)
	chunks := 4 * decoders
	free := make(chan *chunk, chunks)
	work := make(chan *chunk, chunks)  // to be decoded
	order := make(chan *chunk, chunks) // the same, to be taken
	for range chunks {
		free <- &chunk{done: make(chan struct{}, 1)}
	}
	var failed error
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { // ends with the store's last record: chunks always become free again
		defer close(order)
		defer close(work)
		c := <-free
		send := func() {
			work <- c
			order <- c
		}
		failed = s.Load(func(key, value []byte) error {
			if c.add(key, value); c.full() {
				send()
				c = <-free
			}
			return nil
		})
		send()
	})
	for range decoders {
		running.Go(func() { // ends when work is closed
			var d store.Decoder
			for c := range work {
				c.decode(&d)
				c.done <- struct{}{}
			}
		})
	}
	for c := range order {
		<-c.done
		for i := range c.records {
			take(c.key(i), &c.records[i].record, c.records[i].err)
		}
		c.reset()
		free <- c
	}
	return failed
}

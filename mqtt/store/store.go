// Package store keeps what an MQTT broker must not lose: sessions with their
// subscriptions, queues and packet identifiers, and retained messages.
//
//	broker ─ Update, Begin, End ─> Group: the batch that piles up ─ Apply ─> Store: pebblestore, Memory
//	       <─ Wait ─────────────── group commit, one goroutine
//
// A [Store] is an ordered map of bytes that writes batches as one. A [Group]
// collects changes into batches, so that one write and one fsync serve everybody
// who waits. Records are what lies in the map, in key order: see [Record]. Each
// names its kind and version and carries a checksum over key and value, so that
// one that is damaged is found out and lost alone.
//
// The store itself is in a package of its own, pebblestore, which programs that
// keep nothing do not link.
package store

import "errors"

// A Store is an ordered map of bytes on something that outlives the process.
// Apply is called by one goroutine at a time, the others by any.
type Store interface {
	// Load calls f with everything in the store in the order of the keys, until f
	// returns an error, which it returns. The slices are valid during the call.
	Load(f func(key, value []byte) error) error

	// Apply writes a batch: after a crash there is all of it or nothing, and nothing
	// without all batches before it. With sync it returns when that is certain to
	// outlive the machine, and with it all that was applied before; an empty batch
	// may be applied for that alone. It blocks while it writes.
	//
	// After an error the batch may have been written or not. The caller applies
	// it again, without changes and before any other, until there is no error, or
	// gives up the store.
	Apply(b *Batch, sync bool) error

	// Compact gives back the room of what was deleted. It takes long and may run beside everything else.
	Compact() error

	// Stats returns the store's figures.
	Stats() Stats

	// Close ends the store. What Apply was not asked to sync may be lost.
	Close() error
}

// Stats are the figures of a Store.
type Stats struct {
	DiskBytes   int64 // what it takes on disk
	WrittenUser int64 // bytes that Apply was given, since the start
	WrittenDisk int64 // bytes written for them by the log, flushes and compactions
	Compactions int64
}

// ErrClosed is returned for what comes after Close.
var ErrClosed = errors.New("store: closed")

// An Op is what a batch does with a key.
type Op uint8

const (
	Put Op = iota + 1
	Delete
	// DeleteOnce is Delete for a key that was put exactly once since it last did not
	// exist: a hint that lets a log-structured store forget both at once.
	DeleteOnce
	// DeletePrefix deletes every key that begins with the one given.
	DeletePrefix
)

// A Batch is a list of changes, which take effect in its order. The zero Batch is
// empty. It copies what it is given.
type Batch struct {
	buf []byte // op, lengths of key and value in 4 bytes each, key, value
	n   int
}

const opHeader = 1 + 4 + 4

// Len returns the number of changes.
func (b *Batch) Len() int { return b.n }

// Size returns the bytes that the batch holds.
func (b *Batch) Size() int { return len(b.buf) }

// Reset empties the batch. A buffer that has grown large is given up.
func (b *Batch) Reset() {
	b.n, b.buf = 0, b.buf[:0]
	if cap(b.buf) > 1<<20 {
		b.buf = nil
	}
}

// Put gives key a value.
func (b *Batch) Put(key, value []byte) { b.add(Put, key, value) }

// Delete removes key.
func (b *Batch) Delete(key []byte) { b.add(Delete, key, nil) }

// DeleteOnce removes a key that was put once; see [DeleteOnce].
func (b *Batch) DeleteOnce(key []byte) { b.add(DeleteOnce, key, nil) }

// DeletePrefix removes the keys that begin with prefix, which is not empty.
func (b *Batch) DeletePrefix(prefix []byte) { b.add(DeletePrefix, prefix, nil) }

func (b *Batch) add(op Op, key, value []byte) {
	k, v := uint32(len(key)), uint32(len(value))
	b.buf = append(b.buf, byte(op),
		byte(k), byte(k>>8), byte(k>>16), byte(k>>24),
		byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	b.buf = append(b.buf, key...)
	b.buf = append(b.buf, value...)
	b.n++
}

// Each calls f with every change in order. The slices are the batch's own.
func (b *Batch) Each(f func(op Op, key, value []byte)) {
	for p := b.buf; len(p) > 0; {
		k := int(uint32(p[1]) | uint32(p[2])<<8 | uint32(p[3])<<16 | uint32(p[4])<<24)
		v := int(uint32(p[5]) | uint32(p[6])<<8 | uint32(p[7])<<16 | uint32(p[8])<<24)
		f(Op(p[0]), p[opHeader:opHeader+k], p[opHeader+k:opHeader+k+v])
		p = p[opHeader+k+v:]
	}
}

// PrefixEnd returns the first key behind all that begin with prefix; nil if there
// is none. It is for implementations of [Store].
func PrefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xFF {
			end := append([]byte(nil), prefix[:i+1]...)
			end[i]++
			return end
		}
	}
	return nil
}

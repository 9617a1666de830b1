// Package journal keeps records in one file, to which they are appended, so that
// they survive the end of the process at any moment.
//
// A file begins with a magic number and a random salt. A record is its length, a
// checksum and its body; the checksum covers salt, length and body, so that bytes
// that somebody else chose, and which end up in a body, never pass for a record.
// [Scan] skips records that are damaged and ends where no record can be found any
// more, which is what a write that was interrupted leaves behind.
//
// What the records mean, and which of them are still needed, is the caller's:
// [File.Replace] puts those in the place of all others.
package journal

import (
	"encoding/binary"
	"hash/crc32"
)

// MaxRecord is the longest body, in bytes.
const MaxRecord = 1 << 29

const recordHeader = 8 // length and checksum, bytes

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Salt makes the checksums of a file its own.
type Salt [8]byte

// Begin makes room for the header of a record, whose body is to be appended.
func Begin(dst []byte) []byte { return append(dst, make([]byte, recordHeader)...) }

// End completes the record that Begin started when dst was start bytes long.
func (s Salt) End(dst []byte, start int) []byte {
	body := dst[start+recordHeader:]
	binary.BigEndian.PutUint32(dst[start:], uint32(len(body)))
	binary.BigEndian.PutUint32(dst[start+4:], s.sum(dst[start:start+4], body))
	return dst
}

func (s Salt) sum(length, body []byte) uint32 {
	crc := crc32.Update(0, castagnoli, s[:])
	crc = crc32.Update(crc, castagnoli, length)
	return crc32.Update(crc, castagnoli, body)
}

// A Report says what Scan has found.
type Report struct {
	Records int // that are intact
	Damaged int // that were skipped: an intact one follows
	Torn    int // bytes at the end that are no record
}

// Scan calls f with the body of each record in b, which f may keep as long as b is
// not changed.
func (s Salt) Scan(b []byte, f func(body []byte)) Report {
	var r Report
	suspect, suspects := -1, 0 // what did not fit its checksum since the last one that did
	for pos := 0; pos < len(b); {
		rest := b[pos:]
		if len(rest) < recordHeader {
			if suspect < 0 {
				suspect = pos
			}
			break
		}
		n := int64(binary.BigEndian.Uint32(rest))
		if n == 0 || n > MaxRecord || n > int64(len(rest)-recordHeader) {
			if suspect < 0 {
				suspect = pos
			}
			break
		}
		body := rest[recordHeader : recordHeader+int(n)]
		if s.sum(rest[:4], body) == binary.BigEndian.Uint32(rest[4:]) {
			r.Damaged += suspects
			suspect, suspects = -1, 0
			r.Records++
			f(body)
		} else {
			if suspect < 0 {
				suspect = pos
			}
			suspects++
		}
		pos += recordHeader + int(n)
	}
	if suspect >= 0 {
		r.Torn = len(b) - suspect
	}
	return r
}

package websocket_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/websocket"
)

// A row is a case of the table that servers and clients of WebSocket are judged
// by, Autobahn's, with its number. Our end answers each message with the same.
type row struct {
	id     string
	send   []frame
	want   []frame // before the end
	code   uint16  // of our Close frame; 0: it has none
	reason string  // if it must be this one
	broken bool    // we must end the connection; else the other end does, with 1000
	chop   int     // pieces of so many bytes
	pause  int     // there is a second before the frame with this index, and the end must come in it
}

func text(s string) frame { return frame{op: opText, content: s} }
func data(s string) frame { return frame{op: opBinary, content: s} }
func ping(s string) frame { return frame{op: opPing, content: s} }
func pong(s string) frame { return frame{op: opPong, content: s} }

// parts returns a message in fragments.
func parts(op byte, contents ...string) []frame {
	var fs []frame
	for i, c := range contents {
		fs = append(fs, frame{op: op, part: i < len(contents)-1, content: c})
		op = opCont
	}
	return fs
}

func frames(lists ...any) []frame {
	var fs []frame
	for _, l := range lists {
		switch l := l.(type) {
		case frame:
			fs = append(fs, l)
		case []frame:
			fs = append(fs, l...)
		}
	}
	return fs
}

func repeat[T any](n int, v ...T) []T {
	var vs []T
	for range n {
		vs = append(vs, v...)
	}
	return vs
}

// framing is section 1: sizes of frames.
func framing() []row {
	var rows []row
	for i, op := range []byte{opText, opBinary} {
		for j, size := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
			f := frame{op: op, content: strings.Repeat("*", size)}
			r := row{id: fmt.Sprintf("1.%d.%d", i+1, j+1), send: frames(f), want: frames(f)}
			if j == 7 {
				r.chop = 997
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// pings is section 2.
func pings() []row {
	long := strings.Repeat("\xfe", 125)
	ten := []string{}
	for i := range 10 {
		ten = append(ten, fmt.Sprintf("payload-%d", i))
	}
	var tenPings, tenPongs []frame
	for _, s := range ten {
		tenPings = append(tenPings, ping(s))
		tenPongs = append(tenPongs, pong(s))
	}
	return []row{
		{id: "2.1", send: frames(ping("")), want: frames(pong(""))},
		{id: "2.2", send: frames(ping("Hello, world!")), want: frames(pong("Hello, world!"))},
		{id: "2.3", send: frames(ping("\x00\xff\xfe\xfd\xfc\xfb\x00\xff")), want: frames(pong("\x00\xff\xfe\xfd\xfc\xfb\x00\xff"))},
		{id: "2.4", send: frames(ping(long)), want: frames(pong(long))},
		{id: "2.5", send: frames(ping(long + "\xfe")), broken: true, code: 1002},
		{id: "2.6", send: frames(ping(long)), want: frames(pong(long)), chop: 1},
		{id: "2.7", send: frames(pong(""))},
		{id: "2.8", send: frames(pong("unsolicited pong payload"))},
		{id: "2.9", send: frames(pong("unsolicited pong payload"), ping("ping payload")), want: frames(pong("ping payload"))},
		{id: "2.10", send: tenPings, want: tenPongs},
		{id: "2.11", send: tenPings, want: tenPongs, chop: 1},
	}
}

// reserved are sections 3 and 4: reserved bits and opcodes.
func reserved() []row {
	hello := text("Hello, world!")
	rows := []row{
		{id: "3.1", send: frames(frame{op: opText, rsv: 1, content: "Hello, world!"})},
		{id: "3.2", send: frames(hello, frame{op: opText, rsv: 2, content: "Hello, world!"}, ping("")), want: frames(hello)},
		{id: "3.3", send: frames(hello, frame{op: opText, rsv: 3, content: "Hello, world!"}, ping("")), want: frames(hello), chop: 19},
		{id: "3.4", send: frames(hello, frame{op: opText, rsv: 4, content: "Hello, world!"}, ping("")), want: frames(hello), chop: 1},
		{id: "3.5", send: frames(frame{op: opBinary, rsv: 5, content: "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"})},
		{id: "3.6", send: frames(frame{op: opPing, rsv: 6, content: "Hello, world!"})},
		{id: "3.7", send: frames(frame{op: opClose, rsv: 7, content: "\x03\xe8"})},
	}
	for i, base := range []byte{3, 11} {
		for j := range byte(5) {
			f := frame{op: base + j}
			if j%2 == 1 {
				f.content = "reserved opcode payload"
			}
			r := row{id: fmt.Sprintf("4.%d.%d", i+1, j+1), send: frames(f)}
			if j >= 2 {
				r.send, r.want = frames(hello, f, ping("")), frames(hello)
			}
			if j == 4 {
				r.chop = 1
			}
			rows = append(rows, r)
		}
	}
	for i := range rows {
		rows[i].broken, rows[i].code = true, 1002
	}
	return rows
}

// fragmentation is section 5.
func fragmentation() []row {
	two := parts(opText, "fragment1", "fragment2")
	whole := text("fragment1fragment2")
	lone := frame{op: opCont, content: "non-continuation payload"}
	open := frame{op: opCont, part: true, content: "non-continuation payload"}
	hello := text("Hello, world!")
	six := parts(opText, "fragment1", "fragment2", "fragment3", "fragment4", "fragment5")
	pinged := frames(six[0], six[1], ping("pongme 1!"), six[2], six[3], ping("pongme 2!"), six[4])
	pongs := frames(pong("pongme 1!"), pong("pongme 2!"), text("fragment1fragment2fragment3fragment4fragment5"))
	bad := func(r row) row {
		r.broken, r.code = true, 1002
		return r
	}
	return []row{
		bad(row{id: "5.1", send: frames(frame{op: opPing, part: true, content: "fragment1"}, frame{op: opCont, content: "fragment2"})}),
		bad(row{id: "5.2", send: frames(frame{op: opPong, part: true, content: "fragment1"}, frame{op: opCont, content: "fragment2"})}),
		{id: "5.3", send: two, want: frames(whole)},
		{id: "5.4", send: two, want: frames(whole), chop: 13},
		{id: "5.5", send: two, want: frames(whole), chop: 1},
		{id: "5.6", send: frames(two[0], ping("ping payload"), two[1]), want: frames(pong("ping payload"), whole)},
		{id: "5.7", send: frames(two[0], ping("ping payload"), two[1]), want: frames(pong("ping payload"), whole), chop: 11},
		{id: "5.8", send: frames(two[0], ping("ping payload"), two[1]), want: frames(pong("ping payload"), whole), chop: 1},
		bad(row{id: "5.9", send: frames(lone, hello)}),
		bad(row{id: "5.10", send: frames(lone, hello), chop: 30}),
		bad(row{id: "5.11", send: frames(lone, hello), chop: 1}),
		bad(row{id: "5.12", send: frames(open, hello)}),
		bad(row{id: "5.13", send: frames(open, hello), chop: 30}),
		bad(row{id: "5.14", send: frames(open, hello), chop: 1}),
		bad(row{id: "5.15", send: frames(two, open, hello), want: frames(whole)}),
		bad(row{id: "5.16", send: repeat(2, frames(open, two)...)}),
		bad(row{id: "5.17", send: repeat(2, frames(lone, two)...)}),
		bad(row{id: "5.18", send: frames(two[0], text("fragment2"))}),
		{id: "5.19", send: pinged, want: pongs},
		{id: "5.20", send: pinged, want: pongs, chop: 1},
		// What every reader of the RFC would add.
		bad(row{id: "5.2-close", send: frames(frame{op: opClose, part: true, content: "\x03\xe8"})}),
		bad(row{id: "5.18-binary", send: frames(two[0], ping(""), data("fragment2")), want: frames(pong(""))}),
		{id: "5.3-empty", send: parts(opBinary, "", "", "a", "", ""), want: frames(data("a"))},
	}
}

// closes is section 7.
func closes() []row {
	hello := text("Hello World!")
	big := text(strings.Repeat("BAsd7&jh23", 26<<10))
	rows := []row{
		{id: "7.1.1", send: frames(hello, closing(1000, "")), want: frames(hello), code: 1000},
		{id: "7.1.2", send: frames(closing(1000, ""), closing(1000, "")), code: 1000},
		{id: "7.1.3", send: frames(closing(1000, ""), ping("")), code: 1000},
		{id: "7.1.4", send: frames(closing(1000, ""), hello), code: 1000},
		{id: "7.1.5", send: frames(frame{op: opText, part: true, content: "fragment1"}, closing(1000, ""),
			frame{op: opCont, content: "fragment2"}), code: 1000},
		{id: "7.1.6", send: frames(big, hello, closing(1000, ""), ping("")), want: frames(big, hello), code: 1000},
		{id: "7.3.1", send: frames(frame{op: opClose}), code: 0},
		{id: "7.3.2", send: frames(frame{op: opClose, content: "a"}), code: 1002},
		{id: "7.3.3", send: frames(closing(1000, "")), code: 1000},
		{id: "7.3.4", send: frames(closing(1000, "Hello World!")), code: 1000, reason: "Hello World!"},
		{id: "7.3.5", send: frames(closing(1000, strings.Repeat("*", 123))), code: 1000, reason: strings.Repeat("*", 123)},
		{id: "7.3.6", send: frames(closing(1000, strings.Repeat("*", 124))), code: 1002},
		{id: "7.5.1", send: frames(closing(1000, unhex("cebae1bdb9cf83cebcceb5eda080656469746564"))), code: 1007},
	}
	for i, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		rows = append(rows, row{id: fmt.Sprintf("7.7.%d", i+1), send: frames(closing(code, "")), code: code})
	}
	for i, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		rows = append(rows, row{id: fmt.Sprintf("7.9.%d", i+1), send: frames(closing(code, "")), code: 1002})
	}
	for i := range rows {
		rows[i].broken = true
	}
	return rows
}

// large are sections 9 and 10: size in one frame, in many, and in many packets.
func large() []row {
	var rows []row
	for i, op := range []byte{opText, opBinary} {
		for j, size := range []int{64 << 10, 256 << 10, 1 << 20} {
			s := strings.Repeat("\xe2\x98\x83+", size/4)
			m := frame{op: op, content: s}
			rows = append(rows, row{id: fmt.Sprintf("9.%d.%d", i+1, j+1), send: frames(m), want: frames(m)})
		}
		s := strings.Repeat("\xe2\x98\x83+", 64<<10)
		m := frame{op: op, content: s}
		for j, size := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10} {
			rows = append(rows, row{id: fmt.Sprintf("9.%d.%d", i+3, j+1), send: parts(op, split(s, size)...), want: frames(m)})
		}
		for j, size := range []int{64, 256, 512, 1 << 10, 2 << 10, 4 << 10} {
			rows = append(rows, row{id: fmt.Sprintf("9.%d.%d", i+5, j+1), send: frames(m), want: frames(m), chop: size})
		}
		for j, size := range []int{0, 16, 64, 256, 1 << 10, 4 << 10} {
			ms := repeat(200, frame{op: op, content: strings.Repeat("*", size)})
			rows = append(rows, row{id: fmt.Sprintf("9.%d.%d", i+7, j+1), send: ms, want: ms})
		}
	}
	s := strings.Repeat("*", 65536)
	return append(rows, row{id: "10.1.1", send: parts(opText, split(s, 1300)...), want: frames(text(s))})
}

func split(s string, size int) []string {
	var ps []string
	for len(s) > size {
		ps = append(ps, s[:size])
		s = s[size:]
	}
	return append(ps, s)
}

func unhex(s string) string {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// echo answers each message with the same.
func echo(c *websocket.Conn) error {
	ctx := context.Background()
	for {
		typ, p, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if err := c.Write(ctx, typ, p); err != nil {
			return err
		}
	}
}

func TestTheTableOfFraming(t *testing.T)       { runTable(t, framing()) }
func TestTheTableOfPings(t *testing.T)         { runTable(t, pings()) }
func TestTheTableOfReservedBits(t *testing.T)  { runTable(t, reserved()) }
func TestTheTableOfFragmentation(t *testing.T) { runTable(t, fragmentation()) }
func TestTheTableOfText(t *testing.T)          { runTable(t, texts()) }
func TestTheTableOfCloses(t *testing.T)        { runTable(t, closes()) }
func TestTheTableOfSizes(t *testing.T)         { runTable(t, large()) }

// runTable runs the rows with our end as server and as client.
func runTable(t *testing.T, rows []row) {
	t.Helper()
	roles(t, func(l *lab, us role) {
		for _, r := range rows {
			runRow(l, us, r)
			require.False(l, l.Failed(), "row %s as %v", r.id, us)
		}
	})
}

func runRow(l *lab, us role, r row) {
	l.Helper()
	c, peer := l.connect(us, websocket.AcceptOptions{ReadLimit: 8 << 20}, "")
	echoed := make(chan error, 1)
	go func() { echoed <- echo(c) }() // ends with the connection
	ended := false
	for i := range r.send {
		if r.pause > 0 && i == r.pause {
			time.Sleep(time.Second)
			break // what follows must not be needed
		}
		if r.chop == 0 {
			peer.send(r.send[i])
		}
	}
	if r.chop > 0 {
		peer.sendBytes(peer.encode(r.send...), r.chop)
	}
	if !r.broken {
		peer.send(closing(1000, "bye"))
		r.code, r.reason, ended = 1000, "bye", true
	}
	got := peer.rest()
	require.NotEmpty(l, got, "row %s as %v: no Close frame", r.id, us)
	last := got[len(got)-1]
	require.Equal(l, append([]frame{}, r.want...), got[:len(got)-1:len(got)-1], "row %s as %v", r.id, us)
	require.Equal(l, byte(opClose), last.op, "row %s as %v", r.id, us)
	if r.code == 0 {
		require.Empty(l, last.content, "row %s as %v", r.id, us)
	} else {
		require.GreaterOrEqual(l, len(last.content), 2, "row %s as %v", r.id, us)
		require.Equal(l, r.code, uint16(last.content[0])<<8|uint16(last.content[1]), "row %s as %v", r.id, us)
	}
	if r.reason != "" {
		require.Equal(l, r.reason, last.content[2:], "row %s as %v", r.id, us)
	}
	var e *websocket.CloseError
	require.ErrorAs(l, <-echoed, &e)
	if ended || r.code == 1000 {
		require.True(l, e.Remote, "row %s as %v", r.id, us)
	}
	<-c.Context().Done()
}

package transporttest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

const saysAfterEnd = "What the peer has sent on a stream, and this side has not read when the connection ends, stays readable where Features.ReadAfterEnd says so, unless this side ended the connection."

var afterEndCases = []testCase{
	{name: "ReadAfterPeersClose", rows: "T07 T09", run: testReadAfterPeersClose, says: saysAfterEnd},
	{name: "ReadAfterIdleTimeout", rows: "T07 T18", run: testReadAfterIdleTimeout, says: saysAfterEnd},
	{name: "ReadAfterReset", rows: "T07 T23", run: testReadAfterReset, says: saysAfterEnd},
	{name: "ReadUpToAGap", rows: "T07 T09", run: testReadUpToAGap,
		says: "Read returns all that had arrived in order, then io.EOF if the peer had closed the stream and nothing before its end is missing, and else the reason."},
	{name: "ReadAfterOwnClose", rows: "T07 T09", run: testReadAfterOwnClose, says: saysAfterEnd},
	{name: "CancelReadAfterEnd", rows: "T07 T09", run: testCancelReadAfterEnd,
		says: "It is freed when it was read, by CancelRead, or with the stream."},
	{name: "ReadDeadlineAfterEnd", rows: "T07 T08", run: testReadDeadlineAfterEnd,
		says: "Read and Write return an error matching os.ErrDeadlineExceeded when a deadline passes."},
}

// A side is one end of a pair, as the receiver of what the other sends.
type side struct {
	name     string
	keeps    bool // its engine has ReadAfterEnd
	from, to transport.Conn
}

func (p *pair) sides(l *lab) []side {
	return []side{
		{"client", l.client.Features().ReadAfterEnd, p.server, p.client},
		{"server", l.server.Features().ReadAfterEnd, p.client, p.server},
	}
}

// eachSide runs f for both ends as the receiver, with a connection of its own.
func eachSide(l *lab, s setup, f func(p *pair, s side)) {
	l.Helper()
	p := l.listen(s)
	for i := range 2 {
		p.dial(l)
		f(p, p.sides(l)[i])
	}
}

// A leftover is what arrived on a stream and was not read.
type leftover struct {
	what   string
	data   []byte
	fin    bool
	stream transport.ReceiveStream
}

// leave makes the peer send on streams of several kinds, and leaves it unread.
func (s side) leave(l *lab) (all []*leftover) {
	l.Helper()
	add := func(what string, data []byte, fin, bidi bool) *leftover {
		l.Helper()
		var w transport.SendStream
		x := &leftover{what: s.name + ": " + what, data: data, fin: fin}
		if bidi {
			w, x.stream = openStream(l, s.from, s.to)
		} else {
			w, x.stream = openUni(l, s.from, s.to)
		}
		var err error
		if fin {
			_, err = w.WriteLast(data)
		} else if len(data) > 0 {
			_, err = w.Write(data)
		}
		require.NoError(l, err, x.what)
		all = append(all, x)
		return x
	}
	add("closed at once", nil, true, true)
	add("a few bytes, closed", []byte("last words"), true, true)
	add("a few bytes, closed, on a unidirectional stream", []byte("last words"), true, false)
	add("many bytes, closed", noiseBytes(100_000), true, true)
	add("many bytes, open", noiseBytes(90_000), false, false)
	add("nothing, open", nil, false, true)
	begun := add("many bytes of which some were read, closed", noiseBytes(80_000), true, true)
	n := len(begun.data) / 3
	got := make([]byte, n)
	_, err := io.ReadFull(begun.stream, got)
	require.NoError(l, err)
	require.True(l, bytes.Equal(begun.data[:n], got))
	begun.data = begun.data[n:]
	l.settle(time.Second) // it arrives
	return all
}

// readLeft reads to the end. Where the engine keeps nothing it may be a part.
func (s side) readLeft(l *lab, x *leftover) {
	l.Helper()
	got, err := io.ReadAll(x.stream)
	_, again := x.stream.Read(make([]byte, 1))
	if err == nil {
		require.True(l, x.fin, "%s: io.EOF", x.what)
		require.Len(l, got, len(x.data), x.what)
		require.Equal(l, io.EOF, again, x.what)
	} else {
		require.ErrorIs(l, err, errClosed, x.what)
		require.Equal(l, err, again, x.what)
	}
	require.True(l, bytes.HasPrefix(x.data, got), x.what)
	if s.keeps {
		require.Equal(l, x.fin, err == nil, "%s: %v", x.what, err)
		require.Len(l, got, len(x.data), "%s, and then %v", x.what, err)
	}
}

func testReadAfterPeersClose(l *lab) {
	eachSide(l, setup{}, func(p *pair, s side) {
		all := s.leave(l)
		require.NoError(l, s.from.CloseWithError(4, "enough"))
		wantApplication(l, ended(l, s.to), 4, "enough", true, s.name)
		l.settle(time.Minute) // nothing of the connection is left
		for _, x := range all {
			s.readLeft(l, x)
			if !x.fin {
				_, err := x.stream.Read(make([]byte, 1))
				wantApplication(l, err, 4, "enough", true, x.what)
			}
		}
		_, err := s.to.OpenStream(l.ctx)
		wantApplication(l, err, 4, "enough", true, s.name+": OpenStream")
	})
}

func testReadAfterIdleTimeout(l *lab) {
	eachSide(l, setup{server: idle(5 * time.Second), client: idle(5 * time.Second)}, func(p *pair, s side) {
		all := s.leave(l)
		wantTimeout(l, ended(l, s.to), transport.ErrIdleTimeout, s.name)
		for _, x := range all {
			s.readLeft(l, x)
		}
		ended(l, s.from)
	})
}

// What the peer has abandoned is not kept: it is no part of a whole.
func testReadAfterReset(l *lab) {
	eachSide(l, setup{}, func(p *pair, s side) {
		w, r := openStream(l, s.from, s.to)
		_, err := w.Write([]byte("abandoned"))
		require.NoError(l, err)
		l.settle(time.Second)
		w.CancelWrite(7)
		l.settle(time.Second)
		require.NoError(l, s.from.CloseWithError(4, ""))
		ended(l, s.to)
		n, err := r.Read(make([]byte, 100))
		require.Zero(l, n, s.name)
		if s.keeps {
			wantStream(l, err, 7, true, s.name)
		} else {
			require.ErrorIs(l, err, errClosed, s.name)
		}
	})
}

func testReadUpToAGap(l *lab) {
	p := l.listen(setup{})
	for i, pc := range []net.PacketConn{p.serverPC, p.clientPC} {
		p.dial(l)
		s := p.sides(l)[i]
		w, r := openStream(l, s.from, s.to)
		write := func(b string) {
			_, err := w.Write([]byte(b))
			require.NoError(l, err)
			l.settle(time.Millisecond) // it leaves
		}
		write("one")
		l.settle(time.Second)
		sim(pc).Links(Link{Cut: true}, Link{})
		write("two")
		sim(pc).Links(access, Link{})
		_, err := w.WriteLast([]byte("three"))
		require.NoError(l, err)
		l.settle(time.Millisecond)
		require.NoError(l, s.from.CloseWithError(4, ""))
		wantApplication(l, ended(l, s.to), 4, "", true, s.name)
		got, err := io.ReadAll(r)
		wantApplication(l, err, 4, "", true, s.name)
		if s.keeps {
			require.Equal(l, "one", string(got), s.name)
		}
	}
}

func testReadAfterOwnClose(l *lab) {
	for _, end := range []func(*pair, side) error{
		func(_ *pair, s side) error { return s.to.CloseWithError(5, "") },
		func(p *pair, s side) error {
			if s.name == "client" {
				return p.clientEP.Close()
			}
			return p.serverEP.Close()
		},
	} {
		for i := range 2 {
			p := l.connect(setup{})
			s := p.sides(l)[i]
			all := s.leave(l)
			require.NoError(l, end(p, s))
			for _, x := range all {
				n, err := x.stream.Read(make([]byte, 10))
				require.Zero(l, n, x.what)
				require.ErrorIs(l, err, errClosed, x.what)
			}
			require.NoError(l, p.clientEP.Close())
			require.NoError(l, p.serverEP.Close())
		}
	}
}

func testCancelReadAfterEnd(l *lab) {
	eachSide(l, setup{}, func(p *pair, s side) {
		all := s.leave(l)
		require.NoError(l, s.from.CloseWithError(4, ""))
		ended(l, s.to)
		for _, x := range all {
			x.stream.CancelRead(9)
			n, err := x.stream.Read(make([]byte, 10))
			require.Zero(l, n, x.what)
			wantApplication(l, err, 4, "", true, x.what)
		}
	})
}

func testReadDeadlineAfterEnd(l *lab) {
	eachSide(l, setup{}, func(p *pair, s side) {
		w, r := openStream(l, s.from, s.to)
		_, err := w.WriteLast([]byte("patient"))
		require.NoError(l, err)
		l.settle(time.Second)
		require.NoError(l, r.SetReadDeadline(time.Now().Add(time.Second)))
		require.NoError(l, s.from.CloseWithError(4, ""))
		ended(l, s.to)
		l.settle(2 * time.Second)
		_, err = r.Read(make([]byte, 100))
		if !s.keeps {
			require.Error(l, err, s.name)
			return
		}
		require.ErrorIs(l, err, os.ErrDeadlineExceeded, s.name)
		require.NoError(l, r.SetReadDeadline(time.Time{}))
		got, err := io.ReadAll(r)
		require.NoError(l, err, s.name)
		require.Equal(l, "patient", string(got), s.name)
		require.NoError(l, r.SetReadDeadline(time.Now().Add(-time.Second)))
		_, err = r.Read(make([]byte, 1))
		require.True(l, errors.Is(err, io.EOF), "%s: after the end: %v", s.name, err)
	})
}

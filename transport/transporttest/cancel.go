package transporttest

import (
	"io"
	"net"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var errClosed = net.ErrClosed

var cancelCases = []testCase{
	{name: "CancelWrite", rows: "S05", udp: true, run: testCancelWrite,
		says: "CancelWrite abandons the stream (RESET_STREAM): unsent data is dropped."},
	{name: "CancelRead", rows: "S05", udp: true, run: testCancelRead,
		says: "CancelRead asks the peer to stop sending (STOP_SENDING) and makes Read fail."},
	{name: "ResetCodes", rows: "S05", run: testResetCodes,
		says: "A StreamError ends one direction of a stream: one side cancelled it."},
	{name: "CancelUnblocks", rows: "S05", run: testCancelUnblocks,
		says: "A *StreamError after either side has cancelled it."},
	{name: "CancelIsHalf", rows: "S05", run: testCancelIsHalf,
		says: "A StreamError ends one direction of a stream: one side cancelled it."},
	{name: "CloseAfterCancel", rows: "S05", run: testCloseAfterCancel,
		says: "Close returns a *StreamError if either side has cancelled the stream."},
	{name: "CancelReadAfterEOF", rows: "S05", run: testCancelReadAfterEOF,
		says: "It does nothing once Read has returned io.EOF."},
	{name: "CancelWriteAfterAck", rows: "S05", run: testCancelWriteAfterAck,
		says: "It does nothing once all data and the FIN are acknowledged."},
	{name: "CancelTwice", rows: "S05", run: testCancelTwice,
		says: "A StreamError ends one direction of a stream: one side cancelled it."},
	{name: "CancelFreesStream", rows: "S05 S10", run: testCancelFreesStream,
		says: "OpenStream waits until the peer allows one more."},
}

func testCancelWrite(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	c.CancelWrite(7)
	_, err := s.Read(make([]byte, 1))
	wantStream(l, err, 7, true, "peer's Read")
	n, err := c.Write([]byte("x"))
	require.Zero(l, n)
	wantStream(l, err, 7, false, "own Write")
	<-c.Context().Done()

	w, r := openUni(l, p.client, p.server)
	w.CancelWrite(8)
	_, err = r.Read(make([]byte, 1))
	wantStream(l, err, 8, true, "peer's Read")
	require.ErrorIs(l, err, &transport.StreamError{Code: 8})
	require.NotErrorIs(l, err, &transport.StreamError{Code: 7})
	require.Equal(l, w.StreamID(), err.(*transport.StreamError).StreamID)
}

func testCancelRead(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	s.CancelRead(9)
	_, err := s.Read(make([]byte, 1))
	wantStream(l, err, 9, false, "own Read")
	<-c.Context().Done()
	_, err = c.Write([]byte("x"))
	wantStream(l, err, 9, true, "peer's Write")

	w, r := openUni(l, p.client, p.server)
	r.CancelRead(10)
	<-w.Context().Done()
	_, err = w.Write([]byte("x"))
	wantStream(l, err, 10, true, "peer's Write")
}

func testResetCodes(l *lab) {
	p := l.connect(setup{})
	for _, code := range []transport.ErrorCode{0, 1, 0x3f, 0x40, 0x10c, 1 << 32, 1<<62 - 1} {
		c, s := p.streams(l)
		c.CancelWrite(code)
		_, err := s.Read(make([]byte, 1))
		wantStream(l, err, code, true, "Read")
		c.CancelRead(code)
		<-s.Context().Done()
		_, err = s.Write([]byte("x"))
		wantStream(l, err, code, true, "Write")
	}
}

func testCancelUnblocks(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	reading := async(func() error { _, err := s.Read(make([]byte, 1)); return err })
	l.settle(time.Second)
	s.CancelRead(1)
	wantStream(l, <-reading, 1, false, "blocked Read, cancelled here")

	reading = async(func() error { _, err := c.Read(make([]byte, 1)); return err })
	l.settle(time.Second)
	s.CancelWrite(2)
	wantStream(l, <-reading, 2, true, "blocked Read, cancelled there")

	blocked := func(s transport.SendStream) <-chan error {
		return async(func() error {
			for {
				if _, err := s.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		})
	}
	c, s = p.streams(l)
	writing := blocked(c)
	l.settle(time.Second)
	c.CancelWrite(3)
	wantStream(l, <-writing, 3, false, "blocked Write, cancelled here")

	writing = blocked(s)
	l.settle(time.Second)
	c.CancelRead(4)
	wantStream(l, <-writing, 4, true, "blocked Write, cancelled there")
}

func testCancelIsHalf(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	c.CancelWrite(1)
	_, err := s.Read(make([]byte, 1))
	wantStream(l, err, 1, true, "Read")
	_, err = s.Write([]byte("answer"))
	require.NoError(l, err)
	require.NoError(l, s.Close())
	got, err := io.ReadAll(c)
	require.NoError(l, err)
	require.Equal(l, "answer", string(got))

	c, s = p.streams(l)
	c.CancelRead(1)
	<-s.Context().Done()
	_, err = c.Write([]byte("question"))
	require.NoError(l, err)
	require.NoError(l, c.Close())
	got, err = io.ReadAll(s)
	require.NoError(l, err)
	require.Equal(l, "question", string(got))
}

func testCloseAfterCancel(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	c.CancelWrite(5)
	wantStream(l, c.Close(), 5, false, "Close after own CancelWrite")
	_, err := s.Read(make([]byte, 1))
	wantStream(l, err, 5, true, "Read")

	c, s = p.streams(l)
	s.CancelRead(6)
	<-c.Context().Done()
	wantStream(l, c.Close(), 6, true, "Close after the peer's CancelRead")
}

func testCancelReadAfterEOF(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	require.NoError(l, c.Close())
	_, err := s.Read(make([]byte, 1))
	require.Equal(l, io.EOF, err)
	s.CancelRead(1)
	_, err = s.Read(make([]byte, 1))
	require.Equal(l, io.EOF, err)
	_, err = s.Write([]byte("answer"))
	require.NoError(l, err)
	require.NoError(l, s.Close())
	got, err := io.ReadAll(c)
	require.NoError(l, err)
	require.Equal(l, "answer", string(got))
}

func testCancelWriteAfterAck(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	_, err := c.Write([]byte("all of it"))
	require.NoError(l, err)
	require.NoError(l, c.Close())
	l.settle(time.Second) // acknowledged; the peer has read nothing
	c.CancelWrite(1)
	l.settle(time.Second)
	got, err := io.ReadAll(s)
	require.NoError(l, err)
	require.Equal(l, "all of it", string(got))
	require.NoError(l, c.Close(), "a second Close returns nil")
}

func testCancelTwice(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	c.CancelWrite(1)
	c.CancelWrite(2)
	_, err := s.Read(make([]byte, 1))
	wantStream(l, err, 1, true, "the first call counts for the peer")
	_, err = c.Write([]byte("x"))
	wantStream(l, err, 1, false, "and for this side")
	c.CancelRead(3)
	c.CancelRead(4)
	_, err = c.Read(make([]byte, 1))
	wantStream(l, err, 3, false, "Read")
	<-s.Context().Done()
	_, err = s.Write([]byte("x"))
	wantStream(l, err, 3, true, "peer's Write")
}

func testCancelFreesStream(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.MaxStreams = 2 }})
	for i := range 10 {
		c, s := p.streams(l)
		if i%2 == 0 {
			c.CancelWrite(1)
			c.CancelRead(1)
		} else {
			s.CancelRead(1)
			s.CancelWrite(1)
		}
		if i%2 == 0 {
			_, err := s.Read(make([]byte, 1))
			wantStream(l, err, 1, true, "Read")
			s.CancelWrite(1)
		} else {
			_, err := c.Read(make([]byte, 1))
			wantStream(l, err, 1, true, "Read")
			c.CancelWrite(1)
		}
	}
}

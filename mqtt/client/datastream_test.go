package client

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A streamPeer is the server's end of one stream, played by the test.
type streamPeer struct {
	*testing.T
	mqtt.Stream
	in *mqtt.Reader
}

func (p *streamPeer) send(packets ...packet.Packet) {
	p.Helper()
	var b []byte
	for _, pk := range packets {
		var err error
		b, err = pk.Append(b, packet.V5)
		require.NoError(p, err)
	}
	_, err := p.Write(b)
	require.NoError(p, err)
}

func expectOn[P packet.Packet](p *streamPeer) P {
	p.Helper()
	h, body, err := p.in.Next()
	require.NoError(p, err)
	pk, err := packet.Decode(h, append([]byte(nil), body...), packet.V5)
	require.NoError(p, err)
	require.IsType(p, *new(P), pk)
	return pk.(P)
}

// A streamServer is the server of one client with data streams, played by the test.
type streamServer struct {
	*testing.T
	net     *manyStreams
	link    mqtt.Link
	control *streamPeer
}

func (s *streamServer) accept() *streamPeer {
	s.Helper()
	stream, err := s.link.AcceptStream(s.Context())
	require.NoError(s, err)
	return &streamPeer{s.T, stream, mqtt.NewReader(stream, 0)}
}

// dialStreams connects a client that publishes on one data stream.
func dialStreams(t *testing.T, cfg *Config) (*Client, *streamServer) {
	t.Helper()
	s := &streamServer{T: t, net: &manyStreams{links: make(chan mqtt.Link), done: make(chan struct{})}}
	cfg.URL, cfg.Dialers, cfg.Streams, cfg.ClientID = "many://broker.test", []LinkDialer{s.net}, Hash(1), "c"
	dialed := make(chan *Client, 1)
	go func() {
		c, err := Dial(context.Background(), cfg)
		if err != nil {
			t.Error(err)
		}
		dialed <- c
	}()
	var err error
	s.link, err = s.net.Accept(t.Context())
	require.NoError(t, err)
	s.control = s.accept()
	expectOn[*packet.Connect](s.control)
	s.control.send(&packet.Connack{})
	c := <-dialed
	t.Cleanup(func() { c.Close() })
	return c, s
}

// subscribed has the client subscribe, on a data stream.
func (s *streamServer) subscribed(c *Client) *streamPeer {
	s.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := c.Subscribe(context.Background(), nil, packet.Subscription{Filter: "t", QoS: packet.ExactlyOnce})
		done <- err
	}()
	d := s.accept()
	d.send(&packet.Suback{PacketID: expectOn[*packet.Subscribe](d).PacketID, Codes: []packet.ReasonCode{2}})
	require.NoError(s, <-done)
	return d
}

func dupOf(p *packet.Publish) *packet.Publish {
	q := *p
	q.Dup = true
	return &q
}

// occupy takes all places of the dispatcher, so that readers wait with what they have
// read.
func occupy(c *Client) (release func()) {
	for range maxBatches {
		c.dispatch.slots <- struct{}{}
	}
	return func() {
		for range maxBatches {
			<-c.dispatch.slots
		}
	}
}

// What the server has sent on a stream that it has reset since, it sends again on the
// control stream. The client may have read it ahead, or dealt with it, before it finds
// that the stream is gone.
func TestAMessageOfAStreamThatTheServerResetsIsDeliveredOnce(t *testing.T) {
	for _, ahead := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var got atomic.Int32
			c, s := dialStreams(t, &Config{OnMessage: func(*packet.Publish) { got.Add(1) }})
			d := s.subscribed(c)
			m := inMsg("t", packet.ExactlyOnce, 9)
			release := func() {}
			if ahead {
				release = occupy(c)
			}
			d.send(m)
			if !ahead {
				require.EqualValues(t, 9, expectOn[*packet.Pubrec](d).PacketID)
			}
			synctest.Wait()
			d.Stream.(*numbered).cut.Store(true) // the reader hears of it later
			s.control.send(dupOf(m))
			synctest.Wait()
			release()
			require.EqualValues(t, 9, expectOn[*packet.Pubrec](s.control).PacketID)
			d.Reset(0)
			synctest.Wait()
			s.control.send(&packet.Pubrel{Ack: ack(9)})
			require.Equal(t, packet.Success, expectOn[*packet.Pubcomp](s.control).Code)
			require.EqualValues(t, 1, got.Load())
			s.control.send(inMsg("t", packet.ExactlyOnce, 9)) // another message
			expectOn[*packet.Pubrec](s.control)
			require.EqualValues(t, 2, got.Load())
		})
	}
}

// PUBREL may come on the control stream before the client finds that the stream of the
// exchange is gone.
func TestAnExchangeOfAStreamThatTheServerResetsEndsOnTheControlStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialStreams(t, &Config{OnMessage: func(*packet.Publish) {}})
		d := s.subscribed(c)
		d.send(inMsg("t", packet.ExactlyOnce, 9))
		expectOn[*packet.Pubrec](d)
		d.Stream.(*numbered).cut.Store(true)
		s.control.send(&packet.Pubrel{Ack: ack(9)})
		require.Equal(t, packet.Success, expectOn[*packet.Pubcomp](s.control).Code)
		d.Reset(0)
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		require.Empty(t, c.m.received)
	})
}

// An acknowledgement that was read ahead on a stream that is gone is of an exchange
// that another stream has gone on with, or of another message with its identifier.
func TestAcknowledgementsOfAStreamThatIsGoneCountForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialStreams(t, &Config{})
		release := occupy(c)
		done := make(chan error, 1)
		go func() {
			_, err := c.Publish(context.Background(), msg("t", packet.AtLeastOnce))
			done <- err
		}()
		d := s.accept()
		p := expectOn[*packet.Publish](d)
		d.send(&packet.Puback{Ack: ack(p.PacketID)}, msg("t", 0)) // the reader waits with both
		synctest.Wait()
		d.Stream.(*numbered).cut.Store(true)
		release()
		synctest.Wait()
		require.Empty(t, done)
		d.Reset(0)
		again := s.accept()
		q := expectOn[*packet.Publish](again)
		require.Equal(t, p.PacketID, q.PacketID)
		require.True(t, q.Dup)
		again.send(&packet.Puback{Ack: ack(q.PacketID)})
		require.NoError(t, <-done)
	})
}

// A server that demands answers on a data stream and does not read them is not read any
// more; all comes when it reads again, and Close does not wait for that.
func TestAnswersThatTheServerDoesNotReadOnADataStreamAreBounded(t *testing.T) {
	for _, reads := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c, s := dialStreams(t, &Config{OnMessage: func(*packet.Publish) {}})
			d := s.subscribed(c)
			const n = 40_000
			written := make(chan int, 1)
			go func() {
				b, _ := (&packet.Pubrel{Ack: ack(1)}).Append(nil, packet.V5)
				i := 0
				for ; i < n; i++ {
					if _, err := d.Write(b); err != nil {
						break
					}
				}
				written <- i
			}()
			synctest.Wait()
			require.Empty(t, written)
			c.mu.Lock()
			for _, d := range c.conn.data {
				require.LessOrEqual(t, len(d.out), maxAnswers+16)
			}
			c.mu.Unlock()
			if !reads {
				require.NoError(t, c.Close())
				require.Less(t, <-written, n)
				return
			}
			for range n {
				require.Equal(t, packet.PacketIDNotFound, expectOn[*packet.Pubcomp](d).Code)
			}
			require.Equal(t, n, <-written)
		})
	}
}

// A server that acknowledges what it has not read makes room in the queue, and none in
// the memory that it takes.
func TestMessagesAcknowledgedUnreadOnADataStreamAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, size = 100_000, 10_000
		c, s := dialStreams(t, &Config{QueueBytes: limit})
		p := msg("t", packet.AtLeastOnce)
		p.Payload = make([]byte, size)
		var sent atomic.Int32
		go func() {
			for c.PublishAsync(context.Background(), p, nil) == nil {
				sent.Add(1)
			}
		}()
		d := s.accept()
		synctest.Wait()
		for id := range uint16(1000) {
			d.send(&packet.Puback{Ack: ack(id + 1)})
			synctest.Wait()
			c.mu.Lock()
			require.LessOrEqual(t, c.unwritten(), limit+size+100)
			c.mu.Unlock()
		}
		require.Less(t, int(sent.Load())*size, 4*limit)
	})
}

func TestDisconnectWaitsUntilDataStreamsAreWrittenAndForAMomentUntilTheyAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialStreams(t, &Config{})
		const messages = 10
		p := msg("t", packet.AtMostOnce)
		p.Payload = make([]byte, 5000)
		for range messages {
			require.NoError(t, c.PublishAsync(t.Context(), p, nil))
		}
		d := s.accept()
		left := make(chan error, 1)
		go func() { left <- c.Disconnect(context.Background()) }()
		for range messages { // the server reads what is on a slow path
			time.Sleep(2 * lingerTimeout)
			require.Empty(t, left)
			_, err := io.CopyN(io.Discard, d, int64(len(p.Payload)))
			require.NoError(t, err)
		}
		headers := int64(messages * len("\x30\x8c\x27\x00\x01t\x00"))
		_, err := io.CopyN(io.Discard, d, headers)
		require.NoError(t, err)
		read := time.Now()
		expectOn[*packet.Disconnect](s.control)
		after(t, lingerTimeout, read) // the server does not say that it has read them
		require.NoError(t, s.link.CloseWithCode(mqtt.LinkNormal))
		require.NoError(t, <-left)
		require.Zero(t, c.Stats().MessagesLost)
	})
}

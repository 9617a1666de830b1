package bridge

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestWhatMayHaveArrivedIsNotCountedAsForwarded(t *testing.T) {
	lost := errors.New("connection lost")
	for _, tt := range []struct {
		err                         error
		forwarded, unknown, refused uint64
		queued                      int
	}{
		{err: nil, forwarded: 1},
		{err: &client.PublishError{State: client.MaybeSent, Reason: "the session is lost"}, unknown: 1},
		{err: &client.PublishError{State: client.MaybeSent, Err: lost}, unknown: 1},
		{err: &client.PublishError{State: client.Refused, Code: packet.NotAuthorized}, refused: 1},
		{err: &client.PublishError{State: client.MaybeSent, Err: client.ErrClosed}, queued: 1},
	} {
		b := &Bridge{queue: newQueue(1 << 20), saidAt: make(map[Drop]time.Time), log: slog.New(slog.DiscardHandler)}
		_, ok := b.queue.add(&packet.Publish{Topic: "t", QoS: 2}, time.Now())
		require.True(t, ok)
		e := b.queue.next(t.Context())
		b.sent(e, tt.err)
		s := b.Status()
		require.Equal(t, tt.forwarded, s.Forwarded, "%v", tt.err)
		require.Equal(t, tt.unknown, s.Unknown, "%v", tt.err)
		require.Equal(t, tt.refused, s.Dropped[Refused], "%v", tt.err)
		require.Equal(t, tt.queued, s.Queued, "%v", tt.err)
	}
}

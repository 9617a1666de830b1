package app

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// nowhere is a backend that was closed.
type nowhere struct{ backend }

func (*nowhere) close() {}

// A client's dispatcher may still have a message in its hands when a ServeClient has
// waited for its handlers.
func TestAMessageThatComesAfterTheHandlersWereWaitedForIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(nil)
		var handled int
		hold := make(chan struct{})
		a.Handle("t", func(context.Context, *Message) error { handled++; <-hold; return nil })
		s, err := a.begin(t.Context())
		require.NoError(t, err)
		var codes []packet.ReasonCode
		add := func() {
			d := newDelivery(s, 1, func(code packet.ReasonCode) { codes = append(codes, code) })
			s.routes[0].add(&Message{Topic: "t", app: a, route: s.routes[0], delivery: d})
		}
		add()
		synctest.Wait()
		finished := make(chan struct{})
		go func() { s.finish(&nowhere{}); close(finished) }()
		synctest.Wait()
		add()
		require.Equal(t, []packet.ReasonCode{packet.ImplementationSpecificError}, codes, "not given to anybody")
		select {
		case <-finished:
			t.Fatal("a handler has not returned")
		default:
		}
		close(hold)
		<-finished
		require.Equal(t, []packet.ReasonCode{packet.ImplementationSpecificError, packet.Success}, codes)
		require.Equal(t, 1, handled)
		require.NoError(t, a.Close())
	})
}

package acceptqueue_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/acceptqueue"
)

// A refusal is a call of a queue's function refuse.
type refusal struct {
	c   int
	why acceptqueue.Reason
}

// newQueue returns a queue of numbers and what it has refused, in order.
func newQueue() (*acceptqueue.Queue[int], *[]refusal) {
	var refused []refusal
	return acceptqueue.New(func(c int, why acceptqueue.Reason) { refused = append(refused, refusal{c, why}) }), &refused
}

func TestConnectionsAreAcceptedInTheOrderInWhichTheyCame(t *testing.T) {
	q, refused := newQueue()
	for c := range 3 {
		q.Deliver(c)
	}
	for want := range 3 {
		got, err := q.Accept(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	q.Close()
	require.Empty(t, *refused)
}

func TestTheQueueIsBoundedAndRefusesWhatDoesNotFit(t *testing.T) {
	q, refused := newQueue()
	for c := range acceptqueue.Bound {
		require.False(t, q.Full())
		q.Deliver(c)
	}
	require.True(t, q.Full())
	require.Empty(t, *refused)
	q.Deliver(-1)
	require.Equal(t, []refusal{{-1, acceptqueue.Full}}, *refused)

	got, err := q.Accept(t.Context())
	require.NoError(t, err)
	require.Zero(t, got)
	require.False(t, q.Full())
	q.Deliver(-2)
	require.Len(t, *refused, 1, "there was room for one")
}

func TestCloseWakesEveryAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := newQueue()
		errs := make(chan error, 3)
		for range cap(errs) {
			go func() {
				_, err := q.Accept(context.Background())
				errs <- err
			}()
		}
		synctest.Wait()
		require.Empty(t, errs)
		q.Close()
		for range cap(errs) {
			require.ErrorIs(t, <-errs, net.ErrClosed)
		}
		_, err := q.Accept(t.Context())
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestCloseRefusesWhatWaitsAndWhatComesLater(t *testing.T) {
	q, refused := newQueue()
	q.Deliver(1)
	q.Deliver(2)
	q.Close()
	require.Equal(t, []refusal{{1, acceptqueue.Closed}, {2, acceptqueue.Closed}}, *refused)
	q.Deliver(3)
	require.Equal(t, refusal{3, acceptqueue.Closed}, (*refused)[2])
	_, err := q.Accept(t.Context())
	require.ErrorIs(t, err, net.ErrClosed)
	require.Len(t, *refused, 3)
}

func TestADeliveryWakesOneAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := newQueue()
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2)
		for range cap(results) {
			go func() {
				_, err := q.Accept(ctx)
				results <- err
			}()
		}
		synctest.Wait()
		q.Deliver(1)
		synctest.Wait()
		require.Len(t, results, 1)
		require.NoError(t, <-results)
		cancel()
		require.ErrorIs(t, <-results, context.Canceled)
	})
}

func TestAContextThatIsDoneTakesNothing(t *testing.T) {
	q, refused := newQueue()
	q.Deliver(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		_, err := q.Accept(ctx)
		require.ErrorIs(t, err, context.Canceled)
	}
	got, err := q.Accept(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, got)
	require.Empty(t, *refused)
}

func TestWhatIsDeliveredDuringCloseIsAcceptedOrRefusedOnce(t *testing.T) {
	for range 300 {
		const deliveries, perDelivery = 4, 8
		var seen [deliveries * perDelivery]atomic.Int32
		q := acceptqueue.New(func(c int, _ acceptqueue.Reason) { seen[c].Add(1) })
		var wg sync.WaitGroup
		for d := range deliveries {
			wg.Go(func() {
				for i := range perDelivery {
					q.Deliver(d*perDelivery + i)
				}
			})
		}
		wg.Go(func() {
			for {
				c, err := q.Accept(context.Background())
				if err != nil {
					return
				}
				seen[c].Add(1)
			}
		})
		wg.Go(q.Close)
		wg.Wait()
		for c := range seen {
			require.EqualValues(t, 1, seen[c].Load(), c)
		}
	}
}

package broker_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

func TestReconfigureDisconnectsNobodyAndHoldsForWhoComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		stays, away := connect(t, b, "stays"), connect(t, b, "away", keep(100))
		away.close()
		synctest.Wait()
		big := make([]byte, 5000)
		for i := range 3 {
			stays.send(&packet.Publish{Topic: string(rune('a' + i)), Payload: []byte("x"), Retain: true})
		}
		stays.ping()

		require.NoError(t, b.Reconfigure(&broker.Config{
			Limits:   session.Limits{MaximumPacketSize: 1000, MaxSubscriptions: 1, KeepAliveMax: 7},
			MaxConns: 2, MaxSessions: 3, MaxRetained: 2,
		}))
		stays.send(&packet.Publish{Topic: "t", Payload: big})
		stays.ping() // it may still send what it was told it may
		require.Len(t, stays.subscribe(packet.Subscription{Filter: "x"}, packet.Subscription{Filter: "y"}).Codes, 2)

		away = dial(t, b)
		ack := away.connect("away", keep(100), resume)
		require.True(t, ack.SessionPresent)
		require.EqualValues(t, 1000, ack.Properties.MaximumPacketSize.Value)
		require.EqualValues(t, 7, ack.Properties.ServerKeepAlive.Value)
		require.Equal(t, []packet.ReasonCode{0, packet.QuotaExceeded}, away.subscribe(packet.Subscription{Filter: "x"}, packet.Subscription{Filter: "y"}).Codes)
		require.Equal(t, 3, b.Stats().Retained, "none is dropped")
		away.send(&packet.Publish{Topic: "d", Payload: []byte("x"), Retain: true, QoS: 1, PacketID: 1})
		require.Equal(t, packet.QuotaExceeded, receive[*packet.Puback](away).Code)
		require.Equal(t, packet.ServerBusy, dial(t, b).connect("third").Code)
		tooBig, err := (&packet.Publish{Topic: "t", Payload: big}).Append(nil, packet.V5)
		require.NoError(t, err)
		go away.conn.Write(tooBig) // which the broker does not read to its end
		require.Equal(t, packet.PacketTooLarge, receive[*packet.Disconnect](away).Code)
	})
}

func TestAConfigurationThatIsNotValidChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		require.ErrorContains(t, b.Reconfigure(&broker.Config{MaxConns: -1, Limits: session.Limits{KeepAliveMax: 7}}), "MaxConns -1")
		c := dial(t, b)
		require.False(t, c.connect("a").Properties.ServerKeepAlive.Set)
	})
}

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestErrorsSayWhatHappened(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{ErrClosed, "client: closed"},
		{ErrKeepAlive, "client: connection lost: no answer within the keep-alive"},
		{&ConnectError{Code: packet.NotAuthorized}, "client: connection refused: " + packet.NotAuthorized.String() + " (0x87)"},
		{&DisconnectError{packet.ServerMoved, "new house", "b:1883"},
			"client: disconnected by the server: " + packet.ServerMoved.String() + " (0x9d): new house: use b:1883"},
		{&ProtocolError{packet.MalformedPacket, "no topic"}, "client: protocol violation by the server: " + packet.MalformedPacket.String() + " (0x81): no topic"},
		{&ConnectionError{"read", io.EOF}, "client: read: EOF"},
		{&PublishError{State: NotSent, Err: context.Canceled}, "client: publish: not sent: context canceled"},
		{&PublishError{State: Refused, Code: packet.QuotaExceeded, Reason: "full"}, "client: publish: refused by the server: " + packet.QuotaExceeded.String() + " (0x97): full"},
		{&PublishError{State: MaybeSent, Err: ErrClosed}, "client: publish: maybe sent: client: closed"},
		{&SubscribeError{Filter: "a/#", Code: packet.NotAuthorized}, `client: subscription refused: "a/#": ` + packet.NotAuthorized.String() + " (0x87)"},
	} {
		require.EqualError(t, tc.err, tc.want)
	}
	for state, want := range map[PublishState]error{NotSent: ErrNotSent, MaybeSent: ErrMaybeSent, Refused: ErrRefused, Kept: ErrKept} {
		err := fmt.Errorf("wrapped: %w", &PublishError{State: state, Err: io.EOF})
		require.Equal(t, state, StateOf(err))
		require.ErrorIs(t, err, io.EOF)
		for _, e := range []error{ErrNotSent, ErrMaybeSent, ErrRefused, ErrKept} {
			require.Equal(t, e == want, errors.Is(err, e), "%v is %v", err, e)
		}
	}
	require.Equal(t, Acknowledged, StateOf(nil))
	require.Equal(t, "acknowledged", Acknowledged.String())
	require.Equal(t, "kept in the queue's file", Kept.String())
	require.Equal(t, NotSent, StateOf(&packet.Error{}), "a message that is not valid")
	require.Equal(t, "PublishState(9)", PublishState(9).String())
	require.ErrorIs(t, ErrClosed, net.ErrClosed)
	require.ErrorIs(t, &DisconnectError{}, net.ErrClosed)
	var n net.Error
	require.ErrorAs(t, ErrKeepAlive, &n)
	require.True(t, n.Timeout())
}

func TestRetryable(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{io.EOF, true},
		{ErrKeepAlive, true},
		{&ConnectionError{"dial", errors.New("no route")}, true},
		{&ProtocolError{Code: packet.MalformedPacket}, true},
		{&ConnectError{Code: packet.ServerUnavailable}, true},
		{&ConnectError{Code: packet.BadUserNameOrPassword}, true}, // it was right once
		{&ConnectError{Code: packet.Banned}, false},
		{&ConnectError{Code: packet.UnsupportedProtocolVersion}, false},
		{&ConnectError{Code: packet.ClientIDNotValid}, false},
		{fmt.Errorf("wrapped: %w", &ConnectError{Code: packet.ServerMoved}), false},
		{&DisconnectError{Code: packet.ServerBusy}, true},
		{&DisconnectError{Code: packet.PacketTooLarge}, true},
		{&DisconnectError{Code: packet.SessionTakenOver}, false},
	} {
		require.Equal(t, tc.want, Retryable(tc.err), "%v", tc.err)
	}
}

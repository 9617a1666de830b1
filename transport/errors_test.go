package transport_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

func TestEveryReasonForTheEndOfAConnectionMatchesErrClosed(t *testing.T) {
	for _, err := range []error{
		&transport.ApplicationError{Code: 1},
		&transport.ProtocolError{Code: 0x178},
		&transport.ProtocolError{Code: 0x178, Err: io.ErrUnexpectedEOF},
		transport.ErrIdleTimeout,
		transport.ErrHandshakeTimeout,
		transport.ErrStatelessReset,
	} {
		require.ErrorIs(t, err, net.ErrClosed, "%T %v", err, err)
		require.ErrorIs(t, fmt.Errorf("read: %w", err), net.ErrClosed, "wrapped")
	}
	for _, err := range []error{
		&transport.StreamError{Code: 1}, // the connection goes on
		&transport.DatagramTooLargeError{Max: 1},
		&transport.UnsupportedError{},
		transport.ErrEarlyDataRejected,
	} {
		require.NotErrorIs(t, err, net.ErrClosed, "%T %v", err, err)
	}
}

func TestOnlyTheTimeoutsAreTimeouts(t *testing.T) {
	for _, err := range []error{transport.ErrIdleTimeout, transport.ErrHandshakeTimeout} {
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
	}
	for _, err := range []error{transport.ErrStatelessReset, &transport.ApplicationError{}, &transport.ProtocolError{}, &transport.StreamError{}} {
		var ne net.Error
		require.False(t, errors.As(err, &ne) && ne.Timeout(), "%v", err)
	}
	require.NotErrorIs(t, transport.ErrIdleTimeout, transport.ErrHandshakeTimeout)
}

func TestApplicationErrorsCompareByCode(t *testing.T) {
	err := fmt.Errorf("accept: %w", &transport.ApplicationError{Code: 7, Reason: "why", Remote: true})
	require.ErrorIs(t, err, &transport.ApplicationError{Code: 7})
	require.NotErrorIs(t, err, &transport.ApplicationError{Code: 8})
	require.NotErrorIs(t, err, &transport.StreamError{Code: 7}, "another space")
}

func TestStreamErrorsCompareByCode(t *testing.T) {
	err := fmt.Errorf("read: %w", &transport.StreamError{StreamID: 4, Code: 7})
	require.ErrorIs(t, err, &transport.StreamError{Code: 7})
	require.NotErrorIs(t, err, &transport.StreamError{Code: 8})
	require.NotErrorIs(t, err, &transport.ApplicationError{Code: 7}, "another space")
}

func TestAProtocolErrorShowsTheEnginesOwn(t *testing.T) {
	require.ErrorIs(t, &transport.ProtocolError{Err: io.ErrUnexpectedEOF}, io.ErrUnexpectedEOF)
	require.NotErrorIs(t, &transport.ProtocolError{}, io.ErrUnexpectedEOF)
}

func TestAnUnsupportedErrorMatchesErrUnsupported(t *testing.T) {
	require.ErrorIs(t, &transport.UnsupportedError{Engine: "e", What: "0-RTT"}, errors.ErrUnsupported)
}

func TestErrorsSayWhoAndWhat(t *testing.T) {
	for want, err := range map[string]error{
		`quic: closed by remote: application error 0x2a: "bye"`:      &transport.ApplicationError{Code: 42, Reason: "bye", Remote: true},
		`quic: closed by local: application error 0x0`:               &transport.ApplicationError{},
		`quic: closed by remote: transport error 0x178: "no \"h3\""`: &transport.ProtocolError{Code: 0x178, Reason: `no "h3"`, Remote: true},
		`quic: closed by local: transport error 0xa`:                 &transport.ProtocolError{Code: 10},
		`quic: stream 4 cancelled by remote: error 0x10c`:            &transport.StreamError{StreamID: 4, Code: 0x10c, Remote: true},
		`quic: datagram larger than 1200 bytes`:                      &transport.DatagramTooLargeError{Max: 1200},
		`purego: cubic is not supported`:                             &transport.UnsupportedError{Engine: "purego", What: "cubic"},
		`quic: no recent network activity`:                           transport.ErrIdleTimeout,
		`quic: handshake did not complete in time`:                   transport.ErrHandshakeTimeout,
		`quic: stateless reset by remote`:                            transport.ErrStatelessReset,
		`quic: early data rejected`:                                  transport.ErrEarlyDataRejected,
	} {
		require.EqualError(t, err, want)
	}
}

func TestPriorityNamesAreOrdered(t *testing.T) {
	names := []transport.Priority{
		transport.PriorityCritical, transport.PriorityHigh, transport.PriorityNormal,
		transport.PriorityLow, transport.PriorityBackground,
	}
	for i, p := range names[1:] {
		require.Greater(t, p.Urgency, names[i].Urgency)
		require.True(t, p.Incremental)
	}
	require.Equal(t, transport.PriorityNormal, transport.DefaultPriority)
	require.EqualValues(t, 3, transport.DefaultPriority.Urgency, "RFC 9218, Section 4.1")
}

//go:build ngtcp2 && cgo

package ngtcp2

import (
	"errors"
	"net"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

func TestAReasonIsShortenedBetweenCharacters(t *testing.T) {
	long := strings.Repeat("ä", maxReason)
	got := shorten("x" + long)
	require.LessOrEqual(t, len(got), maxReason)
	require.Greater(t, len(got), maxReason-4)
	require.True(t, utf8.ValidString(got))
	require.Equal(t, "short", shorten("short"))
	require.Equal(t, "not \ufffd UTF-8", shorten("not \xff UTF-8"))
}

func TestACodeThatCannotBeSentBecomesTheLargest(t *testing.T) {
	require.EqualValues(t, 7, wireCode(7))
	require.EqualValues(t, maxCode, wireCode(1<<63))
}

func TestErrorsOfTheLibraryBecomeThoseOfTheContract(t *testing.T) {
	c := new(conn)
	require.Equal(t, transport.ErrHandshakeTimeout, c.failure(&capi.Error{Code: capi.ErrHandshakeTimeout, Alert: -1}).reason)
	require.Equal(t, transport.ErrHandshakeTimeout, c.failure(&capi.Error{Code: capi.ErrIdleClose, Alert: -1}).reason, "before the handshake is complete")
	c.complete.Store(true)
	idle := c.failure(&capi.Error{Code: capi.ErrIdleClose, Alert: -1})
	require.Equal(t, transport.ErrIdleTimeout, idle.reason)
	require.True(t, idle.silent, "RFC 9000, Section 10.1: silently closed")

	e := &capi.Error{Code: capi.ErrFlowControl, Text: "ERR_FLOW_CONTROL", Transport: 3, Alert: -1}
	f := c.failure(e)
	require.False(t, f.silent)
	require.Equal(t, capi.ClosePending, f.kind)
	p, ok := errors.AsType[*transport.ProtocolError](f.reason)
	require.True(t, ok)
	require.EqualValues(t, 3, p.Code)
	require.False(t, p.Remote)
	require.ErrorIs(t, f.reason, e)
	require.ErrorIs(t, f.reason, net.ErrClosed)

	alert := c.failure(&capi.Error{Code: capi.ErrCrypto, Transport: 0x100, Alert: 48})
	p, ok = errors.AsType[*transport.ProtocolError](alert.reason)
	require.True(t, ok)
	require.EqualValues(t, 0x100+48, p.Code)

	other := c.failure(errors.New("something else"))
	p, ok = errors.AsType[*transport.ProtocolError](other.reason)
	require.True(t, ok)
	require.EqualValues(t, codeInternalError, p.Code)
}

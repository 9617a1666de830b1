package mqtt_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
)

func TestAConnLinkHasOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		client, server := mqtt.NewConnLink(ours, mqtt.TCP), mqtt.NewConnLink(theirs, mqtt.TCP)
		c, err := client.OpenStream(t.Context())
		require.NoError(t, err)
		_, err = client.OpenStream(t.Context())
		require.ErrorIs(t, err, errors.ErrUnsupported)

		s, err := server.AcceptStream(t.Context())
		require.NoError(t, err)
		require.Equal(t, mqtt.ControlStream, s.ID())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = server.AcceptStream(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		go c.Write([]byte("hi"))
		_, err = io.ReadFull(s, make([]byte, 2))
		require.NoError(t, err)
		require.NoError(t, s.SetReadDeadline(time.Now().Add(time.Second)))
		_, err = s.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, server.Context().Err(), "a deadline ends nothing")

		waiting := make(chan error)
		go func() {
			_, err := server.AcceptStream(t.Context())
			waiting <- err
		}()
		synctest.Wait()
		require.NoError(t, server.CloseWithCode(mqtt.LinkNormal))
		require.NoError(t, server.CloseWithCode(mqtt.LinkControlDown), "only the first counts")
		require.ErrorIs(t, <-waiting, net.ErrClosed)
		<-server.Context().Done()
		_, err = c.Read(make([]byte, 1))
		require.Error(t, err)
		client.CloseWithCode(mqtt.LinkNormal)
		_, err = client.OpenStream(t.Context())
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestCloseWriteOfATCPLinkLeavesTheOtherDirection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	accepted, err := l.Accept()
	require.NoError(t, err)
	client, server := mqtt.NewConnLink(dialed, mqtt.TCP), mqtt.NewConnLink(accepted, mqtt.TCP)
	defer client.CloseWithCode(mqtt.LinkNormal)
	defer server.CloseWithCode(mqtt.LinkNormal)
	c, err := client.OpenStream(t.Context())
	require.NoError(t, err)
	s, err := server.AcceptStream(t.Context())
	require.NoError(t, err)

	_, err = c.Write([]byte("last"))
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	got, err := io.ReadAll(s)
	require.NoError(t, err)
	require.Equal(t, "last", string(got))
	require.NoError(t, server.Context().Err())
	_, err = s.Write([]byte("reply"))
	require.NoError(t, err)
	require.NoError(t, s.CloseWrite())
	got, err = io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "reply", string(got))
}

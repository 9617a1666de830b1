package mqttweb_test

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

func TestAClientOnHTTP3MigratesAndOthersSayThatTheyCannot(t *testing.T) {
	test := func(t *testing.T, e transport.Transport, scheme string) {
		s := newLoopback(t, e, nil, nil)
		c, err := client.Dial(t.Context(), &client.Config{
			URL: s.url(scheme).String(), TLS: s.tls, Dialers: []client.LinkDialer{&mqttweb.Dialer{Transport: e, QUIC: &transport.Config{HandshakeTimeout: patience}}},
		})
		require.NoError(t, err)
		before := c.Link().LocalAddr().String()
		if e == nil {
			require.ErrorIs(t, c.Migrate(t.Context(), nil), errors.ErrUnsupported)
			require.Equal(t, before, c.Link().LocalAddr().String())
		} else {
			err = c.Migrate(t.Context(), nil)
			for range 5 {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				// The server has three seconds or so to answer on the new path (RFC 9000,
				// Section 8.2.4), which a busy machine may take. The connection is where it
				// was.
				require.Equal(t, before, c.Link().LocalAddr().String())
				err = c.Migrate(t.Context(), nil)
			}
			require.NoError(t, err)
			require.NotEqual(t, before, c.Link().LocalAddr().String())
		}
		_, err = c.Publish(t.Context(), &packet.Publish{Topic: "a", QoS: 2})
		require.NoError(t, err)
		require.NoError(t, c.Disconnect(t.Context()))
		require.EqualValues(t, 1, c.Stats().Connections)
	}
	onEveryVersion(t, test)
	for _, e := range engine.All() {
		t.Run("mqtt+wt-"+e.Name(), func(t *testing.T) { test(t, e, "mqtt+wt") })
	}
}

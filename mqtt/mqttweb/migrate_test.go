package mqttweb_test

import (
	"errors"
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
			URL: s.url(scheme).String(), TLS: s.tls, Dialers: []client.LinkDialer{&mqttweb.Dialer{Transport: e}},
		})
		require.NoError(t, err)
		before := c.Link().LocalAddr().String()
		if e == nil {
			require.ErrorIs(t, c.Migrate(t.Context(), nil), errors.ErrUnsupported)
			require.Equal(t, before, c.Link().LocalAddr().String())
		} else {
			require.NoError(t, c.Migrate(t.Context(), nil))
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

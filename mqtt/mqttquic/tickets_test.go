package mqttquic_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/pipenet"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/transport/tickets"
)

func TestANewProcessResumesTheTLSSessionOfQUICFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tickets")
	withBothPorts(t, func(w *world, _ *broker.Broker, tcp *pipenet.Listener) {
		for i := range 3 {
			file, err := tickets.Open(path, w.Name())
			require.NoError(w, err)
			cfg := w.clientConfig(tcp)
			cfg.TLS = cfg.TLS.Clone()
			cfg.TLS.ClientSessionCache = file.TLS() // of TCP: no harm
			d := w.dialer()
			d.Sessions = file.QUIC("engine")
			cfg.Dialers = []client.LinkDialer{d}
			c, err := client.Dial(w.Context(), cfg)
			require.NoError(w, err)
			require.Equal(w, mqtt.QUIC, c.Carrier())
			require.Equal(w, i > 0, c.TLS().DidResume)
			time.Sleep(time.Second) // virtual: the ticket is there
			require.NoError(w, c.Disconnect(context.Background()))
		}
	})
}

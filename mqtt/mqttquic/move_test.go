package mqttquic_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A placeACL allows what a client at clientAddr does, and topics that
// begin with "any/" everywhere.
type placeACL struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (a *placeACL) Revision() uint64 { return 1 }

func (a *placeACL) Authorize(_ context.Context, c *broker.ClientInfo, _ broker.Action, topic string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := c.Remote.String()
	a.seen[at] = true
	return at == clientAddr.String() || bytes.HasPrefix([]byte(topic), []byte("any/")), nil
}

// A logBuffer is a bytes.Buffer for several goroutines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestASessionOutlivesANewAddressWhichItsRulesFollow(t *testing.T) {
	for _, migrates := range []bool{false, true} {
		log := new(logBuffer)
		acl := &placeACL{seen: map[string]bool{}}
		cfg := &broker.Config{ACL: acl, Logger: slog.New(slog.NewTextHandler(log, nil))}
		t.Run(fmt.Sprint("migrates ", migrates), func(t *testing.T) {
			withBrokerStats(t, cfg, func(w *world, b *broker.Broker) {
				to := newNATAddr
				if migrates {
					to = secondAddr
				}
				var mu sync.Mutex
				got := map[string]int{}
				c, err := client.Dial(w.Context(), &client.Config{
					URL: serverURL.String(), TLS: w.clientTLS, Dialers: []client.LinkDialer{w.dialer()}, ClientID: "c",
					SessionExpiry: time.Hour, Streams: client.PerTopic,
				})
				require.NoError(w, err)
				for _, filter := range []string{"any/t", "here/t"} {
					_, err = c.Subscribe(w.Context(), func(p *packet.Publish) {
						mu.Lock()
						defer mu.Unlock()
						got[p.Topic+string(p.Payload)]++
					}, packet.Subscription{Filter: filter, QoS: 2})
					require.NoError(w, err)
				}
				const n = 50
				for i := range n {
					if i == n/2 {
						_, err = c.Publish(w.Context(), &packet.Publish{Topic: "here/t", Payload: []byte("before"), QoS: 1})
						require.NoError(w, err)
						if migrates {
							require.NoError(w, c.Link().(*mqttquic.Link).Conn().Migrate(w.Context(), w.socket(secondAddr)))
						} else {
							w.router.rebind(newNATAddr)
						}
					}
					_, err = c.Publish(w.Context(), &packet.Publish{Topic: "any/t", Payload: fmt.Append(nil, i), QoS: packet.QoS(1 + i%2)})
					require.NoError(w, err)
				}
				time.Sleep(5 * time.Second) // virtual: the path is validated
				for range 3 {
					_, err = c.Publish(w.Context(), &packet.Publish{Topic: "any/t", Payload: []byte("after"), QoS: 1})
					require.NoError(w, err)
				}
				_, err = c.Publish(w.Context(), &packet.Publish{Topic: "here/t", Payload: []byte("after"), QoS: 1})
				var refused *client.PublishError
				require.ErrorAs(w, err, &refused, "the rule knows the new address")
				require.Equal(w, packet.NotAuthorized, refused.Code)
				synctest.Wait()

				require.EqualValues(w, 1, b.Stats().Connections[mqtt.QUIC].Total, "no reconnect")
				require.Equal(w, 1, b.Stats().Subscriptions, "that of here/t is not allowed there")
				mu.Lock()
				for i := range n {
					require.Equal(w, 1, got[fmt.Sprint("any/t", i)])
				}
				require.Equal(w, 1, got["here/tbefore"])
				require.Zero(w, got["here/tafter"])
				mu.Unlock()
				acl.mu.Lock()
				require.True(w, acl.seen[to.String()])
				acl.mu.Unlock()
				require.Contains(w, log.String(), `msg="mqtt: address changed" client=c remote=`+to.String()+" before="+clientAddr.String())
				require.NoError(w, c.Close())
				time.Sleep(time.Second)
				require.Contains(w, log.String(), `msg="mqtt: disconnected" client=c remote=`+to.String())
			})
		})
	}
}

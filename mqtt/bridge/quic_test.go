package bridge_test

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt/bridge"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport/engine"
)

// A network is a simulated network, in virtual time, that can lose everything.
type network struct {
	simnet.PerfectRouter
	down atomic.Bool
}

func (n *network) SendPacket(p simnet.Packet) error {
	if n.down.Load() {
		return nil
	}
	return n.PerfectRouter.SendPacket(p)
}

func (n *network) socket(t *testing.T, host byte) net.PacketConn {
	s := &simnet.Simnet{Router: n}
	c := s.NewEndpoint(&net.UDPAddr{IP: net.IPv4(10, 0, 0, host).To4(), Port: mqttquic.Port}, simnet.NodeBiDiLinkSettings{Latency: 20 * time.Millisecond})
	require.NoError(t, s.Start())
	t.Cleanup(func() { _ = s.Close() })
	return c
}

func TestThreeBrokersInARingOverQUICSurviveABlackOut(t *testing.T) {
	serverTLS, clientTLS := testcert.New()
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				const brokers = 3
				var sites []*site
				var boxes []*inbox
				var publishers []*client.Client
				for i := range byte(brokers) {
					s := newSite(t, fmt.Sprint("s", i))
					l, err := mqttquic.Listen(e, n.socket(t, 1+i), &mqttquic.ListenConfig{TLS: serverTLS})
					require.NoError(t, err)
					s.served.Go(func() { _ = s.b.ServeLinks(l) }) // until the broker closes
					t.Cleanup(func() { require.NoError(t, l.CloseNow()) })
					sites, boxes = append(sites, s), append(boxes, s.subscribe("#"))
					publishers = append(publishers, s.client("publisher"))
				}
				var bridges []*bridge.Bridge
				for i, s := range sites {
					endpoint, err := e.Open(n.socket(t, 11+byte(i)), nil)
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, endpoint.Close()) })
					b, err := bridge.New(&bridge.Config{
						Name: "next", Local: s.b, Forward: everything,
						Remote: client.Config{
							URL:       fmt.Sprintf("mqtt+quic://10.0.0.%d", 1+(i+1)%brokers),
							TLS:       clientTLS,
							KeepAlive: 10 * time.Second,
							Dialers:   []client.LinkDialer{&mqttquic.Dialer{Endpoint: endpoint}},
						},
					})
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, b.Close()) })
					bridges = append(bridges, b)
				}
				for _, b := range bridges {
					for !b.Status().Connected {
						time.Sleep(time.Second)
					}
				}
				const messages = 100
				for round := range 3 {
					n.down.Store(round == 1)
					var want []string
					for i := range messages {
						for at, s := range sites {
							payload := fmt.Sprint(s.node, " ", round, " ", i)
							s.publish(publishers[at], "x", payload, 2)
							want = append(want, payload)
						}
						if i == messages/2 {
							n.down.Store(round != 2)
							time.Sleep(time.Hour)
						}
					}
					n.down.Store(false)
					time.Sleep(10 * time.Minute)
					synctest.Wait()
					for _, box := range boxes {
						got := []string{}
						for _, p := range box.take() {
							got = append(got, string(p.Payload))
						}
						require.ElementsMatch(t, want, got)
					}
				}
				for _, b := range bridges {
					s := b.Status()
					require.Greater(t, s.Connections, uint64(1))
					require.Zero(t, s.Queued)
				}
			})
		})
	}
}

package bridge_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/bridge"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Bridges between sites 0, 1, ...
type edge struct {
	from, to           int
	forward, subscribe bool
	version            packet.Version
}

func TestInACircleOfBrokersEachMessageArrivesOnceAtEachAndNeverComesBack(t *testing.T) {
	const v5, v3 = packet.V5, packet.V311
	for _, c := range []struct {
		name  string
		edges []edge
		sites int
		hops  int
		// Who gets what is published at each site, and how often.
		want [][]int
	}{
		{"one bridge, both directions", []edge{{0, 1, true, true, v5}}, 2, 0, [][]int{{1, 1}, {1, 1}}},
		{"one bridge of 3.1.1, both directions", []edge{{0, 1, true, true, v3}}, 2, 0, [][]int{{1, 1}, {1, 1}}},
		{"two that forward to each other", []edge{{0, 1, true, false, v5}, {1, 0, true, false, v5}}, 2, 0, [][]int{{1, 1}, {1, 1}}},
		{"two that subscribe at each other", []edge{{0, 1, false, true, v5}, {1, 0, false, true, v5}}, 2, 0, [][]int{{1, 1}, {1, 1}}},
		{"two that forward to each other with 3.1.1", []edge{{0, 1, true, false, v3}, {1, 0, true, false, v3}}, 2, 0, [][]int{{1, 1}, {1, 1}}},
		{"two that subscribe at each other with 3.1.1", []edge{{0, 1, false, true, v3}, {1, 0, false, true, v3}}, 2, 0, [][]int{{1, 1}, {1, 1}}},
		{"a ring that forwards", []edge{{0, 1, true, false, v5}, {1, 2, true, false, v5}, {2, 0, true, false, v5}}, 3, 0, [][]int{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}},
		{"a ring that subscribes", []edge{{0, 1, false, true, v5}, {1, 2, false, true, v5}, {2, 0, false, true, v5}}, 3, 0, [][]int{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}},
		{"a ring of 3.1.1 reaches the next broker only", []edge{{0, 1, true, false, v3}, {1, 2, true, false, v3}, {2, 0, true, false, v3}}, 3, 0, [][]int{{1, 1, 0}, {0, 1, 1}, {1, 0, 1}}},
		{"a ring with one bridge of 3.1.1", []edge{{0, 1, true, false, v3}, {1, 2, true, false, v5}, {2, 0, true, false, v5}}, 3, 0, [][]int{{2, 1, 1}, {1, 1, 1}, {1, 0, 1}}},
		{"a ring that subscribes with 3.1.1", []edge{{0, 1, false, true, v3}, {1, 2, false, true, v3}, {2, 0, false, true, v3}}, 3, 0, [][]int{{1, 0, 1}, {1, 1, 0}, {0, 1, 1}}},
		{"a chain in both directions", []edge{{0, 1, true, true, v5}, {1, 2, true, true, v5}}, 3, 0, [][]int{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}},
		{"each with each other and one hop", []edge{{0, 1, true, true, v5}, {1, 2, true, true, v5}, {2, 0, true, true, v5}}, 3, 1, [][]int{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}},
		{"each with each other: a copy for each way", []edge{{0, 1, true, true, v5}, {1, 2, true, true, v5}, {2, 0, true, true, v5}}, 3, 0, [][]int{{1, 2, 2}, {2, 1, 2}, {2, 2, 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sites []*site
				var boxes []*inbox
				for i := range c.sites {
					sites = append(sites, newSite(t, fmt.Sprint("s", i)).listen())
					boxes = append(boxes, sites[i].subscribe("#"))
				}
				for _, e := range c.edges {
					cfg := bridge.Config{MaxHops: c.hops, Remote: client.Config{Version: e.version}}
					if e.forward {
						cfg.Forward = everything
					}
					if e.subscribe {
						cfg.Subscribe = everything
					}
					connected(t, sites[e.from].bridge(sites[e.to], cfg))
				}
				for qos := packet.AtMostOnce; qos <= packet.ExactlyOnce; qos++ {
					for from, want := range c.want {
						sites[from].publish(sites[from].client("publisher"), "x", fmt.Sprint(from), qos)
						time.Sleep(time.Minute)
						synctest.Wait()
						var got []int
						for _, box := range boxes {
							got = append(got, len(box.take()))
						}
						require.Equal(t, want, got, "published at %d with QoS %d", from, qos)
					}
				}
			})
		})
	}
}

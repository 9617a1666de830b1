package client

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestADeferredMessageIsAcknowledgedWhenItIsDone(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refused := packet.QuotaExceeded
				if v < packet.V5 {
					refused = packet.Success
				}
				l := newListener(t, v)
				cfg := l.config()
				done := make(map[string]func(packet.ReasonCode))
				var c *Client
				cfg.OnMessage = func(p *packet.Publish) {
					if p.Topic != "now" {
						done[p.Topic] = c.Defer()
					}
				}
				c, p := dialed(t, l, cfg, &packet.Connack{})
				p.send(inMsg("a", 1, 1))
				p.send(inMsg("b", 1, 2))
				p.send(inMsg("now", 1, 3))
				p.send(inMsg("c", 2, 4))
				p.send(inMsg("d", 0, 0))
				synctest.Wait()
				require.Len(t, done, 4)
				done["d"](packet.QuotaExceeded) // says nothing

				done["c"](packet.QuotaExceeded) // QoS 2 does not wait for QoS 1
				require.Equal(t, packet.Ack{PacketID: 4, Code: refused}, expect[*packet.Pubrec](p).Ack)
				done["b"](packet.QuotaExceeded)
				done["a"](packet.Success)
				done["a"](packet.QuotaExceeded) // too late
				require.Equal(t, ack(1), expect[*packet.Puback](p).Ack)
				require.Equal(t, packet.Ack{PacketID: 2, Code: refused}, expect[*packet.Puback](p).Ack)
				require.Equal(t, ack(3), expect[*packet.Puback](p).Ack)

				if v < packet.V5 {
					p.send(&packet.Pubrel{Ack: ack(4)})
					require.Equal(t, ack(4), expect[*packet.Pubcomp](p).Ack)
				}
				// The identifier is free: a new message.
				delete(done, "c")
				p.send(inMsg("c", 2, 4))
				synctest.Wait()
				done["c"](packet.Success)
				require.Equal(t, ack(4), expect[*packet.Pubrec](p).Ack)
				require.Empty(t, c.dispatch.owed)
				disconnect(t, c, p)
			})
		})
	}
}

func TestAMessageDeferredByTwoHandlersWaitsForBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		var done []func(packet.ReasonCode)
		for _, f := range []string{"#", "t"} {
			go func() {
				_, err := c.Subscribe(t.Context(), func(*packet.Publish) { done = append(done, c.Defer()) },
					packet.Subscription{Filter: f, QoS: 1})
				if err != nil {
					t.Error(err)
				}
			}()
			s := expect[*packet.Subscribe](p)
			p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{packet.GrantedQoS1}})
			synctest.Wait()
		}
		p.send(inMsg("t", 1, 1))
		synctest.Wait()
		require.Len(t, done, 2)
		done[1](packet.NotAuthorized)
		done[1](packet.Success)
		p.send(inMsg("t", 1, 2))
		synctest.Wait()
		done[0](packet.QuotaExceeded)
		require.Equal(t, packet.Ack{PacketID: 1, Code: packet.NotAuthorized}, expect[*packet.Puback](p).Ack)
		done[3](packet.Success)
		done[2](packet.Success)
		require.Equal(t, ack(2), expect[*packet.Puback](p).Ack)
		disconnect(t, c, p)
	})
}

func TestADeferredMessageOfALostConnectionIsNotAcknowledgedOnTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.SessionExpiry = NeverExpires
		var done []func(packet.ReasonCode)
		var c *Client
		cfg.OnMessage = func(*packet.Publish) { done = append(done, c.Defer()) }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		p.send(inMsg("t", 1, 1))
		p.send(inMsg("t", 2, 2))
		synctest.Wait()
		p.close()
		p, _ = l.accepted(&packet.Connack{SessionPresent: true})
		p.send(inMsg("t", 1, 1)) // again: another delivery
		again := inMsg("t", 2, 2)
		again.Dup = true
		p.send(again) // again: the same delivery
		synctest.Wait()
		require.Len(t, done, 3)
		done[0](packet.Success)
		done[1](packet.NotAuthorized)
		require.Equal(t, packet.Ack{PacketID: 2, Code: packet.NotAuthorized}, expect[*packet.Pubrec](p).Ack)
		done[2](packet.Success)
		require.Equal(t, ack(1), expect[*packet.Puback](p).Ack)
		disconnect(t, c, p)
	})
}

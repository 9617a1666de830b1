package mqttquic_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
)

// An emqx is a server that treats data streams as EMQX does: each has a session of
// its own, with packet identifiers, exchanges and subscriptions, which end with
// the stream and with the connection, also if CONNACK says that the session is
// present; UNSUBSCRIBE works on the stream of the SUBSCRIBE only; an alias on a data
// stream is a mistake of the client here. It has one client.
type emqx struct {
	t *testing.T

	mu       sync.Mutex
	link     mqtt.Link
	streams  map[mqtt.StreamID]*emqxStream // of link
	control  *emqxStream                   // of one link after the other
	got      map[string]int                // published, by payload
	openMost int
	resubs   int // subscriptions made
	wrong    []string
}

type emqxStream struct {
	s        mqtt.Stream
	filters  []string
	nextID   uint16
	inflight map[uint16]packet.Packet
	received map[uint16]bool // QoS 2
}

func (e *emqx) serve(w *world) {
	for n := 0; ; n++ {
		l, err := w.listener.Accept(w.Context())
		if err != nil {
			return
		}
		e.mu.Lock()
		e.link, e.streams = l, map[mqtt.StreamID]*emqxStream{}
		e.mu.Unlock()
		go func() { // ends with the link
			for {
				s, err := l.AcceptStream(l.Context())
				if err != nil {
					return
				}
				go e.stream(l, s, n > 0) // ends with the stream
			}
		}()
	}
}

func (e *emqx) send(s *emqxStream, p packet.Packet) {
	b, err := p.Append(nil, packet.V5)
	require.NoError(e.t, err)
	_, _ = s.s.Write(b) // it may be gone
}

func (e *emqx) stream(l mqtt.Link, s mqtt.Stream, present bool) {
	st := &emqxStream{s: s, inflight: map[uint16]packet.Packet{}, received: map[uint16]bool{}}
	e.mu.Lock()
	if s.ID() == mqtt.ControlStream { // its session is kept
		if e.control == nil {
			e.control = st
		}
		st, e.control.s = e.control, s
	}
	e.streams[s.ID()] = st
	e.openMost = max(e.openMost, len(e.streams))
	e.mu.Unlock()
	in := mqtt.NewReader(s, 0)
	for {
		h, body, err := in.Next()
		if err != nil {
			break
		}
		p, err := packet.Decode(h, bytes.Clone(body), packet.V5)
		e.mu.Lock()
		if err != nil {
			e.wrong = append(e.wrong, err.Error())
		} else {
			e.packet(st, p, present)
		}
		e.mu.Unlock()
	}
	e.mu.Lock()
	if e.link == l {
		delete(e.streams, s.ID())
	}
	e.mu.Unlock()
	_ = s.CloseWrite()
	if s.ID() == mqtt.ControlStream {
		_ = l.CloseWithCode(mqtt.LinkNormal)
	}
}

// packet is called with mu.
func (e *emqx) packet(st *emqxStream, p packet.Packet, present bool) {
	control := st.s.ID() == mqtt.ControlStream
	if t := p.Type(); !control && (t < packet.PUBLISH || t > packet.UNSUBACK) {
		e.wrong = append(e.wrong, t.String()+" on a data stream")
	}
	switch p := p.(type) {
	case *packet.Connect:
		e.send(st, &packet.Connack{SessionPresent: present && !p.CleanStart, Properties: &packet.Properties{TopicAliasMaximum: packet.Some[uint16](9)}})
	case *packet.Pingreq:
		e.send(st, &packet.Pingresp{})
	case *packet.Publish:
		if !control && p.Properties != nil && p.Properties.TopicAlias.Set {
			e.wrong = append(e.wrong, "topic alias on a data stream")
		}
		if p.QoS == packet.ExactlyOnce && st.received[p.PacketID] {
			e.send(st, &packet.Pubrec{Ack: packet.Ack{PacketID: p.PacketID, Code: packet.PacketIDInUse}})
			return
		}
		e.got[string(p.Payload)]++
		switch p.QoS {
		case packet.AtLeastOnce:
			e.send(st, &packet.Puback{Ack: packet.Ack{PacketID: p.PacketID}})
		case packet.ExactlyOnce:
			st.received[p.PacketID] = true
			e.send(st, &packet.Pubrec{Ack: packet.Ack{PacketID: p.PacketID}})
		}
	case *packet.Pubrel:
		code := packet.Success
		if !st.received[p.PacketID] {
			code = packet.PacketIDNotFound
		}
		delete(st.received, p.PacketID)
		e.send(st, &packet.Pubcomp{Ack: packet.Ack{PacketID: p.PacketID, Code: code}})
	case *packet.Puback:
		if st.inflight[p.PacketID] == nil {
			e.wrong = append(e.wrong, "PUBACK on another stream")
		}
		delete(st.inflight, p.PacketID)
	case *packet.Pubrec:
		if st.inflight[p.PacketID] == nil {
			e.wrong = append(e.wrong, "PUBREC on another stream")
		}
		e.send(st, &packet.Pubrel{Ack: packet.Ack{PacketID: p.PacketID}})
	case *packet.Pubcomp:
		delete(st.inflight, p.PacketID)
	case *packet.Subscribe:
		codes := make([]packet.ReasonCode, len(p.Subscriptions))
		for i, s := range p.Subscriptions {
			st.filters = append(st.filters, s.Filter)
			e.resubs++
			codes[i] = packet.ReasonCode(s.QoS)
		}
		e.send(st, &packet.Suback{PacketID: p.PacketID, Codes: codes})
	case *packet.Unsubscribe:
		codes := make([]packet.ReasonCode, len(p.Filters))
		for i, f := range p.Filters {
			if at := slices.Index(st.filters, f); at >= 0 {
				st.filters = slices.Delete(st.filters, at, at+1)
			} else {
				codes[i] = packet.NoSubscriptionExisted
			}
		}
		e.send(st, &packet.Unsuback{PacketID: p.PacketID, Codes: codes})
	}
}

// deliver sends a message with QoS 2 on every stream that has the filter, and returns
// how many do. Identifiers begin with 1 on each.
func (e *emqx) deliver(filter, payload string) (copies int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, st := range e.streams {
		if slices.Contains(st.filters, filter) {
			st.nextID++
			p := &packet.Publish{Topic: filter, Payload: []byte(payload), QoS: 2, PacketID: st.nextID}
			st.inflight[st.nextID] = p
			e.send(st, p)
			copies++
		}
	}
	return copies
}

// cut resets the data streams, and with connection also that.
func (e *emqx) cut(connection bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, st := range e.streams {
		if id != mqtt.ControlStream {
			st.s.Reset(0)
			delete(e.streams, id)
		}
	}
	if connection {
		_ = e.link.CloseWithCode(mqtt.LinkControlDown)
	}
}

func TestClientWorksWithAServerThatForgetsDataStreams(t *testing.T) {
	for name, policy := range map[string]client.StreamPolicy{
		"control": client.Control, "topic": client.PerTopic, "hash 1": client.Hash(1), "hash 4": client.Hash(4), "dedicated": client.Dedicated,
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, &mqttquic.ListenConfig{MaxStreams: 10}, func(w *world, _ transport.Transport) {
				e := &emqx{t: w.T, got: map[string]int{}}
				go e.serve(w) // ends with the listener

				var mu sync.Mutex
				received := map[string]int{}
				c, err := client.Dial(w.Context(), &client.Config{
					URL: serverURL.String(), TLS: w.clientTLS, Dialers: []client.LinkDialer{w.dialer()}, ClientID: "c",
					SessionExpiry: time.Hour, Streams: policy, TopicAliases: 9,
				})
				require.NoError(w, err)
				const topics = 12 // more than there are streams
				topic := func(i int) string { return fmt.Sprint("t/", i) }
				for i := range topics {
					_, err := c.Subscribe(w.Context(), func(p *packet.Publish) {
						mu.Lock()
						defer mu.Unlock()
						received[string(p.Payload)]++
					}, packet.Subscription{Filter: topic(i), QoS: 2})
					require.NoError(w, err)
				}
				for round := range 4 {
					for i := range topics {
						require.Equal(w, 1, e.deliver(topic(i), fmt.Sprint(round, topic(i))), "one subscription of each filter")
						for q := range packet.QoS(3) {
							_, err := c.Publish(w.Context(), &packet.Publish{Topic: topic(i), QoS: q, Payload: fmt.Append(nil, "up", round, topic(i), q)})
							require.NoError(w, err)
						}
					}
					// What is under way when streams end arrives all the same.
					acked := make(chan error, topics)
					for i := range topics {
						require.NoError(w, c.PublishAsync(w.Context(), &packet.Publish{Topic: topic(i), QoS: packet.QoS(1 + i%2), Payload: fmt.Append(nil, "cut", round, i)},
							func(err error) { acked <- err }))
					}
					time.Sleep(time.Duration(round) * latency / 2) // virtual: nothing, little or all has arrived
					e.cut(round == 1)
					for range topics {
						require.NoError(w, <-acked)
					}
					time.Sleep(10 * time.Second)
					synctest.Wait()
				}
				e.mu.Lock()
				for round := range 4 {
					for i := range topics {
						require.Positive(w, e.got[fmt.Sprint("cut", round, i)])
						for q := range packet.QoS(3) {
							require.Equal(w, 1, e.got[string(fmt.Append(nil, "up", round, topic(i), q))])
						}
					}
				}
				require.Empty(w, e.wrong)
				require.LessOrEqual(w, e.openMost, 10)
				require.Equal(w, policy != client.Control, e.openMost > 1)
				for _, st := range e.streams {
					require.Empty(w, st.inflight, "acknowledged on the stream it came on")
				}
				e.mu.Unlock()
				mu.Lock()
				require.Len(w, received, 4*topics)
				for payload, n := range received {
					require.Equal(w, 1, n, payload)
				}
				mu.Unlock()

				filters := make([]string, topics)
				for i := range filters {
					filters[i] = topic(i)
				}
				codes, err := c.Unsubscribe(w.Context(), filters...)
				require.NoError(w, err)
				require.Equal(w, make([]packet.ReasonCode, topics), codes, "on the stream of the SUBSCRIBE")
				require.NoError(w, c.Disconnect(w.Context()))
			})
		})
	}
}

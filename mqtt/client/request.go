package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// requester are the requests of a Client that wait for a response
// (MQTT 5, Section 4.10).
type requester struct {
	setup chan struct{} // capacity 1; who holds it may subscribe

	mu      sync.Mutex
	last    uint64                          // guarded by mu
	waiting map[uint64]chan *packet.Publish // guarded by mu; by correlation data
}

// correlationSize is the length of the correlation data that Request sends, bytes.
const correlationSize = 8

// Request publishes payload with QoS 1 (0 if the server has no more) and returns
// the response, which is the first message with the correlation data of the request
// on the response topic. The first call subscribes to that topic. It needs MQTT 5.
//
// It may be called from a handler.
//
// If the server says that nobody is there to answer, it returns [ErrNoSubscribers]
// at once.
func (c *Client) Request(ctx context.Context, topic string, payload []byte) (*packet.Publish, error) {
	if c.cfg.Version < packet.V5 {
		return nil, errors.New("client: request: needs MQTT 5")
	}
	responseTopic, err := c.responseTopic(ctx)
	if err != nil {
		return nil, err
	}
	q := &c.requester
	answer := make(chan *packet.Publish, 1)
	q.mu.Lock()
	q.last++
	key := q.last
	q.waiting[key] = answer
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.waiting, key)
		q.mu.Unlock()
	}()
	r, err := c.Publish(ctx, &packet.Publish{
		Topic: topic, Payload: payload, QoS: min(packet.AtLeastOnce, c.maximumQoS()),
		Properties: &packet.Properties{
			ResponseTopic:   responseTopic,
			CorrelationData: binary.BigEndian.AppendUint64(make([]byte, 0, correlationSize), key),
		},
	})
	if err != nil {
		return nil, err
	}
	if r.Code == packet.NoMatchingSubscribers {
		return nil, ErrNoSubscribers
	}
	c.calls.Add(1)
	defer c.calls.Add(-1)
	select {
	case p := <-answer:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.ctx.Done():
		if err := c.Err(); err != nil {
			return nil, err
		}
		return nil, ErrClosed
	}
}

func (c *Client) maximumQoS() packet.QoS {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.server.maximumQoS
}

// responseTopic subscribes to the response topic when it is needed first.
func (c *Client) responseTopic(ctx context.Context) (string, error) {
	q := &c.requester
	select {
	case q.setup <- struct{}{}:
		defer func() { <-q.setup }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	c.mu.Lock()
	topic := c.responseTo
	c.mu.Unlock()
	if topic != "" {
		return topic, nil
	}
	// A client identifier may have characters that a topic may not. Nobody can
	// guess this one, and so send a response that was not asked for.
	topic = "response/" + rand.Text()
	_, err := c.Subscribe(ctx, nil, packet.Subscription{Filter: topic, QoS: packet.AtLeastOnce})
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.responseTo = topic
	c.mu.Unlock()
	return topic, nil
}

// response takes a message on the response topic.
func (q *requester) response(p *packet.Publish) {
	if p.Properties == nil || len(p.Properties.CorrelationData) != correlationSize {
		return
	}
	key := binary.BigEndian.Uint64(p.Properties.CorrelationData)
	q.mu.Lock()
	answer := q.waiting[key]
	delete(q.waiting, key)
	q.mu.Unlock()
	if answer != nil {
		answer <- Clone(p) // capacity 1, and the only one
	}
}

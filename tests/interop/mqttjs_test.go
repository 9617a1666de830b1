//go:build interop

package interop

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// mqttjsURL returns how mqtt.js names a listener.
func (s *server) mqttjsURL(carrier string) string {
	u := *s.url[carrier]
	if carrier == "tls" {
		u.Scheme = "mqtts"
	}
	return u.String()
}

// A mqttjsEvent is what testdata/mqttjs/peer.cjs says.
type mqttjsEvent struct {
	Error   string
	Granted *int
	Topic   string
	Payload string
	QoS     int
	Retain  bool
	User    string
	Type    string
	Expiry  int

	Published                         int
	Connected, Ready, Replied, Broken bool
}

type mqttjs struct{ *jsonProcess }

func (s *server) mqttjs(t *testing.T, carrier, version, action, topic string, qos int) mqttjs {
	t.Helper()
	return mqttjs{startJSON(t, foreignProgram(t, "mqttjs-node"), "testdata/mqttjs/peer.cjs",
		s.mqttjsURL(carrier), s.caFile, version, action, topic, fmt.Sprint(qos))}
}

func (p mqttjs) next(t *testing.T) (e mqttjsEvent) {
	t.Helper()
	require.NoError(t, p.read(&e))
	require.Empty(t, e.Error)
	return e
}

func TestMQTTJSExchangesMessagesOfEveryQoSAndVersion(t *testing.T) {
	s := start(t)
	for _, carrier := range mosquittoCarriers {
		for _, version := range []string{"3", "4", "5"} {
			t.Run(carrier+"/"+version, func(t *testing.T) {
				topic := "js/" + carrier + "/" + version
				p := s.mqttjs(t, carrier, version, "exchange", topic, 2)
				require.Equal(t, 2, *p.next(t).Granted)
				got := make(map[int][]mqttjsEvent) // by QoS: in each they are in order
				for published, n := false, 0; n < 9 || !published; {
					if e := p.next(t); e.Published > 0 {
						published = true
					} else {
						got[e.QoS] = append(got[e.QoS], e)
						n++
					}
				}
				for i := range 9 {
					want := mqttjsEvent{Topic: topic, Payload: strings.Repeat("x", i*i*1000) + fmt.Sprint(i), QoS: i % 3}
					if version == "5" {
						want.User, want.Type, want.Expiry = fmt.Sprint("v", i), "text/plain", 60
					}
					require.Equal(t, want, got[i%3][i/3])
				}
			})
		}
	}
	require.NoError(t, s.stop(t))
}

func TestMQTTJSGetsWhatWasRetained(t *testing.T) {
	s := start(t)
	for _, carrier := range mosquittoCarriers {
		t.Run(carrier, func(t *testing.T) {
			e := s.mqttjs(t, carrier, "5", "retained", "js/retained/"+carrier, 1).next(t)
			require.Equal(t, "kept", e.Payload)
			require.True(t, e.Retain)
			require.Equal(t, 1, e.QoS)
		})
	}
}

func TestMQTTJSThatBreaksItsConnectionLeavesItsWill(t *testing.T) {
	s := start(t)
	for _, carrier := range mosquittoCarriers {
		t.Run(carrier, func(t *testing.T) {
			topic := "js/will/" + carrier
			got := make(chan string, 1)
			c := s.ours(t)
			_, err := c.Subscribe(t.Context(), func(p *packet.Publish) { got <- string(p.Payload) }, packet.Subscription{Filter: topic, QoS: 1})
			require.NoError(t, err)
			p := s.mqttjs(t, carrier, "5", "will", topic, 1)
			require.True(t, p.next(t).Connected)
			_, err = p.in.Write([]byte("\n"))
			require.NoError(t, err)
			require.True(t, p.next(t).Broken)
			require.Equal(t, "gone", <-got)
		})
	}
}

func TestMQTTJSRepliesToARequest(t *testing.T) {
	s := start(t)
	for _, carrier := range mosquittoCarriers {
		t.Run(carrier, func(t *testing.T) {
			topic := "js/reply/" + carrier
			p := s.mqttjs(t, carrier, "5", "reply", topic, 1)
			require.True(t, p.next(t).Ready)
			answer, err := s.ours(t).Request(t.Context(), topic, []byte("question"))
			require.NoError(t, err)
			require.Equal(t, "re: question", string(answer.Payload))
		})
	}
}

// ours connects our own client over TCP.
func (s *server) ours(t *testing.T) *client.Client {
	t.Helper()
	u := url.URL{Scheme: "mqtt", Host: s.url["tcp"].Host}
	c, err := client.Dial(t.Context(), &client.Config{URL: u.String(), ClientID: strings.ReplaceAll(t.Name(), "/", "-")})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestMosquittoRRGetsItsReply(t *testing.T) {
	s := start(t)
	c := s.ours(t)
	_, err := c.Subscribe(t.Context(), func(p *packet.Publish) {
		err := c.PublishAsync(t.Context(), &packet.Publish{
			Topic: p.Properties.ResponseTopic, Payload: append([]byte("re: "), p.Payload...), QoS: 1,
			Properties: &packet.Properties{CorrelationData: p.Properties.CorrelationData},
		}, nil)
		if err != nil {
			t.Error(err)
		}
	}, packet.Subscription{Filter: "rr/+", QoS: 1})
	require.NoError(t, err)
	for _, carrier := range mosquittoCarriers {
		t.Run(carrier, func(t *testing.T) {
			rr := run(t, foreignProgram(t, "mosquitto_rr"), s.mosquitto(carrier, "-V", "5", "-q", "1", "-t", "rr/"+carrier, "-e", "response/"+carrier, "-m", "hello")...)
			require.Equal(t, "re: hello", rr.line(t))
			rr.wait(t)
		})
	}
}

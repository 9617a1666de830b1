package packet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/anyquic/anyquic/mqtt/packet"
)

func TestSecretsAreNotPrintedHoweverAPacketIsPrinted(t *testing.T) {
	secret := []byte("hunter2")
	props := func() *Properties { return &Properties{AuthMethod: "m", AuthData: secret, CorrelationData: secret} }
	connect := &Connect{
		Version: V5, ClientID: "id", Username: Some("user"), Password: secret, Properties: props(),
		Will: &Will{Topic: "t", Payload: secret, Properties: &Properties{CorrelationData: secret}},
	}
	auth := &Auth{ContinueAuthentication, props()}
	forms := func(b []byte) []string {
		out := []string{string(b), fmt.Sprintf("%x", b), fmt.Sprintf("%X", b), fmt.Sprintf("% x", b), fmt.Sprint(b), fmt.Sprintf("%#v", b)}
		j, err := json.Marshal(b)
		require.NoError(t, err)
		return append(out, string(j[1:len(j)-1]))
	}
	for _, v := range []any{
		connect, *connect, auth, *auth, props(), *props(), &Connack{Properties: props()}, Connack{Properties: props()},
		[]Packet{connect, auth}, map[string]any{"p": connect}, struct{ P Packet }{connect}, struct{ A Auth }{*auth},
	} {
		var printed []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o"} {
			printed = append(printed, fmt.Sprintf(verb, v))
		}
		if s, ok := v.(fmt.GoStringer); ok {
			printed = append(printed, s.GoString(), v.(fmt.Stringer).String())
		}
		j, err := json.Marshal(v)
		require.NoError(t, err)
		printed = append(printed, string(j))
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "p", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "p", v)
		printed = append(printed, log.String())
		for _, s := range printed {
			for _, form := range forms(secret) {
				require.NotContains(t, s, form, "%T", v)
			}
		}
	}
	require.Equal(t, `CONNECT version=5.0 client="id" clean=false keepalive=0 username="user" password=(7 bytes)`+
		` will={topic="t" qos=0 retain=false payload=7B properties={correlation data=(7 bytes)}}`+
		` properties={correlation data=(7 bytes), authentication method="m", authentication data=(7 bytes)}`, connect.String())
	require.Equal(t, `AUTH code="Re-authenticate"`, Auth{Code: ReAuthenticate}.String())
	require.Equal(t, `{message expiry interval=5, subscription identifier=[1 2], topic alias=7, maximum QoS=1, user property=[{"a" "b"}]}`, Properties{
		MessageExpiry: Some[uint32](5), SubscriptionIDs: []uint32{1, 2}, TopicAlias: Some[uint16](7), MaximumQoS: Some[byte](1), User: []UserProperty{{"a", "b"}},
	}.String())
	require.Equal(t, "<nil>", fmt.Sprint((*Connect)(nil)))
}

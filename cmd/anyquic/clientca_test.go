package main

import (
	"crypto/tls"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestSIGHUPPutsOtherAuthoritiesInForceOnEveryCarrierWithTLS(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no signals")
	}
	before, issueBefore := authority(t)
	after, issueAfter := authority(t)
	text, err := os.ReadFile(before)
	require.NoError(t, err)
	ca := writeFile(t, "ca.pem", string(text))
	s := startServe(t, "--client-ca", ca)
	oldCert, oldKey := issueBefore("device")
	newCert, newKey := issueAfter("device")
	admitted := func(carrier, cert, key string) bool {
		code, _, _ := anyquic(t, "mqtt", "pub", s.url(carrier), "--insecure", "-t", "t", "-m", "m", "-q", "1", "--cert", cert, "--key", key)
		return code == 0
	}
	carriers := []string{"tls", "wss", "wss+h3", "quic", "wt"}

	// A session of TLS carries its certificate on, as long as that is good.
	pair, err := tls.LoadX509KeyPair(oldCert, oldKey)
	require.NoError(t, err)
	config := &tls.Config{
		InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}, ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
	resumed := func() (did bool, code packet.ReasonCode) {
		c, err := tls.Dial("tcp", s.addr("tls"), config)
		require.NoError(t, err)
		p := &rawPeer{t: t, conn: c, r: mqtt.NewReader(c, 0)}
		defer c.Close()
		out, err := (&packet.Connect{Version: packet.V5, ClientID: "resumes", CleanStart: true}).Append(nil, packet.V5)
		require.NoError(t, err)
		if _, err = c.Write(out); err != nil {
			return c.ConnectionState().DidResume, packet.NotAuthorized
		}
		p.v = packet.V5
		answer, err := p.read()
		if err != nil {
			return c.ConnectionState().DidResume, packet.NotAuthorized
		}
		return c.ConnectionState().DidResume, answer.(*packet.Connack).Code
	}
	did, code := resumed()
	require.False(t, did)
	require.Equal(t, packet.Success, code)
	did, code = resumed()
	require.True(t, did)
	require.Equal(t, packet.Success, code)

	for _, carrier := range carriers {
		require.True(t, admitted(carrier, oldCert, oldKey), carrier)
		require.False(t, admitted(carrier, newCert, newKey), carrier)
	}
	text, err = os.ReadFile(after)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(ca, []byte("?"), 0o600))
	s.hup(t, "no PEM certificate")
	require.True(t, admitted("tls", oldCert, oldKey), "all or nothing")
	require.NoError(t, os.WriteFile(ca, text, 0o600))
	s.hup(t, "configuration reloaded")
	for _, carrier := range carriers {
		require.True(t, admitted(carrier, newCert, newKey), carrier)
		require.False(t, admitted(carrier, oldCert, oldKey), carrier)
	}
	did, code = resumed()
	require.False(t, did)
	require.NotEqual(t, packet.Success, code)
}

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport/engine"
)

// userLine returns a user whose password costs next to nothing to check: with the race
// detector, and nothing else of the processor, what is made by default takes seconds.
func userLine(t *testing.T, name, password string) string {
	t.Helper()
	salt, b64 := []byte("salt of a test"), base64.RawStdEncoding
	key := argon2.IDKey([]byte(password), salt, 1, 64, 1, 32)
	return name + ":$argon2id$v=19$m=64,t=1,p=1$" + b64.EncodeToString(salt) + "$" + b64.EncodeToString(key) + "\n"
}

// scramLine is userLine for SCRAM, with the fewest iterations there may be.
func scramLine(t *testing.T, name, password string) string {
	t.Helper()
	const rounds = 4096
	salt, b64 := []byte("salt of a test"), base64.StdEncoding
	salted, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	require.NoError(t, err)
	derive := func(of string) []byte {
		m := hmac.New(sha256.New, salted)
		m.Write([]byte(of))
		return m.Sum(nil)
	}
	stored := sha256.Sum256(derive("Client Key"))
	return fmt.Sprintf("%s:SCRAM-SHA-256$%d:%s$%s:%s\n", name, rounds, b64.EncodeToString(salt), b64.EncodeToString(stored[:]), b64.EncodeToString(derive("Server Key")))
}

// passwdLine returns what `anyquic mqtt passwd` prints.
func passwdLine(t *testing.T, name, password string, args ...string) string {
	t.Helper()
	code, stdout, stderr := anyquicWithInput(t, password+"\n", append([]string{"mqtt", "passwd", name}, args...)...)
	require.Zero(t, code, stderr)
	require.NotContains(t, stdout, password)
	require.Empty(t, stderr)
	return stdout
}

var everyCarrier = []string{"tcp", "tls", "ws", "wss", "wss+h3", "quic", "wt"}

func TestUsersAndRulesHoldOnEveryCarrier(t *testing.T) {
	users := writeFile(t, "users", userLine(t, "alice", "of alice")+scramLine(t, "bob", "of bob"))
	rules := writeFile(t, "rules", "allow both own/%u/#\n")
	s := startServe(t, "--users", users, "--acl", rules, "--auth-timeout", "1m", "--connect-timeout", "1m")
	for _, carrier := range everyCarrier {
		t.Run(carrier, func(t *testing.T) {
			as := func(name string, args ...string) []string {
				return append([]string{s.url(carrier), "--insecure", "-u", name, "-P", "of " + name}, args...)
			}
			for _, who := range [][]string{as("alice"), as("bob"), as("bob", "--scram")} {
				topic := "own/" + who[3] + "/x"
				code, _, stderr := anyquic(t, append([]string{"mqtt", "pub", "-t", topic, "-m", "kept", "-q", "1", "-r"}, who...)...)
				require.Zero(t, code, stderr)
				code, stdout, stderr := anyquic(t, append([]string{"mqtt", "sub", "-t", topic, "-C", "1"}, who...)...)
				require.Zero(t, code, stderr)
				require.Equal(t, "kept\n", stdout)
				code, _, stderr = anyquic(t, append([]string{"mqtt", "pub", "-t", "own/carol/x", "-m", "m", "-q", "1"}, who...)...)
				require.Equal(t, 1, code)
				require.Contains(t, stderr, "0x87")
				code, _, stderr = anyquic(t, append([]string{"mqtt", "sub", "-t", "#"}, who...)...)
				require.Equal(t, 1, code)
				require.Contains(t, stderr, "0x87")
			}
			for want, who := range map[string][]string{
				"0x86": {s.url(carrier), "--insecure", "-u", "alice", "-P", "of bob"},
				"0x87": {s.url(carrier), "--insecure", "-u", "bob", "-P", "of alice", "--scram"},
			} {
				code, _, stderr := anyquic(t, append([]string{"mqtt", "pub", "-t", "own/alice/x", "-m", "m"}, who...)...)
				require.Equal(t, 1, code)
				require.Contains(t, stderr, want)
			}
			code, _, stderr := anyquic(t, "mqtt", "pub", s.url(carrier), "--insecure", "-t", "x", "-m", "m")
			require.Equal(t, 1, code)
			require.Contains(t, stderr, "0x86")
		})
	}
	s.stop()
	for _, secret := range []string{"of alice", "of bob", "$argon2id", "SCRAM-SHA-256$"} {
		require.NotContains(t, s.stderr.String(), secret)
	}
}

// authority returns the file of an authority's certificate and makes clients'.
func authority(t *testing.T) (file string, issue func(name string) (cert, key string)) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return k
	}
	caKey := newKey()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	require.NoError(t, err)
	return write("ca.pem", "CERTIFICATE", der), func(name string) (string, string) {
		key := newKey()
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, ca, key.Public(), caKey)
		require.NoError(t, err)
		secret, err := x509.MarshalPKCS8PrivateKey(key)
		require.NoError(t, err)
		return write(name+".pem", "CERTIFICATE", der), write(name+".key", "PRIVATE KEY", secret)
	}
}

func TestAClientsCertificateNamesItOnEveryCarrierWithTLS(t *testing.T) {
	ca, issue := authority(t)
	cert, key := issue("device-1")
	_, stranger := authority(t)
	otherCert, otherKey := stranger("device-1")
	s := startServe(t, "--client-ca", ca, "--acl", writeFile(t, "rules", "allow both own/%u/#\n"))
	for _, carrier := range []string{"tls", "wss", "wss+h3", "quic", "wt"} {
		t.Run(carrier, func(t *testing.T) {
			pub := func(topic string, args ...string) (int, string) {
				code, _, stderr := anyquic(t, append([]string{"mqtt", "pub", s.url(carrier), "--insecure", "-t", topic, "-m", "m", "-q", "1"}, args...)...)
				return code, stderr
			}
			code, stderr := pub("own/device-1/x", "--cert", cert, "--key", key)
			require.Zero(t, code, stderr)
			code, stderr = pub("own/device-2/x", "--cert", cert, "--key", key)
			require.Equal(t, 1, code)
			require.Contains(t, stderr, "0x87")
			code, stderr = pub("own/device-1/x")
			require.Equal(t, 1, code)
			require.Contains(t, stderr, "0x86")
			code, _ = pub("own/device-1/x", "--cert", otherCert, "--key", otherKey)
			require.Equal(t, 1, code, "another authority's certificate")
		})
	}
}

func TestWhatOpensTheBrokerToEveryoneMustBeSaid(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:1883", "broker.example:1883"} {
		code, _, stderr := anyquic(t, "serve", "--check", "--quic", addr)
		require.Equal(t, 1, code, addr)
		require.Contains(t, stderr, "--quic "+addr+": not on loopback")
		require.Contains(t, stderr, "--allow-anonymous")
		for _, ok := range [][]string{{"--allow-anonymous"}, {"--users", "u"}, {"--jwks", "j"}, {"--client-ca", "c"}, {"--auth-http", "https://x/"}} {
			code, _, stderr := anyquic(t, append([]string{"serve", "--check", "--quic", addr}, ok...)...)
			require.Zero(t, code, stderr)
		}
		code, _, _ = anyquic(t, "serve", "--check", "--quic", addr, "--acl", "rules")
		require.Equal(t, 1, code, "rules say nothing about who a client is")
	}
	for _, addr := range []string{"127.0.0.1:0", "127.8.8.8:0", "[::1]:0", "localhost:0"} {
		code, _, stderr := anyquic(t, "serve", "--check", "--quic", addr)
		require.Zero(t, code, stderr)
	}
}

func TestRulesDoNotBelieveAUserNameThatNobodyHasProven(t *testing.T) {
	s := startServe(t, "--acl", writeFile(t, "rules", "allow user=admin both #\nallow both open/#\n"))
	code, _, stderr := anyquic(t, "mqtt", "pub", s.url("tcp"), "-u", "admin", "-P", "x", "-t", "open/x", "-m", "m", "-q", "1")
	require.Zero(t, code, stderr)
	code, _, stderr = anyquic(t, "mqtt", "pub", s.url("tcp"), "-u", "admin", "-P", "x", "-t", "closed/x", "-m", "m", "-q", "1")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "0x87")
}

func TestAnonymousClientsAreLetInBesideUsersIfThatIsSaid(t *testing.T) {
	users := writeFile(t, "users", passwdLine(t, "alice", "secret"))
	s := startServe(t, "--users", users, "--auth-timeout", "1m", "--connect-timeout", "1m", "--allow-anonymous", "--acl", writeFile(t, "rules", "allow user=* both #\nallow both open/#\n"))
	for want, args := range map[string][]string{
		"":     {"-t", "open/x"},
		"0x87": {"-t", "closed/x"},
		"0x86": {"-t", "open/x", "-u", "alice", "-P", "wrong"},
	} {
		code, _, stderr := anyquic(t, append([]string{"mqtt", "pub", s.url("tcp"), "-m", "m", "-q", "1"}, args...)...)
		require.Equal(t, want != "", code != 0)
		require.Contains(t, stderr, want)
	}
	code, _, stderr := anyquic(t, "mqtt", "pub", s.url("tcp"), "-m", "m", "-q", "1", "-t", "closed/x", "-u", "alice", "-P", "secret")
	require.Zero(t, code, stderr)
}

func TestAMistakeInAnAccessFileStopsTheProgramWithItsLine(t *testing.T) {
	for want, args := range map[string][]string{
		"--users: auth: ":                      {"--users", writeFile(t, "f", "alice\n")},
		"f:1: no colon":                        {"--users", writeFile(t, "f", "alice\n")},
		"f:2: \"permit\"":                      {"--acl", writeFile(t, "f", "allow read a\npermit read b\n")},
		"not a JSON Web Key Set":               {"--jwks", writeFile(t, "f", "?")},
		"no PEM certificate":                   {"--client-ca", writeFile(t, "f", "?")},
		`"serial" names no part`:               {"--client-ca", writeFile(t, "f", "?"), "--client-name", "serial"},
		"in the clear":                         {"--auth-http", "http://example.com/"},
		"--jwt-issuer and --jwt-audience need": {"--jwt-issuer", "x"},
		"--auth-http-ca needs":                 {"--auth-http-ca", "x"},
		"--auth-timeout":                       {"--auth-timeout", "0s"},
		"/nowhere":                             {"--users", "/nowhere"},
	} {
		code, _, stderr := anyquic(t, append([]string{"serve"}, args...)...)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, want)
	}
}

func TestPasswdRefusesNamesAndPasswordsThatCannotBe(t *testing.T) {
	for want, tt := range map[string]struct{ name, input string }{
		`user name "a:b"`: {"a:b", "x"},
		`user name "#a"`:  {"#a", "x"},
		`user name ""`:    {"", "x"},
		"empty":           {"a", "\n"},
	} {
		code, stdout, stderr := anyquicWithInput(t, tt.input, "mqtt", "passwd", tt.name)
		require.Equal(t, 1, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
	}
	line := passwdLine(t, "a", "of a user")
	require.True(t, strings.HasPrefix(line, "a:$argon2id$v=19$m="), line)
	line = passwdLine(t, "a", "of a user", "--scram")
	require.True(t, strings.HasPrefix(line, "a:SCRAM-SHA-256$"), line)
}

func TestAccessIsReadAgainWithoutEndingAConnection(t *testing.T) {
	users, rules := writeFile(t, "users", userLine(t, "alice", "pass 1")), writeFile(t, "rules", "allow both #\n")
	cfg := accessConfig{Users: users, ACL: rules, ClientName: "cn", Timeout: time.Minute}
	a, err := cfg.open()
	require.NoError(t, err)
	defer a.close()
	bc := new(broker.Config)
	a.guard(bc, cfg.Timeout)
	b, err := broker.New(bc)
	require.NoError(t, err)
	defer b.Close()
	ops := &operations{broker: b, log: slog.New(slog.DiscardHandler)}
	ops.watch(a)
	require.Len(t, ops.reloaders, 1)
	reload := func() error { return ops.reloaders[0].Reload() }
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- b.Serve(ln, mqtt.TCP) }() // ends with b
	dial := func(user, password string) (*client.Client, error) {
		return client.Dial(t.Context(), &client.Config{URL: "mqtt://" + ln.Addr().String(), Username: user, Password: []byte(password), Reconnect: client.Backoff{Disabled: true}})
	}
	c, err := dial("alice", "pass 1")
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Subscribe(t.Context(), nil, packet.Subscription{Filter: "a"}, packet.Subscription{Filter: "b"})
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(users, []byte(userLine(t, "bob", "pass 2")), 0o600))
	require.NoError(t, os.WriteFile(rules, []byte("mistake\n"), 0o600))
	require.ErrorContains(t, reload(), "rules:1")
	require.Equal(t, 2, b.Stats().Subscriptions)
	again, err := dial("alice", "pass 1")
	require.NoError(t, err, "all or nothing")
	defer again.Close()
	require.NoError(t, os.WriteFile(rules, []byte("allow both a\n"), 0o600))
	require.NoError(t, reload())
	require.Equal(t, 1, b.Stats().Subscriptions)
	_, err = dial("alice", "pass 1")
	require.Error(t, err)
	other, err := dial("bob", "pass 2")
	require.NoError(t, err)
	defer other.Close()
	require.True(t, c.Connected())
	_, err = c.Publish(t.Context(), &packet.Publish{Topic: "a", QoS: 1})
	require.NoError(t, err)
	_, err = c.Publish(t.Context(), &packet.Publish{Topic: "b", QoS: 1})
	require.Error(t, err)
	require.NoError(t, b.Close())
	require.NoError(t, <-served)
}

func TestSeriesOfAccessAndQuotasMove(t *testing.T) {
	s := startServe(t, "--users", writeFile(t, "users", userLine(t, "alice", "of alice")), "--acl", writeFile(t, "rules", "allow both open/#\n"),
		"--auth-http", "http://127.0.0.1:1/", "--auth-timeout", "1m", "--connections-per-listener", "1", "--message-rate", "3")
	try := func(want packet.ReasonCode, user, password string) {
		t.Helper()
		_, err := client.Dial(t.Context(), &client.Config{URL: s.url("ws"), Dialers: dialers(engine.Default()), Username: user, Password: []byte(password)})
		var refused *client.ConnectError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, want, refused.Code)
	}
	alone := func() {
		t.Helper()
		require.Eventually(t, func() bool { return s.scrape(t)[`mqtt_connections{carrier="ws"}`] == 0 }, patience, 5*time.Millisecond)
	}
	try(packet.BadUserNameOrPassword, "alice", "wrong")
	alone()
	try(packet.ServerUnavailable, "mallory", "nobody listens there")
	alone()
	c, err := client.Dial(t.Context(), &client.Config{URL: s.url("ws"), Dialers: dialers(engine.Default()), Username: "alice", Password: []byte("of alice")})
	require.NoError(t, err)
	defer c.Close()
	try(packet.ServerBusy, "alice", "of alice")
	_, err = c.Subscribe(t.Context(), nil, packet.Subscription{Filter: "closed/x"})
	require.Error(t, err)
	const throttled = `mqtt_clients_throttled_total{limit="client"}`
	for s.scrape(t)[throttled] == 0 { // a busy machine may take longer over nine than they may take
		for range 9 {
			_, err = c.Publish(t.Context(), &packet.Publish{Topic: "open/x"})
			require.NoError(t, err)
		}
		_, err = c.Publish(t.Context(), &packet.Publish{Topic: "open/x", QoS: 1}) // what was before has come
		require.NoError(t, err)
	}
	_, err = c.Publish(t.Context(), &packet.Publish{Topic: "closed/x", QoS: 1})
	require.Error(t, err)
	s.counts(t, map[string]float64{
		`mqtt_denied_total`:                                    2,
		`mqtt_hooks_failed_total`:                              1,
		`mqtt_subscriptions_denied_total`:                      1,
		`mqtt_messages_dropped_total{reason="denied"}`:         1,
		`mqtt_connections_above_quota_total{limit="listener"}`: 1,
		`mqtt_logins_failed_total`:                             1, // mallory's was the web server's failure
		`mqtt_passwords_checked_total`:                         3, // who is refused for the listener's limit has none checked
		`mqtt_passwords_refused_total`:                         0,
		`mqtt_passwords_waiting`:                               0,
		`mqtt_connections_pending`:                             0,
	})
}

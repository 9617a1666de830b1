package auth_test

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/auth"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// write writes a file and returns its name.
func write(t testing.TB, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

func rewrite(t testing.TB, file, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
}

func password(name, password string) *broker.Credentials {
	return &broker.Credentials{Client: broker.ClientInfo{Username: name}, HasUsername: true, Password: []byte(password)}
}

func withTLS(s *tls.ConnectionState) *broker.Credentials {
	return &broker.Credentials{Client: broker.ClientInfo{TLS: s}}
}

// admits requires that a client is admitted as a user.
func admits(t testing.TB, a broker.Authenticator, c *broker.Credentials, user string) broker.Identity {
	t.Helper()
	id, err := a.Authenticate(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, user, id.Username)
	return id
}

// refuses requires that a client is refused with a code, and for a reason.
func refuses(t testing.TB, a broker.Authenticator, c *broker.Credentials, code packet.ReasonCode, reason string) {
	t.Helper()
	_, err := a.Authenticate(t.Context(), c)
	var d *broker.Denied
	require.ErrorAs(t, err, &d)
	require.Equal(t, code, d.Code)
	require.Contains(t, d.Reason, reason)
}

func passes(t testing.TB, a broker.Authenticator, c *broker.Credentials) {
	t.Helper()
	_, err := a.Authenticate(t.Context(), c)
	require.ErrorIs(t, err, auth.ErrNotMine)
}

func tcp(addr string) net.Addr {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		panic(err)
	}
	return a
}

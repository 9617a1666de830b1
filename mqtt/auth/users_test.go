package auth_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/anyquic/anyquic/mqtt/auth"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Vectors that other programs made: argon2 (the reference implementation's own
// test vector), htpasswd -B, and PostgreSQL's for the password "pencil" with the
// salt of RFC 7677, Section 3.
const (
	argonOfPassword = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	scramOfPencil   = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)

func bcryptOf(t testing.TB, p string) string {
	h, err := bcrypt.GenerateFromPassword([]byte(p), bcrypt.MinCost)
	require.NoError(t, err)
	return string(h)
}

func hashed(t testing.TB, p string, scram bool) string {
	h, err := auth.HashPassword([]byte(p), scram)
	require.NoError(t, err)
	return h
}

func TestUsersOfAFileAreAdmittedWithTheirPasswords(t *testing.T) {
	u, err := auth.OpenUsers(write(t, "\ufeff# users\n\nalice:"+argonOfPassword+"\nbob:"+bcryptOf(t, "secret")+
		"\ncarol:"+scramOfPencil+"\ndave:"+hashed(t, "d", false)+"\n erin the:"+hashed(t, "e", true)+"\r\n"))
	require.NoError(t, err)
	right := map[string]string{"alice": "password", "bob": "secret", "carol": "pencil", "dave": "d", "erin the": "e"}
	for name, p := range right {
		require.Zero(t, admits(t, u, password(name, p), name).Expires)
		for _, wrong := range []string{"", p + "x", strings.ToUpper(p), p[1:]} {
			refuses(t, u, password(name, wrong), packet.BadUserNameOrPassword, "wrong password")
		}
	}
	passes(t, u, password("mallory", "password"))
	passes(t, u, password("", ""))
	passes(t, u, &broker.Credentials{})
	passes(t, u, &broker.Credentials{Client: broker.ClientInfo{Username: "alice"}, HasUsername: true})
}

func TestAMistakeInTheUsersFileIsNamedWithItsLine(t *testing.T) {
	_, err := auth.OpenUsers(write(t, strings.Join([]string{
		"good:" + scramOfPencil,
		"secret password",
		":" + scramOfPencil,
		"good:" + scramOfPencil,
		"plain:secret",
		"a1:$argon2id$v=18$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"a2:$argon2id$v=19$m=99999999,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"a3:$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$short",
		"a4:$argon2id$v=19$m=65536,t=2$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"b1:$2b$31$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuuabcdefghijkl",
		"b2:$2b$05$short",
		"s1:SCRAM-SHA-256$1:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
		"s2:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$short:short",
	}, "\n")))
	for _, want := range []string{
		"file:2: no colon", "file:3: the name is empty", `file:4: user "good" was on line 1`, `file:5: user "plain": unknown kind`,
		"file:6: user \"a1\": argon2id hash: version", "file:7: user \"a2\": argon2id hash: m=99999999", "file:8: user \"a3\": argon2id hash: hash",
		"file:9: user \"a4\": argon2id hash: parameters", "file:10: user \"b1\": bcrypt hash: cost", "file:11: user \"b2\": bcrypt hash: malformed",
		"file:12: user \"s1\": SCRAM hash: iterations", "file:13: user \"s2\": SCRAM hash: a key",
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "secret", "it may be a password")
	_, err = auth.OpenUsers(write(t, "# nobody\n"))
	require.ErrorContains(t, err, "no users")
	_, err = auth.OpenUsers("/nowhere/users")
	require.ErrorContains(t, err, "/nowhere/users")
}

func TestAReloadOfUsersIsDoneAtOnceOrNotAtAll(t *testing.T) {
	file := write(t, "alice:"+scramOfPencil)
	u, err := auth.OpenUsers(file)
	require.NoError(t, err)
	rewrite(t, file, "bob:"+scramOfPencil+"\nmistake")
	require.ErrorContains(t, u.Reload(), ":2:")
	admits(t, u, password("alice", "pencil"), "alice")
	passes(t, u, password("bob", "pencil"))
	rewrite(t, file, "bob:"+scramOfPencil)
	require.NoError(t, u.Reload())
	passes(t, u, password("alice", "pencil"))
	admits(t, u, password("bob", "pencil"), "bob")
}

// An unknown user must cost what a known one does. What a computation takes of time
// depends on what else the machine does; the memory that argon2id fills does not.
func TestAnUnknownUserCostsWhatAWrongPasswordDoes(t *testing.T) {
	u, err := auth.OpenUsers(write(t, "alice:"+hashed(t, "x", false)))
	require.NoError(t, err)
	cost := func(name string) float64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := u.Authenticate(t.Context(), password(name, "wrong"))
		runtime.ReadMemStats(&after)
		require.Error(t, err)
		return float64(after.TotalAlloc - before.TotalAlloc)
	}
	known := cost("alice")
	require.Greater(t, known, float64(8<<20), "something was computed")
	require.InEpsilon(t, known, cost("mallory"), 0.05)
}

func TestWhatCannotBeAPasswordIsNotHashed(t *testing.T) {
	for _, p := range []string{"", strings.Repeat("x", 65536)} {
		_, err := auth.HashPassword([]byte(p), false)
		require.Error(t, err)
	}
	_, err := auth.HashPassword([]byte("bell\a"), true)
	require.ErrorContains(t, err, "SASLprep")
	require.NotEqual(t, hashed(t, "x", false), hashed(t, "x", false), "salted")
}

func FuzzUsers(f *testing.F) {
	f.Add(argonOfPassword)
	f.Add(scramOfPencil)
	f.Add("$2b$05$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuuabcdefghij")
	f.Fuzz(func(t *testing.T, hash string) {
		_, _ = auth.OpenUsers(write(t, "name:"+hash)) // no panic
	})
}

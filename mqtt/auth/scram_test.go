package auth_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/auth"
	"github.com/anyquic/anyquic/mqtt/broker"
)

// converse runs an exchange between both sides and returns what the server found out.
func converse(t testing.TB, u *auth.Users, s *auth.SCRAM, c *broker.Credentials) (*broker.Identity, error) {
	t.Helper()
	x := u.NewExchange(auth.SCRAMSHA256, c)
	require.NotNil(t, x)
	data, next, err := s.Start()
	require.NoError(t, err)
	for {
		reply, id, err := x.Next(t.Context(), data)
		if err != nil {
			return nil, err
		}
		if data, err = next(reply, id != nil); err != nil || id != nil {
			return id, err
		}
	}
}

func scramUsers(t testing.TB, lines string) *auth.Users {
	u, err := auth.OpenUsers(write(t, lines))
	require.NoError(t, err)
	return u
}

func newSCRAM(t testing.TB, name, password string) *auth.SCRAM {
	s, err := auth.NewSCRAM(name, password)
	require.NoError(t, err)
	return s
}

func TestBothSidesOfSCRAMProveThatTheyKnowThePassword(t *testing.T) {
	u := scramUsers(t, "user:"+scramOfPencil+"\na=b,c:"+hashed(t, "päss wörd", true)+"\nother:"+argonOfPassword)
	none := &broker.Credentials{}
	for _, c := range []*broker.Credentials{none, {Client: broker.ClientInfo{Username: "user"}, HasUsername: true}} {
		id, err := converse(t, u, newSCRAM(t, "user", "pencil"), c)
		require.NoError(t, err)
		require.Equal(t, "user", id.Username)
	}
	id, err := converse(t, u, newSCRAM(t, "a=b,c", "päss wörd"), none)
	require.NoError(t, err)
	require.Equal(t, "a=b,c", id.Username)

	for _, who := range [][2]string{{"user", "Pencil"}, {"mallory", "pencil"}, {"other", "password"}} {
		_, err := converse(t, u, newSCRAM(t, who[0], who[1]), none)
		require.ErrorContains(t, err, "wrong password or unknown user")
	}
	_, err = converse(t, u, newSCRAM(t, "user", "pencil"), &broker.Credentials{Client: broker.ClientInfo{Username: "carol"}, HasUsername: true})
	require.ErrorContains(t, err, "not the user of CONNECT")

	require.Nil(t, u.NewExchange("SCRAM-SHA-1", none))
	require.Nil(t, scramUsers(t, "other:"+argonOfPassword).NewExchange(auth.SCRAMSHA256, none), "nobody could use it")
}

// RFC 7677, Section 3, with the client's and the server's nonce as they come.
func TestTheFirstAnswerIsTheSameKindForUnknownUsers(t *testing.T) {
	u := scramUsers(t, "user:"+scramOfPencil)
	first := func(name string) (salt, rounds string) {
		x := u.NewExchange(auth.SCRAMSHA256, &broker.Credentials{})
		reply, id, err := x.Next(t.Context(), []byte("n,,n="+name+",r=abcdefgh"))
		require.NoError(t, err)
		require.Nil(t, id)
		parts := strings.Split(string(reply), ",")
		require.Len(t, parts, 3)
		require.True(t, strings.HasPrefix(parts[0], "r=abcdefgh"))
		return parts[1], parts[2]
	}
	salt, rounds := first("user")
	require.Equal(t, "s=W22ZaJ0SNY7soEsUEjb6gQ==", salt)
	fake, fakeRounds := first("mallory")
	require.Equal(t, rounds, fakeRounds)
	require.Len(t, fake, len(salt))
	again, _ := first("mallory")
	require.Equal(t, fake, again)
	other, _ := first("trudy")
	require.NotEqual(t, fake, other)
}

func TestAServerThatDoesNotProveItselfIsNotTrusted(t *testing.T) {
	start := func() (string, func([]byte, bool) ([]byte, error)) {
		data, next, err := newSCRAM(t, "user", "pencil").Start()
		require.NoError(t, err)
		return strings.SplitAfter(string(data), "r=")[1], next
	}
	_, next := start()
	_, err := next(nil, true)
	require.Error(t, err, "success without a word")

	nonce, next := start()
	_, err = next([]byte("r="+nonce+"x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"), false)
	require.NoError(t, err)
	_, err = next([]byte("v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), true)
	require.Error(t, err, "a wrong signature")

	for _, rounds := range []string{"1", "999999999", "99999999999999999999"} {
		nonce, next = start()
		_, err = next([]byte("r="+nonce+"x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i="+rounds), false)
		require.ErrorContains(t, err, "iteration", rounds)
	}
	nonce, next = start()
	_, err = next([]byte("r="+nonce+"x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"), true)
	require.ErrorContains(t, err, "did not prove")
}

func FuzzSCRAM(f *testing.F) {
	f.Add("n,,n=user,r=abc", "c=biws,r=abc,p=AAAA")
	f.Add("y,,n=us=2Cer,r=abc", "")
	f.Add("p=tls-unique,a=x,n=user,r=abc", "c=,r=,p=")
	u := scramUsers(f, "user:"+scramOfPencil)
	f.Fuzz(func(t *testing.T, first, final string) {
		x := u.NewExchange(auth.SCRAMSHA256, &broker.Credentials{})
		if _, id, err := x.Next(t.Context(), []byte(first)); err == nil {
			require.Nil(t, id)
			_, id, err = x.Next(t.Context(), []byte(final))
			require.Error(t, err, "nobody can guess the proof")
			require.Nil(t, id)
		}
	})
}

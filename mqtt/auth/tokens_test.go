package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/auth"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A signer makes tokens with one key.
type signer struct {
	kid string
	alg jose.SignatureAlgorithm
	key crypto.Signer
}

func (s signer) token(t testing.TB, c claims) string {
	t.Helper()
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if s.kid != "" {
		opts.WithHeader("kid", s.kid)
	}
	sig, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: s.key}, opts)
	require.NoError(t, err)
	text, err := jwt.Signed(sig).Claims(map[string]any(c)).Serialize()
	require.NoError(t, err)
	return text
}

func jwks(t testing.TB, keys ...jose.JSONWebKey) string {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	require.NoError(t, err)
	return string(text)
}

func newSigners(t testing.TB) []signer {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	ec := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		require.NoError(t, err)
		return k
	}
	return []signer{
		{"rsa", jose.RS256, rsaKey},
		{"rsa", jose.PS512, rsaKey},
		{"p256", jose.ES256, ec(elliptic.P256())},
		{"p384", jose.ES384, ec(elliptic.P384())},
		{"p521", jose.ES512, ec(elliptic.P521())},
		{"ed", jose.EdDSA, edKey},
	}
}

func public(signers []signer) []jose.JSONWebKey {
	var keys []jose.JSONWebKey
	for i, s := range signers {
		if i == 0 || signers[i-1].kid != s.kid {
			keys = append(keys, jose.JSONWebKey{KeyID: s.kid, Key: s.key.Public(), Use: "sig"})
		}
	}
	return keys
}

type claims map[string]any

func (c claims) with(key string, v any) claims {
	n := claims{}
	for k, v := range c {
		n[k] = v
	}
	if v == nil {
		delete(n, key)
	} else {
		n[key] = v
	}
	return n
}

func valid() claims {
	return claims{"sub": "alice", "iss": "us", "aud": []string{"mqtt", "other"}, "exp": time.Now().Add(time.Hour).Unix()}
}

func openTokens(t testing.TB, keys string) *auth.Tokens {
	t.Helper()
	tokens, err := auth.OpenTokens(auth.TokensConfig{Keys: write(t, keys), Issuer: "us", Audience: "mqtt"})
	require.NoError(t, err)
	return tokens
}

func TestTokensOfEveryAlgorithmAreAcceptedWhereverTheyAre(t *testing.T) {
	signers := newSigners(t)
	tokens := openTokens(t, jwks(t, public(signers)...))
	for _, s := range signers {
		for _, s.kid = range []string{s.kid, ""} {
			text := s.token(t, valid())
			id := admits(t, tokens, password("whoever", text), "alice")
			require.WithinDuration(t, time.Now().Add(time.Hour+30*time.Second), id.Expires, time.Minute)
			admits(t, tokens, &broker.Credentials{Client: broker.ClientInfo{Username: text}, HasUsername: true}, "alice")
			_, by, err := tokens.NewExchange(auth.MethodJWT, &broker.Credentials{}).Next(t.Context(), []byte(text))
			require.NoError(t, err)
			require.Equal(t, id, *by)
		}
	}
	require.Nil(t, tokens.NewExchange("other", &broker.Credentials{}))
	for _, other := range []string{"", "secret", "a.b.c", "eyno", "ey.with space.x"} {
		passes(t, tokens, password("u", other))
	}
}

func TestATokenThatIsNotGoodIsRefusedAndItsReasonKnown(t *testing.T) {
	signers := newSigners(t)
	tokens := openTokens(t, jwks(t, public(signers)...))
	s := signers[2]
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for reason, c := range map[string]claims{
		"has expired":            valid().with("exp", at(-time.Minute)),
		"not valid yet":          valid().with("nbf", at(time.Hour)),
		"issued in the future":   valid().with("iat", at(time.Hour)),
		"another issuer":         valid().with("iss", "them"),
		"another audience":       valid().with("aud", "http"),
		"has no time":            valid().with("exp", nil),
		"names no user":          valid().with("sub", nil),
		"its claims are":         valid().with("exp", "tomorrow"),
		"claim sub names no use": valid().with("sub", ""),
	} {
		refuses(t, tokens, password("u", s.token(t, c)), packet.NotAuthorized, reason)
	}
	admits(t, tokens, password("u", s.token(t, valid().with("exp", at(-time.Second)))), "alice") // clocks differ
	refuses(t, tokens, password("u", s.token(t, valid().with("x", strings.Repeat("x", 20<<10)))), packet.NotAuthorized, "too long")

	good := s.token(t, valid())
	parts := strings.Split(good, ".")
	enc := base64.RawURLEncoding.EncodeToString
	for name, text := range map[string]string{
		"changed claims":    parts[0] + "." + enc([]byte(`{"sub":"root","iss":"us","aud":"mqtt","exp":99999999999}`)) + "." + parts[2],
		"changed signature": parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"no signature":      parts[0] + "." + parts[1] + ".",
		"none":              enc([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"None":              enc([]byte(`{"alg":"None"}`)) + "." + parts[1] + "." + parts[2],
		"another algorithm": enc([]byte(`{"alg":"RS256","kid":"p256"}`)) + "." + parts[1] + "." + parts[2],
		"key in the header": enc([]byte(`{"alg":"ES256","jwk":{}}`)) + "." + parts[1] + "." + parts[2],
	} {
		t.Run(name, func(t *testing.T) { refuses(t, tokens, password("u", text), packet.NotAuthorized, "token: ") })
	}

	// The public key as the secret of an HMAC, as the well-known attack has it.
	der, err := json.Marshal(public(signers)[0])
	require.NoError(t, err)
	hs, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: der}, nil)
	require.NoError(t, err)
	forged, err := jwt.Signed(hs).Claims(map[string]any(valid())).Serialize()
	require.NoError(t, err)
	refuses(t, tokens, password("u", forged), packet.NotAuthorized, "algorithm that is not accepted")

	stranger := newSigners(t)[2]
	refuses(t, tokens, password("u", stranger.token(t, valid())), packet.NotAuthorized, "none of the keys")
	other := s
	other.kid = "ed"
	refuses(t, tokens, password("u", other.token(t, valid())), packet.NotAuthorized, "none of the keys")
}

func TestAFileOfKeysThatIsNotSafeIsRefused(t *testing.T) {
	signers := newSigners(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Setenv("GODEBUG", "rsa1024min=0")
		weak, err = rsa.GenerateKey(rand.Reader, 1024)
		require.NoError(t, err)
	}
	p256 := signers[2].key
	for want, text := range map[string]string{
		"not a JSON Web Key Set": "?",
		"no key for signatures":  `{"keys":[]}`,
		"a secret key":           jwks(t, jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef")}),
		"not a public key":       jwks(t, jose.JSONWebKey{Key: p256}),
		"1024 bits":              jwks(t, jose.JSONWebKey{Key: weak.Public()}),
		`"HS256" is not`:         jwks(t, jose.JSONWebKey{Key: p256.Public(), Algorithm: "HS256"}),
		"not the only one":       jwks(t, jose.JSONWebKey{Key: p256.Public(), KeyID: "a"}, jose.JSONWebKey{Key: p256.Public(), KeyID: "a"}),
		"key 1:":                 `{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`,
	} {
		_, err := auth.OpenTokens(auth.TokensConfig{Keys: write(t, text)})
		require.ErrorContains(t, err, want)
	}
	file := write(t, jwks(t, public(signers)...))
	tokens, err := auth.OpenTokens(auth.TokensConfig{Keys: file, User: "iss"})
	require.NoError(t, err)
	rewrite(t, file, "?")
	require.Error(t, tokens.Reload())
	admits(t, tokens, password("u", signers[2].token(t, valid())), "us")
	rewrite(t, file, jwks(t, jose.JSONWebKey{Key: signers[5].key.Public(), KeyID: "ed"}))
	require.NoError(t, tokens.Reload())
	refuses(t, tokens, password("u", signers[2].token(t, valid())), packet.NotAuthorized, "none of the keys")
}

func FuzzTokens(f *testing.F) {
	signers := newSigners(f)
	tokens := openTokens(f, jwks(f, public(signers)...))
	good := make(map[string]bool)
	for _, s := range signers {
		text := s.token(f, valid().with("exp", 99999999999))
		good[signedPart(text)] = true
		f.Add(text)
	}
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := tokens.Authenticate(t.Context(), password("u", text)); err == nil {
			require.True(t, good[signedPart(text)], "a forged token")
		}
	})
}

// signedPart is a token without its signature.
func signedPart(text string) string { return text[:max(0, strings.LastIndexByte(text, '.'))] }

package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// algorithms are those that tokens may be signed with. None of them lets who can
// check a signature make one, so "none" and the HMACs are not among them.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// A keySet is what a JWKS file (RFC 7517) has for checking signatures.
type keySet []jose.JSONWebKey

const (
	minRSABits = 2048
	maxKeys    = 64
)

func readKeys(file string) (keySet, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("auth: %s: %w", file, err)
	}
	return keys, nil
}

func parseKeys(text []byte) (keySet, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("not a JSON Web Key Set: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys: at most %d", len(set.Keys), maxKeys)
	}
	var keys keySet
	var all []error
	ids := make(map[string]bool)
	for i, raw := range set.Keys {
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON(raw); err != nil {
			all = append(all, fmt.Errorf("key %d: %w", i+1, err))
			continue
		}
		if k.Use != "" && k.Use != "sig" {
			continue // for encryption
		}
		if err := checkKey(&k); err != nil {
			all = append(all, fmt.Errorf("key %d (kid %q): %w", i+1, k.KeyID, err))
			continue
		}
		if k.KeyID != "" && ids[k.KeyID] {
			all = append(all, fmt.Errorf("key %d: kid %q is not the only one", i+1, k.KeyID))
			continue
		}
		ids[k.KeyID] = true
		keys = append(keys, k)
	}
	if len(all) == 0 && len(keys) == 0 {
		all = append(all, errors.New("no key for signatures in it"))
	}
	return keys, errors.Join(all...)
}

func checkKey(k *jose.JSONWebKey) error {
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return fmt.Errorf("RSA key of %d bits: at least %d", bits, minRSABits)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case []byte:
		return errors.New("a secret key: who can check tokens with it could make them")
	default:
		return errors.New("not a public key: keep the private part where tokens are made")
	}
	if k.Algorithm != "" && !known(jose.SignatureAlgorithm(k.Algorithm)) {
		return fmt.Errorf("algorithm %q is not accepted", k.Algorithm)
	}
	return nil
}

func known(a jose.SignatureAlgorithm) bool {
	for _, k := range algorithms {
		if k == a {
			return true
		}
	}
	return false
}

// candidates are the keys that may have signed a token with this header: the one
// with its kid, or, if it has none, all of its algorithm.
func (s keySet) candidates(h jose.Header) keySet {
	var found keySet
	for _, k := range s {
		if (h.KeyID == "" || k.KeyID == h.KeyID) && (k.Algorithm == "" || k.Algorithm == h.Algorithm) {
			found = append(found, k)
		}
	}
	return found
}

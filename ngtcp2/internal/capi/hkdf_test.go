//go:build ngtcp2 && cgo

package capi

import (
	stdhkdf "crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKeysAreDerivedAsTheStandardLibraryDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, sha384 := range []bool{false, true} {
		h := sha256.New
		if sha384 {
			h = sha512.New384
		}
		// Keys longer than a block, blocks that end with the text, and many blocks.
		for _, sizes := range [][4]int{{32, 20, 19, 32}, {48, 0, 0, 48}, {1, 300, 54, 12}, {200, 64, 55, 33}, {64, 128, 200, 1000}} {
			secret, salt, info, n := id(r, sizes[0]), id(r, sizes[1]), id(r, sizes[2]), sizes[3]
			got, ok := hkdf(sha384, secret, salt, info, n)
			require.True(t, ok)
			want, err := stdhkdf.Key[hash.Hash](h, secret, salt, string(info), n)
			require.NoError(t, err)
			require.Equal(t, want, got, fmt.Sprint(sha384, sizes))
		}
		size := h().Size()
		_, ok := hkdf(sha384, id(r, 32), []byte{}, []byte{}, 255*size)
		require.True(t, ok)
		_, ok = hkdf(sha384, id(r, 32), []byte{}, []byte{}, 255*size+1)
		require.False(t, ok, "RFC 5869, Section 2.3: L <= 255*HashLen")
	}
}

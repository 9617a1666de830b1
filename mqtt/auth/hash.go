package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// A hash verifies a password. verify takes as long for a wrong one as for the
// right one.
type hash interface {
	verify(password []byte) bool
	processors() int // that verify keeps busy
}

// parseHash reads a hash in one of the forms that [OpenUsers] names.
func parseHash(s string) (hash, error) {
	switch {
	case strings.HasPrefix(s, "$argon2id$"):
		return parseArgon2id(s)
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		return parseBcrypt(s)
	case strings.HasPrefix(s, scramPrefix):
		return parseScram(s)
	}
	// The text is not quoted: it may be a password.
	return nil, errors.New("unknown kind of password hash: use $argon2id$, $2b$ (bcrypt) or SCRAM-SHA-256$, as \"anyquic mqtt passwd\" makes them")
}

type bcryptHash []byte

func (bcryptHash) processors() int      { return 1 }
func (*scramHash) processors() int      { return 1 }
func (h *argon2idHash) processors() int { return int(h.threads) }

// maxBcryptCost keeps one login below a second or so.
const maxBcryptCost = 16

func parseBcrypt(s string) (hash, error) {
	cost, err := bcrypt.Cost([]byte(s))
	if err != nil {
		return nil, errors.New("bcrypt hash: malformed")
	}
	if cost > maxBcryptCost {
		return nil, fmt.Errorf("bcrypt hash: cost %d is above %d, which takes too long", cost, maxBcryptCost)
	}
	// The length is not checked by Cost: 22 characters of salt and 31 of hash.
	if len(s) != 60 {
		return nil, errors.New("bcrypt hash: malformed")
	}
	return bcryptHash(s), nil
}

func (h bcryptHash) verify(password []byte) bool {
	return bcrypt.CompareHashAndPassword(h, password) == nil
}

// An argon2idHash is RFC 9106's, in the PHC string form.
type argon2idHash struct {
	memory, time uint32 // KiB, passes
	threads      uint8
	salt, key    []byte
}

// The parameters of new hashes are the second of OWASP's and RFC 9106's
// recommendations for a server; those of files may be others, within bounds.
const (
	argonMemory    = 19 << 10 // KiB
	argonTime      = 2
	argonThreads   = 1
	maxArgonMemory = 1 << 20 // KiB
	maxArgonTime   = 64
	saltSize       = 16
	keySize        = 32
)

func parseArgon2id(s string) (hash, error) {
	parts := strings.Split(s, "$") // "", argon2id, v=19, m=..,t=..,p=.., salt, key
	if len(parts) != 6 {
		return nil, errors.New("argon2id hash: has not the form $argon2id$v=19$m=…,t=…,p=…$salt$hash")
	}
	if parts[2] != "v=19" {
		return nil, errors.New("argon2id hash: version is not 19")
	}
	var h argon2idHash
	params := strings.Split(parts[3], ",")
	if len(params) != 3 {
		return nil, errors.New("argon2id hash: parameters are not m, t and p")
	}
	var values [3]uint64
	for i, name := range []string{"m=", "t=", "p="} {
		text, ok := strings.CutPrefix(params[i], name)
		v, err := strconv.ParseUint(text, 10, 32)
		if !ok || err != nil || v == 0 {
			return nil, fmt.Errorf("argon2id hash: %q is not %sNUMBER", params[i], name)
		}
		values[i] = v
	}
	if values[0] > maxArgonMemory || values[1] > maxArgonTime || values[2] > 255 || values[0] < 8*values[2] {
		return nil, fmt.Errorf("argon2id hash: m=%d,t=%d,p=%d: at most m=%d,t=%d,p=255, and m at least 8 times p", values[0], values[1], values[2], maxArgonMemory, maxArgonTime)
	}
	h.memory, h.time, h.threads = uint32(values[0]), uint32(values[1]), uint8(values[2])
	var err error
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(parts[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return nil, errors.New("argon2id hash: salt is not 8 to 64 bytes of base64")
	}
	if h.key, err = base64.RawStdEncoding.Strict().DecodeString(parts[5]); err != nil || len(h.key) < 16 || len(h.key) > 128 {
		return nil, errors.New("argon2id hash: hash is not 16 to 128 bytes of base64")
	}
	return &h, nil
}

func (h *argon2idHash) verify(password []byte) bool {
	key := argon2.IDKey(password, h.salt, h.time, h.memory, h.threads, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

func (h *argon2idHash) String() string {
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", h.memory, h.time, h.threads, enc.EncodeToString(h.salt), enc.EncodeToString(h.key))
}

// A scramHash is what RFC 5802 lets a server keep of a password. It is written
// as PostgreSQL writes it: SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY.
type scramHash struct{ scram.StoredCredentials }

const (
	scramPrefix   = "SCRAM-SHA-256$"
	scramRounds   = 600_000 // of new hashes: OWASP's for PBKDF2 with SHA-256
	minRounds     = 4096    // RFC 7677, Section 4
	maxRounds     = 10_000_000
	clientRounds  = maxRounds
	scramKeyBytes = sha256.Size
)

func parseScram(s string) (hash, error) {
	bad := errors.New("SCRAM hash: has not the form SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY")
	parts := strings.Split(s, "$")
	if len(parts) != 3 {
		return nil, bad
	}
	rounds, salt, ok1 := strings.Cut(parts[1], ":")
	stored, server, ok2 := strings.Cut(parts[2], ":")
	if !ok1 || !ok2 {
		return nil, bad
	}
	n, err := strconv.Atoi(rounds)
	if err != nil || n < minRounds || n > maxRounds {
		return nil, fmt.Errorf("SCRAM hash: iterations are not between %d and %d", minRounds, maxRounds)
	}
	h := &scramHash{scram.StoredCredentials{KeyFactors: scram.KeyFactors{Iters: n}}}
	raw, err := base64.StdEncoding.Strict().DecodeString(salt)
	if err != nil || len(raw) < 8 || len(raw) > 64 {
		return nil, errors.New("SCRAM hash: salt is not 8 to 64 bytes of base64")
	}
	h.Salt = string(raw)
	for _, k := range []struct {
		text string
		to   *[]byte
	}{{stored, &h.StoredKey}, {server, &h.ServerKey}} {
		if *k.to, err = base64.StdEncoding.Strict().DecodeString(k.text); err != nil || len(*k.to) != scramKeyBytes {
			return nil, errors.New("SCRAM hash: a key is not 32 bytes of base64")
		}
	}
	return h, nil
}

func (h *scramHash) verify(password []byte) bool {
	stored, _, err := scramKeys(password, h.Salt, h.Iters)
	if err != nil {
		// SASLprep refuses the password; it takes as long as another.
		stored, _, _ = scramKeys(nil, h.Salt, h.Iters)
		subtle.ConstantTimeCompare(stored, h.StoredKey)
		return false
	}
	return subtle.ConstantTimeCompare(stored, h.StoredKey) == 1
}

func (h *scramHash) String() string {
	enc := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d:%s$%s:%s", scramPrefix, h.Iters, enc([]byte(h.Salt)), enc(h.StoredKey), enc(h.ServerKey))
}

// scramKeys derives the keys of RFC 5802, Section 3.
func scramKeys(password []byte, salt string, rounds int) (stored, server []byte, err error) {
	prepared, err := stringprep.SASLprep.Prepare(string(password))
	if err != nil {
		return nil, nil, errors.New("auth: the password has characters that SASLprep (RFC 4013) forbids")
	}
	salted, err := pbkdf2.Key(sha256.New, prepared, []byte(salt), rounds, sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	mac := func(key []byte, text string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	sum := sha256.Sum256(mac(salted, "Client Key"))
	return sum[:], mac(salted, "Server Key"), nil
}

// HashPassword returns what the line of a user has after the name, for a
// password: an argon2id hash, or, with forSCRAM, one that serves both SCRAM-SHA-256
// and passwords in CONNECT.
func HashPassword(password []byte, forSCRAM bool) (string, error) {
	if len(password) == 0 {
		return "", errors.New("auth: the password is empty")
	}
	if len(password) > 65535 {
		return "", errors.New("auth: the password is longer than MQTT can carry (65535 bytes)")
	}
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	if forSCRAM {
		stored, server, err := scramKeys(password, string(salt), scramRounds)
		if err != nil {
			return "", err
		}
		h := scramHash{scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(salt), Iters: scramRounds}, StoredKey: stored, ServerKey: server,
		}}
		return h.String(), nil
	}
	h := argon2idHash{
		memory: argonMemory, time: argonTime, threads: argonThreads, salt: salt,
		key: argon2.IDKey(password, salt, argonTime, argonMemory, argonThreads, keySize),
	}
	return h.String(), nil
}

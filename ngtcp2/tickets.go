//go:build ngtcp2 && cgo

package ngtcp2

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// Keys that nobody set are made new each day. Three are kept: a ticket is good
// for two days at least.
const (
	ticketKeyRotation = 24 * time.Hour
	ticketKeysKept    = 3
)

// A ticketKey is the key of session tickets, as capi takes it.
type ticketKey = [32]byte

// ticketKeys are the keys of a listener's session tickets.
type ticketKeys struct {
	binding []byte // what tickets are bound to beside the key, the same for all connections

	mu      sync.Mutex
	own     []ticketKey // guarded by mu; the newest first
	created time.Time   // guarded by mu; of own[0]
}

// newTicketKeys binds tickets to what must not change between the connection
// that gets one and the one that uses it: the library that reads it, and for
// 0-RTT the transport parameters, which a client remembers and a server must
// not reduce (RFC 9000, Section 7.4.1). A ticket of another server with the
// same keys but a different binding is as good as none: the client gets a full
// handshake.
func newTicketKeys(cc *connConfig) *ticketKeys {
	b := append([]byte("anyquic/ngtcp2 tickets 1 "), capi.TLSLibrary()...)
	b = append(b, 0)
	if s := &cc.settings; cc.cfg.EarlyData {
		for _, v := range []uint64{
			s.MaxStreams, s.MaxUniStreams, s.StreamWindow, s.ConnWindow, s.MaxDatagramFrame, uint64(s.ActiveConnIDs),
		} {
			b = binary.BigEndian.AppendUint64(b, v)
		}
	}
	return &ticketKeys{binding: b}
}

// get returns the keys for a connection whose configuration is t, the first of
// them for new tickets. Like crypto/tls it takes those that are set in t, else
// those set in the listener's configuration, else its own. nil: no tickets.
//
// They are bound to what t demands of clients: a client that proved nothing
// about itself must not come back with a ticket to a server that asks for more.
func (k *ticketKeys) get(listener, t *tls.Config) []ticketKey {
	if t.SessionTicketsDisabled {
		return nil
	}
	keys := setTicketKeys(t)
	if len(keys) == 0 {
		if listener.SessionTicketsDisabled {
			return nil
		}
		if t != listener {
			keys = setTicketKeys(listener)
		}
	}
	if len(keys) == 0 {
		keys = k.ownKeys(clock(listener))
	}
	bound := make([]ticketKey, len(keys))
	for i := range keys {
		mac := hmac.New(sha256.New, keys[i][:])
		mac.Write(k.binding)
		mac.Write([]byte{byte(t.ClientAuth)})
		if t.ClientAuth >= tls.VerifyClientCertIfGiven {
			for _, name := range subjects(t.ClientCAs) {
				mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(name))))
				mac.Write(name)
			}
		}
		mac.Sum(bound[i][:0])
	}
	return bound
}

// ownKeys returns the keys that are made here.
func (k *ticketKeys) ownKeys(now time.Time) []ticketKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.own) == 0 || now.Sub(k.created) >= ticketKeyRotation {
		var key ticketKey
		_, _ = rand.Read(key[:]) // never fails
		// A new slice: others may be reading the old one.
		k.own = append([]ticketKey{key}, k.own[:min(len(k.own), ticketKeysKept-1)]...)
		k.created = now
	}
	return k.own
}

// setTicketKeys returns what SetSessionTicketKeys or SessionTicketKey set.
func setTicketKeys(t *tls.Config) []ticketKey {
	if !ticketKeysReadable {
		return legacyTicketKey(t)
	}
	t = t.Clone() // takes t's lock
	keys, _ := readTicketKeys(t)
	if len(keys) > 0 {
		return keys
	}
	return legacyTicketKey(t)
}

// legacyTicketKey returns the key that crypto/tls makes of SessionTicketKey.
func legacyTicketKey(t *tls.Config) []ticketKey {
	key := t.SessionTicketKey //nolint:staticcheck // deprecated, but crypto/tls obeys it
	// crypto/tls writes random bytes with this prefix there when it is not set.
	if key == (ticketKey{}) || strings.HasPrefix(string(key[:]), "DEPRECATED") {
		return nil
	}
	sum := sha512.Sum512(key[:])
	return []ticketKey{ticketKey(sum[16:48])}
}

// readTicketKeys reads what crypto/tls keeps to itself: the keys that
// SetSessionTicketKeys set. ok is false if they are not where they were when
// this was written.
func readTicketKeys(t *tls.Config) (keys []ticketKey, ok bool) {
	v := reflect.ValueOf(t).Elem().FieldByName("sessionTicketKeys")
	if !v.IsValid() || v.Kind() != reflect.Slice || v.Type().Elem().Kind() != reflect.Struct {
		return nil, false
	}
	for i := range v.Len() {
		var key ticketKey
		for j, name := range []string{"aesKey", "hmacKey"} {
			f := v.Index(i).FieldByName(name)
			if !f.IsValid() || f.Kind() != reflect.Array || f.Len() != 16 || f.Type().Elem().Kind() != reflect.Uint8 {
				return nil, false
			}
			copy(key[16*j:], f.Bytes())
		}
		keys = append(keys, key)
	}
	return keys, true
}

// ticketKeysReadable is whether readTicketKeys works with this release of Go.
// Without it SetSessionTicketKeys has no effect, and each listener uses keys
// of its own.
var ticketKeysReadable = func() bool {
	t := &tls.Config{}
	if keys, ok := readTicketKeys(t); !ok || len(keys) != 0 {
		return false
	}
	set := []ticketKey{{1: 2, 31: 3}, {4: 5}}
	t.SetSessionTicketKeys(set)
	keys, ok := readTicketKeys(t.Clone())
	if !ok || len(keys) != len(set) {
		return false
	}
	for i := range set {
		if sum := sha512.Sum512(set[i][:]); keys[i] != ticketKey(sum[16:48]) {
			return false
		}
	}
	return true
}()

// subjects are the names in p, which may be nil, but for those of the system.
func subjects(p *x509.CertPool) [][]byte {
	if p == nil {
		return nil
	}
	return p.Subjects() //nolint:staticcheck // deprecated for leaving out the system's; crypto/tls does the same
}

// ticketTime is what comes first in a ticket's data: when it was made, by the
// clock of tls.Config, in milliseconds.
func ticketTime(now time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))
}

// cutTicketTime takes it off. Without one the ticket is too old for any use.
func cutTicketTime(data []byte) (made time.Time, rest []byte) {
	if len(data) < 8 {
		return time.Time{}, nil
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(data))), data[8:]
}

// ticketData is what a ticket remembers of the client that gets it: its
// certificates, or its raw public key, each with its length before it.
func (p *peer) ticketData() []byte {
	if p == nil {
		return nil
	}
	var b []byte
	for _, der := range p.raw {
		b = appendField(b, der)
	}
	for _, c := range p.certs {
		b = appendField(b, c.Raw)
	}
	return b
}

var errTicketData = badCertificate(errors.New("ngtcp2: the ticket is of another kind of client"))

// resumeClient returns what a client proved when it got a ticket with data, if
// that still convinces. Like crypto/tls it does not call VerifyPeerCertificate.
func (ts *tlsState) resumeClient(data []byte) (*peer, *alertError) {
	t := ts.tls
	r := fieldReader{b: data}
	var chain [][]byte
	for len(r.b) > 0 && !r.bad && len(chain) < maxSessionCerts {
		chain = append(chain, r.field())
	}
	switch {
	case r.bad || len(r.b) > 0:
		return nil, errTicketData
	case len(chain) == 0 && requiresClientCert(t.ClientAuth):
		return nil, errNoClientCertificate
	case len(chain) == 0:
		return &peer{}, nil
	case t.ClientAuth == tls.NoClientCert:
		return nil, errTicketData
	}
	if raw := ts.cc.knobs.rawPublicKeys(); raw != nil {
		return raw.verify(&tls.Config{ClientAuth: t.ClientAuth}, chain, false)
	}
	certs, fail := parseCertificates(chain, "client certificate", "client")
	if fail != nil {
		return nil, fail
	}
	p := &peer{certs: certs}
	if clock(t).After(certs[0].NotAfter) {
		return nil, &alertError{alertCertificateExpired, &tls.CertificateVerificationError{
			UnverifiedCertificates: certs, Err: x509.CertificateInvalidError{Cert: certs[0], Reason: x509.Expired},
		}}
	}
	if t.ClientAuth >= tls.VerifyClientCertIfGiven {
		return verifyClient(&tls.Config{ClientAuth: t.ClientAuth, ClientCAs: t.ClientCAs, Time: t.Time}, chain)
	}
	return p, nil
}

//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// A tlsState is what Go does in a connection's handshake: it implements
// capi.Callbacks, and remembers what came of them. The application's callbacks
// run on the goroutine that drives the handshake, without a lock.
//
//	clientTLS or serverTLS -> attach -> VerifyPeer, ClientCertificate, KeyLog -> finish
type tlsState struct {
	cc     *connConfig
	tls    *tls.Config // in force for this connection
	client bool
	ctx    context.Context // of the handshake, for callbacks

	// serverName is what a client sends as SNI; "" on a server.
	serverName string
	// earlyParams are the server's transport parameters that a client's 0-RTT
	// obeys, for capi.ClientOptions; nil: no early data.
	earlyParams []byte

	// handshake goroutine only
	state       func() capi.TLSState // may be nil
	cert        *capi.Certificate    // lives as long as the handshake
	remembered  *session             // client: what is offered for resumption, or nil
	peerAsked   bool                 // VerifyPeer was called
	connChecked bool                 // VerifyConnection was called
	judged      bool                 // resume was called

	mu      sync.Mutex
	peer    *peer         // guarded by mu; nil until it is known
	final   capi.TLSState // guarded by mu; what was agreed on, once it was
	failure *alertError   // guarded by mu; the first
}

// clientTLS begins the handshake of the client c, whose context is that of the
// handshake. It asks the SessionCache, and must not be called with a lock held.
func (cc *connConfig) clientTLS(c interface{ Context() context.Context }) (*capi.TLSConfig, *tlsState) {
	t := cc.tls
	ts := &tlsState{cc: cc, tls: t, client: true, ctx: c.Context(), serverName: hostnameInSNI(t.ServerName)}
	conf := &capi.TLSConfig{
		NextProtos:   t.NextProtos,
		ServerName:   ts.serverName,
		CipherSuites: cipherSuites(t),
		Curves:       curvePreferences(t),
		Tickets:      cc.sessionKey() != "",
		KeyLog:       t.KeyLogWriter != nil,
		RawPublicKey: cc.knobs.rawPublicKeys() != nil,
		Callbacks:    ts,
	}
	if ts.remembered = cc.takeSession(); ts.remembered != nil {
		conf.Session = ts.remembered.tls
		conf.SessionAge = clock(t).Sub(ts.remembered.created)
		if cc.cfg.EarlyData && ts.remembered.early(t.NextProtos) {
			conf.EarlyData = true
			ts.earlyParams = ts.remembered.params
		}
	}
	return conf, ts
}

// serverTLS begins a server's handshake: hello is the ClientHello message. ctx
// is that of the handshake, until its end. If err is not nil the client is to
// get the alert. The application's callbacks are called, which may take long.
func (cc *connConfig) serverTLS(ctx context.Context, hello []byte, local, remote net.Addr) (conf *capi.TLSConfig, ts *tlsState, alert uint8, err error) {
	c, fail := cc.chooseBy(ctx, hello, local, remote)
	if fail != nil {
		return nil, nil, fail.alert, fail.err
	}
	t := c.tls
	ts = &tlsState{cc: cc, tls: t, ctx: ctx}
	if ts.cert, err = cc.certificates.get(c.cert); err != nil {
		return nil, nil, alertHandshakeFailure, err
	}
	conf = &capi.TLSConfig{
		Server:       true,
		NextProtos:   t.NextProtos,
		Certificate:  ts.cert,
		CipherSuites: cipherSuites(t),
		Curves:       curvePreferences(t),
		TicketKeys:   cc.tickets.get(cc.tls, t),
		KeyLog:       t.KeyLogWriter != nil,
		RawPublicKey: cc.knobs.rawPublicKeys() != nil,
		Callbacks:    ts,
	}
	switch {
	case requiresClientCert(t.ClientAuth):
		conf.ClientAuth = capi.ClientAuthRequire
	case t.ClientAuth != tls.NoClientCert:
		conf.ClientAuth = capi.ClientAuthRequest
	}
	if t.ClientAuth != tls.NoClientCert {
		conf.ClientCAs = subjects(t.ClientCAs)
	}
	conf.Tickets = len(conf.TicketKeys) > 0
	conf.EarlyData = conf.Tickets && cc.cfg.EarlyData
	return conf, ts, 0, nil
}

// attach tells where the handshake's own state is read, also from inside a
// callback.
func (ts *tlsState) attach(state func() capi.TLSState) { ts.state = state }

// VerifyPeer implements capi.Callbacks.
func (ts *tlsState) VerifyPeer(chain [][]byte) (alert uint8, ok bool) {
	ts.peerAsked = true
	fail := ts.verify(chain)
	if fail == nil && ts.state != nil {
		fail = ts.verifyConnection(ts.state())
	}
	if fail != nil {
		ts.fail(fail)
		return fail.alert, false
	}
	return 0, true
}

// verify judges what the peer sent, which may be nothing.
func (ts *tlsState) verify(chain [][]byte) *alertError {
	if fail := ts.failed(); fail != nil {
		return fail
	}
	var p *peer
	var fail *alertError
	raw := ts.cc.knobs.rawPublicKeys()
	switch {
	case raw != nil:
		p, fail = raw.verify(ts.tls, chain, ts.client)
	case ts.client:
		p, fail = verifyServer(ts.tls, chain)
	default:
		p, fail = verifyClient(ts.tls, chain)
	}
	if fail == nil {
		ts.mu.Lock()
		ts.peer = p
		ts.mu.Unlock()
	}
	return fail
}

// verifyConnection asks the application, once.
func (ts *tlsState) verifyConnection(s capi.TLSState) *alertError {
	if ts.connChecked || ts.tls.VerifyConnection == nil {
		return nil
	}
	ts.connChecked = true
	if err := ts.tls.VerifyConnection(ts.connectionState(s, false)); err != nil {
		return badCertificate(err)
	}
	return nil
}

// ClientCertificate implements capi.Callbacks.
func (ts *tlsState) ClientCertificate(req *capi.CertificateRequest) (*capi.Certificate, error) {
	info := &tls.CertificateRequestInfo{AcceptableCAs: req.AcceptableCAs, Version: tls.VersionTLS13}
	for _, s := range req.SignatureSchemes {
		info.SignatureSchemes = append(info.SignatureSchemes, tls.SignatureScheme(s))
	}
	setContext(ts.ctx, info)
	c, err := ts.clientCertificate(info)
	if err == nil && c == nil {
		return nil, nil
	}
	if err == nil {
		err = checkClientCertificate(c)
	}
	if err == nil {
		ts.cert, err = ts.cc.certificates.get(c)
	}
	if err != nil {
		ts.fail(&alertError{alertInternalError, err})
		return nil, err
	}
	return ts.cert, nil
}

var errNoCertificateReturned = errors.New("tls: GetClientCertificate returned no certificate and no error")

// clientCertificate chooses as crypto/tls does; nil: none.
func (ts *tlsState) clientCertificate(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if f := ts.tls.GetClientCertificate; f != nil {
		c, err := f(info)
		switch {
		case err != nil:
			return nil, err
		case c == nil:
			return nil, errNoCertificateReturned
		case len(c.Certificate) == 0:
			return nil, nil
		}
		return c, nil
	}
	for i := range ts.tls.Certificates {
		if info.SupportsCertificate(&ts.tls.Certificates[i]) == nil {
			return &ts.tls.Certificates[i], nil
		}
	}
	return nil, nil
}

// TicketData implements capi.Callbacks: what a new ticket remembers of the
// client, for ResumeTicket.
func (ts *tlsState) TicketData() []byte {
	data := ticketTime(clock(ts.tls))
	if ts.state != nil {
		// What an offered ticket said counts only if the client has proved,
		// by resuming, that the ticket is its own.
		if s := ts.state(); s.Resumed {
			_, peer := cutTicketTime(s.TicketData)
			return append(data, peer...)
		}
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return append(data, ts.peer.ticketData()...)
}

// ResumeTicket implements capi.Callbacks: it reports whether the client that
// got a ticket with data may resume, and how old the ticket is. If not, it gets
// a full handshake.
func (ts *tlsState) ResumeTicket(data []byte) (age time.Duration, ok bool) {
	made, peer := cutTicketTime(data)
	age = clock(ts.tls).Sub(made)
	if age < 0 || age > maxSessionLifetime {
		return 0, false
	}
	_, fail := ts.resumeClient(peer)
	return age, fail == nil
}

// KeyLog implements capi.Callbacks. An error ends the handshake, at the next
// opportunity.
func (ts *tlsState) KeyLog(line string) {
	if err := writeKeyLog(ts.tls.KeyLogWriter, line); err != nil {
		ts.fail(&alertError{alertInternalError, err})
	}
}

// resumed is called when a server has answered a client's first message. Early
// data is delivered before the handshake is complete: who resumes is judged
// first. If err is not nil the connection is to be closed with the alert. It
// calls the application.
func (ts *tlsState) resumed(s capi.TLSState) (alert uint8, err error) {
	if !s.Resumed {
		return 0, nil
	}
	fail := ts.failed()
	if fail == nil {
		fail = ts.resume(s)
	}
	if fail == nil {
		fail = ts.verifyConnection(s)
	}
	if fail != nil {
		ts.fail(fail)
		return fail.alert, fail.err
	}
	return 0, nil
}

// finish is called when the TLS library says that the handshake is complete,
// before anything the peer sent is delivered. If err is not nil the connection
// is to be closed with the alert. It calls the application.
func (ts *tlsState) finish(s capi.TLSState) (alert uint8, err error) {
	fail := ts.failed()
	if fail == nil {
		fail = ts.complete(s)
	}
	ts.cert, ts.remembered, ts.state = nil, nil, nil
	if fail != nil {
		ts.fail(fail)
		return fail.alert, fail.err
	}
	ts.mu.Lock()
	ts.final = s
	ts.mu.Unlock()
	return 0, nil
}

func (ts *tlsState) complete(s capi.TLSState) *alertError {
	// RFC 9001, Section 8.1: without a protocol there is no connection.
	if s.ALPN == "" {
		return &alertError{alertNoApplicationProtocol, errNoProtocol}
	}
	if !slices.Contains(ts.tls.NextProtos, s.ALPN) {
		return &alertError{alertIllegalParameter, errForeignProtocol}
	}
	switch {
	case s.Resumed:
		if fail := ts.resume(s); fail != nil {
			return fail
		}
	case ts.peerAsked:
	case ts.client || ts.tls.ClientAuth != tls.NoClientCert:
		if fail := ts.verify(nil); fail != nil {
			return fail
		}
	}
	return ts.verifyConnection(s)
}

var (
	errNoProtocol      = errors.New("tls: the peer agreed on no application protocol")
	errForeignProtocol = errors.New("tls: the peer selected a protocol that was not offered")
)

// resume takes over what was proved when the session began, once.
func (ts *tlsState) resume(s capi.TLSState) *alertError {
	if ts.judged {
		return nil
	}
	ts.judged = true
	var p *peer
	if ts.client {
		if ts.remembered == nil {
			return &alertError{alertInternalError, errors.New("ngtcp2: resumed a session that was not offered")}
		}
		p = ts.remembered.peer
	} else {
		var fail *alertError
		_, data := cutTicketTime(s.TicketData)
		if p, fail = ts.resumeClient(data); fail != nil {
			return fail
		}
	}
	ts.mu.Lock()
	ts.peer = p
	ts.mu.Unlock()
	return nil
}

// connectionState is what crypto/tls would say.
func (ts *tlsState) connectionState(s capi.TLSState, complete bool) tls.ConnectionState {
	cs := tls.ConnectionState{
		Version:                    s.Version,
		HandshakeComplete:          complete,
		DidResume:                  s.Resumed,
		CipherSuite:                s.CipherSuite,
		CurveID:                    tls.CurveID(s.Curve),
		HelloRetryRequest:          s.HelloRetry,
		NegotiatedProtocol:         s.ALPN,
		NegotiatedProtocolIsMutual: true, //nolint:staticcheck // deprecated, but crypto/tls sets it
		ServerName:                 s.ServerName,
	}
	if ts.client {
		cs.ServerName = ts.serverName
		cs.OCSPResponse, cs.SignedCertificateTimestamps = s.OCSP, s.Timestamps
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if p := ts.peer; p != nil {
		cs.PeerCertificates, cs.VerifiedChains = p.certs, p.chains
		if p.ocsp != nil {
			cs.OCSPResponse = p.ocsp
		}
		if p.scts != nil {
			cs.SignedCertificateTimestamps = p.scts
		}
	}
	return cs
}

// err is why the handshake failed, as far as Go decided it: the error of the
// verification or of the application's callback. nil: it did not.
func (ts *tlsState) err() error {
	if fail := ts.failed(); fail != nil {
		return fail.err
	}
	return nil
}

func (ts *tlsState) failed() *alertError {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.failure
}

func (ts *tlsState) fail(e *alertError) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.failure == nil {
		ts.failure = e
	}
}

// hostnameInSNI returns the name as SNI has it: no address, no final dot
// (RFC 6066, Section 3).
func hostnameInSNI(name string) string {
	host := name
	if len(host) > 0 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	if i := strings.LastIndex(host, "%"); i > 0 {
		host = host[:i]
	}
	if net.ParseIP(host) != nil {
		return ""
	}
	return strings.TrimRight(name, ".")
}

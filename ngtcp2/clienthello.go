//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"reflect"
	"strings"
	"time"
)

// A choice is what a server answers a ClientHello with.
type choice struct {
	tls  *tls.Config      // the caller's, or what GetConfigForClient returned
	cert *tls.Certificate // not nil
}

// chooseBy chooses what to answer a ClientHello with. The callbacks that
// crypto/tls would call are called, on another goroutine while this one waits.
// ctx is that of the handshake.
//
// Unlike crypto/tls, which knows by then whether the client resumes a session,
// GetCertificate is called for a client that does, too.
func (cc *connConfig) chooseBy(ctx context.Context, hello []byte, local, remote net.Addr) (choice, *alertError) {
	t := cc.tls
	if t.GetConfigForClient == nil && t.GetCertificate == nil && len(t.Certificates) == 1 {
		return choice{t, &t.Certificates[0]}, nil // nothing depends on the ClientHello
	}
	var c choice
	var fail *alertError
	err := readClientHello(ctx, t, hello, local, remote, func(info *tls.ClientHelloInfo) {
		c, fail = cc.answer(info)
	})
	if err != nil {
		return choice{}, &alertError{alertDecodeError, err}
	}
	return c, fail
}

// answer does what crypto/tls does in the same order.
func (cc *connConfig) answer(info *tls.ClientHelloInfo) (choice, *alertError) {
	c := choice{tls: cc.tls}
	if f := c.tls.GetConfigForClient; f != nil {
		mine := *info // the callback may keep or change what it gets
		t, err := f(&mine)
		if err != nil {
			return choice{}, &alertError{alertInternalError, err}
		}
		if t != nil {
			if fail := cc.checkForClient(t); fail != nil {
				return choice{}, fail
			}
			c.tls = t
		}
	}
	var fail *alertError
	c.cert, fail = chooseCertificate(c.tls, info)
	return c, fail
}

// checkForClient checks what GetConfigForClient returned.
func (cc *connConfig) checkForClient(t *tls.Config) *alertError {
	if len(t.NextProtos) == 0 {
		return &alertError{alertNoApplicationProtocol, errors.New("ngtcp2: tls.Config.NextProtos is empty in what GetConfigForClient returned")}
	}
	err := checkTLS(t)
	if err == nil {
		err = checkServerTLS(t, cc.knobs)
	}
	if err != nil {
		return &alertError{alertInternalError, err}
	}
	return nil
}

var errNoCertificates = &alertError{alertUnrecognizedName, errors.New("tls: no certificates configured")}

// chooseCertificate chooses as crypto/tls does.
func chooseCertificate(t *tls.Config, info *tls.ClientHelloInfo) (*tls.Certificate, *alertError) {
	if t.GetCertificate != nil && (len(t.Certificates) == 0 || info.ServerName != "") {
		cert, err := t.GetCertificate(info)
		if err != nil {
			return nil, &alertError{alertInternalError, err}
		}
		if cert != nil {
			return cert, nil
		}
	}
	switch len(t.Certificates) {
	case 0:
		return nil, errNoCertificates
	case 1:
		return &t.Certificates[0], nil
	}
	if t.NameToCertificate != nil { //nolint:staticcheck // deprecated, but crypto/tls obeys it
		name := strings.ToLower(info.ServerName)
		if cert, ok := t.NameToCertificate[name]; ok { //nolint:staticcheck // as above
			return cert, nil
		}
		if name != "" {
			labels := strings.Split(name, ".")
			labels[0] = "*"
			if cert, ok := t.NameToCertificate[strings.Join(labels, ".")]; ok { //nolint:staticcheck // as above
				return cert, nil
			}
		}
	}
	for i := range t.Certificates {
		if info.SupportsCertificate(&t.Certificates[i]) == nil {
			return &t.Certificates[i], nil
		}
	}
	return &t.Certificates[0], nil
}

// errClientHelloRead makes crypto/tls stop.
var errClientHelloRead = errors.New("ngtcp2: the ClientHello was read")

// readClientHello calls f with what hello says, a ClientHello message with its
// header. crypto/tls reads it, so that the tls.ClientHelloInfo is a real one,
// whose methods work. The error is crypto/tls's; f was not called then.
func readClientHello(ctx context.Context, t *tls.Config, hello []byte, local, remote net.Addr, f func(*tls.ClientHelloInfo)) error {
	conf := t.Clone() // SupportsCertificate asks it for its versions
	conf.MinVersion = tls.VersionTLS13
	read := false
	conf.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		read = true
		info.Conn = &helloConn{local, remote}
		// crypto/tls's context ends with its handshake, which ends now.
		setContext(ctx, info)
		f(info)
		return nil, errClientHelloRead
	}
	conn := tls.QUICServer(&tls.QUICConfig{TLSConfig: conf})
	defer conn.Close()
	// crypto/tls looks at its context, and what is cancelled would look like a
	// ClientHello that cannot be read.
	err := conn.Start(context.WithoutCancel(ctx))
	if err == nil {
		err = conn.HandleData(tls.QUICEncryptionLevelInitial, hello)
	}
	switch {
	case read:
		return nil
	case err == nil:
		return errors.New("tls: the ClientHello is incomplete")
	}
	return err
}

// setContext sets what info.Context returns, where info is a
// *tls.ClientHelloInfo or a *tls.CertificateRequestInfo: only crypto/tls itself
// can make one with a context. It reports whether it could.
func setContext(ctx context.Context, info any) bool {
	field := reflect.ValueOf(info).Elem().FieldByName("ctx")
	if !field.IsValid() || field.Type() != reflect.TypeFor[context.Context]() {
		return false
	}
	*(*context.Context)(field.Addr().UnsafePointer()) = ctx
	return true
}

// contextSettable is whether setContext works with this release of Go.
var contextSettable = func() bool {
	ctx := context.WithValue(context.Background(), contextKey{}, true)
	var hello tls.ClientHelloInfo
	var request tls.CertificateRequestInfo
	return setContext(ctx, &hello) && setContext(ctx, &request) &&
		hello.Context() == ctx && request.Context() == ctx
}()

type contextKey struct{}

// A helloConn is what tls.ClientHelloInfo.Conn is for a callback: there is no
// net.Conn below QUIC, but it knows the addresses.
type helloConn struct{ local, remote net.Addr }

func (c *helloConn) LocalAddr() net.Addr              { return c.local }
func (c *helloConn) RemoteAddr() net.Addr             { return c.remote }
func (c *helloConn) Read([]byte) (int, error)         { return 0, c.fail("read") }
func (c *helloConn) Write([]byte) (int, error)        { return 0, c.fail("write") }
func (c *helloConn) Close() error                     { return c.fail("close") }
func (c *helloConn) SetDeadline(time.Time) error      { return c.fail("set deadline") }
func (c *helloConn) SetReadDeadline(time.Time) error  { return c.fail("set deadline") }
func (c *helloConn) SetWriteDeadline(time.Time) error { return c.fail("set deadline") }

func (c *helloConn) fail(op string) error {
	return &net.OpError{Op: op, Net: "quic", Source: c.local, Addr: c.remote, Err: os.ErrInvalid}
}

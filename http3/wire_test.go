package http3_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go/quicvarint"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

// What goes over the wire, byte by byte.

func cat(pp ...[]byte) []byte { return bytes.Join(pp, nil) }

func varints(vv ...uint64) (b []byte) {
	for _, v := range vv {
		b = quicvarint.Append(b, v)
	}
	return b
}

func frame(typ uint64, payload ...[]byte) []byte {
	p := cat(payload...)
	return cat(varints(typ, uint64(len(p))), p)
}

// section encodes names and values, in turns.
func section(kv ...string) []byte {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(kv); i += 2 {
		_ = e.WriteField(qpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	if len(kv) == 0 {
		b.Write([]byte{0, 0})
	}
	return b.Bytes()
}

func headers(kv ...string) []byte { return frame(0x1, section(kv...)) }
func data(s string) []byte        { return frame(0x0, []byte(s)) }

// get is the head of a request, with more fields.
func get(more ...string) []byte {
	return headers(append([]string{":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/"}, more...)...)
}

func post(more ...string) []byte {
	return headers(append([]string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", "/"}, more...)...)
}

func ok(more ...string) []byte { return headers(append([]string{":status", "200"}, more...)...) }

// head decodes the HEADERS frame that b starts with.
func head(t *testing.T, b []byte) map[string]string {
	t.Helper()
	r := bytes.NewReader(b)
	typ, err := quicvarint.Read(r)
	require.NoError(t, err)
	require.EqualValues(t, 0x1, typ)
	n, err := quicvarint.Read(r)
	require.NoError(t, err)
	p := make([]byte, n)
	_, err = io.ReadFull(r, p)
	require.NoError(t, err)
	fields := make(map[string]string)
	for next := qpack.NewDecoder().Decode(p); ; {
		f, err := next()
		if err == io.EOF {
			return fields
		}
		require.NoError(t, err)
		fields[f.Name] = f.Value
	}
}

// A peer speaks HTTP/3 byte by byte.
type peer struct {
	*testing.T
	conn    transport.Conn
	control transport.SendStream
}

func (p *peer) uni(b []byte, fin bool) transport.SendStream {
	p.Helper()
	s, err := p.conn.OpenUniStream(p.Context())
	require.NoError(p, err)
	_, _ = s.Write(b) // the conn may have ended for what came before
	if fin {
		_ = s.Close()
	}
	return s
}

// request opens a stream and writes b to it.
func (p *peer) request(b []byte, fin bool) transport.Stream {
	p.Helper()
	s, err := p.conn.OpenStream(p.Context())
	if err != nil {
		require.Error(p, p.conn.Context().Err())
		return nil
	}
	_, _ = s.Write(b) // as above
	if fin {
		_ = s.Close()
	}
	return s
}

// ended waits for the end of the connection and returns the other side's reason.
func (p *peer) ended() *transport.ApplicationError {
	p.Helper()
	<-p.conn.Context().Done()
	var ae *transport.ApplicationError
	require.ErrorAs(p, context.Cause(p.conn.Context()), &ae)
	require.True(p, ae.Remote)
	return ae
}

// peer connects to the server.
func (w *world) peer() *peer {
	w.Helper()
	c, err := w.client.Dial(w.Context(), net.UDPAddrFromAddrPort(mustAddrPort(serverAddr)),
		&transport.Config{TLS: w.ca.Client("localhost", http3.ALPN), Datagrams: true})
	require.NoError(w, err)
	return &peer{T: w.T, conn: c}
}

// listenPeer makes a server that speaks byte by byte, to which tr's dials go. What it
// returns accepts a connection.
func (w *world) listenPeer(tr *http3.Transport) func() *peer {
	w.Helper()
	ln, err := w.server.Listen(&transport.Config{TLS: w.ca.Server("localhost", http3.ALPN), Datagrams: true})
	require.NoError(w, err)
	tr.TLS = w.ca.Client("localhost")
	tr.Dial = func(ctx context.Context, _ string, cfg *transport.Config) (transport.Conn, error) {
		w.dials++
		return w.client.Dial(ctx, net.UDPAddrFromAddrPort(mustAddrPort(serverAddr)), cfg)
	}
	w.Cleanup(func() { require.NoError(w, tr.Close()) })
	return func() *peer {
		c, err := ln.Accept(w.Context())
		require.NoError(w, err)
		return &peer{T: w.T, conn: c}
	}
}

// serverStream accepts a request and reads it.
func (p *peer) serverStream() transport.Stream {
	p.Helper()
	s, err := p.conn.AcceptStream(p.Context())
	require.NoError(p, err)
	_, err = io.Copy(io.Discard, s)
	require.NoError(p, err)
	return s
}

func newGet(t *testing.T) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/", nil)
	require.NoError(t, err)
	return req
}

//go:build interop

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	foreign "github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"
)

// Package http3 has its own tests with quic-go's; these have what load and an orderly
// end add.

func TestQuicGosHTTP3ClientExchangesManyRequests(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		ranWith(t, "quic-go-http3")
		tr := &foreign.Transport{TLSClientConfig: withoutALPN(s.id)}
		t.Cleanup(func() { require.NoError(t, tr.Close()) })
		c := webClient{Client: &http.Client{Transport: tr, Timeout: patience}, engine: s.engine, host: s.addr}
		who := "server " + s.engine.Name() + ", ALPN h3"
		_, got, err := c.do(http.MethodPost, pathSum, pattern(10<<20), nil)
		require.NoError(t, err, who)
		var seen uploadSeen
		require.NoError(t, json.Unmarshal(got, &seen), "%s", got)
		require.Equal(t, uploadSeen{"POST", "HTTP/3.0", 10 << 20, sumOf(pattern(10 << 20)), h3ALPN}, seen, who)

		resp, got, err := c.do(http.MethodGet, pathTrailers, nil, nil)
		require.NoError(t, err, who)
		require.Equal(t, "body", string(got))
		require.Equal(t, "at the end", resp.Trailer.Get(siteTrailer), who)

		getMany(t, c, who)
	})
}

// getMany gets bodies of many sizes at the same time.
func getMany(t *testing.T, c webClient, who string) {
	t.Helper()
	errs := make(chan error, 300)
	for i := range cap(errs) {
		go func() { // ends with the response, or the client's patience
			_, got, err := c.do(http.MethodGet, fmt.Sprint(pathBytes, i*100), nil, nil)
			if err == nil && !bytes.Equal(got, pattern(i*100)) {
				err = errors.New("another body")
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		require.NoError(t, <-errs, who)
	}
}

// startQuicGoWeb runs quic-go's server of HTTP/3.
func startQuicGoWeb(t *testing.T) (*foreign.Server, string, *identity) {
	t.Helper()
	ranWith(t, "quic-go-http3")
	id := newIdentity(t)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &foreign.Server{TLSConfig: foreign.ConfigureTLSConfig(id.serverTLS()), Handler: siteHandler(), QUICConfig: &quic.Config{Allow0RTT: true, HandshakeIdleTimeout: patience}}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(pc) }() // ends with Close
	t.Cleanup(func() {
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
		require.NoError(t, pc.Close())
	})
	return srv, pc.LocalAddr().String(), id
}

// The server shuts down while it answers, and says so with a GOAWAY: what it has taken
// it answers to the end.
func TestQuicGosHTTP3ServerAnswersManyRequestsAndShutsDown(t *testing.T) {
	var srv *foreign.Server
	starts := func(t *testing.T) (addr string, id *identity) {
		srv, addr, id = startQuicGoWeb(t)
		return addr, id
	}
	eachWebClient(t, starts, func(t *testing.T, c webClient) {
		who := "client " + c.engine.Name() + ", ALPN h3"
		_, got, err := c.do(http.MethodPost, pathSum, pattern(10<<20), nil)
		require.NoError(t, err, who)
		var seen uploadSeen
		require.NoError(t, json.Unmarshal(got, &seen), "%s", got)
		require.Equal(t, sumOf(pattern(10<<20)), seen.Sum, who)
		getMany(t, c, who)

		from, to := io.Pipe()
		answer := make(chan error, 1)
		go func() { // ends with the response, or the client's patience
			resp, err := c.Post("https://"+c.host+pathSum, "", from)
			if err == nil {
				err = json.NewDecoder(resp.Body).Decode(&seen)
				resp.Body.Close()
			}
			answer <- err
		}()
		_, err = to.Write(pattern(3 << 20))
		require.NoError(t, err, who)
		down := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		go func() { down <- srv.Shutdown(ctx) }() // ends with the request
		if c.h3 != nil {                          // else nobody can ask for its connection
			select {
			case <-c.h3.Connected(c.host).Draining():
			case <-time.After(patience):
				t.Fatal("there was no GOAWAY")
			}
		}
		select {
		case err := <-down:
			t.Fatalf("the server does not wait for the request: %v", err)
		default:
		}
		_, err = to.Write(pattern(1 << 20))
		require.NoError(t, err, who)
		require.NoError(t, to.Close())
		require.NoError(t, <-answer, who)
		require.EqualValues(t, 4<<20, seen.Length, who)
		require.Equal(t, sumOf(append(pattern(3<<20), pattern(1<<20)...)), seen.Sum, who)
		require.NoError(t, <-down, "the server waits for no more")
	})
}

package websocket_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	coder "github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/websocket"
)

// Another library is the judge of what goes over HTTP/1.1, with compression and
// without, in both roles.
func TestAnotherLibraryAsClient(t *testing.T) {
	for _, mode := range []coder.CompressionMode{coder.CompressionDisabled, coder.CompressionNoContextTakeover, coder.CompressionContextTakeover} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
				Compression: true, Subprotocols: []string{"mqtt"}, ReadLimit: 2 << 20,
			})
			if err == nil {
				_ = echo(c)
			}
		}))
		defer srv.Close()
		c, _, err := coder.Dial(t.Context(), srv.URL, &coder.DialOptions{CompressionMode: mode, Subprotocols: []string{"mqtt"}})
		require.NoError(t, err)
		require.Equal(t, "mqtt", c.Subprotocol())
		c.SetReadLimit(2 << 20)
		for _, size := range []int{0, 100, 1 << 10, 100 << 10, 1 << 20} {
			s := []byte(sample(size, uint64(size)))
			require.NoError(t, c.Write(t.Context(), coder.MessageText, s))
			_, p, err := c.Read(t.Context())
			require.NoError(t, err)
			require.True(t, bytes.Equal(s, p))
		}
		require.NoError(t, c.Close(coder.StatusNormalClosure, "done"))
	}
}

func TestAnotherLibraryAsServer(t *testing.T) {
	for _, compress := range []bool{false, true} {
		ended := make(chan error, 1)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := coder.Accept(w, r, &coder.AcceptOptions{CompressionMode: coder.CompressionContextTakeover, Subprotocols: []string{"mqtt"}})
			if err != nil {
				ended <- err
				return
			}
			c.SetReadLimit(2 << 20)
			for {
				typ, p, err := c.Read(context.Background())
				if err != nil {
					ended <- err
					return
				}
				if err := c.Write(context.Background(), typ, p); err != nil {
					ended <- err
					return
				}
			}
		}))
		defer srv.Close()
		c, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{
			Compression: compress, Subprotocols: []string{"mqtt"}, ReadLimit: 2 << 20,
		})
		require.NoError(t, err)
		require.Equal(t, "mqtt", c.Subprotocol())
		for _, size := range []int{0, 100, 1 << 10, 100 << 10, 1 << 20} {
			s := []byte(sample(size, uint64(size)))
			require.NoError(t, c.Write(t.Context(), websocket.Text, s))
			_, p, err := c.Read(t.Context())
			require.NoError(t, err)
			require.True(t, bytes.Equal(s, p))
		}
		pinged := make(chan error, 1)
		go func() { pinged <- c.Ping(t.Context()) }()
		reading := make(chan error, 1)
		go func() { reading <- echo(c) }() // ends with the connection
		require.NoError(t, <-pinged)
		require.NoError(t, c.Close(websocket.StatusNormal, "done"))
		require.Equal(t, websocket.StatusNormal, closeError(t, <-reading).Code)
		require.Equal(t, coder.StatusNormalClosure, coder.CloseStatus(<-ended))
		<-c.Context().Done()
	}
}

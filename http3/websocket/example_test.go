package websocket_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/anyquic/anyquic/http3/websocket"
)

// One handler answers WebSocket on every version of HTTP that its servers speak.
func Example() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // it has been answered
		}
		defer c.CloseNow()
		for {
			typ, p, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), typ, p); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(handler)
	defer server.Close()

	ctx := context.Background()
	c, err := websocket.Dial(ctx, server.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.CloseNow()
	if err := c.Write(ctx, websocket.Text, []byte("hello")); err != nil {
		fmt.Println(err)
		return
	}
	typ, p, err := c.Read(ctx)
	fmt.Println(typ, string(p), err)
	fmt.Println(c.Close(websocket.StatusNormal, ""))
	// Output:
	// text hello <nil>
	// <nil>
}

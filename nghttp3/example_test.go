//go:build ngtcp2 && cgo

package nghttp3_test

import (
	"fmt"

	"github.com/anyquic/anyquic/nghttp3"
)

// The server of this connection allows the client a table of 4096 bytes. Errors are
// left out.
func ExampleCoder() {
	client, _ := nghttp3.New(0)
	defer client.Close()
	server, _ := nghttp3.New(4096)
	defer server.Close()
	_ = client.SetPeer(4096)

	for stream := int64(0); stream < 8; stream += 4 {
		client.Add(":method", "GET")
		client.Add("user-agent", "Mozilla/5.0 (X11; Linux x86_64)")
		prefix, lines, _ := client.Encode(stream)
		section := append(append([]byte(nil), prefix...), lines...) // to the request stream
		_ = server.ReadEncoder(client.EncoderStream())
		_ = client.ReadDecoder(server.DecoderStream()) // what each call has to say

		_ = server.Decode(stream, section, 10_000)
		for name, value := range server.Fields() {
			fmt.Printf("%s: %s\n", name, value)
		}
		_ = client.ReadDecoder(server.DecoderStream())
		fmt.Println(len(section) < 10)
	}
	// Output:
	// :method: GET
	// user-agent: Mozilla/5.0 (X11; Linux x86_64)
	// false
	// :method: GET
	// user-agent: Mozilla/5.0 (X11; Linux x86_64)
	// true
}

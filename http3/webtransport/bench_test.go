package webtransport_test

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport/engine"
)

func BenchmarkStream(b *testing.B) {
	for _, e := range engine.All() {
		b.Run(e.Name(), func(b *testing.B) {
			client, server := newLoopback(b, e).dial(b)
			go echo(server) // ends with the session
			s, err := client.OpenStream(context.Background())
			require.NoError(b, err)
			p := make([]byte, 1000)
			b.ReportAllocs()
			b.SetBytes(2 * int64(len(p)))
			for b.Loop() {
				if _, err := s.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(s, p); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, client.Close())
			<-client.Finished()
		})
	}
}

func BenchmarkOpenStream(b *testing.B) {
	for _, e := range engine.All() {
		b.Run(e.Name(), func(b *testing.B) {
			client, server := newLoopback(b, e).dial(b)
			go echo(server) // ends with the session
			p := make([]byte, 100)
			b.ReportAllocs()
			for b.Loop() {
				if err := roundTrip(context.Background(), client, p); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, client.Close())
			<-client.Finished()
		})
	}
}

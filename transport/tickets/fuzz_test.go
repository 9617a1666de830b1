package tickets

import (
	"bytes"
	"testing"
	"time"
)

func FuzzDecode(f *testing.F) {
	f.Add((&session{"name", time.Unix(1, 0), []byte("data")}).encode())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := decode(b)
		if !ok {
			return
		}
		again, ok := decode(s.encode())
		if !ok || again.name != s.name || !again.at.Equal(s.at) || !bytes.Equal(again.data, s.data) {
			t.Errorf("%+v, then %+v", s, again)
		}
	})
}

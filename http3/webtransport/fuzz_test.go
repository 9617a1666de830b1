package webtransport_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/transport/engine"
)

// A live session gets the bytes: what the peer says on the CONNECT stream must
// end it in one of the ways that the protocol has, or not at all.
func FuzzCapsules(f *testing.F) {
	add := func(fin bool, pp ...[]byte) { f.Add(cat(pp...), fin) }
	add(true, http3.AppendCapsule(nil, capsuleClose, []byte("\x00\x00\x00\x07reason")))
	add(true, http3.AppendCapsule(nil, capsuleDrain, nil), http3.AppendCapsule(nil, 0, []byte("datagram")))
	add(false, http3.AppendCapsule(nil, 0x190b4d3e, []byte{1}))
	add(true, varints(capsuleClose, 1<<62-1))
	add(true, []byte{0xc0})
	f.Fuzz(func(t *testing.T, b []byte, fin bool) {
		if len(b) == 0 || len(b) > 1<<14 {
			return
		}
		fuzzWorld(t, func(w *world) {
			w.serve(nil, nil)
			p := w.peer(newest...)
			cs, s := w.session(p, "webtransport")
			_, err := cs.Write(frame(0, b))
			require.NoError(t, err)
			if fin {
				require.NoError(t, cs.Close())
			}
			time.Sleep(20 * time.Second)
			if s.Context().Err() != nil {
				<-s.Finished()
				e := ended(t, s)
				require.True(t, utf8.ValidString(e.Reason))
				require.LessOrEqual(t, len(e.Reason), 1024)
				if e.Err != nil {
					var he *http3.Error
					require.ErrorAs(t, e, &he)
					require.Equal(t, http3.ErrMessage, he.Code)
				} else {
					require.True(t, e.Remote)
					if want := closeIn(b); want != nil {
						require.Equal(t, binary.BigEndian.Uint32(want), e.Code)
						require.Equal(t, string(want[4:]), e.Reason)
					} else {
						require.True(t, fin)
						require.Zero(t, e.Code)
					}
				}
			} else {
				require.False(t, fin)
				require.Nil(t, closeIn(b))
				require.NoError(t, s.Close())
			}
			require.Zero(t, webtransport.Held(s.Conn()))
			require.NoError(t, p.conn.Context().Err(), "the connection lives")
		})
	})
}

// closeIn returns the value of the first CLOSE_SESSION capsule in b, or nil.
func closeIn(b []byte) []byte {
	r := bytes.NewReader(b)
	for {
		typ, err := http3.ReadVarint(r)
		n, err2 := http3.ReadVarint(r)
		if errors.Join(err, err2) != nil || n > uint64(r.Len()) {
			return nil
		}
		v := make([]byte, n)
		_, _ = io.ReadFull(r, v)
		if typ == capsuleClose {
			return v
		}
	}
}

// The first bytes of a stream decide whose it is, or that it, or the connection,
// must not be.
func FuzzStreamHeads(f *testing.F) {
	f.Add(varints(0x41, 0), true, true)
	f.Add(varints(0x41, 1), true, false)
	f.Add(varints(0x54, 0), false, true)
	f.Add(varints(0x54, 1<<62-1), false, false)
	f.Add([]byte{0x40, 0x41, 0xc0, 0, 0, 0, 0, 0, 0, 0, 1, 2}, true, true)
	f.Add([]byte{0x40, 0x54, 0x80}, false, true)
	f.Fuzz(func(t *testing.T, b []byte, bidi, fin bool) {
		if len(b) == 0 || len(b) > 1<<10 {
			return
		}
		fuzzWorld(t, func(w *world) {
			w.serve(nil, nil)
			p := w.peer(newest...)
			cs, s := w.session(p, "webtransport")
			if bidi {
				st := p.bidi(b)
				if fin {
					require.NoError(t, st.Close())
				}
			} else {
				st := p.uni(b)
				if fin {
					require.NoError(t, st.Close())
				}
			}
			r := bytes.NewReader(b)
			typ, err1 := http3.ReadVarint(r)
			id, err2 := http3.ReadVarint(r)
			ours := errors.Join(err1, err2) == nil && (bidi && typ == 0x41 || !bidi && typ == 0x54)
			time.Sleep(20 * time.Second)
			switch {
			case ours && id&3 != 0:
				require.Equal(t, http3.ErrID, p.ended())
			case ours && id == uint64(cs.StreamID()):
				rest := b[len(b)-r.Len():]
				got := make([]byte, len(rest))
				var in io.Reader
				var err error
				if bidi {
					in, err = s.AcceptStream(w.timeout(time.Second))
				} else {
					in, err = s.AcceptUniStream(w.timeout(time.Second))
				}
				require.NoError(t, err)
				_, err = io.ReadFull(in, got)
				require.NoError(t, err)
				require.Equal(t, rest, got)
			case ours:
				require.NoError(t, p.conn.Context().Err())
				_, err := s.AcceptStream(w.timeout(time.Second))
				require.Error(t, err)
			}
			if p.conn.Context().Err() == nil {
				require.NoError(t, s.Close())
			}
			<-s.Finished()
			require.Zero(t, webtransport.Held(s.Conn()))
		})
	})
}

// fuzzWorld runs f on the default engine.
func fuzzWorld(t *testing.T, f func(*world)) {
	synctest.Test(t, func(t *testing.T) { runWorld(t, engine.Default(), slow, f) })
}

// What is parsed is what was formatted, and what is not a list of strings is
// nothing.
func FuzzStructuredFields(f *testing.F) {
	f.Add(`"a", "b";q=1`)
	f.Add(`"\\\"";x="\"";y=:YQ==:`)
	f.Add(`"a",`)
	f.Fuzz(func(t *testing.T, in string) {
		names, ok := webtransport.ParseStrings([]string{in})
		require.Equal(t, ok, len(names) > 0)
		if !ok {
			return
		}
		require.LessOrEqual(t, len(names), 128)
		again, ok := webtransport.ParseStrings([]string{webtransport.FormatStrings(names...)})
		require.True(t, ok)
		require.Equal(t, names, again)
	})
}

package webtransport_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/transport"
)

// The peers here say byte by byte what deployed ones were seen to say.

func TestClientsOfEveryDraftGetASession(t *testing.T) {
	for name, tt := range map[string]struct {
		settings []uint64
		protocol string
		more     []string
		answer   map[string]string
	}{
		"Chromium": {
			settings: []uint64{0x1, 0, 0x6, 262144, 0x7, 0, 0x33, 1, 0xffd277, 1, 0x2b603742, 1, 0x1f*7 + 0x21, 99},
			protocol: "webtransport", more: []string{"sec-webtransport-http3-draft02", "1", "origin", "https://localhost"},
			answer: map[string]string{"sec-webtransport-http3-draft": "draft02"},
		},
		"Chromium with datagrams of draft-04 alone": {
			settings: []uint64{0xffd277, 1, 0x2b603742, 1}, protocol: "webtransport",
			more: []string{"sec-webtransport-http3-draft02", "1", "origin", "https://localhost"},
		},
		"Chromium with draft-07": {
			settings: []uint64{0x33, 1, 0x2b603742, 1, 0xc671706a, 16}, protocol: "webtransport", more: []string{"origin", "https://localhost"},
		},
		"Firefox": {
			settings: []uint64{0x1, 4096, 0x7, 20, 0x33, 1, 0x2b603742, 1, 0x8, 1}, protocol: "webtransport", more: []string{"origin", "https://localhost", "sec-fetch-dest", "webtransport"},
		},
		"Safari": {
			settings: []uint64{0x33, 1, 0x14e9cd29, 1, 0x2b61, 1 << 20, 0x2b64, 100, 0x2b65, 100}, protocol: "webtransport", more: []string{"origin", "https://localhost"},
		},
		"draft-13 with a protocol": {
			settings: []uint64{0x33, 1, 0x14e9cd29, 1}, protocol: "webtransport", more: []string{"wt-available-protocols", `"moq-16", "b"`},
			answer: map[string]string{"wt-protocol": `"moq-16"`},
		},
		"newest":                            {settings: newest, protocol: "webtransport-h3"},
		"one that announces datagrams only": {settings: []uint64{0x33, 1}, protocol: "webtransport"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.serve(nil, &webtransport.AcceptOptions{Protocols: []string{"moq-16"}})
				p := w.peer(tt.settings...)
				cs := p.bidi(connect(tt.protocol, tt.more...))
				h := p.head(cs)
				require.Equal(w, "200", h[":status"])
				for k, v := range tt.answer {
					require.Equal(w, v, h[k])
				}
				s := <-w.sessions
				go echo(s) // ends with the session
				id := uint64(cs.StreamID())

				b := p.bidi(cat(varints(0x41, id), []byte("hello")))
				require.NoError(w, b.Close())
				got := make([]byte, 5)
				_, err := b.Read(got)
				require.NoError(w, err)
				require.Equal(w, "hello", string(got))

				u := p.uni(cat(varints(0x54, id), []byte("one way")))
				require.NoError(w, u.Close())
				for {
					in, err := p.conn.AcceptUniStream(w.Context())
					require.NoError(w, err)
					typ, err := http3.ReadVarint(byteReader{in})
					require.NoError(w, err)
					if typ != 0x54 {
						continue
					}
					sid, err := http3.ReadVarint(byteReader{in})
					require.NoError(w, err)
					require.Equal(w, id, sid)
					break
				}

				require.NoError(w, p.conn.SendDatagram(cat(varints(id/4), []byte("dg"))))
				d, err := p.conn.ReceiveDatagram(w.Context())
				require.NoError(w, err)
				require.Equal(w, cat(varints(id/4), []byte("dg")), d)

				_, err = cs.Write(closing(17, "bye"))
				require.NoError(w, err)
				require.NoError(w, cs.Close())
				require.Equal(w, &webtransport.SessionError{Code: 17, Reason: "bye", Remote: true}, ended(w, s))
			})
		})
	}
}

func TestTheServerAnnouncesEveryDraft(t *testing.T) {
	simulate(t, func(w *world) {
		w.serve(nil, nil)
		c, err := webtransport.Dial(w.Context(), w.tr, site, nil)
		require.NoError(w, err)
		s := <-w.sessions
		for side, conn := range map[string]*http3.Conn{"server": c.Conn(), "client": s.Conn()} {
			st, err := conn.Settings(w.Context())
			require.NoError(w, err)
			require.True(w, st.Datagrams)
			require.Equal(w, side == "server", st.ExtendedConnect)
			require.Equal(w, map[uint64]uint64{0x2b603742: 1, 0xc671706a: 16, 0x14e9cd29: 1, 0x2c7cf000: 1, 0xffd277: 1}, st.Other)
		}
		require.NoError(w, c.Close())
	})
}

func TestTheClientSpeaksTheServersDraft(t *testing.T) {
	for name, tt := range map[string]struct {
		settings []uint64
		protocol string
		more     bool // a second session is tried
	}{
		"draft-02":      {[]uint64{0x8, 1, 0x33, 1, 0x2b603742, 1}, "webtransport", true},
		"draft-07":      {[]uint64{0x8, 1, 0x33, 1, 0xc671706a, 2}, "webtransport", true},
		"draft-07 of 1": {[]uint64{0x8, 1, 0x33, 1, 0xc671706a, 1}, "webtransport", false},
		"draft-13":      {[]uint64{0x8, 1, 0x33, 1, 0x14e9cd29, 9, 0x2b61, 1}, "webtransport", false},
		"newest":        {newest, "webtransport-h3", false},
		"two of them":   {append([]uint64{0x2b603742, 1}, newest...), "webtransport-h3", false},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				accept := w.listenPeer(tt.settings...)
				webtransport.ConfigureTransport(w.tr, nil)
				sessions := make(chan *webtransport.Session, 2)
				dial := func() error {
					s, err := webtransport.Dial(w.Context(), w.tr, site, &webtransport.DialOptions{Pool: true})
					sessions <- s
					return err
				}
				failed := make(chan error, 2)
				go func() { failed <- dial() }()
				p := accept()
				_, h := p.answer(":status", "200")
				require.NoError(w, <-failed)
				require.Equal(w, tt.protocol, h[":protocol"])
				require.Equal(w, "/", h[":path"])
				require.Equal(w, "1", h["sec-webtransport-http3-draft02"])
				if tt.more {
					go func() { failed <- dial() }()
					p.answer(":status", "200")
					require.NoError(w, <-failed)
				} else {
					require.ErrorIs(w, dial(), webtransport.ErrSessionLimit)
				}
				require.NoError(w, (<-sessions).Close())
			})
		})
	}
}

func TestTheClientAsksNoServerWithoutWebTransport(t *testing.T) {
	for name, settings := range map[string][]uint64{
		"nothing":               {},
		"no extended CONNECT":   {0x33, 1, 0x2c7cf000, 1},
		"no datagrams":          {0x8, 1, 0x2c7cf000, 1},
		"datagrams refused":     {0x8, 1, 0x33, 0, 0xffd277, 1, 0x2c7cf000, 1},
		"no draft":              {0x8, 1, 0x33, 1},
		"every draft said no":   {0x8, 1, 0x33, 1, 0x2b603742, 0, 0xc671706a, 0, 0x14e9cd29, 0, 0x2c7cf000, 0},
		"a value without sense": {0x8, 1, 0x33, 1, 0x2b603742, 7},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				accept := w.listenPeer(settings...)
				code := make(chan transport.ErrorCode, 1)
				go func() { code <- accept().ended() }()
				_, err := webtransport.Dial(w.Context(), w.tr, site, nil)
				require.Error(w, err)
				if name == "no extended CONNECT" || name == "nothing" {
					require.ErrorContains(w, err, "extended CONNECT")
					require.EqualValues(w, http3.ErrNoError, <-code)
					return
				}
				var re *webtransport.RequirementsError
				require.ErrorAs(w, err, &re)
				require.ErrorIs(w, err, errors.ErrUnsupported)
				require.EqualValues(w, 0x212c0d48, <-code)
			})
		})
	}
	t.Run("too large a value", func(t *testing.T) {
		simulate(t, func(w *world) {
			accept := w.listenPeer(0x8, 1, 0x33, 1, 0x2c7cf000, 2)
			ended := make(chan transport.ErrorCode, 1)
			go func() { ended <- accept().ended() }()
			_, err := webtransport.Dial(w.Context(), w.tr, site, nil)
			require.Error(w, err)
			require.Equal(w, http3.ErrSettings, <-ended)
		})
	})
}

func TestTheServerAcceptsNobodyWithoutDatagrams(t *testing.T) {
	for name, settings := range map[string][]uint64{
		"no setting": {0x2c7cf000, 1},
		"zero":       {0x33, 0, 0xffd277, 1, 0x2c7cf000, 1},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.serve(nil, nil)
				p := w.peer(settings...)
				require.Equal(w, "400", p.head(p.bidi(connect("webtransport")))[":status"])
				var re *webtransport.RequirementsError
				require.ErrorAs(w, <-w.failures, &re)
			})
		})
	}
}

func TestAServersChoiceThatWasNotOfferedEndsTheSession(t *testing.T) {
	for name, tt := range map[string]struct {
		header  []string
		require bool
		fails   bool
	}{
		"not offered":           {[]string{"wt-protocol", `"c"`}, false, true},
		"required and missing":  {nil, true, true},
		"required and ignored":  {[]string{"wt-protocol", `a`}, true, true},
		"required, two of them": {[]string{"wt-protocol", `"a", "b"`}, true, true},
		"ignored":               {[]string{"wt-protocol", `a`}, false, false},
		"missing":               {nil, false, false},
		"with parameters":       {[]string{"wt-protocol", `"b";x=1`}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				webtransport.ConfigureTransport(w.tr, nil)
				accept := w.listenPeer(newest...)
				code := make(chan transport.ErrorCode, 1)
				go func() {
					p := accept()
					cs, h := p.answer(append([]string{":status", "200"}, tt.header...)...)
					require.Equal(w, `"a", "b"`, h["wt-available-protocols"])
					if tt.fails {
						code <- p.cancelled(cs)
					}
				}()
				opts := &webtransport.DialOptions{Protocols: []string{"a", "b"}, RequireProtocol: tt.require, Pool: true}
				s, err := webtransport.Dial(w.Context(), w.tr, site, opts)
				if !tt.fails {
					require.NoError(w, err)
					require.NoError(w, s.Close())
					return
				}
				require.ErrorContains(w, err, "protocol")
				require.EqualValues(w, 0x0817b3dd, <-code)

				go func() {
					p := accept()
					p.answer(append([]string{":status", "200"}, tt.header...)...)
					code <- p.ended()
				}()
				opts.Pool = false // what is the session's alone ends with it
				_, err = webtransport.Dial(w.Context(), w.tr, site, opts)
				require.ErrorContains(w, err, "protocol")
				require.EqualValues(w, 0x0817b3dd, <-code)
			})
		})
	}
}

//go:build ngtcp2 && cgo

package capi

import (
	"encoding/binary"
	"errors"
	"testing"
)

// A script is what the fuzzer varies: each step says which packet of a recorded
// flight comes next, and how it is damaged.
//
//	0 to deliver as it is, 1 to drop, 2 to damage, 3 to cut, 4 to repeat,
//	5 to send bytes of the script instead, 6 to let time pass, 7 to use the API
const scriptStep = 4 // bytes: what, where (2), value

// play runs a handshake and some traffic through the script. It is about memory
// errors and broken promises: whatever happens, the Conn gives an error at most.
func play(t *testing.T, script []byte, after bool, opts ...option) {
	w := newWorld(t, opts...)
	defer w.close()
	if after {
		w.handshake()
		s := w.client.open(false)
		s.send([]byte("something to do"), false)
		w.client.SendDatagram([]byte("x"))
	}
	var last []byte
	for i := 0; i < 200 && (len(script) > 0 || i < 20); i++ {
		w.flush(w.client)
		w.flush(w.server)
		op := byte(0)
		var at int
		var value byte
		if len(script) >= scriptStep {
			op, at, value = script[0]%8, int(binary.BigEndian.Uint16(script[1:])), script[3]
			script = script[scriptStep:]
		} else {
			script = nil
		}
		if len(w.queue) > 0 {
			f := &w.queue[0]
			switch op {
			case 1:
				w.queue = w.queue[1:]
				continue
			case 2:
				f.pkt[at%len(f.pkt)] ^= value
			case 3:
				f.pkt = f.pkt[:1+at%len(f.pkt)]
			case 4:
				last = append([]byte(nil), f.pkt...)
			case 5:
				n := min(at%1500, len(script))
				f.pkt = append(f.pkt[:min(len(f.pkt), int(value))], script[:n]...)
				script = script[n:]
				if len(f.pkt) == 0 {
					w.queue = w.queue[1:]
					continue
				}
			}
		}
		if op == 4 && last != nil {
			for _, p := range []*peer{w.client, w.server} {
				if p.Conn != nil && p.err == nil {
					p.err = p.ReadPackets(Path{serverAddr, clientAddr}, 3, last, int(value), w.now)
					p.drain()
				}
			}
		}
		if op == 6 {
			w.now += uint64(at) * millisecond
		}
		if op == 7 {
			useAPI(w, at, value)
		}
		if !w.step() {
			break
		}
	}
	for _, p := range []*peer{w.client, w.server} {
		var e *Error
		if p.err != nil && !errors.As(p.err, &e) {
			t.Fatalf("%v is no *Error", p.err)
		}
		if p.Conn != nil {
			if _, err := p.WriteClose(w.buf, ClosePending, 0, "", w.now); err != nil && !errors.As(err, &e) {
				t.Fatal(err)
			}
		}
	}
}

func useAPI(w *world, at int, value byte) {
	p := w.client
	if value&1 == 1 && w.server.Conn != nil {
		p = w.server
	}
	for _, h := range p.streams {
		switch at % 6 {
		case 0:
			h.Reset(uint64(value))
		case 1:
			h.StopSending(uint64(value))
		case 2:
			h.send(make([]byte, at), value&2 == 0)
		case 3:
			h.SetPriority(value, value&4 == 0)
		case 4:
			h.Consumed(at)
		case 5:
			h.read()
		}
	}
	switch value >> 4 {
	case 0:
		p.InitiateKeyUpdate(w.now)
	case 1:
		p.SendDatagram(make([]byte, at%1500))
	case 2:
		if s, _ := p.OpenStream(value&2 == 0); s != nil {
			p.streams[s.ID()] = &half{Stream: s}
		}
	case 3:
		p.ReleaseTLS()
	case 4:
		p.WriteClose(w.buf, CloseApplication, uint64(at), "x", w.now)
	case 5:
		p.HandleExpiry(w.now)
	case 6:
		p.FailHandshake(value)
	}
}

func FuzzReadPackets(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte{}, true)
	for op := range byte(8) {
		var s []byte
		for i := range byte(20) {
			s = append(s, op, i, i*31, i*7+1)
		}
		f.Add(s, false)
		f.Add(s, true)
		mixed := append([]byte(nil), s...)
		for i := 0; i < len(mixed); i += 2 * scriptStep {
			mixed[i] = byte(i)
		}
		f.Add(mixed, true)
	}
	// Handshakes that are not what is looked at resume a session: half the time.
	buf := make([]byte, MinWriteBuffer)
	tickets := func(w *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) {
		w.buf = buf
		w.serverTLS.Tickets, w.serverTLS.TicketKeys = true, [][32]byte{{1}}
		ct.Tickets = true
	}
	w := connected(f, tickets)
	w.until("session", func() bool { return w.client.count[Session] > 0 })
	session := w.client.TakeSession()
	w.close()
	resume := func(_ *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) { ct.Session = session }
	f.Fuzz(func(t *testing.T, script []byte, after bool) {
		was := Memory()
		if after {
			play(t, script, after, tickets, resume)
		} else {
			play(t, script, after, tickets)
		}
		if now := Memory(); now != was {
			t.Fatalf("%d bytes of C memory are left", now-was)
		}
	})
}

func FuzzPacket(f *testing.F) {
	w := newWorld(f)
	var initial []byte
	w.tap = func(_ *peer, pkt []byte) { initial = append([]byte(nil), pkt...) }
	w.flush(w.client)
	f.Add(initial)
	f.Add([]byte{0xc0})
	key := &TokenKey{1}
	in, err := Accept(initial)
	if err != nil {
		f.Fatal(err)
	}
	buf := make([]byte, 2000)
	n, err := WriteRetry(buf, key, &in, []byte("12345678"), clientAddr, second)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append([]byte(nil), buf[:n]...))
	token, err := NewRegularToken(key, clientAddr, second)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		buf := make([]byte, 2000)
		in, err := Accept(pkt)
		if err != nil {
			in = Initial{Version: 1, DCID: pkt[:min(len(pkt), 25)], SCID: pkt[min(len(pkt), 3):min(len(pkt), 20)]}
			in.Token = pkt
		}
		if n := WriteVersionNegotiation(buf, in.DCID, in.SCID); n != 7+8+len(in.DCID)+len(in.SCID) {
			t.Fatal(n)
		}
		n, err := WriteRetry(buf, key, &in, []byte("12345678"), clientAddr, second)
		if err == nil && (n <= 0 || n > len(buf)) {
			t.Fatal(n)
		}
		if _, err := VerifyRetryToken(key, &in, clientAddr, second, second); err == nil {
			t.Fatal("a token nobody made is good")
		}
		if err := VerifyRegularToken(key, pkt, clientAddr, second, second); err == nil && string(pkt) != string(token) {
			t.Fatal("a token nobody made is good")
		}
		if _, err := WriteInitialClose(buf, &in, 2, ""); err != nil && len(in.DCID) <= 20 && len(in.SCID) <= 20 && len(in.DCID) > 0 {
			t.Fatal(err)
		}
		ResetToken((*[32]byte)(key), in.DCID)
		if n := WriteStatelessReset(buf, &[16]byte{}, len(pkt)); n >= len(pkt) && n > 0 {
			t.Fatal(n)
		}
	})
}

package websocket

import "unicode/utf8"

// A textCheck checks UTF-8 that comes in pieces, and rejects it with the first
// byte that cannot be right.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-8.1
type textCheck struct {
	head [utf8.UTFMax]byte // of a character that is not complete
	n    int               // its bytes
}

// add reports whether the text can be valid with p at its end.
func (t *textCheck) add(p []byte) bool {
	for t.n > 0 && len(p) > 0 {
		t.head[t.n] = p[0]
		t.n++
		p = p[1:]
		if utf8.FullRune(t.head[:t.n]) {
			if r, size := utf8.DecodeRune(t.head[:t.n]); r == utf8.RuneError && size == 1 {
				return false
			}
			t.n = 0
		}
	}
	whole := len(p)
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if b := p[len(p)-i]; utf8.RuneStart(b) {
			if !utf8.FullRune(p[len(p)-i:]) {
				whole = len(p) - i
			}
			break
		}
	}
	if !utf8.Valid(p[:whole]) {
		return false
	}
	t.n += copy(t.head[t.n:], p[whole:])
	return true
}

// complete reports whether the text can end here.
func (t *textCheck) complete() bool { return t.n == 0 }

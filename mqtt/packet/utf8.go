package packet

import (
	"strings"
	"unicode/utf8"
)

// checkUTF8 returns what is wrong with the bytes of a UTF-8 encoded string, or
// "". Control characters and non-characters are allowed: the specification
// says SHOULD NOT (MQTT 5, Section 1.5.4), and byte order marks are kept
// [MQTT-1.5.4-3].
func checkUTF8[S string | []byte](s S) string {
	for i := range len(s) {
		switch c := s[i]; {
		case c == 0:
			return "has a null character" // [MQTT-1.5.4-2]
		case c >= utf8.RuneSelf:
			return checkUTF8Rest(s[i:])
		}
	}
	return ""
}

func checkUTF8Rest[S string | []byte](s S) string {
	// utf8.DecodeRune refuses surrogates, overlong forms and what is beyond
	// U+10FFFF, as [MQTT-1.5.4-1] does.
	for i := 0; i < len(s); {
		c := s[i]
		if c == 0 {
			return "has a null character"
		}
		if c < utf8.RuneSelf {
			i++
			continue
		}
		var buf [utf8.UTFMax]byte
		n := copy(buf[:], s[i:])
		r, size := utf8.DecodeRune(buf[:n])
		if r == utf8.RuneError && size <= 1 {
			return "is not valid UTF-8"
		}
		i += size
	}
	return ""
}

// checkTopicName returns what is wrong with a topic name that is not absent,
// or "".
func checkTopicName[S string | []byte](s S) string {
	if len(s) == 0 {
		return "is empty" // [MQTT-4.7.3-1]
	}
	for i := range len(s) {
		switch topicByte[s[i]] {
		case topicWildcard:
			return "has a wildcard" // [MQTT-3.3.2-2], [MQTT-4.7.0-1]
		case topicLook:
			if bad := checkUTF8Rest(s[i:]); bad != "" {
				return bad
			}
			if hasWildcard(s[i:]) {
				return "has a wildcard"
			}
			return ""
		}
	}
	return ""
}

const (
	topicWildcard = 1
	topicLook     = 2 // null, or a part of a longer character
)

// topicByte classifies the bytes of a topic name: every PUBLISH, in and out,
// goes through it. Other bytes, 0, are as they should be.
var topicByte = func() (class [256]uint8) {
	class['+'], class['#'], class[0] = topicWildcard, topicWildcard, topicLook
	for c := utf8.RuneSelf; c < len(class); c++ {
		class[c] = topicLook
	}
	return class
}()

func hasWildcard[S string | []byte](s S) bool {
	for i := range len(s) {
		if s[i] == '+' || s[i] == '#' {
			return true
		}
	}
	return false
}

// checkFilter returns what is wrong with a topic filter, or "". Its UTF-8 is
// checked elsewhere. Shared subscriptions are of MQTT 5: before it "$share" is a
// topic level as any other.
func checkFilter(s string, v Version) string {
	if v >= V5 && isShared(s) {
		name, filter, ok := strings.Cut(s[len(sharePrefix):], "/")
		switch {
		case name == "" || hasWildcard(name):
			return "has an invalid share name" // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
		case !ok || filter == "":
			return "has a share name but no filter" // [MQTT-4.8.2-2]
		}
		s = filter
	}
	if s == "" {
		return "is empty" // [MQTT-4.7.3-1]
	}
	for i := range len(s) {
		switch s[i] {
		case '#': // [MQTT-4.7.1-1]
			if i != len(s)-1 || i > 0 && s[i-1] != '/' {
				return "has a misplaced #"
			}
		case '+': // [MQTT-4.7.1-2]
			if i > 0 && s[i-1] != '/' || i < len(s)-1 && s[i+1] != '/' {
				return "has a misplaced +"
			}
		}
	}
	return ""
}

const sharePrefix = "$share/"

func isShared(filter string) bool { return strings.HasPrefix(filter, sharePrefix) }

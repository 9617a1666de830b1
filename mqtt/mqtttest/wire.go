package mqtttest

// frame makes a packet of its first byte and its body, right or wrong.
func frame(first byte, body ...[]byte) []byte {
	n := 0
	for _, b := range body {
		n += len(b)
	}
	out := []byte{first}
	for {
		digit := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			out = append(out, digit|0x80)
			continue
		}
		out = append(out, digit)
		break
	}
	for _, b := range body {
		out = append(out, b...)
	}
	return out
}

// str is a UTF-8 encoded string (MQTT 5, Section 1.5.4).
func str(s string) []byte { return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...) }

// connect5 is an MQTT 5 CONNECT with these flags, no properties and this
// payload.
func connect5(flags byte, payload ...[]byte) []byte {
	body := [][]byte{str("MQTT"), {5, flags, 0, 0, 0}}
	return frame(0x10, append(body, payload...)...)
}

// connect311 is an MQTT 3.1.1 CONNECT.
func connect311(flags byte, payload ...[]byte) []byte {
	body := [][]byte{str("MQTT"), {4, flags, 0, 0}}
	return frame(0x10, append(body, payload...)...)
}

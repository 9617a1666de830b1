package websocket_test

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// texts is section 6: UTF-8. What is valid is echoed, what is not ends the
// connection with 1007, as soon as it can be seen.
func texts() []row {
	valid := "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!"
	greek := unhex("cebae1bdb9cf83cebcceb5")
	surrogate := unhex("eda080")
	rows := []row{
		{id: "6.1.1", send: frames(text("")), want: frames(text(""))},
		{id: "6.1.2", send: parts(opText, "", "", ""), want: frames(text(""))},
		{id: "6.1.3", send: parts(opText, "", "middle frame payload", ""), want: frames(text("middle frame payload"))},
		{id: "6.2.1", send: frames(text(valid)), want: frames(text(valid))},
		{id: "6.2.2", send: parts(opText, valid[:13], valid[13:]), want: frames(text(valid))},
		{id: "6.2.3", send: parts(opText, split(valid, 1)...), want: frames(text(valid))},
		{id: "6.2.4", send: parts(opText, split(greek, 1)...), want: frames(text(greek))},
		invalid("6.3.1", frames(text(greek+surrogate+"edited"))),
		invalid("6.3.2", parts(opText, split(greek+surrogate+"edited", 1)...)),
	}
	// The connection must end before the rest of the message is sent.
	for i, bad := range []string{unhex("f4908080"), unhex("f490")} {
		r := invalid(fmt.Sprintf("6.4.%d", i+1), parts(opText, greek, bad, "edited"))
		r.pause = 2
		rows = append(rows, r)
	}
	list := func(section string, sequences ...string) {
		for i, s := range sequences {
			id := fmt.Sprintf("%s.%d", section, i+1)
			if s = unhex(s); utf8.ValidString(s) {
				rows = append(rows, row{id: id, send: frames(text(s)), want: frames(text(s))})
				continue
			}
			rows = append(rows, invalid(id, frames(text(s))))
		}
	}
	list("6.5", "ceba", "cebae1bdb9", "cebae1bdb9cf83", "cebae1bdb9cf83cebc", "cebae1bdb9cf83cebcceb5")
	for i := 1; i <= len(greek); i++ {
		list(fmt.Sprintf("6.6.%d", i), fmt.Sprintf("%x", greek[:i]))
	}
	list("6.7", "00", "c280", "e0a080", "f0908080")
	list("6.8", "f888808080", "fc8480808080")
	list("6.9", "7f", "dfbf", "efbfbf", "f48fbfbf")
	list("6.10", "f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf")
	list("6.11", "ed9fbf", "ee8080", "efbfbd", "f48fbfbf", "f4908080")
	list("6.12", "80", "bf", "80bf", "80bf80", "80bf80bf", "80bf80bf80", "80bf80bf80bf", hexRange(0x80, 0xbe, ""))
	list("6.13", hexRange(0xc0, 0xdf, "20"), hexRange(0xe0, 0xef, "20"), hexRange(0xf0, 0xf7, "20"), hexRange(0xf8, 0xfb, "20"), "fc20fd20")
	missing := []string{"c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf"}
	list("6.14", missing...)
	list("6.15", strings.Join(missing, ""))
	list("6.16", "fe", "ff", "fefeffff")
	list("6.17", "c0af", "e080af", "f08080af", "f8808080af", "fc80808080af")
	list("6.18", "c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf")
	list("6.19", "c080", "e08080", "f0808080", "f880808080", "fc8080808080")
	list("6.20", "eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf")
	list("6.21", "eda080edb080", "eda080edbfbf", "edadbfedb080", "edadbfedbfbf", "edae80edb080", "edae80edbfbf", "edafbfedb080", "edafbfedbfbf")
	noncharacters := []string{"efbfbe", "efbfbf"}
	for plane := range rune(16) {
		for _, low := range []rune{0xfffe, 0xffff} {
			noncharacters = append(noncharacters, fmt.Sprintf("%x", string((plane+1)<<16|low)))
		}
	}
	list("6.22", noncharacters...)
	list("6.23", "efbfb9", "efbfba", "efbfbb", "efbfbc", "efbfbd", "efbfbe", "efbfbf")
	return rows
}

func invalid(id string, send []frame) row { return row{id: id, send: send, broken: true, code: 1007} }

func hexRange(from, to int, after string) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "%02x%s", i, after)
	}
	return b.String()
}

// Command mqttstatements says which of the numbered statements of MQTT 5.0 and
// MQTT 3.1.1 are proven by the tests of this module. It runs those tests, prints a
// table, and ends with the sums; with -update it writes the table to
// docs/mqtt-conformance.md as well. It must run in the module's folder.
//
// The statements are in statements5.txt and statements311.txt. A test says which it
// proves by an attribute, at any place of it:
//
//	t.Attr("mqtt5", "MQTT-3.1.2-22 MQTT-4.13.1-1")
//	t.Attr("mqtt3.1.1", "MQTT-3.1.2-24")
//
// so that what counts is that this test ran to this point and passed, not that
// somebody wrote so. A statement that binds client and server is proven when it is
// for both. Tests of package client prove for the client, those of packages that
// are under both for both, all others for the server, unless the value begins with
// "client: ", "server: " or "both: ".
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
)

func main() {
	update := flag.Bool("update", false, "write the table to "+tableFile+", too")
	flag.Parse()
	if err := run(*update); err != nil {
		fmt.Fprintln(os.Stderr, "mqttstatements:", err)
		os.Exit(1)
	}
}

func run(update bool) error {
	specs, err := readSpecs()
	if err != nil {
		return err
	}
	proofs, err := prove(".")
	if err != nil {
		return err
	}
	text, err := table(specs, proofs)
	if err != nil {
		return err
	}
	if update {
		if err := os.WriteFile(tableFile, []byte(text), 0o644); err != nil { //nolint:gosec // G306: it is in git, for all to read
			return err
		}
	}
	fmt.Print(text)
	fmt.Println()
	for _, s := range slices.Backward(specs) {
		fmt.Println(s.sum(proofs))
	}
	return nil
}

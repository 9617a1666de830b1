package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"

	thirdparty "github.com/anyquic/anyquic/third_party"
	"github.com/anyquic/anyquic/transport"
)

// A component is something that this program is linked with.
type component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Licence string `json:"license"` // SPDX
}

// linked returns what is in this program, and nothing else: the C libraries of
// its engines, the Go modules that the toolchain recorded, and Go itself.
func linked(engines []transport.Transport) []component {
	versions := map[string]string{"go": strings.TrimPrefix(runtime.Version(), "go")}
	libraries := thirdparty.Libraries()
	for _, e := range engines {
		for name, version := range e.Features().Versions {
			if slices.ContainsFunc(libraries, func(l thirdparty.Library) bool { return l.Name == name }) {
				versions[name] = version
			}
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			versions[d.Path] = cmp.Or(d.Replace, d).Version
		}
	}
	list := make([]component, 0, len(versions))
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		c := component{Name: name, Version: versions[name], Licence: "NOASSERTION"}
		if spdx, ok := thirdparty.Licence(name); ok {
			c.Licence = spdx
		}
		list = append(list, c)
	}
	// Go and the C libraries, whose names have no dot, come first.
	slices.SortStableFunc(list, func(a, b component) int {
		return cmp.Compare(strings.Count(a.Name, "."), strings.Count(b.Name, "."))
	})
	return list
}

// printLicences prints a line for each component.
func printLicences(w io.Writer, list []component) error {
	fmt.Fprintln(w, "anyquic is Apache-2.0. This program is linked with:")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range list {
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", c.Name, c.Version, c.Licence)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, c := range list {
		if c.Name == "wolfssl" {
			fmt.Fprintf(w, "\nwolfSSL is %s. Who passes this program on passes on the whole of it under\nthat licence, unless wolfSSL Inc. has sold them another.\n", c.Licence)
		}
	}
	_, err := fmt.Fprintln(w, "\nWho passes this program on adds the licences' texts and copyright notices: make notices,\nin the source of anyquic, writes them into one file.")
	return err
}

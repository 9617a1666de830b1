package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// An engineInfo is one element of what `anyquic engines --json` prints.
type engineInfo struct {
	Name     string             `json:"name"`
	Default  bool               `json:"default"`
	Features transport.Features `json:"features"`
}

func newEngines() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "engines",
		Short:   "List the QUIC engines in this build, their libraries and features",
		Example: "  anyquic engines\n  anyquic engines --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var infos []engineInfo
			for i, t := range engine.All() {
				infos = append(infos, engineInfo{t.Name(), i == 0, t.Features()})
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(infos)
			}
			return printEngines(cmd.OutOrStdout(), infos)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printEngines(w io.Writer, infos []engineInfo) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, row := range featureTable(infos) {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
		if i == 0 {
			fmt.Fprintln(tw, strings.Repeat("-\t", len(row)-1)+"-")
		}
	}
	return tw.Flush()
}

// featureTable returns features by engine, a heading first. `anyquic engines`
// and the README print it.
func featureTable(infos []engineInfo) [][]string {
	rows := []struct {
		name string
		of   func(engineInfo) string
	}{
		{"feature", func(e engineInfo) string { return e.Name }},
		{"libraries", func(e engineInfo) string { return strings.Trim(libraries(e.Features.Versions), " ()") }},
		{"default", func(e engineInfo) string { return yesNo(e.Default) }},
		{"0-RTT", func(e engineInfo) string { return yesNo(e.Features.EarlyData) }},
		{"datagrams (RFC 9221)", func(e engineInfo) string { return yesNo(e.Features.Datagrams) }},
		{"RESET_STREAM_AT", func(e engineInfo) string { return yesNo(e.Features.ReliableReset) }},
		{"active migration", func(e engineInfo) string { return yesNo(e.Features.Migration) }},
		{"qlog", func(e engineInfo) string { return yesNo(e.Features.QLog) }},
		{"raw public keys (RFC 7250)", func(e engineInfo) string { return yesNo(e.Features.RawPublicKeys) }},
		{"congestion control", func(e engineInfo) string { return strings.Join(e.Features.CongestionControl, ", ") }},
	}
	table := make([][]string, len(rows))
	for i, row := range rows {
		table[i] = []string{row.name}
		for _, e := range infos {
			table[i] = append(table[i], row.of(e))
		}
	}
	return table
}

// libraries returns " (name version, …)", in alphabetical order.
func libraries(versions map[string]string) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		names = append(names, name+" "+versions[name])
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

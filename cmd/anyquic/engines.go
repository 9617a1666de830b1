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

	"github.com/anyquic/anyquic/http3"
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
			infos := engineInfos()
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

// engineInfos returns the engines of this build, the default first.
func engineInfos() []engineInfo {
	var infos []engineInfo
	for i, t := range engine.All() {
		infos = append(infos, engineInfo{t.Name(), i == 0, t.Features()})
	}
	return infos
}

func printEngines(w io.Writer, infos []engineInfo) error {
	heads := make([]string, len(infos))
	for i, e := range infos {
		heads[i] = e.Name
		if e.Default {
			heads[i] += " (default)"
		}
	}
	table := featureTable(infos)
	table = append([][]string{append([]string{"feature"}, heads...), slices.Repeat([]string{"-"}, len(heads)+1)}, table...)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range table {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nHTTP/3 on any of them: %s\n", codecList(http3.Codecs()))
	return err
}

// codecList says which codecs HTTP/3 has in this build, the preferred first.
func codecList(codecs []http3.CodecInfo) string {
	var all []string
	for _, c := range codecs {
		table := "QPACK's static table"
		if c.DynamicTable {
			table = "QPACK's dynamic table"
		}
		all = append(all, fmt.Sprintf("codec %s%s with %s", c.Name, libraries(c.Versions), table))
	}
	return strings.Join(all, ", or ")
}

// featureTable returns features by engine, without a heading. `anyquic engines`
// and the README print it.
func featureTable(infos []engineInfo) [][]string {
	rows := []struct {
		name string
		of   func(transport.Features) string
	}{
		{"libraries", func(f transport.Features) string { return strings.Trim(libraries(f.Versions), " ()") }},
		{"0-RTT", func(f transport.Features) string { return yesNo(f.EarlyData) }},
		{"datagrams (RFC 9221)", func(f transport.Features) string { return yesNo(f.Datagrams) }},
		{"RESET_STREAM_AT", func(f transport.Features) string { return yesNo(f.ReliableReset) }},
		{"active migration", func(f transport.Features) string { return yesNo(f.Migration) }},
		{"qlog", func(f transport.Features) string { return yesNo(f.QLog) }},
		{"unread data outlives the connection", func(f transport.Features) string { return yesNo(f.ReadAfterEnd) }},
		{"raw public keys (RFC 7250)", func(f transport.Features) string { return yesNo(f.RawPublicKeys) }},
		{"congestion control", func(f transport.Features) string { return strings.Join(f.CongestionControl, ", ") }},
	}
	table := make([][]string, len(rows))
	for i, row := range rows {
		table[i] = []string{row.name}
		for _, e := range infos {
			table[i] = append(table[i], row.of(e.Features))
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

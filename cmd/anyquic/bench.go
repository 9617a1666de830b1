package main

import (
	"encoding/json"
	"io"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/bench"
)

func newBench() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the broker and the QUIC engines on this machine",
		Long: `Measure the broker and the QUIC engines on this machine.

Every server runs in a process of its own on loopback; targets take turns, round by
round; the table shows medians and the ratio to the first target.`,
		Args: cobra.NoArgs,
		RunE: help,
	}
	cmd.AddCommand(newBenchMQTT(), newBenchTransport(), newBenchH3(), newBenchBroker(), newBenchH3Server(), newBenchTransportServer(), newBenchTransportClient())
	return cmd
}

// benchFlags are the options of every benchmark.
type benchFlags struct {
	rounds int
	asJSON bool
}

func (f *benchFlags) bind(cmd *cobra.Command) {
	cmd.Flags().IntVar(&f.rounds, "rounds", 5, "how often each target is measured")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON, with every round's figures")
}

// benchReport is what --json prints.
type benchReport struct {
	Time    time.Time      `json:"time"`
	Program versionInfo    `json:"program"`
	CPUs    int            `json:"cpus"`
	Figures []bench.Figure `json:"figures"`
	Samples []bench.Sample `json:"samples"`
}

func (f *benchFlags) print(w io.Writer, samples []bench.Sample) error {
	figures := bench.Summarise(samples)
	if !f.asJSON {
		return bench.Print(w, figures)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(benchReport{time.Now(), buildVersion(), runtime.NumCPU(), figures, samples})
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
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
	rounds    int
	asJSON    bool
	save      string // a file for JSON
	scenarios []string
	peers     []string
	known     []string // scenarios
}

// bind declares the flags. known are the scenarios that there are; normal, those
// that are measured unless told otherwise.
func (f *benchFlags) bind(cmd *cobra.Command, known, normal []string) {
	f.known = known
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.IntVar(&f.rounds, "rounds", 5, "how often each target is measured")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON, with every round's figures")
	fs.StringVar(&f.save, "save", "", "file to write the JSON into as well")
	fs.StringSliceVar(&f.scenarios, "scenario", normal, "what to measure: "+strings.Join(known, ", "))
	fs.StringArrayVar(&f.peers, "peer", nil, "a foreign program to measure by the same load, NAME=COMMAND; may be given several times")
}

func (f *benchFlags) check() error {
	if f.rounds < 1 {
		return errors.New("--rounds must be 1 or more")
	}
	for _, s := range f.scenarios {
		if !slices.Contains(f.known, s) {
			return fmt.Errorf("--scenario %q: use %s", s, strings.Join(f.known, ", "))
		}
	}
	return nil
}

// A peer is what --peer names.
type peer struct {
	name    string
	command []string
}

func (f *benchFlags) foreign() ([]peer, error) {
	var all []peer
	for _, s := range f.peers {
		name, command, ok := strings.Cut(s, "=")
		words := strings.Fields(command)
		if !ok || len(words) == 0 {
			return nil, fmt.Errorf("--peer %q: not NAME=COMMAND", s)
		}
		all = append(all, peer{name, words})
	}
	return all, nil
}

// child returns how the programs to measure are started.
func child(cmd *cobra.Command) func(context.Context, []string) *exec.Cmd {
	return func(ctx context.Context, words []string) *exec.Cmd {
		c := exec.CommandContext(ctx, words[0], words[1:]...) //nolint:gosec // ourselves, or the user's own command
		c.Stderr = cmd.ErrOrStderr()
		return c
	}
}

// progress tells the user what is being measured. Several goroutines may.
func progress(cmd *cobra.Command) func(string) {
	var mu sync.Mutex
	return func(s string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(cmd.ErrOrStderr(), s)
	}
}

// measure measures every scenario on every target, in turn, round by round, and
// prints the figures.
func measure[T any](cmd *cobra.Command, f *benchFlags, targets []T, one func(ctx context.Context, scenario string, target T, round int) ([]bench.Sample, error)) error {
	var samples []bench.Sample
	for _, scenario := range f.scenarios {
		for round := 1; round <= f.rounds; round++ {
			for _, t := range targets {
				got, err := one(cmd.Context(), scenario, t, round)
				if err != nil {
					return err
				}
				samples = append(samples, got...)
			}
		}
	}
	return f.print(cmd.OutOrStdout(), samples)
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
	r := newBenchReport(samples)
	return f.report(w, r, func() error { return bench.Print(w, r.Figures) })
}

// askedReport is the report of bench mqtt --all.
type askedReport struct {
	benchReport
	Asked []bench.Verdict `json:"asked"`
}

func (f *benchFlags) printAsked(w io.Writer, samples []bench.Sample, asked []bench.Verdict) error {
	r := askedReport{newBenchReport(samples), asked}
	return f.report(w, r, func() error { return errors.Join(bench.Print(w, r.Figures), bench.PrintAsked(w, asked)) })
}

func newBenchReport(samples []bench.Sample) benchReport {
	return benchReport{time.Now(), buildVersion(), runtime.NumCPU(), bench.Summarise(samples), samples}
}

// report writes r as JSON, into the file of --save too, or as the table that print
// writes.
func (f *benchFlags) report(w io.Writer, r any, print func() error) error {
	out, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	out = append(out, '\n')
	if f.save != "" {
		err = os.WriteFile(f.save, out, 0o644) //nolint:gosec // figures for everyone
	}
	if !f.asJSON {
		return errors.Join(err, print())
	}
	_, written := w.Write(out)
	return errors.Join(err, written)
}

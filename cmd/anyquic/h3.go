package main

import "github.com/spf13/cobra"

func newH3() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "h3",
		Short: "Serve and fetch over HTTP/3, HTTP/2 and HTTP/1.1",
		Long: `Serve and fetch over HTTP/3, HTTP/2 and HTTP/1.1.

The server answers all three on one port, TCP and UDP; --engine names what carries
QUIC.`,
		Args: cobra.NoArgs,
		RunE: help,
	}
	cmd.AddCommand(newH3Serve(), newH3Get())
	return cmd
}

package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/transport/engine"
)

// versionInfo is what `anyquic version --json` prints.
type versionInfo struct {
	Version  string            `json:"version"`
	Revision string            `json:"revision,omitempty"`
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	Engine   string            `json:"engine"`
	Versions map[string]string `json:"versions"` // of the default engine's libraries
	Tags     string            `json:"tags,omitempty"`
	Licences []component       `json:"licenses,omitempty"` // with --licenses
}

func newVersion() *cobra.Command {
	var asJSON, licences bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of the program and of what is inside",
		Example: "  anyquic version --json\n  anyquic version --licenses",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := buildVersion()
			if licences {
				v.Licences = linked(engine.All())
			}
			switch {
			case asJSON:
				return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			case licences:
				return printLicences(cmd.OutOrStdout(), v.Licences)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "anyquic %s %s %s, engine %s%s\n", v.Version, v.Go, v.Platform, v.Engine, libraries(v.Versions))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&licences, "licenses", false, "list what this program is linked with, and the licence of each")
	return cmd
}

// buildVersion returns what the Go toolchain recorded in the binary.
func buildVersion() versionInfo {
	e := engine.Default()
	v := versionInfo{
		Version:  "(devel)",
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Engine:   e.Name(),
		Versions: e.Features().Versions,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "-tags":
			v.Tags = s.Value
		}
	}
	return v
}

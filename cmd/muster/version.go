package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker; a plain go build leaves it empty.
var version string

// build is what this program was built from.
type build struct{ version, commit, goVersion string }

func readBuild() build {
	b := build{version: version, goVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if ok && b.version == "" {
		b.version = info.Main.Version
	}
	if b.version == "" || b.version == "(devel)" {
		b.version = "dev"
	}
	if ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.commit = s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which muster this is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := readBuild()
			if b.commit != "" {
				b.commit = "commit " + b.commit + ", "
			}
			_, err := fmt.Fprintf(a.stdout, "muster %s (%s%s, %s/%s)\n", b.version, b.commit, b.goVersion, runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

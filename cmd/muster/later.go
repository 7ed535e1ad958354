package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// later are commands that are spoken of and not there yet, by what they will
// stand under; empty: muster itself. Who types one learns that it is not his
// spelling.
var later = []struct{ under, name string }{
	{"", "nats-config"},
	{"audit", "verify"},
	{"audit", "prove"},
	{"policy", "backtest"},
}

// addLater adds them, shown nowhere.
func addLater(root *cobra.Command) {
	for _, l := range later {
		under := root
		for _, cmd := range root.Commands() {
			if cmd.Name() == l.under {
				under = cmd
			}
		}
		under.AddCommand(&cobra.Command{
			Use: l.name, Hidden: true, DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, _ []string) error { return notYet(cmd, "") },
		})
	}
}

// notYet refuses a command that is not there yet, or such a part of one.
func notYet(cmd *cobra.Command, part string) error {
	name := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
	return usage("%s is not there yet", strings.TrimSpace(name+" "+part))
}

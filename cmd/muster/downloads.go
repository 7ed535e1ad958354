package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/fleet"
)

type downloadRow struct {
	OS           string  `json:"os"`
	Architecture string  `json:"architecture"`
	Filename     string  `json:"filename"`
	URL          string  `json:"download_url"`
	SHA256       *string `json:"sha256_checksum"`
}

func (a *app) downloadsCommand() *cobra.Command {
	var target, system, arch string
	cmd := &cobra.Command{
		Use:   "downloads --target T",
		Short: "List the runner applications that a target's server offers",
		Args:  cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&target, "target", "", "the `target` to ask")
	cmd.Flags().StringVar(&system, "os", "", "for this `system`: linux, macos (osx), windows (win)")
	cmd.Flags().StringVar(&arch, "arch", "", "for this `architecture`: x64, arm64, arm")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if target == "" {
			return usage("downloads wants --target: the server differs between targets")
		}
		found, err := a.downloads(cmd.Context(), target)
		if err != nil {
			return err
		}
		var rows []downloadRow
		for _, d := range found {
			if (system == "" || strings.EqualFold(d.OS, cmp.Or(downloadOS[strings.ToLower(system)], system))) && (arch == "" || strings.EqualFold(d.Architecture, arch)) {
				rows = append(rows, downloadRow{d.OS, d.Architecture, d.Filename, d.URL, orNull(d.SHA256)})
			}
		}
		none := "no downloads"
		if len(found) > 0 {
			none = "no such downloads: the server offers " + offered(found)
		}
		return show(a, *output, rows, none, []string{"OS", "ARCH", "URL", "SHA256"}, func(r downloadRow) []string {
			return []string{r.OS, r.Architecture, r.URL, deref(r.SHA256)}
		})
	}
	return cmd
}

// downloadOS is what GitHub calls a runner's system where it offers downloads.
var downloadOS = map[string]string{"macos": "osx", "windows": "win"}

// offered names the systems and architectures of downloads.
func offered(found []fleet.Download) string {
	names := make([]string, len(found))
	for i, d := range found {
		names[i] = printable(d.OS + " " + d.Architecture)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

func (a *app) downloads(ctx context.Context, target string) ([]fleet.Download, error) {
	c, err := a.loadFor(target)
	if err != nil {
		return nil, err
	}
	t, ok := c.target(target)
	if !ok {
		return nil, usage("--target: %s", c.unknownTarget(target))
	}
	pauses, done := openPauses(ctx, c)
	defer done()
	w, err := wire(c, nil, hearers{pauses: pauses})
	if err != nil {
		return nil, err
	}
	found, err := w.clients[target].Downloads(ctx, t.Scope)
	if err != nil {
		return nil, fmt.Errorf("ask target %s for its downloads: %w", target, err)
	}
	return found, nil
}

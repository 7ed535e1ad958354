package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is what is to be said of one package.
type report struct {
	folder                 string
	all, noticed, harmless int
	survivors              []fate   // that nobody listed
	stale                  []string // listed, but gone or noticed
}

// judge compares what became of the mutants with the list of harmless ones.
// complete reports whether fates has all mutants of the package, so that a
// listed one that it lacks is gone.
func judge(folder string, fates []fate, reasons map[string]string, complete bool) report {
	r := report{folder: folder, all: len(fates)}
	left := map[string]bool{}
	for key := range maps.Keys(reasons) {
		if complete && folderOf(key) == folder {
			left[key] = true
		}
	}
	for _, f := range fates {
		_, listed := reasons[f.key()]
		switch {
		case f.noticed:
			r.noticed++
			if listed {
				left[f.key()] = true
			}
			continue
		case listed:
			r.harmless++
		default:
			r.survivors = append(r.survivors, f)
		}
		delete(left, f.key())
	}
	r.stale = slices.Sorted(maps.Keys(left))
	return r
}

// String is what is to be done, a line for each.
func (r report) String() string {
	var out strings.Builder
	for _, f := range r.survivors {
		why := ""
		if !f.reached {
			why = "   (no test reaches it)"
		}
		fmt.Fprintf(&out, "not noticed: %v%s\n", f.mutant, why)
	}
	for _, key := range r.stale {
		fmt.Fprintf(&out, "in harmless.txt, but noticed or gone: %s\n", key)
	}
	return out.String()
}

// table prints the figures; the error says that something is to be done.
func table(out io.Writer, reports []report) error {
	var text strings.Builder
	text.WriteString("package\tnoticed\tall\t%\tharmless\tnot noticed\tstale\t\n")
	open := 0
	for _, r := range reports {
		fmt.Fprintf(&text, "%s\t%d\t%d\t%.1f\t%d\t%d\t%d\t\n",
			r.folder, r.noticed, r.all, percent(r.noticed, r.all), r.harmless, len(r.survivors), len(r.stale))
		open += len(r.survivors) + len(r.stale)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, err := io.WriteString(w, text.String())
	if err != nil {
		return err
	}
	err = w.Flush()
	if err != nil {
		return err
	}
	if open > 0 {
		return errors.New("write the missing tests, delete what is not needed, or bring internal/mutate/harmless.txt up to date")
	}
	return nil
}

func percent(part, of int) float64 {
	if of == 0 {
		return 100
	}
	return 100 * float64(part) / float64(of)
}

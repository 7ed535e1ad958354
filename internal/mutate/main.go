// Command mutate shows which changes of a package's code its tests would not
// notice. It is for developers: make mutate.
//
// A mutant is one small change: a condition negated or moved by one, a guard
// left out, a statement removed, a truth swapped, + for -, a number one more or
// one less. All mutants of a package are built into one test program, each
// behind a switch; for each, the tests that reach it run with its switch on. A
// mutant is noticed when one of them fails, panics or hangs.
//
// A survivor either shows that a test is missing, or that the code is not
// needed, or it is harmless; then harmless.txt lists it with the reason. The
// program fails where a survivor is not listed, and where the list names a
// mutant that is gone or is noticed.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
)

//go:embed harmless.txt
var harmlessList string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

type options struct {
	folders []string
	jobs    int
	only    *regexp.Regexp
}

func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("mutate", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		_, _ = io.WriteString(out, "mutate [-jobs N] [-only REGEXP] FOLDER…: which changes of a package its tests would not notice\n") // help alone
		flags.PrintDefaults()
	}
	flags.IntVar(&o.jobs, "jobs", runtime.GOMAXPROCS(0), "how many mutants are tried at once")
	only := flags.String("only", "", "try only mutants whose line matches, such as keep.go")
	err := flags.Parse(args)
	if err != nil {
		return o, err
	}
	o.folders = flags.Args()
	if len(o.folders) == 0 {
		return o, errors.New("name the folders of packages, such as: mutate policies")
	}
	if o.jobs < 1 {
		return o, fmt.Errorf("-jobs %d: want at least 1", o.jobs)
	}
	o.only, err = regexp.Compile(*only)
	if err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	reasons, err := readHarmless(harmlessList)
	if err != nil {
		return fmt.Errorf("harmless.txt: %w", err)
	}
	var servers servers
	defer servers.stop()
	var reports []report
	for _, folder := range o.folders {
		fates, err := try(ctx, folder, o, &servers)
		if err != nil {
			return err
		}
		r := judge(folder, fates, reasons, o.only.String() == "")
		_, err = io.WriteString(out, r.String())
		if err != nil {
			return err
		}
		reports = append(reports, r)
	}
	return table(out, reports)
}

// try tries all mutants of one package.
func try(ctx context.Context, folder string, o options, servers *servers) ([]fate, error) {
	s, err := load(ctx, folder)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is in the temporary directory
	found := find(s)
	t := &tests{source: s, dir: dir, jobs: o.jobs, slack: usualSlack}
	t.program, err = found.build(ctx, dir)
	if err != nil {
		return nil, err
	}
	if s.dbtest {
		t.env, err = servers.env(ctx)
		if err != nil {
			return nil, err
		}
	}
	err = t.survey(ctx)
	if err != nil {
		return nil, err
	}
	mutants := slices.DeleteFunc(found.mutants, func(m *mutant) bool { return !o.only.MatchString(m.String()) })
	fmt.Fprintf(os.Stderr, "%s: %d mutants, %d tests\n", folder, len(mutants), len(t.names))
	done := progress(folder, len(mutants))
	fates := make([]fate, len(mutants))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(o.jobs)
	for i, m := range mutants {
		group.Go(func() error {
			var err error
			fates[i], err = t.try(ctx, m)
			if err != nil {
				return err
			}
			done(fates[i])
			return nil
		})
	}
	return fates, group.Wait()
}

// progress says on standard error which mutants survive, as soon as each was
// tried, and after every hundredth how many were tried: a run may take an hour.
// It may be called at once from many goroutines.
func progress(folder string, of int) func(fate) {
	var tried atomic.Int64
	return func(f fate) {
		if !f.noticed {
			fmt.Fprintf(os.Stderr, "survives: %v\n", f.mutant)
		}
		if n := tried.Add(1); n%100 == 0 {
			fmt.Fprintf(os.Stderr, "%s: %d of %d tried\n", folder, n, of)
		}
	}
}

// Command sidebyside measures a sync of muster's beside what bounds it, and
// beside what people would write in its place: see docs/benchmarks.md. It
// measures and judges; that a figure misses its limit is no failure.
//
// The simulated GitHub, Postgres and each contender have a process of their
// own, so that processor time and memory are one contender's alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/muster-fleet/muster/internal/standalone"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sidebyside:", err)
		os.Exit(1)
	}
}

// run is the program: the comparison, or one of the processes that it starts.
func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) > 0 {
		if play := roles[args[0]]; play != nil {
			return play(ctx, in, out)
		}
	}
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return fmt.Errorf("make a place for the data: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is in the temporary directory
	pg, err := standalone.StartPostgres(ctx, standalone.PostgresConfig{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(pg.Dir()) }() // for root it may lie elsewhere
	err = compare(ctx, o, pg.URL(), out)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, pg.Stop(stop))
}

// options are what the command line says.
type options struct {
	runners []int // sizes of the fleets that are listed without latency
	reps    int
}

func parse(args []string, out io.Writer) (options, error) {
	flags := flag.NewFlagSet("sidebyside", flag.ContinueOnError)
	flags.SetOutput(out)
	sizes := flags.String("runners", "1000,10000,100000", "sizes of fleets, multiples of 100; the largest of up to 10,000 is listed over latency too")
	reps := flags.Int("reps", 5, "repetitions; medians of fewer than five prove little")
	quick := flags.Bool("quick", false, "1,000 runners, once: shows that all of it works, and measures nothing")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if *quick {
		return options{runners: []int{1000}, reps: 1}, nil
	}
	o := options{reps: *reps}
	for field := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < perPage || n%perPage != 0 {
			return options{}, fmt.Errorf("-runners %s: want multiples of %d with commas between them", *sizes, perPage)
		}
		o.runners = append(o.runners, n)
	}
	if o.reps < 1 {
		return options{}, fmt.Errorf("-reps %d: want at least 1", o.reps)
	}
	return o, nil
}

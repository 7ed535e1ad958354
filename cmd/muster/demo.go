package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/demo"
)

func (a *app) demoCommand() *cobra.Command {
	var runners int
	var watch string
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole system at work on a simulated fleet",
		Long: `Show the whole system at work, in one process, on free loopback ports: a
simulated GitHub, the service with its own Postgres and NATS, and hosts that ask
for tokens. It tells what happens, reads the audit trail back through SQL, and
checks itself against the simulator's log. It takes under a minute.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			longer, err := fleet.ParseDuration(watch)
			if err != nil {
				return usage("--for: %w", err)
			}
			if runners < demo.MinRunners {
				return usage("--runners %d: the story wants at least %d", runners, demo.MinRunners)
			}
			return a.demo(cmd.Context(), demo.Options{Runners: runners, For: longer, Out: a.stdout}, keep)
		},
	}
	cmd.Flags().IntVar(&runners, "runners", 2100, "`number` of runners in the fleet")
	cmd.Flags().StringVar(&watch, "for", "0", "how `long` to go on watching after the story's end")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the data directory, to look at it or to serve it again")
	return cmd
}

// demo runs the story on the service as muster serve runs it.
func (a *app) demo(ctx context.Context, o demo.Options, keep bool) error {
	// Not the user's own temporary directory: the account that Postgres works
	// as must be able to enter it.
	dir, err := os.MkdirTemp("", "muster-demo-")
	if err != nil {
		return fmt.Errorf("make a place for the demo's data: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "muster.log"))
	if err != nil {
		return fmt.Errorf("make the demo's log: %w", err)
	}
	began := time.Now()
	// A reader that goes, as in muster demo | head, ends the demo as Ctrl-C
	// does: SIGPIPE alone would end it with everything left behind.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.Out = &account{to: o.Out, unread: cancel}
	o.Dir = dir
	places := []string{dir}
	o.Serve = func(ctx context.Context, configFile string, up func(demo.Endpoints)) error {
		inner := &app{env: isolated(a.env), stdin: a.stdin, stdout: io.Discard, stderr: log, configFlag: configFile, throwaway: true}
		return inner.serve(ctx, false, func(e endpoints) {
			// For root it may lie elsewhere: in reach of the account that
			// Postgres works as.
			places = append(places, e.postgresDir)
			up(demo.Endpoints{DatabaseURL: e.databaseURL, NATSURL: e.natsURL, HTTP: e.http})
		})
	}
	err = demo.Run(ctx, o)
	_ = log.Close() // every line was written as it came
	switch {
	case keep:
		a.say("the data, the configuration and the service's log are in %s", dir)
	case err != nil && ctx.Err() == nil:
		a.say("the service's log is in %s", filepath.Join(dir, "muster.log"))
		places[0] = filepath.Join(dir, "data")
		fallthrough
	default:
		for _, place := range places {
			if left := os.RemoveAll(place); left != nil {
				a.say("remove the demo's data: %v", left)
			}
		}
	}
	if ctx.Err() != nil {
		return exit(exitFailed, "the demo was stopped after %s", time.Since(began).Round(time.Second))
	}
	return err
}

// account is where the demo tells its story, and notices that nobody reads it.
type account struct {
	to     io.Writer
	unread func()
}

func (a *account) Write(b []byte) (int, error) {
	n, err := a.to.Write(b)
	if err != nil {
		a.unread()
	}
	return n, err
}

// isolated keeps the demo from the databases and servers that the environment
// names.
func isolated(env func(string) string) func(string) string {
	return func(key string) string {
		if len(key) >= 7 && key[:7] == "MUSTER_" {
			return ""
		}
		return env(key)
	}
}

package main

import (
	"context"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

func (a *app) serveCommand() *cobra.Command {
	embedded := false
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the service",
		Long: `Run the service: schedules, jobs, tokens, health and metrics.

Where the configuration names no Postgres or no NATS, serve starts its own and
writes their addresses to connect.env in the data directory, for its owner alone.
Without a configuration file serve refuses to start, unless --embedded says that
servers of its own in the default data directory are wanted.
SIGHUP re-reads the configuration: all of it or, with the reason logged, none.
SIGTERM and Ctrl-C take nothing new, let what runs finish for 20 s, and stop.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.serve(cmd.Context(), embedded, nil)
		},
	}
	cmd.Flags().BoolVar(&embedded, "embedded", false, "start without a configuration file too, with a Postgres and a NATS of its own")
	return cmd
}

// endpoints is where a running service can be reached.
type endpoints struct {
	databaseURL, natsURL, http string
	postgresDir                string // of the Postgres that serve started; empty: none
}

// serve runs the service until ctx ends. Without a configuration file it
// refuses, unless embedded is set. up is called once everything is ready; nil:
// nobody waits for that.
func (a *app) serve(ctx context.Context, embedded bool, up func(endpoints)) error {
	path := ""
	load := func() (*config, error) {
		// A reload reads the file of the start. Another one, or none because
		// somebody has moved it, would take targets and policies away without
		// a word.
		if path == "" {
			found, err := a.configToServe(embedded)
			if err != nil {
				return nil, err
			}
			path = found
		}
		return loadConfig(path, a.env)
	}
	c, err := load()
	if err != nil {
		return err
	}
	s, err := newService(a.logger(), c, load)
	if err != nil {
		return err
	}
	s.throwaway, s.up = a.throwaway, up
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	return s.run(ctx, hangup)
}

// configToServe is the configuration file to serve; empty where there is none
// and embedded allows that.
func (a *app) configToServe(embedded bool) (string, error) {
	path, err := findConfig(a.configFlag, a.env)
	if err != nil {
		return "", usage("%w", err)
	}
	if path == "" && !embedded {
		here, err := filepath.Abs(localConfig)
		if err != nil {
			here = localConfig // its directory is gone; the name still helps
		}
		return "", usage("serve: no configuration file: neither --config nor MUSTER_CONFIG names one, and there is neither %s nor %s: write one there, or run muster serve --embedded to start without", here, systemConfig)
	}
	if path == "" {
		return "", nil
	}
	// The directory of the process must not decide which file a reload reads.
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", usage("find %s: %w", path, err)
	}
	return absolute, nil
}

// listener takes the address first of all, so that a second muster on it says
// so before it starts anything.
func (s *service) listener(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", s.first.listen)
	if err != nil {
		return nil, usage("listen on %s for health and metrics: %w: set listen in muster.yaml to a free address", s.first.listen, err)
	}
	return l, nil
}

package main

import (
	"context"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func (a *app) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the service",
		Long: `Run the service: schedules, jobs, tokens, health and metrics.

Where no Postgres or no NATS is configured, serve starts its own and writes
their addresses to connect.env in the data directory, for its owner alone.
SIGHUP re-reads the configuration: all of it or, with the reason logged, none.
SIGTERM and Ctrl-C take nothing new, let what runs finish for 20 s, and stop.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.serve(cmd.Context(), nil)
		},
	}
}

// endpoints is where a running service can be reached.
type endpoints struct {
	databaseURL, natsURL, http string
	postgresDir                string // of the Postgres that serve started; empty: none
}

// serve runs the service until ctx ends. up is called once everything is
// ready; nil: nobody waits for that.
func (a *app) serve(ctx context.Context, up func(endpoints)) error {
	c, err := a.loadAll()
	if err != nil {
		return err
	}
	s, err := newService(a.logger(), c, a.loadAll)
	if err != nil {
		return err
	}
	s.throwaway, s.up = a.throwaway, up
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	return s.run(ctx, hangup)
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

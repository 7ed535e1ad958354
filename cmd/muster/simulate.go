package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

func (a *app) simulateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Stand in for what muster talks to",
	}
	cmd.AddCommand(a.simulateGitHubCommand())
	return cmd
}

func (a *app) simulateGitHubCommand() *cobra.Command {
	var c githubsim.Config
	var runners int
	cmd := &cobra.Command{
		Use:   "github",
		Short: "Run a simulated GitHub until it is stopped",
		Long: `Run a simulated GitHub until it is stopped: a GitHub Enterprise Server of the
version given, or github.com with --version ` + githubsim.DotCom + `. Any token is accepted. It
has the scopes enterprise/octo, org/acme and repo/acme/widgets with the runners
spread over them, and a control API that creates, connects, kills and removes
runners, sets runner groups, rate limits and Apps, makes GitHub fail, and has
workflow jobs and webhooks that tell of them (from version 3.4 on):

  curl -X POST CONTROL/create -d '{"scope":"org/acme","name":"build-01","online":true}'
  curl -X POST CONTROL/group -d '{"scope":"org/acme","id":"2","name":"gpu","visibility":"selected","selected":["acme/widgets"]}'
  curl -X POST CONTROL/limits -d '{"primary":5000,"points":900,"concurrent":100}'
  curl -X POST CONTROL/fault -d '{"kind":"status","status":502,"path":"/actions/runners","for":"5m"}'
  curl CONTROL/faults
  curl -X POST CONTROL/unfault -d '{}'
  curl -X POST CONTROL/hook -d '{"scope":"org/acme","url":"http://127.0.0.1:8425/webhooks/github","secret":"S"}'
  curl -X POST CONTROL/queue-job -d '{"scope":"org/acme","labels":["simulated"]}'
  curl CONTROL/log

Whoever reaches the control API controls the simulator.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&c.Listen, "listen", "127.0.0.1:8430", "`address` of the API")
	cmd.Flags().StringVar(&c.Control, "control", "127.0.0.1:8431", "`address` of the control API")
	cmd.Flags().IntVar(&runners, "runners", 100, "`number` of runners to begin with, one in ten of them offline")
	cmd.Flags().Int64Var(&c.Seed, "seed", 0, "`number` that random choices follow from; 0: others each time")
	cmd.Flags().StringVar(&c.Version, "version", githubsim.Version, "`version` of the server: "+strings.Join(githubsim.Versions(), ", "))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if githubsim.CheckVersion(c.Version) != nil {
			return usage("--version %s is none that can be simulated, want one of %s", printable(c.Version), strings.Join(githubsim.Versions(), ", "))
		}
		const most = 1_000_000
		if runners < 0 || runners > most {
			return usage("--runners %d is out of bounds, want 0 to %d", runners, most)
		}
		c.Log = a.logger()
		return a.simulateGitHub(cmd.Context(), c, runners)
	}
	return cmd
}

// simulated are the scopes that the simulator begins with.
var simulated = []fleet.Scope{
	{Kind: fleet.ScopeEnterprise, Owner: "octo"},
	{Kind: fleet.ScopeOrg, Owner: "acme"},
	{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "widgets"},
}

func (a *app) simulateGitHub(ctx context.Context, c githubsim.Config, runners int) error {
	sim, stop, err := githubsim.Start(ctx, c)
	if err != nil {
		return fmt.Errorf("%w: choose other addresses with --listen and --control", err)
	}
	defer stop()
	for i, scope := range simulated {
		if err := sim.AddScope(scope); err != nil {
			return err
		}
		share := (runners + len(simulated) - 1 - i) / len(simulated)
		_, err := sim.CreateMany(scope, share, func(n int) githubsim.RunnerSpec {
			return githubsim.RunnerSpec{Name: fmt.Sprintf("%s-%04d", scope.Kind, n+1), Labels: []string{"simulated"}, Online: n%10 != 0}
		})
		if err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(a.stdout, "api_url  %s\ncontrol  %s\n", sim.APIURL(), sim.ControlURL()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// Package demo is a fleet's story told in under a minute: a simulated GitHub,
// the service as muster serve runs it, hosts that ask for tokens, runners that
// die, flap, work and come back at the worst moment, and a pool that grows and
// shrinks with its work. It ends with the audit trail read through SQL, and
// judges itself by the simulator's log.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/github/githubsim"
)

// MinRunners is the smallest fleet that has room for the story.
const MinRunners = 500

// Options say how to run the demo. Out and Serve are required.
type Options struct {
	Runners int           // in the fleet; at least MinRunners
	For     time.Duration // how long to go on watching after the story's end
	Dir     string        // for the data; must exist
	Out     io.Writer     // for the account
	// Serve runs the service on a configuration file until ctx ends, and calls
	// up once it is ready.
	Serve func(ctx context.Context, configFile string, up func(Endpoints)) error
	// Prepare may add trouble to the simulator before the story begins. Nil:
	// the trouble of the story is enough.
	Prepare func(sim *githubsim.Sim, cast Cast)
	// Deadline is how long the story may take; 0: 45 s.
	Deadline time.Duration
}

// Endpoints is where the service that Serve runs can be reached.
type Endpoints struct{ DatabaseURL, NATSURL, HTTP string }

// ErrChecks says that the demo ran, and that muster did not keep a promise.
var ErrChecks = errors.New("the demo's own checks failed")

// Run tells the story and checks it. It returns ErrChecks where a check
// failed, and nil only where all hold. When ctx ends everything is stopped.
func Run(ctx context.Context, o Options) error {
	if o.Runners < MinRunners {
		return fmt.Errorf("a fleet of %d runners is too small for the story: at least %d", o.Runners, MinRunners)
	}
	if o.Deadline == 0 {
		o.Deadline = 45 * time.Second
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tell := newTeller(o.Out)

	sim, stopSim, err := githubsim.Start(ctx, githubsim.Config{
		Version: "3.19", // the first that tells of workflow jobs is 3.3
		Tokens:  []string{credential}, Lag: githubsim.Lags{BusyClear: -1}, Seed: 7,
	})
	if err != nil {
		return fmt.Errorf("start the GitHub simulator: %w", err)
	}
	defer stopSim()
	cast, err := assemble(sim, o.Runners)
	if err != nil {
		return fmt.Errorf("assemble the fleet: %w", err)
	}
	if err := sim.AddScope(forge); err != nil {
		return fmt.Errorf("make the repository of the pool: %w", err)
	}
	cast.stage(sim)
	if o.Prepare != nil {
		o.Prepare(sim, cast)
	}
	tell.chapter("A simulated GitHub has %d runners in an enterprise, an organisation and a repository.", o.Runners)
	tell.say("In this story a day is a second: seven seconds offline is long.")

	config, err := writeConfig(o.Dir, sim.APIURL())
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan Endpoints, 1)
	g.Go(func() error {
		err := o.Serve(ctx, config, func(e Endpoints) { ready <- e })
		if err == nil && ctx.Err() == nil {
			err = errors.New("the service stopped in the middle of the story")
		}
		return err
	})
	var failed error
	g.Go(func() error {
		defer cancel()
		select {
		case <-ctx.Done():
			return nil
		case e := <-ready:
			failed = story(ctx, o, tell, sim, cast, e)
			return nil
		}
	})
	err = g.Wait()
	// A story that was cut short has its reason elsewhere, mostly.
	if failed != nil && (err == nil || !errors.Is(failed, context.Canceled)) {
		return failed
	}
	return err
}

// story is everything from the service being up to the verdict.
func story(ctx context.Context, o Options, tell *teller, sim *githubsim.Sim, cast Cast, e Endpoints) error {
	record, err := db.Open(ctx, e.DatabaseURL)
	if err != nil {
		return fmt.Errorf("open the record: %w", err)
	}
	defer record.Close()
	tell.chapter("muster serve is up: schedules every two seconds, one policy, ten hosts, a pool of %d to %d.", poolMin, poolMax)
	s := &stage{tell: tell, sim: sim, cast: cast, record: record, natsURL: e.NATSURL}
	if _, err := sim.AddHook(githubsim.Hook{Scope: forge, URL: "http://" + e.HTTP + "/webhooks/github", Secret: hookSecret}); err != nil {
		return fmt.Errorf("add the webhook: %w", err)
	}
	if err := s.play(ctx, o.Deadline, o.For); err != nil {
		return err
	}
	tell.chapter("What the audit trail says, in SQL")
	if err := s.readBack(ctx); err != nil {
		return err
	}
	tell.chapter("Does that agree with what GitHub saw?")
	return s.judge(ctx)
}

// wait waits, or says that it was stopped.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// until asks again and again until done says yes or the time is over: what has
// not happened by then, the checks will say.
func until(ctx context.Context, limit time.Duration, done func(context.Context) (bool, error)) error {
	over := time.NewTimer(limit)
	defer over.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return nil
		case <-tick.C:
		}
	}
}

func writeConfig(dir, api string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("place the demo's files: %w", err)
	}
	for _, f := range []struct{ name, text string }{
		{"github.token", credential + "\n"},
		{"hook.secret", hookSecret + "\n"},
		{"muster.yaml", fmt.Sprintf(configText, api, poolMin, poolMax)},
		{"reap-long-offline.yaml", reaperText},
		{"report-missing-team.yaml", reportText},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.text), 0o600); err != nil {
			return "", fmt.Errorf("write the demo's configuration: %w", err)
		}
	}
	return filepath.Join(dir, "muster.yaml"), nil
}

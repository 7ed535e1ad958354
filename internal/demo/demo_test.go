package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/policies"
)

// The fleet has room for everybody's part at each size, and no runner has two.
func TestTheFleetHasEveryPart(t *testing.T) {
	t.Parallel()
	for _, runners := range []int{MinRunners, 2100} {
		sim := githubsim.New(githubsim.Config{})
		cast, err := assemble(sim, runners)
		if err != nil {
			t.Fatal(err)
		}
		all := 0
		for target, scope := range targets {
			states := sim.Snapshot(scope)
			all += len(states)
			seen := map[int64]bool{}
			for part, want := range map[*[]int64]struct {
				n            int
				online, busy bool
			}{
				ref(cast.Dead[target]):     {parts[target].dead, false, false},
				ref(cast.Kept[target]):     {parts[target].kept, false, false},
				ref(cast.Zombies[target]):  {parts[target].zombies, false, true},
				ref(cast.Flapping[target]): {parts[target].flapping, true, false},
			} {
				if len(*part) != want.n {
					t.Errorf("%d runners, %s: a part has %d, want %d", runners, target, len(*part), want.n)
				}
				for _, id := range *part {
					if seen[id] {
						t.Errorf("%d runners: %s/%d has two parts", runners, target, id)
					}
					seen[id] = true
					i := slices.IndexFunc(states, func(s githubsim.State) bool { return s.ID == id })
					if s := states[i]; s.Online != want.online || s.Busy != want.busy {
						t.Errorf("%d runners: %s is online %t and busy %t, want %t and %t", runners, s.Name, s.Online, s.Busy, want.online, want.busy)
					}
				}
			}
			if len(cast.Working[target]) == 0 {
				t.Errorf("%d runners: nobody works in %s", runners, target)
			}
		}
		if all != runners {
			t.Errorf("the fleet has %d runners, want %d", all, runners)
		}
		if cast.Comeback == 0 || cast.Caught == 0 || cast.Comeback == cast.Caught {
			t.Errorf("%d runners: comeback %d and caught %d, want two runners", runners, cast.Comeback, cast.Caught)
		}
	}
}

func ref(ids []int64) *[]int64 { return &ids }

// What the story rests on: the policy may act on the dead of two targets, and
// must halt on the third.
func TestThePolicyHasRoomWhereTheStoryWantsIt(t *testing.T) {
	t.Parallel()
	loaded, err := policies.Load("reaper", []byte(reaperText))
	if err != nil {
		t.Fatal(err)
	}
	for target, p := range parts {
		for _, runners := range []int{MinRunners, 2000, 50_000} {
			due := p.dead
			if target == "acme" {
				due += 2
			}
			limit, capped := loaded[0].Guards.Max.Cap(runners * p.share / 100)
			if halts := !capped || due > limit; halts != (target == Halting) {
				t.Errorf("%s of %d runners: %d due, %d allowed: halts %t, want %t", target, runners, due, limit, halts, target == Halting)
			}
		}
	}
}

func TestRunNeedsAFleetOfSomeSize(t *testing.T) {
	t.Parallel()
	err := Run(t.Context(), Options{Runners: MinRunners - 1, Dir: t.TempDir(), Out: &strings.Builder{}})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(MinRunners)) {
		t.Errorf("Run = %v, want an error that names %d", err, MinRunners)
	}
}

// deaf is an address where somebody takes calls and says nothing.
func deaf(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // nothing was said
	return l.Addr().String()
}

// However the service ends before its time, the demo ends with it and says
// why.
func TestRunEndsWithTheService(t *testing.T) {
	t.Parallel()
	broken := errors.New("the roof came down")
	silent := deaf(t)
	tests := []struct {
		name  string
		serve func(ctx context.Context, config string, up func(Endpoints)) error
		want  string
	}{
		{"before it is up", func(context.Context, string, func(Endpoints)) error { return broken }, broken.Error()},
		{"in the middle", func(_ context.Context, _ string, up func(Endpoints)) error {
			up(Endpoints{DatabaseURL: "postgres://u@" + silent + "/muster", NATSURL: "nats://" + silent, HTTP: silent})
			return broken
		}, broken.Error()},
		{"without a reason", func(context.Context, string, func(Endpoints)) error { return nil },
			"the service stopped in the middle of the story"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := Run(t.Context(), Options{Runners: MinRunners, Dir: t.TempDir(), Out: &strings.Builder{}, Serve: tt.serve})
			if err == nil || err.Error() != tt.want {
				t.Errorf("Run = %v, want %s", err, tt.want)
			}
		})
	}
}

func TestRunStopsTheServiceWhenItIsStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	dir, stopped := t.TempDir(), false
	err := Run(ctx, Options{Runners: MinRunners, Dir: dir, Out: &strings.Builder{}, Serve: func(ctx context.Context, config string, _ func(Endpoints)) error {
		if filepath.Dir(config) != dir {
			t.Errorf("the configuration is %s, want it in %s", config, dir)
		}
		if _, err := os.Stat(config); err != nil {
			t.Error(err)
		}
		cancel()
		<-ctx.Done()
		stopped = true
		return nil
	}})
	if err != nil || !stopped {
		t.Errorf("Run = %v, service stopped %t, want nil and a service that was told", err, stopped)
	}
}

func TestReportPolicyLoads(t *testing.T) {
	t.Parallel()
	if _, err := policies.Load("report", []byte(reportText)); err != nil {
		t.Error(err)
	}
}

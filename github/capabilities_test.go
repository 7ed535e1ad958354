package github_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

func TestLearn(t *testing.T) {
	t.Parallel()
	probed := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	full := fleet.Capabilities{
		ServerVersion: "3.10.4", JIT: fleet.Yes, NameFilter: fleet.No, RunnerGroups: fleet.Yes, Ephemeral: fleet.No,
		Version: fleet.No, DeleteBusy: 422, ProbedAt: probed,
	}
	with := func(change func(*fleet.Capabilities)) fleet.Capabilities {
		c := full
		change(&c)
		return c
	}
	seen := func(version string) github.Sight { return github.Sight{Answered: true, Version: version} }
	for _, tt := range []struct {
		name string
		have fleet.Capabilities
		seen github.Sight
		want fleet.Capabilities
	}{
		{"no answer", full, github.Sight{}, full},
		{"nothing new", full, seen("3.10.4"), full},
		{"fields", full, github.Sight{Answered: true, Version: "3.10.4", Groups: fleet.No, Ephemeral: fleet.Yes, RunnerVersion: fleet.Yes},
			with(func(c *fleet.Capabilities) { c.RunnerGroups, c.Ephemeral, c.Version = fleet.No, fleet.Yes, fleet.Yes })},
		{"a busy runner's deletion", full, github.Sight{Answered: true, Version: "3.10.4", DeleteBusy: 500},
			with(func(c *fleet.Capabilities) { c.DeleteBusy = 500 })},
		{"what was seen of deletions stays", with(func(c *fleet.Capabilities) { c.DeleteBusy = 500 }), seen("3.10.4"),
			with(func(c *fleet.Capabilities) { c.DeleteBusy = 500 })},
		{"an upgrade", full, seen("3.11.0"), fleet.Capabilities{ServerVersion: "3.11.0", JIT: fleet.Yes, DeleteBusy: 422}},
		{"github.com", fleet.Capabilities{}, seen(""), fleet.Capabilities{JIT: fleet.Yes, DeleteBusy: 422}},
		{"3.1", fleet.Capabilities{}, seen("3.1.0"), fleet.Capabilities{ServerVersion: "3.1.0", JIT: fleet.No, DeleteBusy: 500}},
		{"3.3", fleet.Capabilities{}, seen("3.3.20"), fleet.Capabilities{ServerVersion: "3.3.20", JIT: fleet.No, DeleteBusy: 500}},
		{"3.9", fleet.Capabilities{}, seen("3.9.1"), fleet.Capabilities{ServerVersion: "3.9.1", JIT: fleet.No, DeleteBusy: 422}},
		{"4.0", fleet.Capabilities{}, seen("4.0.0.rc1"), fleet.Capabilities{ServerVersion: "4.0.0.rc1", JIT: fleet.Yes, DeleteBusy: 422}},
		{"no version at all", fleet.Capabilities{}, seen("next"), fleet.Capabilities{ServerVersion: "next"}},
	} {
		if diff := cmp.Diff(tt.want, github.Learn(tt.have, tt.seen)); diff != "" {
			t.Errorf("%s: Learn (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestSendsWorkflowJobs(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]fleet.Known{
		"3.1.0": fleet.No, "3.2.9": fleet.No, "3.3.0": fleet.Yes, "3.10.0": fleet.Yes, "": fleet.Yes, "x": fleet.NotKnown,
	} {
		if got := github.SendsWorkflowJobs(fleet.Capabilities{ServerVersion: version, ProbedAt: time.Unix(1, 0)}); got != want {
			t.Errorf("SendsWorkflowJobs of %q = %s, want %s", version, got, want)
		}
	}
	if got := github.SendsWorkflowJobs(fleet.Capabilities{}); got != fleet.NotKnown {
		t.Errorf("SendsWorkflowJobs of a server that nobody has looked at = %s", got)
	}
}

// A proxy that keeps headers back makes no server github.com.
func TestAnswersOfNoGitHubAreNoSight(t *testing.T) {
	t.Parallel()
	bare := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"total_count":0,"runners":[]}`)
	}
	l, err := answers(t, bare).Runners(t.Context(), org, fleet.KeptListing{})
	if err != nil || l.Server.Answered {
		t.Errorf("Runners = %+v, %v, want nothing known of the server", l.Server, err)
	}
}

// A field that is null is a field; a walk of 304s shows none.
func TestFieldsOfRunners(t *testing.T) {
	t.Parallel()
	gh := answers(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-GitHub-Request-Id", "1")
		says(http.StatusOK, `{"total_count":2,"runners":[{"id":1,"name":"a","busy":false,"labels":[]},{"id":2,"name":"\"ephemeral\":","busy":false,"labels":[],"version":null}]}`)(w, r)
	})
	l, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
	want := github.Sight{Answered: true, Groups: fleet.No, Ephemeral: fleet.No, RunnerVersion: fleet.Yes}
	if diff := cmp.Diff(want, l.Server); err != nil || diff != "" {
		t.Errorf("Runners: %v (-want +got):\n%s", err, diff)
	}
}

// What the deletion of a busy runner is answered is seen and believed over any
// table; a 500 of another kind is not.
func TestDeletionsOfBusyRunnersAreNoted(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t, func(c *githubsim.Config) { c.Version, c.BusyDeleteStatus = "3.4", http.StatusInternalServerError })
	gh := client(t, url)
	id, err := sim.Create(org, githubsim.RunnerSpec{Name: "busy", Online: true, Busy: true})
	if err != nil {
		t.Fatal(err)
	}
	seen := func() int {
		t.Helper()
		l, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
		if err != nil {
			t.Fatal(err)
		}
		return l.Server.DeleteBusy
	}
	if got := seen(); got != 0 {
		t.Errorf("before any deletion: %d, want 0", got)
	}
	sim.Intercept(func(r *http.Request) http.Handler {
		if r.Method == http.MethodDelete {
			return says(http.StatusInternalServerError, `{"message":"Server Error"}`)
		}
		return nil
	})
	if err := gh.RemoveRunner(t.Context(), org, id, nil); !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatal(err)
	}
	if got := seen(); got != 0 {
		t.Errorf("after a 500 of another kind: %d, want 0", got)
	}
	sim.Intercept(nil)
	if err := gh.RemoveRunner(t.Context(), org, id, nil); !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatal(err)
	}
	if got := seen(); got != http.StatusInternalServerError {
		t.Errorf("after the deletion of a busy runner: %d, want 500", got)
	}
}

func TestRunnerNamed(t *testing.T) {
	t.Parallel()
	for _, version := range githubsim.Versions() {
		sim, url := simulator(t, func(c *githubsim.Config) { c.Version = version })
		gh := client(t, url)
		ids, err := sim.CreateMany(org, 250, func(i int) githubsim.RunnerSpec {
			return githubsim.RunnerSpec{Name: fmt.Sprintf("r %d&name=r1", i), Online: true}
		})
		if err != nil {
			t.Fatal(err)
		}
		heeds, err := gh.HeedsName(t.Context(), org)
		if want := strings.HasPrefix(version, "3.11") || version == "3.19" || version == githubsim.DotCom; err != nil || heeds != want {
			t.Errorf("%s: HeedsName = %v, %v, want %v", version, heeds, err, want)
		}
		before := len(sim.Log())
		for i, id := range map[int]int64{0: ids[0], 249: ids[249]} {
			r, err := gh.RunnerNamed(t.Context(), org, fmt.Sprintf("r %d&name=r1", i), heeds)
			if err != nil || r.ID != id {
				t.Errorf("%s: RunnerNamed = %d, %v, want %d", version, r.ID, err, id)
			}
		}
		if r, err := gh.RunnerNamed(t.Context(), org, "R 0&name=r1", heeds); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("%s: RunnerNamed in another case = %+v, %v, want not found", version, r, err)
		}
		want := 3
		if !heeds {
			want = 9
		}
		if got := len(sim.Log()) - before; got != want {
			t.Errorf("%s: %d requests, want %d", version, got, want)
		}
		_, err = gh.RunnerNamed(t.Context(), org, "r 249&name=r1", true) // on the third page of all
		if heeds != (err == nil) || !heeds && !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("%s: RunnerNamed of a server that is taken to heed names: %v", version, err)
		}
	}
}

func TestRunnerNamedIsSureOrSaysSo(t *testing.T) {
	t.Parallel()
	const row = `{"id":%d,"name":"a","busy":false,"labels":[]}`
	twins := answers(t, says(http.StatusOK, fmt.Sprintf(`{"total_count":2,"runners":[`+row+`,`+row+`]}`, 1, 2)))
	partial := answers(t, says(http.StatusOK, fmt.Sprintf(`{"total_count":2,"runners":[`+row+`]}`, 1)))
	for name, tt := range map[string]struct {
		gh     *github.Client
		name   string
		heeded bool
		kind   error
	}{
		"two of a name":           {twins, "a", true, fleet.ErrMalformed},
		"two of a name in a walk": {twins, "a", false, fleet.ErrMalformed},
		"a walk that is partial":  {partial, "b", false, fleet.ErrMalformed},
		"no name":                 {twins, "", true, nil},
	} {
		_, err := tt.gh.RunnerNamed(t.Context(), org, tt.name, tt.heeded)
		var e *github.Error
		if !errors.As(err, &e) || e.Kind != tt.kind {
			t.Errorf("%s: %v, want kind %v", name, err, tt.kind)
		}
	}
}

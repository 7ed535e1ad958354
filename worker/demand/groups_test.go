package demand_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// Whose workflow jobs runners take is asked where they name their group, every
// ten minutes, and what was known goes on to count where GitHub does not tell.
func TestRunnerGroupsAreThoseThatGitHubToldLast(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.exec(`INSERT INTO muster.target (name, scope, api_url, first_used_at, max_observation_gap) VALUES ('acme', 'org/acme', '', $1, '1 h')`, t0)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	known := func(want ...string) {
		t.Helper()
		access, err := o.db.Access(t.Context(), "acme")
		o.ok(err)
		var got []string
		for _, g := range access.Groups {
			got = append(got, g.Name)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("groups (-want +got):\n%s", diff)
		}
	}
	next := func(after time.Duration) {
		t.Helper()
		o.pass(after)
		if done, err := o.reconciler.Reconcile(t.Context(), "acme"); !done || err != nil {
			t.Fatalf("Reconcile = %v, %v", done, err)
		}
	}
	o.ok(o.sim.SetGroup(acme, fleet.RunnerGroup{ID: "7", Name: "release", Visibility: fleet.GroupSelected, Selected: []string{"acme/widgets"}}))
	o.reconcile()
	known() // no runner names one

	o.exec(`INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, runner_group, fingerprint, first_seen_at, seen_at, status_since)
		VALUES ('acme', 1, 'r', 'linux', 'online', false, '{linux}', '7', 1, $1, $1, $1)`, t0)
	next(2 * time.Minute)
	known("Default", "release")
	access, err := o.db.Access(t.Context(), "acme")
	o.ok(err)
	if diff := cmp.Diff([]string{"acme/widgets"}, access.Groups[1].Selected); diff != "" {
		t.Errorf("selected (-want +got):\n%s", diff)
	}

	o.ok(o.sim.SetGroup(acme, fleet.RunnerGroup{ID: "8", Name: "third", Visibility: fleet.GroupAll}))
	next(2 * time.Minute)
	known("Default", "release") // not yet
	_, err = o.sim.Inject(githubsim.Fault{Kind: githubsim.FaultStatus, Status: 403, Path: "/actions/runner-groups", Count: 1})
	o.ok(err)
	next(10 * time.Minute)
	known("Default", "release")
	r, err := o.db.Reconciliation(t.Context(), "acme")
	o.ok(err)
	if r.GroupsFault == "" || r.Fault != "" {
		t.Errorf("a fault of the groups is told as %+v", r)
	}
	// Who asks how targets hear of workflow jobs is told all of it.
	all, err := o.db.Hearings(t.Context())
	o.ok(err)
	if diff := cmp.Diff(r, all["acme"].Reconciliation); diff != "" {
		t.Errorf("Hearings (-want +got):\n%s", diff)
	}
	next(11 * time.Minute)
	known("Default", "release", "third")
	if r, err = o.db.Reconciliation(t.Context(), "acme"); err != nil || r.GroupsFault != "" {
		t.Errorf("a fault that is over: %+v, %v", r, err)
	}

	// Nobody is left whose group it could be, as in a fleet that is at rest; the
	// next host will be in one all the same.
	o.exec(`UPDATE muster.runner SET removed_at = $1, removal_cause = 'ephemeral'`, o.clock())
	o.ok(o.sim.SetGroup(acme, fleet.RunnerGroup{ID: "7", Name: "release", Visibility: fleet.GroupAll}))
	next(11 * time.Minute)
	access, err = o.db.Access(t.Context(), "acme")
	o.ok(err)
	if got := access.Groups[1].Visibility; got != fleet.GroupAll {
		t.Errorf("a group that was opened is still known as %s", got)
	}
}

package demand_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

const repositories = `SELECT DISTINCT repository FROM api.workflow_jobs WHERE target = 'acme' ORDER BY 1`

// A repository that was renamed left the demand of the whole organisation unknown
// for up to six hours (issue 10).
func TestARepositoryThatMovedIsFollowed(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{Repository: "acme/widgets", Labels: []string{"linux"}})
	o.queue(githubsim.JobSpec{Repository: "acme/gadgets", Labels: []string{"linux"}})
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceKnown, "")

	o.ok(o.sim.Rename(fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "widgets"}, fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "sprockets"}))
	o.queue(githubsim.JobSpec{Repository: "acme/sprockets", Labels: []string{"linux"}})
	o.reconcile()
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")
	if diff := cmp.Diff([]string{"acme/gadgets", "acme/sprockets"}, o.rows(repositories)); diff != "" {
		t.Errorf("repositories (-want +got):\n%s", diff)
	}
}

// One that has gone to another organisation is not this one's any more.
func TestARepositoryThatWentToAnotherOrganisationIsLeft(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.ok(o.sim.AddScope(fleet.Scope{Kind: fleet.ScopeOrg, Owner: "other"}))
	o.queue(githubsim.JobSpec{Repository: "acme/widgets", Labels: []string{"linux"}})
	o.queue(githubsim.JobSpec{Repository: "acme/gadgets", Labels: []string{"linux"}})
	o.reconcile()
	o.ok(o.sim.Rename(fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "widgets"}, fleet.Scope{Kind: fleet.ScopeRepo, Owner: "other", Repo: "widgets"}))
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceKnown, "")
}

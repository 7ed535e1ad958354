package demand_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/demand"
)

// An app may be installed on some repositories, and an organisation's webhook tells
// of all: those that it cannot see are counted by their events, are asked for once
// each time that repositories are listed, and leave the others known.
func TestRepositoriesThatTheCredentialDoesNotSeeAreLeftToTheirEvents(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.reconcile()
	asked, away := 0, false
	o.sim.Intercept(func(r *http.Request) http.Handler {
		if !strings.Contains(r.URL.Path, "/acme/hidden/") {
			return nil
		}
		if asked++; !away {
			return nil
		}
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"Not Found"}`)
		})
	})
	for i := range 5 {
		told := strings.ReplaceAll(body(9001+int64(i), fleet.WorkflowJobQueued), "acme/widgets", "acme/hidden")
		o.ok(o.intake.Receive(t.Context(), delivery(fmt.Sprint(i), "workflow_job", told, hookSecret)))
		o.reconcile()
		o.wantConfidence(fleet.ConfidenceKnown, "")
		if n := len(o.rows(openJobs)); n != 2+i {
			t.Errorf("%d open workflow jobs, want %d", n, 2+i)
		}
		if asked != 1 {
			t.Errorf("asked for what is not seen %d times within hours, want once", asked)
		}
	}
	// Once the app is installed there, too, the next listing says so.
	o.queue(githubsim.JobSpec{Repository: "acme/hidden", Labels: []string{"linux"}})
	o.events() // lost
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceKnown, "")
	o.wantTruth()
	// One that is listed and not there is another matter.
	away = true
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceUnknown, "runs of repo/acme/hidden: not found")
}

// A repository that cannot be read keeps no other from being compared, is counted
// and named, and no known one is forgotten meanwhile: it may be any of them.
func TestARepositoryThatCannotBeReadIsCountedAndNamed(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.queue(githubsim.JobSpec{Repository: "acme/gears", Labels: []string{"linux"}})
	o.events() // lost
	o.reconcile()
	listing := func(names string) {
		o.sim.Intercept(func(r *http.Request) http.Handler {
			if !strings.HasSuffix(r.URL.Path, "/orgs/acme/repos") {
				return nil
			}
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, names)
			})
		})
	}
	named := func(want string) {
		t.Helper()
		got := o.rows(`SELECT unreadable || ' ' || unreadable_items::text FROM api.comparisons WHERE target = 'acme'`)
		if len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("unreadable repositories %q, want %q", got, want)
		}
	}
	named("0 {}")
	o.ok(o.sim.AddScope(fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "new"}))
	listing(`[{"name":"widgets","private":true},{"name":"","private":true},{"name":"new","private":true}]`)
	o.pass(7 * time.Hour)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.events() // lost
	o.reconcile()
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")
	named(`1 {"repository 2 of page 1: scope`)
	if diff := cmp.Diff([]string{"acme/gears", "acme/widgets"}, o.rows(`SELECT repository FROM muster.repository WHERE repository <> 'acme/new' ORDER BY 1`)); diff != "" {
		t.Errorf("repositories (-want +got):\n%s", diff)
	}
	o.sim.Intercept(nil)
	o.pass(7 * time.Hour)
	o.reconcile()
	named("0 {}")
}

// One workflow job that cannot be read, alone in its run, keeps no other run from
// being read.
func TestAnOnlyJobThatCannotBeReadKeepsNoOtherRunFromBeingRead(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.events() // lost
	first := true
	o.sim.Intercept(func(r *http.Request) http.Handler {
		if !strings.HasSuffix(r.URL.Path, "/jobs") || !first {
			return nil
		}
		first = false
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"total_count":1,"jobs":[{"id":"x"}]}`)
		})
	})
	o.reconcile()
	if n := len(o.rows(openJobs)); n != 1 {
		t.Errorf("%d open workflow jobs, want that of the other run", n)
	}
	o.wantConfidence(fleet.ConfidenceUnknown, "1 cannot be read: element 1 of jobs")
}

// An event may name a repository that no request can name: it is left to its
// events, and demand stays known.
func TestARepositoryThatNoRequestCanNameIsLeftToItsEvents(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	told := strings.ReplaceAll(body(9001, fleet.WorkflowJobQueued), "acme/widgets", "acme/a..b")
	o.ok(o.intake.Receive(t.Context(), delivery("1", "workflow_job", told, hookSecret)))
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceKnown, "")
	if n := len(o.rows(openJobs)); n != 2 {
		t.Errorf("%d open workflow jobs, want both", n)
	}
}

// What GitHub shows when workflow jobs are compared ends the refusal of the
// credential, without waiting for the next sync.
func TestAComparisonEndsTheRefusalOfACredential(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.exec(`INSERT INTO muster.target (name, scope, api_url, first_used_at, max_observation_gap, credential_fault, credential_fault_at, credential_fault_of)
		VALUES ('acme', 'org/acme', '', $1, '1 h', 'list runners of org/acme: ' || $2, $1, 'list')`, t0.Add(-time.Minute), fleet.ErrUnauthorized.Error())
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.reconcile()
	if got := o.rows(`SELECT name FROM muster.target WHERE credential_fault IS NULL`); len(got) != 1 {
		t.Error("the refusal stands though GitHub has shown workflow jobs since")
	}
}

// Nobody lists the repositories of an enterprise: until one is heard of, nothing
// is known of its demand.
func TestAnEnterprisesRepositoriesAreThoseHeardOf(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.target = demand.Compared{Target: fleet.Target{Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeEnterprise, Owner: "octo"}}, GitHub: o.gh}
	id := o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceUnknown, "")
	for _, d := range o.events() {
		o.ok(o.intake.Receive(t.Context(), d))
	}
	o.ok(o.sim.FinishJob(id, "success"))
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.events() // lost
	o.reconcile()
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")
	o.pass(8 * 24 * time.Hour)
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceUnknown, "") // nothing was heard of for a week
}

// Where no event comes, a repository that was at rest for a week is looked at as
// often as any: nothing else would tell of its first job. Where events come, that
// job's own does.
func TestARepositoryAtRestIsComparedWhereNoEventTellsOfIt(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.ok(o.sim.FinishJob(o.queue(githubsim.JobSpec{Repository: "acme/resting"}), "success"))
	o.events() // lost, as all here but one
	o.reconcile()
	o.pass(8 * 24 * time.Hour)
	o.reconcile()
	o.queue(githubsim.JobSpec{Repository: "acme/resting"})
	o.reconcile()
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")

	o.ok(o.sim.FinishJob(o.sim.Jobs()[1].ID, "success"))
	o.events()
	o.pass(8 * 24 * time.Hour)
	o.queue(githubsim.JobSpec{Repository: "acme/busy"})
	for _, d := range o.events() {
		o.ok(o.intake.Receive(t.Context(), d))
	}
	o.reconcile()
	asked := func() int {
		n := 0
		for _, e := range o.sim.Log() {
			if strings.Contains(e.Path, "acme/resting") {
				n++
			}
		}
		return n
	}
	before := asked()
	o.reconcile()
	if n := asked() - before; n != 0 {
		t.Errorf("%d requests for a repository at rest, while events come", n)
	}
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")
}

// The configuration may write an organisation in another case than GitHub does,
// whose events and listings are of one repository all the same.
func TestARepositoryIsComparedOnceHoweverItsOwnerIsWritten(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.target.Scope = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "ACME"}
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	for _, d := range o.events() {
		o.ok(o.intake.Receive(t.Context(), d))
	}
	o.reconcile()
	o.wantTruth()
	lists := 0
	for _, e := range o.sim.Log() {
		if e.Is("GET", "/repos/{owner}/{repo}/actions/runs") {
			lists++
		}
	}
	if lists != 2 {
		t.Errorf("%d lists of runs, want one of each state", lists)
	}
}

package enforce_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/enforce"
)

func (w *world) explain(id int64) enforce.Explanation {
	w.Helper()
	x, err := enforce.Explain(w.ctx, enforce.NewReader(w.db), w.policies, w.target(), id, w.clock())
	w.ok(err)
	return x
}

// What is explained is what enforcement does next, limits about all runners
// included; and afterwards why it did so.
func TestExplanationIsWhatEnforcementDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "RATE", "2/m"), sample("capped", "COUNT", "1", "ENFORCEMENT", "audit"), sample("old", "HOURS", "100h"))
	ids := w.create(3, githubsim.RunnerSpec{})
	kept := w.create(1, githubsim.RunnerSpec{Labels: []string{"keep"}})[0]
	online := w.create(1, githubsim.RunnerSpec{Online: true})[0]
	w.offline()

	for _, p := range w.policies {
		preview, err := enforce.Plan(w.ctx, enforce.NewReader(w.db), p, w.target(), w.clock())
		w.ok(err)
		for want := range preview.Decisions() {
			x := w.explain(want.RunnerID)
			i := slices.IndexFunc(x.Opinions, func(o enforce.Opinion) bool { return o.Policy.Name == p.Name })
			if i < 0 {
				t.Fatalf("%s has no opinion on %d", p.Name, want.RunnerID)
			}
			if diff := cmp.Diff(want, x.Opinions[i].Decision); diff != "" {
				t.Errorf("%s on %d (-planned +explained):\n%s", p.Name, want.RunnerID, diff)
			}
			matched := !slices.Contains(want.Reasons, policies.ReasonNotMatched)
			if (x.Opinions[i].Readings[0].Answer == policies.AnswerYes) != matched {
				t.Errorf("%s on %d: its match reads %s, and the decision is %v", p.Name, want.RunnerID, x.Opinions[i].Readings[0].Answer, want.Reasons)
			}
		}
	}
	for id, want := range map[int64]string{
		ids[0]: "reap deletes it in its next run, unless the last look speaks against it.\ncapped would delete it, and would halt instead: 3 runners are due, 1 allowed in 1h",
		kept:   "reap keeps it: it is exempt: keep-label. For it to be deleted no exemption may hold.",
		online: "It stays: no policy that deletes runners matches it.\nFor reap to match, this has to hold: runner.status == \"offline\" (runner.status = \"online\").",
	} {
		if got := w.explain(id).InShort(); !strings.HasPrefix(got, want) {
			t.Errorf("%d in short: %q, want %q…", id, got, want)
		}
	}

	run := trigger()
	_, err := w.enforcer.Handle(w.ctx, run)
	w.ok(err)
	gone := w.deletes()
	if len(gone) != 2 {
		t.Fatalf("deleted %v, want two", gone)
	}
	x := w.explain(gone[0])
	if got, want := x.InShort(), "by policy reap, offline for 2h as observed. The run was "+run.ID+"."; !strings.HasSuffix(got, want) {
		t.Errorf("in short: %q, want …%q", got, want)
	}
	// One of its workflow jobs, and one of a machine of GitHub's with its id.
	for job, name := range []string{x.Runner.Name, "GitHub Actions 1"} {
		_, err := w.sql.Exec(w.ctx, `
			INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name,
				started_at, conclusion, changed_at)
			VALUES ('acme', $1, 1, 1, $2, '{}', 'in_progress', $3, $4, $5, '', $5)`, 41+job, fmt.Sprint("acme/of-", job), gone[0], name, w.clock())
		w.ok(err)
	}
	x = w.explain(gone[0])
	var story []string
	for _, s := range x.Story {
		story = append(story, strings.TrimSpace(string(s.Kind)+" "+s.What+" "+s.Who))
	}
	want := []string{"workflow_job began acme/of-0", "decision act reap", "action intended reap", "action done reap", "history removed"}
	slices.Sort(story)
	slices.Sort(want)
	if diff := cmp.Diff(want, story); diff != "" || x.More || len(x.Opinions) != 0 {
		t.Errorf("story (-want +got):\n%s\nopinions: %v", diff, x.Opinions)
	}

	if _, err := enforce.Explain(w.ctx, enforce.NewReader(w.db), w.policies, w.target(), 4711, w.clock()); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("Explain of nobody = %v, want fleet.ErrNotFound", err)
	}
}

func TestWitnesses(t *testing.T) {
	t.Parallel()
	now := t0
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	synced := fleet.TargetState{LastCompleteSyncAt: ago(time.Minute), LastOutcome: fleet.SyncComplete}
	offline := fleet.Observed{Runner: fleet.Runner{Status: fleet.StatusOffline}, OfflineListings: 3, FirstSeenAt: ago(time.Hour)}
	tests := []struct {
		name    string
		change  func(x *enforce.Explanation)
		objects string // the witnesses that do
		says    string
	}{
		{"nobody objects", func(*enforce.Explanation) {}, "", "offline in 3 complete listings in a row"},
		{"online and busy", func(x *enforce.Explanation) { x.Runner.Status, x.Runner.Busy = fleet.StatusOnline, true }, "listings", "online, busy"},
		{"missing", func(x *enforce.Explanation) { x.Runner.MissingSince = ago(time.Minute) }, "listings", "the newest complete listing lacks it"},
		{"a job", func(x *enforce.Explanation) {
			x.Runner.Work = fleet.Work{OpenJob: 41, OpenSince: ago(time.Hour)}
		}, "workflow jobs", "job 41 runs on it"},
		{"a job whose end was lost", func(x *enforce.Explanation) {
			x.Runner.Work = fleet.Work{OpenJob: 41, OpenSince: ago(6 * 24 * time.Hour)}
		}, "", "its end was lost"},
		{"refused deliveries", func(x *enforce.Explanation) {
			x.Runner.Refused = fleet.Refused{Deliveries: 3, Since: ago(time.Hour), Until: ago(time.Minute)}
		}, "workflow jobs", "3 refused deliveries may have told of one on it"},
		{"its host", func(x *enforce.Explanation) {
			x.Runner.Host, x.Runner.HostSays = "build-01", fleet.HostReport{SeenAt: ago(time.Second), IdleAt: ago(time.Second)}
		}, "host", "build-01 is running, and says that the runner waits for work"},
		{"a silent host", func(x *enforce.Explanation) {
			x.Runner.Host, x.Runner.HostSays = "build-01", fleet.HostReport{SeenAt: ago(time.Hour), BusyAt: ago(time.Hour)}
		}, "", "build-01 is silent"},
		{"booting", func(x *enforce.Explanation) {
			x.Runner.Host, x.Runner.FirstSeenAt, x.Runner.HostSays.TokenAt = "build-01", ago(time.Minute), ago(2*time.Minute)
		}, "tokens", "it may be booting"},
		{"a hold", func(x *enforce.Explanation) {
			x.Runner.Hold = fleet.Hold{Reason: "disk", By: "otto", At: ago(time.Hour)}
		}, "hold", "otto holds it until it is lifted: disk"},
		{"a hold that is over", func(x *enforce.Explanation) {
			x.Runner.Hold = fleet.Hold{Reason: "disk", By: "otto", At: ago(time.Hour), Until: ago(time.Minute)}
		}, "", "none"},
		{"the last look", func(x *enforce.Explanation) {
			x.Runner.SparedAt = ago(time.Second)
			x.Deletion = &db.Deletion{Action: fleet.Action{State: fleet.ActionSpared, Reason: "busy", SettledAt: ago(time.Second)}}
		}, "last look", "before the last deletion that was tried: spared, busy"},
		{"a partial listing", func(x *enforce.Explanation) { x.Target.LastOutcome = fleet.SyncPartial }, "", "the newest sync was partial"},
	}
	for _, tt := range tests {
		x := enforce.Explanation{Now: now, Runner: offline, Target: synced}
		tt.change(&x)
		var objects, says []string
		for _, testimony := range x.Witnesses() {
			says = append(says, testimony.Says)
			if testimony.Objects {
				objects = append(objects, testimony.Witness)
			}
		}
		if strings.Join(objects, ", ") != tt.objects || !strings.Contains(strings.Join(says, "\n"), tt.says) {
			t.Errorf("%s: %v object, all say:\n%s\nwant %q to object, and to hear %q", tt.name, objects, strings.Join(says, "\n"), tt.objects, tt.says)
		}
	}
}

// What is drained is told by whom it was asked for, and what a pool gave up by
// why.
func TestExplanationTellsOfDrains(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := &policies.Policy{Name: "outdated", Enforcement: fleet.EnforcementEnforce, Action: fleet.ActionDeleteRunner, Drain: true}
	gone := func(policy string, cause fleet.RemovalCause, evidence fleet.Evidence) enforce.Explanation {
		return enforce.Explanation{
			Runner: fleet.Observed{RemovedAt: at, RemovalCause: cause},
			Deletion: &db.Deletion{
				Action:   fleet.Action{Policy: policy, TriggerID: "t1", State: fleet.ActionDone},
				Decision: fleet.Decision{Evidence: evidence},
			},
		}
	}
	for _, tt := range []struct {
		x    enforce.Explanation
		want string
	}{
		{enforce.Explanation{Opinions: []enforce.Opinion{{Policy: p, Decision: fleet.Decision{
			Verdict: fleet.VerdictAct, Reasons: []string{policies.ReasonMatched}, Evidence: fleet.Evidence{"host": "h1"},
		}}}}, "outdated asks its host h1 in its next run, and deletes it if no workflow job is on it and the last look does not speak against it."},
		{enforce.Explanation{Opinions: []enforce.Opinion{{Policy: p, Decision: fleet.Decision{
			Verdict: fleet.VerdictKeep, Reasons: []string{policies.ReasonOffline, policies.ReasonNoHost}, Evidence: fleet.Evidence{"status": "offline"},
		}}}}, "outdated keeps it: GitHub shows it offline, and only what is online can be drained; it is not known for sure which host it is on, so nobody can be asked whether a workflow job runs there. " +
			"For it to be deleted it has to be online, and its host has to list it in its heartbeats, and no other host."},
		{gone("outdated", fleet.CausePolicy, fleet.Evidence{"host": "h1"}),
			"It was deleted at 2026-03-01T12:00:00Z by policy outdated, after its host h1 had said that no workflow job was on it. The run was t1."},
		{gone("scale_down", fleet.CauseScaleDown, fleet.Evidence{"host": "h1"}),
			"It was deleted at 2026-03-01T12:00:00Z because its pool had more hosts than it needs. The run was t1."},
	} {
		if got := tt.x.InShort(); got != tt.want {
			t.Errorf("InShort = %s\nwant      %s", got, tt.want)
		}
	}
}

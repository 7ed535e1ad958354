package main

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/enforce"
)

var update = flag.Bool("update", false, "write the golden files anew")

const explained = `apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: reap}
spec:
  enforcement: enforce
  scope: {targets: [acme, octo]}
  match: runner.status == "offline" && runner.offline_for > duration("168h")
  exempt: {keep: '"keep" in runner.labels', alive: 'host.known && host.state == "running"'}
  guards: {grace: 24h, max: {count: 5, percent: 50}}
  actions: [{delete_runner: {}}]
`

// The page of a runner that is as good as due, in full.
func TestExplanationOnAPage(t *testing.T) {
	t.Parallel()
	all, err := policies.Load("reap.yaml", []byte(explained))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const day = 24 * time.Hour
	r := fleet.Observed{
		Runner: fleet.Runner{ID: 7, Name: "build-07\x1b[2J", OS: "linux", Status: fleet.StatusOffline, Labels: []string{"linux", "x64"}, Ephemeral: fleet.No, Version: "2.320.0"},
		Target: "acme", Host: "build-07", FirstSeenAt: ago(90 * day), LastSeenAt: ago(40 * time.Second), StatusSince: ago(9 * day),
		OfflineSince: ago(9 * day), LastOnlineAt: ago(9 * day), OfflineFor: 8*day + 23*time.Hour, OfflineListings: 6450, OfflineSpan: 9 * day,
		Work:     fleet.Work{LastDoneAt: ago(9*day + time.Hour)},
		HostSays: fleet.HostReport{SeenAt: ago(9 * day), TokenAt: ago(90 * day)},
	}
	x := enforce.Explanation{
		Now: now, Runner: r,
		Target: fleet.TargetState{Target: fleet.Target{Name: "acme"}, LastCompleteSyncAt: ago(40 * time.Second), LastOutcome: fleet.SyncComplete, Population: 40},
		More:   true,
		Story: []db.StoryRow{
			{At: ago(90 * day), Kind: db.StoryToken, What: "registration", Who: "build-07"},
			{At: ago(90 * day), Kind: db.StoryHistory, What: "registered", TriggerID: "0198c0de-0000-7000-8000-000000000001"},
			{At: ago(9*day + 2*time.Hour), Kind: db.StoryWorkflowJob, What: "began", Who: "acme/widgets", ID: "41"},
			{At: ago(9*day + time.Hour), Kind: db.StoryWorkflowJob, What: "success", Who: "acme/widgets", ID: "41"},
			{At: ago(9 * day), Kind: db.StoryHistory, What: "offline"},
			{At: ago(2 * day), Kind: db.StoryAudit, What: "runner.hold", Who: "otto", Detail: "disk is being looked at"},
			{At: ago(10 * time.Hour), Kind: db.StoryDecision, What: "keep", Who: "reap", Detail: "grace", TriggerID: "0198c0de-0000-7000-8000-000000000002"},
		},
	}
	in := policies.Input{Target: x.Target, Runners: []fleet.Observed{r}, MatchedSince: map[int64]time.Time{7: ago(10 * time.Hour)}}
	x.Opinions = []enforce.Opinion{{Policy: all[0], Decision: policies.Decide(all[0], in, now).Decisions[0], Readings: all[0].Read(&r, 0, x.Target, now)}}

	var text strings.Builder
	if err := writePage(&text, x, ""); err != nil {
		t.Fatal(err)
	}
	var pooled strings.Builder
	if err := writePage(&pooled, x, "gpu: 4 are desired: nothing to do now"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(pooled.String(), "  pool    gpu: 4 are desired: nothing to do now\n") {
		t.Errorf("the page does not name the pool:\n%s", pooled.String())
	}
	golden := filepath.Join("testdata", "explain.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	store, env := withRecord(t)
	dir := inDir(t, map[string]string{
		"muster.yaml": "targets: [{name: acme, scope: org/acme, auth: {token_env: TOKEN}}, {name: octo, scope: org/octo, auth: {token_env: TOKEN}}]\npolicies: [reap.yaml]\n",
		"reap.yaml":   explained,
	})
	env["MUSTER_CONFIG"], env["TOKEN"] = filepath.Join(dir, "muster.yaml"), "x"
	now, err := store.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run := uuid.NewString()
	for _, target := range []string{"acme", "octo"} {
		inTx(t, store, func(tx *db.Tx) error {
			if err := tx.EnsureTarget(t.Context(), fleet.Target{Name: target, Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: target}, APIURL: fleet.DefaultAPIURL}, now); err != nil {
				return err
			}
			var rows []db.RunnerRow
			for id, name := range []string{"build-01", "build-02", "build-03", "twin", "only-" + target} {
				rows = append(rows, db.RunnerRow{
					Runner:      fleet.Runner{ID: int64(id + 1), Name: name, OS: "linux", Status: fleet.StatusOffline, Labels: []string{"linux"}},
					FirstSeenAt: now.Add(-time.Hour), SeenAt: now, StatusSince: now, OfflineSince: now,
				})
			}
			if target == "octo" {
				rows = rows[3:]
			}
			return tx.AddRunners(t.Context(), target, rows)
		})
	}
	inTx(t, store, func(tx *db.Tx) error {
		history := []db.HistoryRow{{RunnerID: 1, Name: "build-01", At: now.Add(-time.Minute), Change: fleet.ChangeOffline}}
		for i := range 60 {
			change := []fleet.Change{fleet.ChangeBusy, fleet.ChangeIdle}[i%2]
			history = append(history, db.HistoryRow{RunnerID: 3, Name: "build-03", At: now.Add(time.Duration(i-100) * time.Second), Change: change})
		}
		if err := tx.AddHistory(t.Context(), "acme", "", history); err != nil {
			return err
		}
		// build-02 was deleted by the policy.
		d := []fleet.Decision{{
			At: now, TriggerID: run, Policy: "reap", PolicySHA256: "x", Enforcement: fleet.EnforcementEnforce, Target: "acme", RunnerID: 2, Name: "build-02",
			Verdict: fleet.VerdictAct, Reasons: []string{policies.ReasonMatched}, Evidence: fleet.Evidence{"offline_for": "200h"},
		}}
		if err := tx.SaveDecisions(t.Context(), d); err != nil {
			return err
		}
		deletion := fleet.Action{
			ID: uuid.NewString(), DecisionID: d[0].ID, TriggerID: run, Policy: "reap", Target: "acme", RunnerID: 2, Name: "build-02",
			Kind: fleet.ActionDeleteRunner, State: fleet.ActionIntended, IntendedAt: now,
		}
		if err := tx.Intend(t.Context(), deletion, time.Minute, false); err != nil {
			return err
		}
		deletion.State, deletion.SettledAt = fleet.ActionDone, now
		if err := tx.Settle(t.Context(), deletion); err != nil {
			return err
		}
		if _, err := tx.MarkRemoved(t.Context(), "acme", 2, fleet.CausePolicy, now); err != nil {
			return err
		}
		return tx.Hold(t.Context(), "acme", 1, fleet.Hold{Reason: "ticket 4711", By: "otto", At: now})
	})

	for _, tt := range []struct {
		args   string
		code   int
		stderr string
		shows  []string
	}{
		{"acme build-01", exitDone, "", []string{
			"build-01  (acme, id 1)", "It stays: no policy that deletes runners matches it.\n  For reap to match, this has to hold: runner.offline_for > duration(\"168h\") (runner.offline_for = 0s).", "went offline",
			"otto holds it until it is lifted: ticket 4711", "POLICY reap (enforce): keep", `>  no   runner.offline_for > duration("168h")`,
		}},
		{"build-02 --removed", exitDone, "", []string{"cause: policy", "by policy reap, offline for 200h as observed. The run was " + run + ".", "deletion by reap: done"}},
		{"build-02", exitFailed, "muster: explain runner build-02: it is no longer registered, there was acme/#2 (build-02, removed " + moment(now) + "): add --removed\n", nil},
		{"acme #3", exitDone, "", []string{"build-03  (acme, id 3)", "… more before: api.runner_history"}},
		{"only-octo", exitDone, "", []string{"only-octo  (octo, id 5)"}},
		{"--id 5 octo", exitDone, "", []string{"only-octo  (octo, id 5)"}},
		{"--id 1", exitDone, "", []string{"build-01  (acme, id 1)"}},
		{"Build-01", exitDone, "", []string{"build-01  (acme, id 1)"}},
		{"octo #4", exitDone, "", []string{"twin  (octo, id 4)"}},
		{"twin", exitUsage, "muster: explain runner twin: nothing is done, it may be acme/#4 (twin), octo/#4 (twin): say which, as in muster explain acme --id 4\n", nil},
		{"bulid-01", exitFailed, "muster: explain runner bulid-01: muster has never seen one of that name, did you mean build-01?\n", nil},
		{"octo gpu", exitFailed, "muster: explain runner octo/gpu: muster has never seen one of that name: see muster runners --target octo\n", nil},
		{"99", exitFailed, "muster: explain runner 99: muster has never seen one of that name: an id is written --id 99\n", nil},
		{"#99", exitFailed, "muster: explain runner #99: muster has never seen one of that id: see muster runners\n", nil},
		{"nope 1", exitUsage, "muster: explain: target \"nope\" is unknown, there is acme, octo\n", nil},
	} {
		r := muster(t, env, append([]string{"explain"}, strings.Fields(tt.args)...)...)
		if r.code != tt.code || r.stderr != tt.stderr || (r.stdout == "") != (tt.shows == nil) {
			t.Errorf("explain %s: %+v, want exit %d and %q", tt.args, r, tt.code, tt.stderr)
		}
		for _, want := range tt.shows {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("explain %s lacks %q:\n%s", tt.args, want, r.stdout)
			}
		}
	}

	e := decode[explanation](t, muster(t, env, "explain", "acme", "#1", "-o", "json"))
	if e.Runner.RunnerID != 1 || len(e.Policies) != 1 || e.Policies[0].Match == nil || e.Policies[0].Match.Answer != policies.AnswerNo || len(e.Policies[0].Exempt) != 2 {
		t.Errorf("explain in JSON = %+v", e)
	}
	if i := slices.IndexFunc(e.Witnesses, func(w testimonyRow) bool { return w.Witness == "hold" }); i < 0 || !e.Witnesses[i].Objects || e.Witnesses[i].AgeSeconds == nil {
		t.Errorf("witnesses = %+v, want the hold among those that object", e.Witnesses)
	}
	// One that came again under the same name is told of itself.
	inTx(t, store, func(tx *db.Tx) error {
		return tx.AddRunners(t.Context(), "acme", []db.RunnerRow{{
			Runner:      fleet.Runner{ID: 20, Name: "build-02", OS: "linux", Status: fleet.StatusOnline, Labels: []string{"linux"}},
			FirstSeenAt: now, SeenAt: now, StatusSince: now,
		}})
	})
	for args, want := range map[string]string{"build-02": "build-02  (acme, id 20)\n", "build-02 --removed": "build-02  (acme, id 2)\n"} {
		if r := muster(t, env, append([]string{"explain", "acme"}, strings.Fields(args)...)...); r.code != exitDone || r.stderr != "" || !strings.HasPrefix(r.stdout, want) {
			t.Errorf("explain acme %s = %+v, want %q", args, r, want)
		}
	}
}

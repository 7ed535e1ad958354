package inventory_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

func TestFirstLoadIsNoNews(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(2, githubsim.RunnerSpec{Name: "on", Online: true, Labels: []string{"GPU"}})
	w.create(1, githubsim.RunnerSpec{Name: "busy", Online: true, Busy: true})
	w.create(2, githubsim.RunnerSpec{Name: "off"})
	s := w.wantSync("complete +5 ~0 -0")
	if s.Pages != 1 || s.APICalls != 2 || s.Runners != 5 { // the listing, and what the server can do
		t.Errorf("sync = %+v", s)
	}
	w.want("on1 online false gpu,linux,self-hosted,x64, on2 online false gpu,linux,self-hosted,x64, busy1 online true linux,self-hosted,x64, off1 offline false linux,self-hosted,x64, off2 offline false linux,self-hosted,x64", `
		SELECT string_agg(concat_ws(' ', name, status, busy::text, array_to_string(labels, ',')), ', ' ORDER BY runner_id) FROM api.runners`)
	w.want("5 3 1", `SELECT concat_ws(' ', runners, online, busy) FROM api.targets`)
	w.want("0", `SELECT count(*) FROM api.runner_history`)
	w.want("TG302I", `SELECT string_agg(code, ' ') FROM api.audit`)
	w.want("muster.v1.event.sync.complete", `SELECT string_agg(subject, ' ') FROM muster.outbox`)
	w.want("true", `SELECT bool_and(first_seen_at = $1 AND status_since = $1 AND (offline_since = $1) = (status = 'offline') IS NOT FALSE) FROM api.runners`, w.clock())
	w.want("complete 1 2 0 5 5 0 0", `SELECT concat_ws(' ', outcome, pages, api_calls, not_modified, runners, added, changed, removed, suspect, error) FROM api.syncs`)
}

// A partial walk comes first: those that only the next one shows were there as
// well.
func TestFirstLoadInTwoPartsIsNoNewsEither(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(5, githubsim.RunnerSpec{Online: true})
	mend := w.editListings(func(runners []wireRunner, total int) ([]wireRunner, int) {
		return runners[:min(3, len(runners))], total
	})
	w.wantSync("partial +3 ~0 -0")
	mend()
	w.wantSync("complete +2 ~0 -0")
	w.want("0", `SELECT count(*) FROM api.runner_history`)
	w.create(1, githubsim.RunnerSpec{Name: "new"})
	w.wantSync("complete +1 ~0 -0")
	w.want("new1 registered", `SELECT string_agg(name || ' ' || change, ', ') FROM api.runner_history`)
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) } // numbers always encode

func TestTransitions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(6, githubsim.RunnerSpec{Online: true})
	w.wantSync("complete +6 ~0 -0")
	w.exec(`DELETE FROM muster.outbox`)

	w.ok(w.sim.Kill(acme, ids[0]))
	w.ok(w.sim.Assign(acme, ids[1]))
	w.ok(w.sim.Remove(acme, ids[2]))
	added := w.create(1, githubsim.RunnerSpec{Name: "new", Online: true})[0]
	mend := w.editListings(func(runners []wireRunner, total int) ([]wireRunner, int) {
		for _, r := range runners {
			switch int64(r["id"].(float64)) {
			case ids[3]:
				r["labels"] = []map[string]any{{"name": "Keep"}}
			case ids[4]:
				r["name"] = "renamed"
			case ids[5]:
				r["os"], r["version"] = "Ubuntu", "2.320.0"
			}
		}
		return runners, total
	})
	s := w.wantSync("complete +1 ~5 -1")
	if s.APICalls != 3 {
		t.Errorf("%d calls, want the listing, one look and one for whether the scope is seen", s.APICalls)
	}
	at := w.clock()
	w.want(`r1 offline {"status": "online"} {"status": "offline"}
r2 busy {"busy": false} {"busy": true}
r3 removed {"busy": false, "labels": ["linux", "self-hosted", "x64"], "status": "online"} -
r4 relabelled {"labels": ["linux", "self-hosted", "x64"]} {"labels": ["keep"]}
renamed renamed {"name": "r5"} {"name": "renamed"}
new1 registered - {"busy": false, "labels": ["linux", "self-hosted", "x64"], "status": "online"}`, `
		SELECT string_agg(concat_ws(' ', name, change, coalesce(before::text, '-'), coalesce(after::text, '-')), E'\n' ORDER BY runner_id)
		FROM api.runner_history
		WHERE at = $1 AND sync_id = $2 AND target = 'acme'`, at, s.ID)
	w.want("RN110I r3 GitHub answers 404 by id", `
		SELECT concat_ws(' ', code, runner_name, reason) FROM api.audit WHERE runner_id = $1 AND trigger_id = $2`, ids[2], s.TriggerID)
	w.want("unknown true", `SELECT removal_cause || ' ' || (removed_at = $2)::text FROM api.runners WHERE runner_id = $1`, ids[2], at)
	w.want("linux 2.320.0", `SELECT os || ' ' || version FROM api.runners WHERE runner_id = $1`, ids[5])
	// It was online until somebody looked last.
	w.want(at.Add(-time.Minute).Format(time.RFC3339), `
		SELECT to_char(last_online_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') FROM muster.runner WHERE runner_id = $1`, ids[0])
	w.events(s, map[string]int64{
		"runner.offline": ids[0], "runner.busy": ids[1], "runner.removed": ids[2], "runner.relabelled": ids[3], "runner.registered": added,
	})
	mend()

	w.exec(`DELETE FROM muster.outbox`)
	w.ok(w.sim.Connect(acme, ids[0]))
	w.ok(w.sim.Finish(acme, ids[1]))
	s = w.wantSync("complete +0 ~5 -0")
	w.want("r1 online, r2 idle, r4 relabelled, r5 renamed", `
		SELECT string_agg(name || ' ' || change, ', ' ORDER BY runner_id) FROM api.runner_history WHERE sync_id = $1`, s.ID)
	w.events(s, map[string]int64{"runner.online": ids[0], "runner.idle": ids[1], "runner.relabelled": ids[3]})
	w.want("true", `SELECT last_busy_at = $2 FROM api.runners WHERE runner_id = $1`, ids[1], at)
}

// events checks the outbox: one event of each type for each runner, and the
// sync's own.
func (w *world) events(s fleet.Sync, want map[string]int64) {
	w.Helper()
	messages, err := db.Outbox{DB: w.db}.Claim(w.ctx, "event", 100, time.Minute)
	if err != nil {
		w.Fatal(err)
	}
	got := map[string]int64{}
	for _, m := range messages {
		var e struct {
			SpecVersion, ID, Source, Type, Subject, DataContentType string

			Time time.Time
			Data struct {
				Target   string
				RunnerID int64  `json:"runner_id"`
				SyncID   string `json:"sync_id"`
				Change   string
				Outcome  string
				Suspect  *string
				Error    *string
				Added    int
			}
		}
		if err := json.Unmarshal(m.Body, &e); err != nil {
			w.Fatalf("event %s: %v", m.Body, err)
		}
		if e.SpecVersion != "1.0" || e.ID != m.ID || e.Source != "muster/acme" || m.Subject != "muster.v1.event."+e.Type ||
			e.DataContentType != "application/json" || e.Data.Target != "acme" || e.Data.SyncID != s.ID || !e.Time.Equal(w.clock()) {
			w.Errorf("event %s on %s", m.Body, m.Subject)
		}
		if e.Type == "sync.complete" {
			if e.Subject != "acme" || e.Data.Outcome != "complete" || e.Data.Added != s.Added || e.Data.Suspect != nil || e.Data.Error != nil {
				w.Errorf("event %s", m.Body)
			}
			continue
		}
		if e.Subject != itoa(int(e.Data.RunnerID)) || !strings.HasSuffix(e.Type, e.Data.Change) {
			w.Errorf("event %s", m.Body)
		}
		got[e.Type] = e.Data.RunnerID
	}
	if diff := cmp.Diff(want, got); diff != "" || len(messages) != len(want)+1 {
		w.Errorf("%d events (-want +got):\n%s", len(messages), diff)
	}
}

func TestEnforcementIsAskedForAfterCompleteSyncsOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(3, githubsim.RunnerSpec{Online: true})
	asked := 0
	triggers := func(want string) {
		t.Helper()
		w.want(want, `SELECT count(*) || ' ' || count(DISTINCT r.parent) FROM muster.run r JOIN muster.outbox o ON o.id = r.trigger_id
			WHERE r.job = 'enforce' AND r.name = 'acme' AND r.source = 'sync' AND r.state = 'queued' AND o.subject = 'muster.v1.trigger.enforce.acme'`)
	}
	w.sync()
	triggers("0 0")
	w.syncer.Enforce = func(target string) bool {
		asked++
		return target == "acme" && asked > 1
	}
	w.sync()
	triggers("0 0")
	s := w.sync()
	triggers("1 1")
	w.want(s.TriggerID, `SELECT parent FROM muster.run`)
	mend := w.breakListings()
	w.wantSync("partial +0 ~0 -0")
	mend()
	w.sim.Maintenance(true)
	w.pass(time.Minute)
	if err := w.try(); err == nil {
		t.Error("a sync of a server under maintenance succeeds")
	}
	triggers("1 1")
}

func TestPoolsAreDecidedOnAfterCompleteSyncs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(3, githubsim.RunnerSpec{Online: true})
	w.syncer.Pools = func(target string) []string {
		if target != "acme" {
			t.Errorf("asked for the pools of %s", target)
		}
		return []string{"linux", "windows"}
	}
	triggers := func(want string) {
		t.Helper()
		w.want(want, `SELECT coalesce(string_agg(o.subject || ' ' || r.source, ', ' ORDER BY o.subject), 'none')
			FROM muster.run r JOIN muster.outbox o ON o.id = r.trigger_id WHERE r.job = 'scale' AND r.state = 'queued'`)
	}
	mend := w.breakListings()
	w.wantSync("partial +3 ~0 -0")
	triggers("none")
	mend()
	for range 2 { // what waits already is not asked for again
		w.wantSync("complete +0 ~0 -0")
		triggers("muster.v1.trigger.scale.linux sync, muster.v1.trigger.scale.windows sync")
	}
}

// A request for a host is followed to the runner that comes of it, by any sync
// that sees it.
func TestLeasesFollowWhatASyncSees(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.syncer.Pools = func(string) []string { return []string{"linux"} }
	w.sync()
	w.exec(`INSERT INTO muster.lease (request_id, pool, target, host, claimed_at, state, attempt, requested_at, deadline)
		VALUES (gen_random_uuid(), 'linux', 'acme', 'build-01', $1, 'claimed', 1, $1, $1), (gen_random_uuid(), 'linux', 'acme', 'build-02', $1, 'claimed', 1, $1, $1)`, w.clock())
	states := func(want string) {
		t.Helper()
		w.want(want, `SELECT string_agg(concat_ws(' ', host, state, runner_id), ', ' ORDER BY host) FROM api.leases`)
	}
	one, err := w.sim.CreateMany(acme, 1, func(int) githubsim.RunnerSpec { return githubsim.RunnerSpec{Name: "build-01"} })
	w.ok(err)
	w.wantSync("complete +1 ~0 -0")
	states(fmt.Sprintf("build-01 registered %d, build-02 claimed", one[0]))
	w.ok(w.sim.Connect(acme, one[0]))
	mend := w.breakListings()
	w.wantSync("partial +0 ~1 -0")
	mend()
	states(fmt.Sprintf("build-01 online %d, build-02 claimed", one[0]))
}

func TestRunnersAreLinkedToTheHostThatAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sync()
	token := func(host, kind, outcome string, issued, expires time.Duration) {
		w.exec(`INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, body_sha256, requested_at, issued_at, expires_at)
			VALUES ($1, gen_random_uuid(), 1, 'acme', $2, $3, '', $4, $4, $5)`, host, kind, outcome, t0.Add(issued), t0.Add(expires))
	}
	token("fresh-1", "registration", "issued", 0, time.Hour)
	token("lone-1", "registration", "issued", 0, time.Hour)
	token("twin-1", "registration", "issued", 0, time.Hour)
	token("expired-1", "registration", "issued", 0, time.Minute)
	token("later-1", "registration", "issued", time.Hour, 2*time.Hour)
	token("leaving-1", "removal", "issued", 0, time.Hour)
	token("denied-1", "registration", "denied", 0, time.Hour)
	for _, name := range []string{"fresh-", "FRESH-", "fresh-1", "LONE-", "Twin-", "TWIN-", "expired-", "later-", "leaving-", "denied-"} {
		w.create(1, githubsim.RunnerSpec{Name: name})
	}
	w.wantSync("complete +10 ~0 -0")
	w.want("LONE-1 lone-1, fresh-1 fresh-1", `
		SELECT string_agg(name || ' ' || host, ', ' ORDER BY name COLLATE "C") FROM api.runners WHERE host IS NOT NULL`)
}

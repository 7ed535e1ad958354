package enforce_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/enforce"
	"github.com/muster-fleet/muster/worker/remove"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

const credential = "ghp_credential"

var (
	t0   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	acme = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}
)

// world is a GitHub, a database that syncs keep in step with it, and an
// enforcer whose clock the test moves.
type world struct {
	testing.TB
	ctx context.Context
	url string
	db  *db.DB
	sql *pgx.Conn
	sim *githubsim.Sim

	tracer pgx.QueryTracer
	now    atomic.Int64 // Unix, ns

	enforcer *enforce.Enforcer
	policies []*policies.Policy
	rows     map[int64]db.RunnerRow // as the last sync left them
}

// sample is a policy with nothing in its way but what a test puts there.
func sample(name string, change ...string) string {
	return strings.NewReplacer(append(change,
		"NAME", name, "ENFORCEMENT", "enforce", "HOURS", "1h", "GRACE", "0", "COUNT", "50", "RATE", "1000/m", "ACTION", "delete_runner", "EXTRA", "",
	)...).Replace(`
apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: NAME}
spec:
  enforcement: ENFORCEMENT
  scope: {targets: [acme]}
  match: runner.status == "offline" && runner.offline_for > duration("HOURS")
  exempt: {keep-label: '"keep" in runner.labels'}
  guards: {grace: GRACE, max: {count: COUNT, percent: 100}, rate: RATE}
  actions: [{ACTION: {}}]EXTRA
`)
}

func (w *world) load(texts ...string) {
	w.Helper()
	w.policies = nil
	for _, text := range texts {
		all, err := policies.Load("policies.yaml", []byte(text))
		w.ok(err)
		w.policies = append(w.policies, all...)
	}
}

func newWorld(t testing.TB, texts ...string) *world {
	t.Helper()
	return newTracedWorld(t, nil, texts...)
}

// newTracedWorld is a world of whose replicas' statements the tracer hears.
func newTracedWorld(t testing.TB, tracer pgx.QueryTracer, texts ...string) *world {
	t.Helper()
	w := &world{TB: t, tracer: tracer, ctx: t.Context(), url: dbtest.URL(t), rows: map[int64]db.RunnerRow{}}
	w.now.Store(t0.UnixNano())
	w.load(texts...)
	w.db = w.open()
	var err error
	if w.sql, err = pgx.Connect(w.ctx, w.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.sql.Close(context.Background()) })
	sim, stop, err := githubsim.Start(context.Background(), githubsim.Config{Tokens: []string{credential}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	w.sim = sim
	w.ok(sim.AddScope(acme))
	w.enforcer = w.replica()
	return w
}

func (w *world) open() *db.DB {
	w.Helper()
	store, err := db.OpenTraced(w.ctx, w.url, w.tracer)
	w.ok(err)
	w.Cleanup(store.Close)
	return store
}

func (w *world) target() fleet.Target {
	return fleet.Target{Name: "acme", Scope: acme, APIURL: w.sim.APIURL(), MaxObservationGap: time.Hour}
}

// replica is an enforcer as another process would have it.
func (w *world) replica() *enforce.Enforcer {
	w.Helper()
	client, err := github.New(github.Config{
		APIURL: w.sim.APIURL(), UserAgent: "muster/test",
		Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(credential), nil },
	})
	w.ok(err)
	store := w.open()
	now := func(context.Context) (time.Time, error) { return w.clock(), nil }
	log := slog.New(slog.DiscardHandler)
	return &enforce.Enforcer{
		Log: log, DB: store, Now: now,
		Policies: func() []*policies.Policy { return w.policies },
		Remover: &remove.Remover{
			Log: log, DB: store, Now: now,
			Targets: func() map[string]remove.Target {
				return map[string]remove.Target{"acme": {Target: w.target(), GitHub: client}}
			},
		},
	}
}

func (w *world) clock() time.Time     { return time.Unix(0, w.now.Load()).UTC() }
func (w *world) pass(d time.Duration) { w.now.Add(int64(d)) }

// create makes n runners in the simulator.
func (w *world) create(n int, spec githubsim.RunnerSpec) []int64 {
	w.Helper()
	first := len(w.sim.Snapshot(acme)) + 1
	ids, err := w.sim.CreateMany(acme, n, func(i int) githubsim.RunnerSpec {
		one := spec
		one.Name = fmt.Sprintf("r%d", first+i)
		return one
	})
	w.ok(err)
	return ids
}

// sync passes some time and does what a complete sync does, in short.
func (w *world) sync(after time.Duration) {
	w.Helper()
	w.pass(after)
	at := w.clock()
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		if err := tx.EnsureTarget(w.ctx, w.target(), at); err != nil {
			return err
		}
		clock, err := tx.LockTarget(w.ctx, w.target())
		if err != nil {
			return err
		}
		if gap := at.Sub(clock.LastCompleteSyncAt); !clock.LastCompleteSyncAt.IsZero() && gap <= time.Hour {
			clock.ObservedUS += gap.Microseconds()
		}
		clock.CompleteSyncs++
		clock.LastCompleteSyncAt, clock.LastWalkAt = at, at
		var added, changed []db.RunnerRow
		for _, s := range w.sim.Snapshot(acme) {
			row, known := w.rows[s.ID]
			if known && row.Status == s.Shown && row.Busy == s.Busy {
				continue
			}
			labels := make([]string, len(s.Labels))
			for i, l := range s.Labels {
				labels[i] = strings.ToLower(l)
			}
			row = db.RunnerRow{
				Runner:      fleet.Runner{ID: s.ID, Name: s.Name, OS: s.OS, Status: s.Shown, Busy: s.Busy, Labels: labels},
				FirstSeenAt: at, SeenAt: at, StatusSince: at,
			}
			if s.Shown == fleet.StatusOffline {
				row.OfflineSince = at
				row.OfflineFrom = db.OfflineFrom{At: at, ObservedUS: clock.ObservedUS, Sync: clock.CompleteSyncs}
			}
			w.rows[s.ID] = row
			if known {
				changed = append(changed, row)
			} else {
				added = append(added, row)
			}
		}
		if err := tx.AddRunners(w.ctx, "acme", added); err != nil {
			return err
		}
		if err := tx.SaveRunners(w.ctx, "acme", at, changed); err != nil {
			return err
		}
		return tx.SaveSync(w.ctx, fleet.Sync{
			ID: uuid.NewString(), Target: "acme", TriggerID: uuid.NewString(), StartedAt: at, FinishedAt: at, Outcome: fleet.SyncComplete,
		}, &clock)
	}))
}

// offline passes two hours in which syncs see everybody as they are now.
func (w *world) offline() {
	w.Helper()
	for range 5 {
		w.sync(30 * time.Minute)
	}
}

func trigger() fleet.Trigger {
	return fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobEnforce, Name: "acme", Source: fleet.SourceSync}
}

// run enforces on acme and returns the counts.
func (w *world) run() fleet.Counts {
	w.Helper()
	counts, err := w.enforcer.Handle(w.ctx, trigger())
	w.ok(err)
	return counts
}

// wantCounts compares some of the counts of a pass: "act 3 keep 1".
func (w *world) wantCounts(want string) {
	w.Helper()
	counts := w.run()
	var got []string
	words := strings.Fields(want)
	for i := 0; i+1 < len(words); i += 2 {
		got = append(got, words[i], fmt.Sprint(counts[words[i]]))
	}
	if strings.Join(got, " ") != want {
		w.Errorf("pass: %v, want %s", counts, want)
	}
}

// deletes are the runners whose DELETE GitHub saw.
func (w *world) deletes() []int64 {
	var ids []int64
	for _, e := range w.sim.Log() {
		if e.Method == http.MethodDelete {
			ids = append(ids, e.RunnerID)
		}
	}
	return ids
}

// agree checks that the record and GitHub's own log say the same of each
// deletion.
func (w *world) agree() {
	w.Helper()
	acted := 0
	for _, e := range w.sim.Log() {
		if e.Method != http.MethodDelete || !e.Acted {
			continue
		}
		acted++
		w.want("1 act RN100I,RN101I", `
			SELECT concat_ws(' ', count(*), min(d.verdict), min((
				SELECT string_agg(e.code, ',' ORDER BY e.event_id)
				FROM api.audit e
				WHERE e.payload->'details'->>'action_id' = a.action_id::text)))
			FROM api.actions a
			JOIN api.decisions d USING (decision_id)
			WHERE a.runner_id = $1 AND a.state = 'done'`, e.RunnerID)
	}
	w.want(fmt.Sprint(acted), `SELECT count(*) FROM api.actions WHERE state = 'done'`)
	w.want("0", `SELECT count(*) FROM api.actions WHERE state = 'intended'`)
	w.want("0", `SELECT count(*) FROM api.decisions d WHERE verdict = 'act' AND enforcement = 'enforce'
		AND NOT EXISTS (SELECT FROM api.actions a WHERE a.decision_id = d.decision_id)`)
}

// value reads one value as text; null is "<null>".
func (w *world) value(sql string, args ...any) string {
	w.Helper()
	var v *string
	if err := w.sql.QueryRow(w.ctx, `SELECT (`+sql+`)::text`, args...).Scan(&v); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
	if v == nil {
		return "<null>"
	}
	return *v
}

func (w *world) want(want, sql string, args ...any) {
	w.Helper()
	if got := w.value(sql, args...); got != want {
		w.Errorf("%s\n= %s, want %s", sql, got, want)
	}
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

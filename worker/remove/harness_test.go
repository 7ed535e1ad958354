package remove_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
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
	"github.com/muster-fleet/muster/worker/remove"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

const credential = "ghp_credential"

var (
	t0   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	acme = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}
)

// world is a GitHub, a database that knows its runners, and a remover whose
// clock the test moves.
type world struct {
	*testing.T
	ctx    context.Context
	url    string
	db     *db.DB
	sql    *pgx.Conn
	sim    *githubsim.Sim
	now    atomic.Int64 // Unix, ns
	policy *policies.Policy

	remover    *remove.Remover
	observedMu sync.Mutex
	observed   []fleet.Action
}

// reap is the policy of these tests, without the guards that take time.
const reap = `
apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: reap}
spec:
  enforcement: enforce
  scope: {targets: [acme]}
  match: runner.status == "offline" && runner.offline_for > duration("168h")
  guards: {grace: 0, max: {count: COUNT, percent: 100}, rate: RATE}
  actions: [{delete_runner: {}}]
`

func loadPolicy(t *testing.T, count int, rate string) *policies.Policy {
	t.Helper()
	text := strings.NewReplacer("COUNT", fmt.Sprint(count), "RATE", rate).Replace(reap)
	all, err := policies.Load("reap.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOf(t, "")
}

// newWorldOf is a world with this version of GitHub.
func newWorldOf(t *testing.T, version string) *world {
	t.Helper()
	w := &world{T: t, ctx: t.Context(), url: dbtest.URL(t), policy: loadPolicy(t, 50, "1000/m")}
	w.now.Store(t0.UnixNano())
	w.db = w.open()
	var err error
	if w.sql, err = pgx.Connect(w.ctx, w.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.sql.Close(context.Background()) })
	sim, stop, err := githubsim.Start(context.Background(), githubsim.Config{Tokens: []string{credential}, Version: version})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	w.sim = sim
	w.ok(sim.AddScope(acme))
	w.remover = w.replica(w.db)
	return w
}

func (w *world) open() *db.DB {
	w.Helper()
	store, err := db.Open(w.ctx, w.url)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(store.Close)
	return store
}

func (w *world) target() remove.Target {
	w.Helper()
	return w.targetWith(func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(credential), nil })
}

// withoutToken leaves the remover with a credential that cannot be had.
func (w *world) withoutToken(why error) {
	w.Helper()
	targets := map[string]remove.Target{
		"acme": w.targetWith(func(context.Context) (fleet.Secret, error) { return fleet.Secret{}, why }),
	}
	w.remover.Targets = func() map[string]remove.Target { return targets }
}

func (w *world) targetWith(token func(context.Context) (fleet.Secret, error)) remove.Target {
	w.Helper()
	client, err := github.New(github.Config{APIURL: w.sim.APIURL(), UserAgent: "muster/test", Token: token})
	if err != nil {
		w.Fatal(err)
	}
	return remove.Target{
		Target: fleet.Target{Name: "acme", Scope: acme, APIURL: w.sim.APIURL(), MaxObservationGap: time.Hour}, GitHub: client,
	}
}

// replica is a remover as another process would have it.
func (w *world) replica(store *db.DB) *remove.Remover {
	w.Helper()
	targets := map[string]remove.Target{"acme": w.target()}
	return &remove.Remover{
		Log: slog.New(slog.DiscardHandler), DB: store,
		Now:     func(context.Context) (time.Time, error) { return w.clock(), nil },
		Targets: func() map[string]remove.Target { return targets },
		Observe: func(a fleet.Action) {
			w.observedMu.Lock()
			defer w.observedMu.Unlock()
			w.observed = append(w.observed, a)
		},
	}
}

func (w *world) clock() time.Time     { return time.Unix(0, w.now.Load()).UTC() }
func (w *world) pass(d time.Duration) { w.now.Add(int64(d)) }

// fleet makes n runners that have been offline for ten days, in the simulator
// and in the record, and returns their ids.
func (w *world) fleet(n int) []int64 {
	w.Helper()
	ids, err := w.sim.CreateMany(acme, n, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprintf("r%d", i+1)}
	})
	w.ok(err)
	since := t0.Add(-240 * time.Hour)
	rows := make([]db.RunnerRow, n)
	for i, id := range ids {
		rows[i] = db.RunnerRow{
			Runner: fleet.Runner{
				ID: id, Name: fmt.Sprintf("r%d", i+1), OS: "linux", Status: fleet.StatusOffline, Labels: []string{"linux"},
			},
			FirstSeenAt: since, SeenAt: since, StatusSince: since, OfflineSince: since,
			OfflineFrom: db.OfflineFrom{At: since, ObservedUS: 0, Sync: 1},
		}
	}
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		if err := tx.EnsureTarget(w.ctx, w.target().Target, since); err != nil {
			return err
		}
		return tx.AddRunners(w.ctx, "acme", rows)
	}))
	w.synced()
	return ids
}

// synced says that a complete sync saw everybody as recorded, just now.
func (w *world) synced() {
	w.Helper()
	w.exec(`
		UPDATE muster.target
		SET last_complete_sync_at = $1, last_walk_at = $1, last_outcome = 'complete', suspect = NULL, complete_syncs = 1000,
			observed_us = extract(epoch FROM $1::timestamptz - $2::timestamptz) * 1000000`, w.clock(), t0.Add(-240*time.Hour))
}

func (w *world) request(id int64) remove.Request {
	return remove.Request{
		Policy: w.policy, Target: "acme", RunnerID: id, TriggerID: uuid.NewString(),
		Actor: fleet.Actor{Type: fleet.ActorPolicy, Name: w.policy.Name},
	}
}

func (w *world) byHand(id int64) remove.Request {
	return remove.Request{
		Policy: policies.Operator(), Target: "acme", RunnerID: id, TriggerID: uuid.NewString(),
		Actor: fleet.Actor{Type: fleet.ActorCLI, Name: "alice"}, Reason: "scrapped",
	}
}

// short is a result in a few words: the action's state and reason, or the
// verdict and why.
func short(r remove.Result) string {
	if r.Action.ID != "" {
		text := string(r.Action.State)
		if r.Action.Reason != "" {
			text += " " + r.Action.Reason
		}
		return text
	}
	return fmt.Sprintf("%s %s", r.Decision.Verdict, strings.Join(r.Decision.Reasons, ","))
}

// remove asks for a removal that is to come out like this, without stopping
// the pass.
func (w *world) remove(want string, r remove.Request) remove.Result {
	w.Helper()
	res, err := w.remover.Remove(w.ctx, r)
	if got := short(res); err != nil || got != want {
		w.Errorf("Remove(%d) = %s, %v, want %s", r.RunnerID, got, err, want)
	}
	return res
}

// deletes are the DELETEs that GitHub saw; acted: that did something.
func (w *world) deletes(acted bool) []int64 {
	var ids []int64
	for _, e := range w.sim.Log() {
		if e.Method == http.MethodDelete && (e.Acted || !acted) {
			ids = append(ids, e.RunnerID)
		}
	}
	return ids
}

// agree checks that the record and GitHub's own log say the same: each
// deletion has one action that is done, one decision to act, one intent and
// one outcome in the trail, in this order and all before or after it.
func (w *world) agree() {
	w.Helper()
	for _, id := range w.deletes(true) {
		w.want("1 act RN100I,RN101I policy", `
			SELECT concat_ws(' ', count(*), min(d.verdict), min((
				SELECT string_agg(e.code, ',' ORDER BY e.event_id)
				FROM api.audit e
				WHERE e.payload->'details'->>'action_id' = a.action_id::text AND e.payload->'details'->>'decision_id' = d.decision_id::text
					AND e.trigger_id = a.trigger_id::text)), min(r.removal_cause))
			FROM api.actions a
			JOIN api.decisions d USING (decision_id)
			JOIN api.runners r ON r.runner_id = a.runner_id
			WHERE a.runner_id = $1 AND a.state = 'done' AND a.http_status = 204 AND r.removed_at = a.settled_at`, id)
	}
	w.want(fmt.Sprint(len(w.deletes(true))), `SELECT count(*) FROM api.actions WHERE state = 'done'`)
	w.want("0", `SELECT count(*) FROM api.actions WHERE state = 'intended'`)
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

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	if _, err := w.sql.Exec(w.ctx, sql, args...); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// trail are the codes in the audit trail, without the target's first use.
func (w *world) trail(want string) {
	w.Helper()
	w.want(want, `SELECT coalesce(string_agg(code, ' ' ORDER BY event_id), '') FROM api.audit WHERE code <> 'TG302I'`)
}

// answer is a handler with a status, a body and headers.
func answer(status int, body string, headers ...string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json; charset=utf-8")
		rw.Header().Set("X-GitHub-Request-Id", "1")
		for i := 0; i+1 < len(headers); i += 2 {
			rw.Header().Set(headers[i], headers[i+1])
		}
		rw.WriteHeader(status)
		_, _ = rw.Write([]byte(body)) // a client that is gone notices
	})
}

// cut breaks the connection without an answer.
var cut = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })

// intercept answers requests of a kind in GitHub's place: "DELETE", "GET" (of a
// runner) or "LIST".
func (w *world) intercept(kinds map[string]http.Handler) {
	w.sim.Intercept(func(r *http.Request) http.Handler {
		kind := r.Method
		if strings.HasSuffix(r.URL.Path, "/actions/runners") {
			kind = "LIST"
		}
		return kinds[kind]
	})
}

package scale_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
	"github.com/muster-fleet/muster/worker/scale"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a database that tells of a fleet, and replicas whose clock the test
// moves.
type world struct {
	testing.TB
	ctx    context.Context
	url    string
	db     *db.DB
	sql    *pgx.Conn
	now    atomic.Int64 // Unix, ns
	pools  []*policies.Pool
	scaler *scale.Scaler
	// targets are those in which runners can be deleted: none, but where a test
	// has a GitHub.
	targets map[string]remove.Target
	runner  int64 // the newest id
	job     int64
}

// linux is a pool with the defaults, but for what a test changes.
func linux(change func(*fleet.Pool)) fleet.Pool {
	p := fleet.Pool{
		Name: "linux", Target: "acme", Labels: []string{"linux", "self-hosted"}, PoolBounds: fleet.PoolBounds{Max: 20},
		TargetUtilisation: 1, BootDeadline: 10 * time.Minute, MinLifetime: 10 * time.Minute,
		Cooldown: fleet.PoolCooldown{Up: 30 * time.Second, Down: 10 * time.Minute},
		Step:     fleet.PoolStep{Up: fleet.Portion{Count: 10}, Down: fleet.Portion{Percent: 10}},
	}
	if change != nil {
		change(&p)
	}
	return p
}

func newWorld(t testing.TB, pools ...fleet.Pool) *world {
	t.Helper()
	w := &world{TB: t, ctx: t.Context(), url: dbtest.URL(t)}
	w.now.Store(t0.UnixNano())
	for _, p := range pools {
		checked, wrong := policies.NewPool(p)
		if wrong != nil {
			t.Fatalf("pool %s: %v", p.Name, wrong)
		}
		w.pools = append(w.pools, checked)
	}
	w.scaler = w.replica()
	w.db = w.scaler.DB
	var err error
	w.sql, err = pgx.Connect(w.ctx, w.url)
	w.ok(err)
	t.Cleanup(func() { _ = w.sql.Close(context.Background()) })
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		return tx.EnsureTarget(w.ctx, fleet.Target{
			Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}, APIURL: "https://ghes.example.com/api/v3", MaxObservationGap: time.Hour,
		}, t0)
	}))
	return w
}

// replica is a scaler as another process would have it.
func (w *world) replica() *scale.Scaler {
	w.Helper()
	store, err := db.Open(w.ctx, w.url)
	w.ok(err)
	w.Cleanup(store.Close)
	now := func(context.Context) (time.Time, error) { return w.clock(), nil }
	return &scale.Scaler{
		Log: slog.New(slog.DiscardHandler), DB: store, Now: now,
		Pools: func() []*policies.Pool { return w.pools },
		Remover: &remove.Remover{
			Log: slog.New(slog.DiscardHandler), DB: store, Now: now, Targets: func() map[string]remove.Target { return w.targets },
		},
	}
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) clock() time.Time     { return time.Unix(0, w.now.Load()).UTC() }
func (w *world) pass(d time.Duration) { w.now.Add(int64(d)) }

func trigger(pool string) fleet.Trigger {
	return fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobScale, Name: pool, Source: fleet.SourceNATS}
}

// scale decides on the pool linux.
func (w *world) scale() {
	w.Helper()
	_, err := w.scaler.Handle(w.ctx, trigger("linux"))
	w.ok(err)
}

// sync has the record say that GitHub was seen now. Hosts that claimed a lease
// come online where boots says so.
func (w *world) sync(boots func(host string) bool) {
	w.Helper()
	var online []db.RunnerRow
	for _, host := range w.column(`SELECT host FROM muster.lease WHERE state = 'claimed' ORDER BY host`) {
		if boots(host) {
			online = append(online, w.online(host))
		}
	}
	w.tx(func(tx *db.Tx) error {
		if err := tx.AddRunners(w.ctx, "acme", online); err != nil {
			return err
		}
		return tx.AdvanceLeases(w.ctx, "acme", w.clock())
	})
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1`, w.clock())
}

func everybody(string) bool { return true }
func nobody(string) bool    { return false }

// online is a runner of the pool linux that GitHub shows as online from now on.
func (w *world) online(name string) db.RunnerRow {
	w.runner++
	return db.RunnerRow{
		Runner:      fleet.Runner{ID: w.runner, Name: name, OS: "linux", Status: fleet.StatusOnline, Labels: []string{"linux", "self-hosted", "x64"}},
		FirstSeenAt: w.clock(), SeenAt: w.clock(), StatusSince: w.clock(),
	}
}

// givable puts all runners on hosts that muster knows, so that the pool may give
// them up. GitHub refuses the credential, so that none is.
func (w *world) givable() {
	w.Helper()
	w.targets = map[string]remove.Target{"acme": {Target: fleet.Target{Name: "acme", Scope: acme, APIURL: "https://ghes.example.com/api/v3"}}}
	w.exec(`UPDATE muster.runner SET host = name, first_seen_at = '2026-01-01'`)
	w.exec(`UPDATE muster.target SET credential_fault = 'no', credential_fault_at = '2026-03-01', credential_fault_of = 'list'`)
}

// claim has a host come for each request that nobody has claimed.
func (w *world) claim() {
	w.Helper()
	for _, id := range w.column(`SELECT request_id::text FROM muster.lease WHERE state = 'requested' ORDER BY request_id`) {
		w.tx(func(tx *db.Tx) error { return tx.ClaimLease(w.ctx, id, "h-"+id, w.clock()) })
	}
}

// queue has workflow jobs wait that ask for these labels.
func (w *world) queue(n int, labels ...string) {
	w.Helper()
	w.tx(func(tx *db.Tx) error {
		for range n {
			w.job++
			_, _, err := tx.AddWorkflowJob(w.ctx, fleet.WorkflowJob{
				Target: "acme", ID: w.job, Repository: "acme/widgets", Labels: labels, State: fleet.WorkflowJobQueued, QueuedAt: w.clock(),
			}, w.clock())
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *world) tx(do func(tx *db.Tx) error) {
	w.Helper()
	w.ok(w.db.InTx(w.ctx, do))
}

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	_, err := w.sql.Exec(w.ctx, sql, args...)
	w.ok(err)
}

func (w *world) column(sql string) []string {
	w.Helper()
	rows, err := w.sql.Query(w.ctx, sql)
	w.ok(err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	w.ok(err)
	return all
}

// value reads one value as text; null is "<null>".
func (w *world) value(sql string) string {
	w.Helper()
	var v *string
	if err := w.sql.QueryRow(w.ctx, `SELECT (`+sql+`)::text`).Scan(&v); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
	if v == nil {
		return "<null>"
	}
	return *v
}

func (w *world) want(want, sql string) {
	w.Helper()
	if got := w.value(sql); got != want {
		w.Errorf("%s\n= %s, want %s", sql, got, want)
	}
}

// wantPool compares what was decided last.
func (w *world) wantPool(desired, online, booting, queued, expired int) {
	w.Helper()
	w.want(fmt.Sprintf("%d %d %d %d %d", desired, online, booting, queued, expired),
		`SELECT concat_ws(' ', desired, online, booting, queued, leases_expired) FROM api.pools WHERE pool = 'linux'`)
}

// leases are the states of all requests, with the attempt and how many are in
// each.
const leases = `SELECT coalesce(string_agg(concat_ws(' ', state, attempt, n), ', ' ORDER BY attempt, state), 'none') FROM (
	SELECT state, attempt, count(*) AS n FROM api.leases GROUP BY state, attempt) x`

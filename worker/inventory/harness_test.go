package inventory_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
	"github.com/muster-fleet/muster/worker/inventory"
)

func TestMain(m *testing.M) {
	// A check is a fleet's life with a database: fewer than the usual hundred,
	// unless the command line says how many.
	if err := flag.Set("rapid.checks", "25"); err != nil {
		panic(err)
	}
	flag.Parse()
	os.Exit(dbtest.Main(m))
}

const credential = "ghp_credential"

var (
	t0   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	acme = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}
)

// world is a GitHub, a database, and a syncer whose clock the test moves.
type world struct {
	testing.TB
	ctx context.Context
	url string
	db  *db.DB
	sql *pgx.Conn
	sim *githubsim.Sim
	gh  *github.Client

	syncer   *inventory.Syncer
	now      atomic.Int64 // Unix, ns
	synced   []fleet.Sync
	syncedMu sync.Mutex
}

func newWorld(t testing.TB, scopes ...fleet.Scope) *world {
	t.Helper()
	return newTracedWorld(t, nil, scopes...)
}

func newTracedWorld(t testing.TB, tracer pgx.QueryTracer, scopes ...fleet.Scope) *world {
	t.Helper()
	return newWorldOf(t, "", tracer, scopes...)
}

// newWorldOf is a world with this version of GitHub.
func newWorldOf(t testing.TB, version string, tracer pgx.QueryTracer, scopes ...fleet.Scope) *world {
	t.Helper()
	w := &world{TB: t, ctx: t.Context(), url: dbtest.URL(t)}
	w.now.Store(t0.UnixNano())
	var err error
	if w.db, err = db.OpenTraced(w.ctx, w.url, tracer); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
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
	w.gh, err = github.New(github.Config{
		APIURL: sim.APIURL(), UserAgent: "muster/test",
		Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(credential), nil },
		// Pauses that GitHub asks for are over when the test says so, or when
		// somebody has to wait for it.
		Now: func() time.Time { return time.Unix(0, w.now.Load()) },
		Sleep: func(_ context.Context, d time.Duration) error {
			w.pass(d)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]inventory.Target{}
	for _, scope := range append(scopes, acme) {
		if err := sim.AddScope(scope); err != nil {
			t.Fatal(err)
		}
		targets[scope.Owner] = w.target(scope)
	}
	w.syncer = &inventory.Syncer{
		Log: slog.New(slog.DiscardHandler), DB: w.db,
		Now:     func(context.Context) (time.Time, error) { return time.Unix(0, w.now.Load()).UTC(), nil },
		Targets: func() map[string]inventory.Target { return targets },
		Observe: func(s fleet.Sync) {
			w.syncedMu.Lock()
			defer w.syncedMu.Unlock()
			w.synced = append(w.synced, s)
		},
	}
	return w
}

// target is a target named after the owner of its scope.
func (w *world) target(scope fleet.Scope) inventory.Target {
	return inventory.Target{
		Target: fleet.Target{Name: scope.Owner, Scope: scope, APIURL: w.sim.APIURL(), MaxObservationGap: time.Hour},
		GitHub: w.gh,
	}
}

func (w *world) clock() time.Time     { return time.Unix(0, w.now.Load()).UTC() }
func (w *world) pass(d time.Duration) { w.now.Add(int64(d)) }

func trigger(target string) fleet.Trigger {
	return fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: target, Source: fleet.SourceNATS}
}

// try syncs acme.
func (w *world) try() error {
	w.Helper()
	_, err := w.syncer.Handle(w.ctx, trigger("acme"))
	return err
}

// sync passes a minute, syncs acme and returns the record of it.
func (w *world) sync() fleet.Sync {
	w.Helper()
	w.pass(time.Minute)
	if err := w.try(); err != nil {
		w.Fatal(err)
	}
	w.syncedMu.Lock()
	defer w.syncedMu.Unlock()
	return w.synced[len(w.synced)-1]
}

// outcome is a sync in short: outcome, suspect, and added, changed, removed.
func outcome(s fleet.Sync) string {
	text := string(s.Outcome)
	if s.Suspect != fleet.SuspectNot {
		text += " " + string(s.Suspect)
	}
	return fmt.Sprintf("%s +%d ~%d -%d", text, s.Added, s.Changed, s.Removed)
}

func (w *world) wantSync(want string) fleet.Sync {
	w.Helper()
	s := w.sync()
	if got := outcome(s); got != want {
		w.Errorf("sync: %s (%s), want %s", got, s.Error, want)
	}
	return s
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

// offlineFor of a runner, as users read it, in minutes.
func (w *world) offlineFor(id int64, want string) {
	w.Helper()
	w.want(want, `SELECT round(extract(epoch FROM offline_for) / 60) FROM api.runners WHERE target = 'acme' AND runner_id = $1`, id)
}

// removed are the ids that are marked removed.
func (w *world) removed(want string) {
	w.Helper()
	w.want(want, `SELECT coalesce(string_agg(runner_id::text, ' ' ORDER BY runner_id), '') FROM api.runners WHERE removed_at IS NOT NULL`)
}

func (w *world) create(n int, spec githubsim.RunnerSpec) []int64 {
	w.Helper()
	ids, err := w.sim.CreateMany(acme, n, func(i int) githubsim.RunnerSpec {
		one := spec
		one.Name = fmt.Sprintf("%s%d", orElse(spec.Name, "r"), i+1)
		return one
	})
	if err != nil {
		w.Fatal(err)
	}
	return ids
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// ok fails the test for an error of the simulator's.
func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func isListing(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/actions/runners") }

func isLookup(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/actions/runners/")
}

// breakLookups makes GitHub answer every GET by id with an error of its own,
// until the function returned is called.
func (w *world) breakLookups() func() {
	w.sim.Intercept(brokenLookup)
	return func() { w.sim.Intercept(nil) }
}

func brokenLookup(r *http.Request) http.Handler {
	if !isLookup(r) {
		return nil
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "oops", http.StatusInternalServerError) })
}

// wireRunner is a runner as a listing shows it.
type wireRunner map[string]any

// editListings changes what listings show, until the function returned is
// called.
func (w *world) editListings(edit func(runners []wireRunner, total int) ([]wireRunner, int)) func() {
	w.sim.Intercept(w.listingEditor(edit))
	return func() { w.sim.Intercept(nil) }
}

// listingEditor intercepts listings and changes what they show.
func (w *world) listingEditor(edit func(runners []wireRunner, total int) ([]wireRunner, int)) func(*http.Request) http.Handler {
	const passed = "X-Passed"
	return func(r *http.Request) http.Handler {
		if !isListing(r) || r.URL.Query().Has("name") || r.Header.Get(passed) != "" {
			return nil
		}
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			again := r.Clone(r.Context())
			again.Header.Set(passed, "1")
			again.Header.Del("Accept-Encoding")
			again.Header.Del("If-None-Match")
			heard := httptest.NewRecorder()
			w.sim.Handler().ServeHTTP(heard, again)
			var body struct {
				Total   int          `json:"total_count"`
				Runners []wireRunner `json:"runners"`
			}
			if err := json.Unmarshal(heard.Body.Bytes(), &body); err != nil {
				http.Error(rw, err.Error(), http.StatusTeapot)
				return
			}
			body.Runners, body.Total = edit(body.Runners, body.Total)
			for key, values := range heard.Header() {
				rw.Header()[key] = values
			}
			rw.Header().Del("Content-Length")
			rw.Header().Del("ETag")              // it is of what was not edited
			_ = json.NewEncoder(rw).Encode(body) // a client that is gone notices
		})
	}
}

// breakListings makes listings partial: all that is shown is true, but the
// numbers do not add up.
func (w *world) breakListings() func() {
	return w.editListings(func(runners []wireRunner, total int) ([]wireRunner, int) { return runners, total + 1 })
}

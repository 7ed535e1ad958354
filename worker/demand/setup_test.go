package demand_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/standalone"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/demand"
)

func TestMain(m *testing.M) {
	// A check may be a database's life: fewer than the usual hundred, unless the
	// command line says how many.
	if err := flag.Set("rapid.checks", "40"); err != nil {
		panic(err)
	}
	flag.Parse()
	os.Exit(dbtest.Main(m))
}

// patience bounds every wait; none is expected to last.
const patience = 30 * time.Second

// world is an Intake and a Listener on a database, with three targets: acme and
// its repository widgets share a secret, octo has one of its own, and dark has
// none.
type world struct {
	*testing.T
	db      *db.DB
	url     string // of the database
	intake  *demand.Intake
	listen  *demand.Listener
	log     *safeBuffer
	secrets map[string]func(context.Context) ([]fleet.Secret, error)

	mu   sync.Mutex
	seen []string // what Observe heard
}

// safeBuffer takes a log from several goroutines.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func these(secrets ...string) func(context.Context) ([]fleet.Secret, error) {
	return func(context.Context) ([]fleet.Secret, error) {
		var all []fleet.Secret
		for _, s := range secrets {
			all = append(all, fleet.NewSecret(s))
		}
		return all, nil
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	url := dbtest.URL(t)
	store, err := db.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w := newWorldOn(t, store)
	w.url = url
	return w
}

// forget empties what events were folded into.
func (w *world) forget() {
	w.Helper()
	w.exec(`DELETE FROM muster.workflow_job`)
	w.exec(`DELETE FROM muster.delivery`)
}

// exec changes the database as its owner.
func (w *world) exec(sql string, args ...any) {
	w.Helper()
	conn, err := pgx.Connect(w.Context(), w.url)
	if err == nil {
		_, err = conn.Exec(w.Context(), sql, args...)
		err = errors.Join(err, conn.Close(w.Context()))
	}
	if err != nil {
		w.Fatal(err)
	}
}

func newWorldOn(t *testing.T, store *db.DB) *world {
	t.Helper()
	w := &world{T: t, db: store, log: &safeBuffer{}, secrets: map[string]func(context.Context) ([]fleet.Secret, error){
		"acme": these("hook-canary-acme"), "widgets": these("hook-canary-acme"), "octo": these("hook-canary-octo"),
	}}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	now := func(ctx context.Context) (time.Time, error) {
		if err := store.Ping(ctx); err != nil { // as Postgres's clock would have it
			return time.Time{}, err
		}
		return t0, nil
	}
	w.intake = &demand.Intake{
		Log: log, DB: store, Now: now, Targets: w.targets, Refusals: &demand.Refusals{},
		Observe: func(target string, via demand.Via, outcome demand.Outcome) {
			w.note(strings.TrimSpace(fmt.Sprint(via, " ", outcome, " ", target)))
		},
	}
	w.listen = &demand.Listener{
		Log: log, DB: store, Now: now,
		Observe: func(outcome demand.BeatOutcome, n int) {
			for range n {
				w.note("heartbeat " + string(outcome))
			}
		},
	}
	return w
}

func (w *world) targets() map[string]demand.Target {
	all := map[string]demand.Target{}
	for name, scope := range map[string]string{"acme": "org/acme", "widgets": "repo/acme/widgets", "octo": "enterprise/octo", "dark": "org/dark"} {
		s, err := fleet.ParseScope(scope)
		if err != nil {
			w.Fatal(err)
		}
		all[name] = demand.Target{Target: fleet.Target{Name: name, Scope: s, APIURL: fleet.DefaultAPIURL}, Secrets: w.secrets[name]}
	}
	return all
}

func (w *world) note(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, s)
}

// heard takes what Observe has heard so far, in alphabetical order.
func (w *world) heard() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.seen
	w.seen = nil
	slices.Sort(all)
	return all
}

// rows reads columns of text, a row per line.
func (w *world) rows(sql string) []string {
	w.Helper()
	table, err := w.db.ReadAPI(w.Context(), sql)
	if err != nil {
		w.Fatal(err)
	}
	lines := []string{}
	for _, row := range table.Rows {
		lines = append(lines, strings.Join(row, " "))
	}
	return lines
}

// becomes waits until a query gives these rows.
func (w *world) becomes(sql string, want ...string) {
	w.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		got := w.rows(sql)
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-deadline:
			w.Fatalf("%s\n= %q, want %q", sql, got, want)
		case <-tick.C:
		}
	}
}

const jobs = `SELECT target, workflow_job_id, state, runner_name FROM api.workflow_jobs ORDER BY target, workflow_job_id`

// body is an event of a workflow job of acme/widgets.
func body(id int64, state fleet.WorkflowJobState) string {
	runner := `"runner_id":null,"runner_name":null`
	if state == fleet.WorkflowJobInProgress || state == fleet.WorkflowJobCompleted {
		runner = `"runner_id":3,"runner_name":"build-03"`
	}
	return fmt.Sprintf(`{"action":%q,"workflow_job":{"id":%d,%s,"labels":["linux"]},"repository":{"full_name":"acme/widgets"},"organization":{"login":"acme"}}`,
		state, id, runner)
}

// delivery is what GitHub sends, signed with the secret.
func delivery(id, event, body, secret string) fleet.Delivery {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write([]byte(body))
	return fleet.Delivery{ID: id, Event: event, Body: []byte(body), Signature: "sha256=" + hex.EncodeToString(mac.Sum(nil))}
}

// bus is a NATS with a connection of muster's and one of somebody else's.
type bus struct {
	muster *queue.Conn
	other  *nats.Conn
}

func newBus(t *testing.T) bus {
	t.Helper()
	server, err := standalone.StartNATS(t.Context(), standalone.NATSConfig{
		Listen: "127.0.0.1:0", StoreDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	conn, err := queue.Connect(t.Context(), queue.Config{URL: server.URL(), Name: t.Name(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if err := conn.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	return bus{conn, other}
}

// background runs f until the test ends or the returned stop is called.
func background(t *testing.T, f func(context.Context) error) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error(errors.New("does not stop"))
		}
	})
	t.Cleanup(stop)
	return stop
}

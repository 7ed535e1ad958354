package scale_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/internal/standalone"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/remove"
	"github.com/muster-fleet/muster/worker/scale"
)

// crowd is a world with a GitHub and a NATS, in which the pool linux has idle
// hosts that answer drains.
type crowd struct {
	*world
	sim  *githubsim.Sim
	conn *queue.Conn

	mu    sync.Mutex
	busy  map[string]bool // hosts that say so
	asked []string        // in this order
}

var acme = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}

// newCrowd has n hosts, of which the first have been idle for longest, and a
// pool that shrinks by as many at a time.
func newCrowd(t *testing.T, n, step int, change func(*fleet.Pool)) *crowd {
	t.Helper()
	w := &crowd{busy: map[string]bool{}, world: newWorld(t, linux(func(p *fleet.Pool) {
		p.Cooldown.Down, p.Step.Down = 0, fleet.Portion{Count: step}
		if change != nil {
			change(p)
		}
	}))}
	sim, stop, err := githubsim.Start(context.Background(), githubsim.Config{Tokens: []string{"t"}})
	w.ok(err)
	t.Cleanup(stop)
	w.sim = sim
	w.ok(sim.AddScope(acme))
	ids, err := sim.CreateMany(acme, n, func(i int) githubsim.RunnerSpec { return githubsim.RunnerSpec{Name: fmt.Sprintf("h%d", i+1)} })
	w.ok(err)
	var rows []db.RunnerRow
	for i, id := range ids {
		w.ok(sim.Connect(acme, id))
		row := w.online(fmt.Sprintf("h%d", i+1))
		row.ID, row.FirstSeenAt, row.LastBusyAt = id, t0.Add(-48*time.Hour), t0.Add(-time.Duration(n-i)*time.Hour)
		rows = append(rows, row)
	}
	client, err := github.New(github.Config{
		APIURL: sim.APIURL(), UserAgent: "muster/test", Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret("t"), nil },
	})
	w.ok(err)
	target := fleet.Target{Name: "acme", Scope: acme, APIURL: sim.APIURL(), MaxObservationGap: time.Hour}
	w.targets = map[string]remove.Target{"acme": {Target: target, GitHub: client}}
	w.exec(`UPDATE muster.target SET api_url = $1`, sim.APIURL())
	w.sync(everybody)
	w.tx(func(tx *db.Tx) error { return tx.AddRunners(w.ctx, "acme", rows) })
	w.exec(`UPDATE muster.runner SET host = name`)
	w.exec(`UPDATE muster.target SET last_outcome = 'complete'`)
	w.compared()

	server, err := standalone.StartNATS(w.ctx, standalone.NATSConfig{Listen: "127.0.0.1:0", StoreDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	w.ok(err)
	t.Cleanup(server.Stop)
	w.conn, err = queue.Connect(w.ctx, queue.Config{URL: server.URL(), Name: t.Name(), Log: slog.New(slog.DiscardHandler)})
	w.ok(err)
	t.Cleanup(w.conn.Close)
	w.scaler.Remover.Hosts = w.conn
	hosts, err := nats.Connect(server.URL())
	w.ok(err)
	t.Cleanup(hosts.Close)
	_, err = hosts.Subscribe(queue.DrainSubject("*"), func(m *nats.Msg) {
		host := strings.Split(m.Subject, ".")[3]
		w.mu.Lock()
		w.asked = append(w.asked, host)
		answer := fmt.Sprintf(`{"v":1,"busy":%t}`, w.busy[host])
		w.mu.Unlock()
		if err := m.Respond([]byte(answer)); err != nil {
			t.Error(err)
		}
	})
	w.ok(err)
	w.ok(hosts.Flush())
	return w
}

// compared has all workflow jobs known as of now, and the fleet seen.
func (w *crowd) compared() {
	w.Helper()
	w.tx(func(tx *db.Tx) error {
		if _, _, err := tx.ClaimReconciliation(w.ctx, "acme", w.clock(), w.clock()); err != nil {
			return err
		}
		return tx.SaveReconciliation(w.ctx, "acme", db.Reconciliation{AsOf: w.clock()}, w.clock())
	})
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1`, w.clock())
}

// wantAsked compares who was asked, and in which order.
func (w *crowd) wantAsked(want string) {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Join(w.asked, " "); got != want {
		w.Errorf("asked were %s, want %s", got, want)
	}
}

const scaledDown = `SELECT coalesce(string_agg(name, ' ' ORDER BY removed_at, runner_id), '') FROM api.runners WHERE removal_cause = 'scale_down'`

func TestAPoolGivesUpTheHostsThatAreIdleLongest(t *testing.T) {
	t.Parallel()
	w := newCrowd(t, 6, 2, func(p *fleet.Pool) { p.Min = 3 })
	w.scale()
	w.want("h1 h2", scaledDown)
	w.wantAsked("h1 h2")
	w.want("2 2 2", `SELECT concat_ws(' ', count(*) FILTER (WHERE code = 'RN101I'), count(*) FILTER (WHERE code = 'RN131I'),
		(SELECT count(*) FROM muster.outbox WHERE subject LIKE 'muster.v1.host.%.release')) FROM api.audit`)
	w.want("scale_down linux", `SELECT policy || ' ' || (evidence->>'pool') FROM api.decisions LIMIT 1`)

	w.scale() // at once: nothing
	w.want("h1 h2", scaledDown)
	w.pass(time.Minute)
	w.compared()
	w.scale() // one more, and no fewer than min
	w.want("h1 h2 h3", scaledDown)
	w.pass(time.Minute)
	w.compared()
	w.scale()
	w.want("h1 h2 h3", scaledDown)
	w.want("3", `SELECT count(*) FROM api.runners WHERE removed_at IS NULL`)
}

// Whoever is at work by anybody's word is passed over, for the next longest
// idle, and no more are taken than were decided.
// A host that muster knows by its heartbeats and a grant for its name alone can
// be asked, and its runner given up.
func TestAPoolGivesUpHostsThatAGrantVouchesFor(t *testing.T) {
	t.Parallel()
	w := newCrowd(t, 3, 2, nil)
	w.exec(`UPDATE muster.runner SET host = NULL`)
	w.exec(`INSERT INTO muster.host (host, last_heartbeat_at) SELECT name, $1 FROM muster.runner`, w.clock())
	w.exec(`INSERT INTO muster.host_runner (host, target, name, state, at) SELECT name, 'acme', name, 'idle', $1 FROM muster.runner`, w.clock())
	w.scale()
	w.want("hold", `SELECT direction FROM muster.pool`)
	w.wantAsked("")

	target := w.targets["acme"]
	target.Hosts = fleet.HostNames{Prefixes: []string{"h"}}
	w.targets = map[string]remove.Target{"acme": target}
	w.scale()
	w.want("down", `SELECT direction FROM muster.pool`)
	w.wantAsked("h1 h2")
}

func TestAPoolPassesOverHostsAtWork(t *testing.T) {
	t.Parallel()
	w := newCrowd(t, 8, 2, nil)
	w.busy["h1"] = true                                                                                    // its host says so
	w.ok(w.sim.Assign(acme, 2))                                                                            // GitHub's last look does
	w.exec(`UPDATE muster.runner SET first_seen_at = $1 WHERE name = 'h3'`, w.clock().Add(-9*time.Minute)) // too young
	w.exec(`INSERT INTO muster.hold (target, runner_id, reason, by, at) VALUES ('acme', 4, 'disk', 'alice', $1)`, w.clock())
	w.exec(`UPDATE muster.runner SET labels = '{windows}' WHERE name = 'h5'`) // not of this pool
	w.scale()
	w.want("h6 h7", scaledDown)
	w.wantAsked("h1 h2 h6 h7")
	w.want("h1 host_busy, h2 busy", `SELECT string_agg(name || ' ' || reason, ', ' ORDER BY name) FROM api.actions WHERE state = 'spared'`)
	for _, e := range w.sim.Log() {
		if e.Method == http.MethodDelete && e.RunnerID != 6 && e.RunnerID != 7 {
			t.Errorf("a DELETE of runner %d", e.RunnerID)
		}
	}
}

func TestNoHostIsGivenUpThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	w := newCrowd(t, 2, 2, nil)
	w.scaler.Remover.Hosts = nil
	w.scale()
	w.want("", scaledDown)
	w.want("spared host_silent 2", `SELECT concat_ws(' ', min(state), min(reason), count(*)) FROM api.actions`)
}

// A workflow job that comes while a step is carried out ends it.
func TestAStepEndsWhereMoreHostsAreWantedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newCrowd(t, 6, 6, nil)
	second := w.replica()
	var once sync.Once
	w.sim.Before(func(r githubsim.Request) {
		if r.Method != http.MethodDelete {
			return
		}
		once.Do(func() {
			w.queue(4, "linux")
			if _, err := second.Handle(w.ctx, trigger("linux")); err != nil {
				t.Error(err)
			}
		})
	})
	w.scale()
	w.want("h1", scaledDown)
}

// More hosts are wanted while GitHub is asked for the first one that is to go: it
// stays.
func TestAHostStaysThatIsWantedAgainDuringTheLook(t *testing.T) {
	t.Parallel()
	w := newCrowd(t, 6, 6, nil)
	second := w.replica()
	var once sync.Once
	w.sim.Before(func(r githubsim.Request) {
		if r.Method != http.MethodGet || r.RunnerID == 0 {
			return
		}
		once.Do(func() {
			w.queue(6, "linux")
			if _, err := second.Handle(w.ctx, trigger("linux")); err != nil {
				t.Error(err)
			}
		})
	})
	w.scale()
	w.want("", scaledDown)
	w.want("spared not_in_force", `SELECT state || ' ' || reason FROM api.actions`)
}

// The brake holds for pools as for policies.
func TestAPoolKeepsItsHostsWhileTheTargetGoesDark(t *testing.T) {
	t.Parallel()
	w := newCrowd(t, 40, 5, nil)
	w.exec(`UPDATE muster.runner SET status = 'offline', offline_since = $1, last_online_at = $1, status_since = $1 WHERE runner_id > 20`, w.clock())
	w.scale()
	w.want("", scaledDown)
	w.want("true", `SELECT halted_at IS NOT NULL FROM muster.policy WHERE policy = 'scale_down'`)
	w.want("true", `SELECT reason LIKE '% chosen to leave; none has left, the others stay: %' FROM api.pools`)
	w.want("1", `SELECT count(*) FROM api.audit WHERE code = 'PL220W'`)
}

func TestReplicasTogetherGiveUpNoMoreThanWasDecided(t *testing.T) {
	t.Parallel()
	w := newCrowd(t, 12, 3, nil)
	replicas := []*scale.Scaler{w.scaler, w.replica(), w.replica()}
	var g errgroup.Group
	for _, r := range replicas {
		r.Remover.Hosts = w.conn
		g.Go(func() error {
			_, err := r.Handle(w.ctx, trigger("linux"))
			return err
		})
	}
	w.ok(g.Wait())
	w.want("h1 h2 h3", scaledDown)
	w.wantAsked("h1 h2 h3")
}

// answers keeps how many rows a query gave at most.
type answers struct{ most int64 }

func (*answers) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (a *answers) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	a.most = max(a.most, data.CommandTag.RowsAffected())
}

// A thousand pools shrink on the same evening.
func TestAPoolThatShrinksReadsNoOtherPoolsHosts(t *testing.T) {
	t.Parallel()
	w := newCrowd(t, 3, 2, nil)
	w.exec(`INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, fingerprint, first_seen_at, seen_at, status_since)
		SELECT 'acme', 1000 + i, 'other-' || i, 'linux', 'online', false, '{gpu}', i, $1::timestamptz, $1, $1 FROM generate_series(1, 500) AS i`, t0)
	// One of the pool's that came without its labels is its all the same.
	w.exec(`UPDATE muster.runner SET pool = 'linux', labels = '{gpu}' WHERE name = 'h1'`)
	var all answers
	traced, err := db.OpenTraced(w.ctx, w.url, &all)
	w.ok(err)
	t.Cleanup(traced.Close)
	w.scaler.DB = traced
	w.scale()
	w.want("h1 h2", scaledDown)
	if all.most > 100 {
		t.Errorf("a query gives %d rows, of a pool of 3 hosts", all.most)
	}
}

package storm_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// record is the Postgres that all lives share. Each has targets of its own.
type record struct {
	url   string
	nats  string // the address of a server; empty: none was raised
	sql   *pgxpool.Pool
	lives atomic.Int64
}

func newRecord(t *testing.T) *record {
	t.Helper()
	r := &record{url: dbtest.URL(t)}
	var err error
	if r.sql, err = pgxpool.New(t.Context(), r.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.sql.Close)
	return r
}

// world is one life: a GitHub, the targets there, and the replicas that look
// after them.
type world struct {
	*rapid.T
	ctx    context.Context
	record *record
	life   int64
	clock  *worldClock

	sim    *githubsim.Sim
	api    string // its address
	calls  quiet
	lags   githubsim.Lags
	limits githubsim.Limits
	// silent says that refusals for secondary limits do not tell for how long.
	silent bool

	// reaping lives are about deletions: fleets are small and half dead, and the
	// policy is quick to begin and slow to end.
	reaping  bool
	about    subject
	targets  []*target
	reap     *reap
	replicas []*replica
	shared   bool // they have one credential
	boots    int
	names    int // of runners

	jobs      *jobs  // of runners, in a life that is about them; nil in others
	ears      *ears  // likewise
	wires     *wires // in lives in which hosts are drained
	pools     []*pool
	sendsJobs bool // GitHub's version has events of workflow jobs

	waiting []*errand
	weather []*weather
	store   *store // of triggers
	steps   *steps // of the shared clock; nil: it is right

	mu      sync.Mutex // guards what hooks use: names, tally, and the following
	armed   []*interruption
	lifts   []func()   // what ends those that last
	working []*replica // at the batch that is under way
	said    []saying

	unrecorded []githubsim.Request // DELETEs without an intent
	overlapped bool                // walks that the log cannot tell apart
	calmSince  int64               // the Seq of the last event of the storm
	suffered   map[githubsim.FaultKind]bool
	keepers    map[fleet.Scope]map[int64]bool // runners whose labels exempt them, by id
	turn       int                            // of replicas, in the calm
	holds      map[string]int64               // by runner: the Seq of the last event before it was held
	story      story
	tally      tally
}

// target is a target and what belongs to it at GitHub.
type target struct {
	fleet.Target
	born    string // the name that it had first
	covered bool   // by the policy
	allowed int    // beyond its caps, so far
}

// noBrake never halts: what a halt keeps is not tried.
var noBrake = fleet.Brake{Percent: 100, Min: 1000, Window: 15 * time.Minute}

// scopes are one of each kind.
var scopes = []fleet.Scope{
	{Kind: fleet.ScopeOrg, Owner: "acme"},
	{Kind: fleet.ScopeRepo, Owner: "octo", Repo: "widgets"},
	{Kind: fleet.ScopeEnterprise, Owner: "gale"},
}

// subject is what a life is about.
type subject int

const (
	aboutAnything subject = iota
	aboutWork             // of runners, and who tells of it
)

func newWorld(t *rapid.T, r *record, of subject) *world {
	w := &world{T: t, ctx: context.Background(), record: r, life: r.lives.Add(1),
		suffered: map[githubsim.FaultKind]bool{}, keepers: map[fleet.Scope]map[int64]bool{}, tally: newTally(), holds: map[string]int64{},
	}
	w.clock = newClock(w.life)
	w.clock.ahead = w.sharePauses
	w.tidyUp()
	w.drawSteps()
	w.openStore()
	w.about, w.reaping = of, of == aboutWork || rapid.Bool().Draw(t, "reaping")
	w.raiseGitHub()
	first := rapid.IntRange(0, 2).Draw(t, "first scope")
	brake := anyOf(w, "brake", noBrake, fleet.DefaultBrake)
	if of == aboutWork {
		brake = noBrake
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "targets") {
		scope := scopes[(first+i)%3]
		w.targets = append(w.targets, &target{
			Target: fleet.Target{
				Name: fmt.Sprintf("storm%d-%s", w.life, scope.Kind), Scope: scope, APIURL: w.api, MaxObservationGap: time.Hour, Brake: brake, Hosts: ownHosts,
			},
			born:    fmt.Sprintf("storm%d-%s", w.life, scope.Kind),
			covered: i == 0 || rapid.IntRange(0, 3).Draw(t, "covered") > 0,
		})
		w.ok(w.sim.AddScope(scope))
		w.populate(scope)
	}
	w.reap = drawReap(w)
	if of == aboutWork {
		w.drawWork()
	}
	w.shared = rapid.Bool().Draw(t, "one credential")
	for i := range rapid.IntRange(1, 3).Draw(t, "replicas") {
		w.replicas = append(w.replicas, nil)
		w.boot(i)
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.tellStory()
		}
		for _, r := range w.replicas {
			r.crash()
		}
	})
	return w
}

// tidyUp closes what a life has left open that failed and is being made
// smaller.
func (w *world) tidyUp() {
	w.exec(`UPDATE muster.action SET state = 'failed', reason = 'interrupted', settled_at = intended_at WHERE state = 'intended'`)
	w.exec(`UPDATE muster.run SET state = 'done', finished_at = started_at, lease_until = NULL WHERE state IN ('queued', 'running', 'failed')`)
	w.exec(`DELETE FROM muster.outbox`)
}

func (t *target) String() string { return t.Name }

// askedFor are the names that triggers of a life have: those of targets and of
// pools.
func (w *world) askedFor() []string {
	names := w.targetNames()
	for _, p := range w.pools {
		names = append(names, p.Name)
	}
	return names
}

// targetNames are all that targets have had, for queries.
func (w *world) targetNames() []string {
	var names []string
	for _, t := range w.targets {
		names = append(names, t.born, otherName(t.born))
	}
	return names
}

func (w *world) exec(sql string) {
	w.Helper()
	if _, err := w.record.sql.Exec(w.ctx, sql); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
}

// read reads rows, by the columns of a struct in their order.
func read[R any](w *world, sql string, args ...any) []R {
	w.Helper()
	rows, err := w.record.sql.Query(w.ctx, sql, args...)
	if err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[R])
	if err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
	return all
}

// count reads a number.
func (w *world) count(sql string, args ...any) int {
	w.Helper()
	var n int
	if err := w.record.sql.QueryRow(w.ctx, sql, args...).Scan(&n); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// oneIn is true in one of n cases, and in none once a life is made small.
func (w *world) oneIn(n int, label string) bool {
	return rapid.IntRange(0, n-1).Draw(w.T, label) == n-1
}

// passRound passes the time between two rounds. The leases of those who are
// gone end in it, which are of the real clock.
func (w *world) passRound() {
	steps := []int{5, 5, 5, 1, 3, 9, 30, 70}
	if w.reaping {
		steps = []int{5, 3, 9}
	}
	m := anyOf(w, "minutes", steps...)
	w.pass(time.Duration(m) * time.Minute)
	w.tell("%d minutes have passed", m)
}

func (w *world) pass(d time.Duration) {
	w.lapse(d)
	w.exec(`UPDATE muster.action SET lease_until = clock_timestamp() - interval '1 second' WHERE state = 'intended'`)
	w.exec(`UPDATE muster.run SET lease_until = clock_timestamp() - interval '1 second' WHERE state = 'running'`)
	w.endClaims()
}

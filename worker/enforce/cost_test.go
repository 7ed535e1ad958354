package enforce_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

// counter counts what reaches the server, and the statements among that which
// hear the witnesses of a fleet.
type counter struct {
	dbtest.RoundTrips
	fleets atomic.Int64
}

func (c *counter) TraceQueryStart(ctx context.Context, conn *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	if strings.Contains(d.SQL, "FROM muster.host_runner") {
		c.fleets.Add(1)
	}
	return c.RoundTrips.TraceQueryStart(ctx, conn, d)
}

// However many runners and policies there are, the runners are read once, and
// what was decided before is not written again.
func TestCostOfAPassDoesNotDependOnTheSizeOfTheFleet(t *testing.T) {
	t.Parallel()
	type cost struct{ first, second int64 }
	costs := map[int]cost{}
	for _, size := range []int{100, 3000} {
		var statements counter
		w := newTracedWorld(t, &statements, tenPolicies(t)...)
		w.largeFleet(size)
		run := func() int64 {
			before := statements.Count()
			statements.fleets.Store(0)
			if counts := w.run(); counts[policies.CountEvaluated] != 10*int64(size) {
				t.Errorf("%d runners: evaluated %d, want each by ten policies", size, counts[policies.CountEvaluated])
			}
			if n := statements.fleets.Load(); n != 1 {
				t.Errorf("%d runners: read %d times for ten policies, want once", size, n)
			}
			return statements.Count() - before
		}
		rows := func() string {
			return w.value(`SELECT (SELECT md5(string_agg(d.xmin || ' ' || decision_id, ',' ORDER BY decision_id)) FROM muster.decision d)
				|| (SELECT md5(string_agg(l.xmin || ' ' || l::text, ',' ORDER BY policy, runner_id)) FROM muster.last_decision l)
				|| (SELECT md5(string_agg(g.xmin || ' ' || g::text, ',' ORDER BY policy, runner_id)) FROM muster.grace_mark g)`)
		}
		var c cost
		c.first = run()
		written := rows()
		if written == "<null>" {
			t.Fatalf("%d runners: the first pass wrote no decision", size)
		}
		w.pass(time.Second)
		c.second = run()
		if rows() != written {
			t.Errorf("%d runners: the second pass wrote what the first had decided", size)
		}
		costs[size] = c
	}
	if costs[100] != costs[3000] {
		t.Errorf("statements: %+v for 100 runners, %+v for 3,000", costs[100], costs[3000])
	}
	t.Logf("statements of ten policies: %+v", costs[100])
}

// Policies take turns on one reading of the fleet; whoever was removed since
// does not count as due for the next.
func TestRunnersRemovedMeanwhileAreNotDue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, enforcement, want string }{
		{"by the policy before", "enforce", "3 first, 1 second"},
		{"by somebody else", "audit", "3 operator, 1 second"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			first := sample("first", "ENFORCEMENT", tt.enforcement, "RATE", "3/m")
			w := newWorld(t, first, sample("second", "COUNT", "1"))
			ids := w.create(4, githubsim.RunnerSpec{})
			w.create(6, githubsim.RunnerSpec{Online: true})
			w.offline()
			w.enforcer.Observe = func(policy, _ string, _ fleet.Counts) {
				for _, id := range ids[:3] {
					if policy != "first" || tt.enforcement == "enforce" {
						return
					}
					res, err := w.replica().Remover.Remove(w.ctx, remove.Request{
						Policy: policies.Operator(), Target: "acme", RunnerID: id, TriggerID: uuid.NewString(),
						Actor: fleet.Actor{Type: fleet.ActorCLI, Name: "otto"}, Reason: "in the way",
					})
					if err != nil || res.Action.State != fleet.ActionDone {
						t.Errorf("remove %d: %+v, %v", id, res, err)
					}
				}
			}
			w.run()
			w.want(tt.want, `SELECT string_agg(n || ' ' || policy, ', ' ORDER BY policy)
				FROM (SELECT policy, count(*) AS n FROM muster.action WHERE state = 'done' GROUP BY policy) done`)
			w.want("0", `SELECT count(*) FROM api.policies WHERE state = 'halted'`)
			w.agree()
		})
	}
}

package scale

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/queue"
)

// round decides on pools of one target in one transaction, under their locks:
// the maximum counts every host that anybody has asked for. What it costs to
// read what decisions rest on depends on the target, and not on how many of its
// pools are decided on, so a round takes along all whose triggers wait, and
// their runs are done with it. A sync leaves a trigger for each pool, which is
// one round, and the triggers after the first find nothing left to do.
type round struct {
	target  string
	hosts   fleet.HostNames // that may register runners of the target
	all     []*policies.Pool
	now     time.Time
	decided []decided // the pool of the trigger first
}

// decided is a pool that was decided on.
type decided struct {
	pool    *policies.Pool
	trigger fleet.Trigger
	before  fleet.SizeDecision
	state   db.PoolState
	rounds  int // of requests in a row that ran out
	expired int // leases, just now
}

// run is the round of a trigger. It may run more than once.
func (r *round) run(ctx context.Context, tx *db.Tx, pool *policies.Pool, trigger fleet.Trigger) error {
	r.decided = []decided{{pool: pool, trigger: trigger}}
	runs, err := r.takeAlong(ctx, tx)
	if err != nil {
		return err
	}
	var names []string
	var locked []fleet.Pool
	for _, d := range r.decided {
		names, locked = append(names, d.pool.Name), append(locked, d.pool.Pool)
	}
	before, err := tx.LockPools(ctx, locked)
	if err != nil {
		return err
	}
	pools := of(r.all, r.target)
	var others []string
	for _, p := range pools {
		if !slices.Contains(names, p.Name) {
			others = append(others, p.Name)
		}
	}
	expired, err := tx.ExpireLeases(ctx, r.target, names, others, r.now)
	if err != nil {
		return err
	}
	in, err := read(ctx, tx, r.target, names, pools, r.now)
	if err != nil {
		return err
	}
	weighed, findings := weigh(r.target, pools, in)
	for i := range r.decided {
		d := &r.decided[i]
		f := weighed[d.pool.Name]
		d.before, d.rounds, d.expired = before[d.pool.Name].Decision, f.rounds, expired[d.pool.Name]
		d.state = decide(d.pool, f, before[d.pool.Name], r.now)
	}
	if err := r.giveUp(ctx, tx, before[pool.Name].Decision.Memory); err != nil {
		return err
	}
	if err := r.store(ctx, tx, runs); err != nil {
		return err
	}
	return tx.SaveFindings(ctx, r.target, findingKinds, findings, r.now)
}

// giveUp bounds the decision on the trigger's own pool by how many runners can be
// given up at all, so that nothing is told which cannot happen.
func (r *round) giveUp(ctx context.Context, tx *db.Tx, before fleet.SizeMemory) error {
	own := &r.decided[0]
	var err error
	own.state, err = giveUp(ctx, tx, own.state, own.pool, r.all, r.hosts, before)
	return err
}

// idleReader reads the runners of a pool that have no work.
type idleReader interface {
	IdleRunners(ctx context.Context, target, pool string, labels []string) ([]fleet.Observed, error)
}

func giveUp(ctx context.Context, from idleReader, s db.PoolState, pool *policies.Pool, all []*policies.Pool, hosts fleet.HostNames, before fleet.SizeMemory) (db.PoolState, error) {
	if s.Decision.Direction != fleet.SizeDown {
		return s, nil
	}
	free, err := givable(ctx, from, pool, all, hosts, s.Decision.At)
	if err != nil {
		return s, err
	}
	s.Decision = policies.GiveUp(s.Decision, len(free), before)
	s.Reason = strings.Join(policies.TellSize(s.Decision), "; ")
	return s, nil
}

// givable are the runners that a pool may give up, those first that have had no
// work for longest. A host's claim to its runner counts where its name is one of
// hosts.
func givable(ctx context.Context, from idleReader, pool *policies.Pool, all []*policies.Pool, hosts fleet.HostNames, at time.Time) ([]fleet.Observed, error) {
	runners, err := from.IdleRunners(ctx, pool.Target, pool.Name, pool.Labels)
	if err != nil {
		return nil, err
	}
	for i := range runners {
		runners[i].Vouch(hosts)
	}
	own := ofPool(runners, pool, all)
	return policies.ChooseIdle(own, len(own), at, pool.MinLifetime), nil
}

// takeAlong adds the other pools of the target whose triggers wait, and returns
// the runs of each.
func (r *round) takeAlong(ctx context.Context, tx *db.Tx) (map[string][]string, error) {
	others := map[string]*policies.Pool{}
	var names []string
	for _, p := range r.all {
		if p.Target == r.target && p != r.decided[0].pool {
			others[p.Name], names = p, append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	waiting, err := tx.TakeQueued(ctx, fleet.JobScale, names)
	if err != nil {
		return nil, err
	}
	runs := map[string][]string{}
	for _, t := range waiting {
		if runs[t.Name] == nil {
			r.decided = append(r.decided, decided{pool: others[t.Name], trigger: t})
		}
		runs[t.Name] = append(runs[t.Name], t.ID)
	}
	return runs, nil
}

// store stores what was decided, asks for hosts, and tells. A pool that was
// taken along and has hosts to give up is left to its own run: that takes time,
// and its hosts are asked one after the other.
func (r *round) store(ctx context.Context, tx *db.Tx, runs map[string][]string) error {
	var states []db.PoolState
	var leases []fleet.Lease
	var messages []fleet.OutboxMessage
	var audit []fleet.AuditEvent
	var later []db.Later
	done := map[string]fleet.Counts{}
	kept := r.decided[:0]
	for i, d := range r.decided {
		audit = append(audit, d.tellExpired(r.now)...)
		if i > 0 && d.state.Decision.Direction == fleet.SizeDown {
			continue
		}
		kept = append(kept, d)
		states = append(states, d.state)
		asked, requests, err := d.ask()
		if err != nil {
			return err
		}
		event, told, err := d.tell()
		if err != nil {
			return err
		}
		leases, audit = append(leases, asked...), append(audit, event...)
		messages = append(append(messages, requests...), told...)
		for _, id := range runs[d.pool.Name] {
			done[id] = d.counts()
		}
		if next := d.state.Decision.NextAt; !next.IsZero() {
			later = append(later, d.lookAgain(next.Sub(r.now)))
		}
	}
	r.decided = kept
	if err := tx.SavePools(ctx, states); err != nil {
		return err
	}
	if err := tx.AddLeases(ctx, leases); err != nil {
		return err
	}
	if err := tx.Enqueue(ctx, messages...); err != nil {
		return err
	}
	if err := tx.FinishTaken(ctx, done); err != nil {
		return err
	}
	if err := tx.QueueLater(ctx, later...); err != nil {
		return err
	}
	return tx.Audit(ctx, audit...)
}

// lookAgain is the trigger for the moment at which what holds the pool back ends.
func (d decided) lookAgain(in time.Duration) db.Later {
	return db.Later{In: in, Trigger: fleet.Trigger{
		ID: uuid.NewString(), Job: fleet.JobScale, Name: d.pool.Name, Source: fleet.SourceSync,
		Reason: "what held the pool back has ended",
	}}
}

func (d decided) counts() fleet.Counts {
	is := d.state.Decision
	counts := fleet.Counts{"desired": int64(is.Desired), "leases_expired": int64(d.expired)}
	if is.Direction != fleet.SizeHold {
		counts[string(is.Direction)] = int64(is.Change)
	}
	return counts
}

// ask is a lease for each host that is wanted, and the messages that ask for
// them.
func (d decided) ask() ([]fleet.Lease, []fleet.OutboxMessage, error) {
	is := d.state.Decision
	if is.Direction != fleet.SizeUp {
		return nil, nil, nil
	}
	leases := make([]fleet.Lease, is.Change)
	messages := make([]fleet.OutboxMessage, is.Change)
	for i := range leases {
		leases[i] = fleet.Lease{
			RequestID: uuid.NewString(), Pool: d.pool.Name, Target: d.pool.Target, State: fleet.LeaseRequested, Attempt: d.rounds + 1,
			RequestedAt: is.At, Deadline: is.At.Add(d.pool.BootDeadline),
		}
		var err error
		if messages[i], err = queue.Provision(leases[i], d.pool.Labels); err != nil {
			return nil, nil, err
		}
	}
	return leases, messages, nil
}

// tell is what the trail and subscribers are told of a decision. One to shrink
// is told when it is news.
func (d decided) tell() ([]fleet.AuditEvent, []fleet.OutboxMessage, error) {
	is := d.state.Decision
	code := fleet.AuditScaleUp
	switch is.Direction {
	case fleet.SizeHold:
		return nil, nil, nil
	case fleet.SizeDown:
		if d.before.Direction == fleet.SizeDown && d.before.Desired == is.Desired {
			return nil, nil, nil
		}
		code = fleet.AuditScaleDown
	case fleet.SizeUp:
	}
	told, err := queue.Event("scale."+string(is.Direction), d.pool.Target, d.pool.Name, is.At, poolEvent{RowOf(d.state), is.Change})
	if err != nil {
		return nil, nil, err
	}
	return []fleet.AuditEvent{{
		At: is.At, Code: code, Actor: db.ActorOf(d.trigger), Target: d.pool.Target, TriggerID: d.trigger.ID, Reason: d.state.Reason,
		Details: map[string]any{
			"pool": d.pool.Name, "change": is.Change, "desired": is.Desired, "online": d.state.Supply.Online,
			"booting": d.state.Supply.Booting, "max": is.Bounds.Max, "attempt": d.rounds + 1,
		},
	}}, []fleet.OutboxMessage{told}, nil
}

func (d decided) tellExpired(now time.Time) []fleet.AuditEvent {
	if d.expired == 0 {
		return nil
	}
	return []fleet.AuditEvent{{
		At: now, Code: fleet.AuditLeasesExpired, Actor: db.ActorOf(d.trigger), Target: d.pool.Target, TriggerID: d.trigger.ID,
		Reason:  fmt.Sprintf("not online within boot_deadline, which is %s", d.pool.BootDeadline),
		Details: map[string]any{"pool": d.pool.Name, "leases": d.expired, "leases_expired": d.state.Supply.Expired},
	}}
}

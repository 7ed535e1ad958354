package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/worker/scale"
)

// examineLimit bounds each examination; they run side by side. It leaves room
// for one request of GitHub that goes unanswered.
const examineLimit = 15 * time.Second

// examined is all that was found, before it is judged.
type examined struct {
	record  recordExam
	nats    natsExam
	targets []targetExam // in the order of the file
}

// recordExam is what Postgres said. An error of its own stands beside each part
// that may be missing alone.
type recordExam struct {
	reach       error // nil: it answers
	role        string
	standing    db.Standing
	schema      db.SchemaStatus
	now         time.Time // by Postgres's clock, at
	at          time.Time // by ours
	within      time.Duration
	health      db.Health
	step        db.ClockStep
	schedules   []db.ScheduleState
	targets     map[string]db.TargetHealth
	hearings    map[string]db.Hearing // by target
	policies    []fleet.PolicyState
	leases      map[string]map[string]db.LeaseCounts // by target and pool, of those configured
	findings    []fleet.Finding
	schemaErr   error
	writeErr    error // why no row can be written; nil: one was
	contentsErr error // of what follows the schema
}

// readable reports whether what the record holds is known.
func (r *recordExam) readable() bool {
	return r.reach == nil && r.schemaErr == nil && len(r.schema.Missing) == 0 && r.contentsErr == nil
}

type natsExam struct {
	found string
	err   error
	// faults are the parts that take no messages, where the rest is well.
	faults []error
	// deaf is that NATS does not tell of streams that are made or changed; nil: it
	// does.
	deaf error
}

type targetExam struct {
	targetConfig
	secret      error // why the credential cannot be read; nil: it can
	x           github.Examination
	permissions map[string]string // of an App's token; nil: not known
}

// examine asks everybody at once.
func examine(ctx context.Context, c *config, clients map[string]*sharedClient, pauses *github.Pauses) *examined {
	e := &examined{targets: make([]targetExam, len(c.targets))}
	var all sync.WaitGroup
	limited := func(do func(context.Context)) {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, examineLimit)
			defer cancel()
			do(ctx)
		})
	}
	limited(func(ctx context.Context) { e.record.examine(ctx, c) })
	limited(func(ctx context.Context) { e.nats.examine(ctx, c) })
	for i, t := range c.targets {
		e.targets[i].targetConfig = t
		limited(func(ctx context.Context) { e.targets[i].examine(ctx, clients[t.Name], pauses) })
	}
	all.Wait()
	return e
}

// answered reports whether GitHub said anything at all.
func (t *targetExam) answered() bool {
	var e *github.Error
	return !t.x.Answered.IsZero() || errors.As(t.x.Err, &e) && e.Status != 0
}

func (t *targetExam) examine(ctx context.Context, client *sharedClient, pauses *github.Pauses) {
	secret, err := t.auth.secret(ctx)
	switch {
	case err != nil:
		t.secret = err
		return
	case secret.IsZero():
		t.secret = fmt.Errorf("the credential is empty: %s", t.auth.source)
		return
	case client.app != nil:
		if err := github.CheckPrivateKey(secret); err != nil {
			t.secret = fmt.Errorf("the private key cannot be used: %w: %s", err, t.auth.source)
			return
		}
	}
	if p := client.paused(pauses, time.Now()); !p.Until.IsZero() {
		t.x.Err = leftAlone(p)
		return
	}
	t.x = client.Examine(ctx, t.Scope)
	if client.app != nil {
		t.permissions = client.app.Permissions()
	}
}

func (n *natsExam) examine(ctx context.Context, c *config) {
	conn, err := openNATS(ctx, c, "")
	if err != nil {
		n.err = err
		return
	}
	defer conn.Close()
	n.found, n.err = conn.Examine(ctx)
	if n.err == nil {
		n.faults = conn.Probe(ctx)
		n.deaf = conn.WithoutAdvisories()
	}
}

func (r *recordExam) examine(ctx context.Context, c *config) {
	url, err := databaseURL(c)
	if err != nil {
		r.reach = err
		return
	}
	store, err := db.Open(ctx, url.Reveal())
	if err != nil {
		r.reach = err
		return
	}
	defer store.Close()
	limited, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	if r.reach = store.Ping(limited); r.reach != nil {
		return
	}
	// As serve does, which alone makes a login where there is none.
	if r.standing, r.schemaErr = store.Secure(limited, false); r.schemaErr != nil {
		return
	}
	r.role = store.Role()
	began := time.Now()
	if r.now, r.schemaErr = store.Now(ctx); r.schemaErr != nil {
		return
	}
	r.within = time.Since(began) / 2
	r.at = began.Add(r.within)
	if r.schema, r.schemaErr = store.Status(ctx); r.schemaErr != nil || len(r.schema.Missing) > 0 {
		return
	}
	r.writeErr = store.ProbeWrite(ctx)
	var errs [8]error
	r.health, errs[0] = store.Health(ctx)
	r.schedules, errs[1] = store.ScheduleStates(ctx)
	r.targets, errs[2] = store.TargetHealth(ctx)
	r.policies, errs[3] = store.PolicyStates(ctx)
	r.hearings, errs[4] = store.Hearings(ctx)
	r.findings, errs[5] = store.Findings(ctx)
	r.leases, errs[6] = leases(ctx, store, c, r.now)
	r.step, errs[7] = store.ClockStep(ctx)
	r.contentsErr = errors.Join(errs[:]...)
}

// leases is how the requests for hosts of all pools fare.
func leases(ctx context.Context, store *db.DB, c *config, now time.Time) (map[string]map[string]db.LeaseCounts, error) {
	all := map[string]map[string]db.LeaseCounts{}
	for _, t := range c.targets {
		pools := scale.Of(c.pools, t.Name)
		if len(pools) == 0 {
			continue
		}
		var err error
		if all[t.Name], err = store.LeaseCounts(ctx, t.Name, pools, now); err != nil {
			return nil, err
		}
	}
	return all, nil
}

package demand

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

const (
	// recordEvery is how often refusals are tried to be recorded that are not yet.
	recordEvery = time.Second
	// mostRefused is how many refused deliveries of one target are kept by their
	// id; beyond that they count as one without an id.
	mostRefused = 1000
)

// Refusals are deliveries that were turned away, and that the record does not know
// of yet. The zero value is ready, and safe for concurrent use.
type Refusals struct {
	mu      sync.Mutex
	pending map[string]map[string]refusal // by target and id of the delivery
}

// refusal is one delivery that was turned away.
type refusal struct {
	at  time.Time // by this process's clock
	why string
}

// Add notes a delivery that was turned away, for these targets.
func (r *Refusals) Add(targets []string, delivery, why string) {
	if !validDeliveryID(delivery) {
		delivery = ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, target := range targets {
		r.put(target, delivery, refusal{at: time.Now(), why: fleet.CleanText(why, maxError)})
	}
}

func (r *Refusals) put(target, delivery string, one refusal) {
	if r.pending == nil {
		r.pending = map[string]map[string]refusal{}
	}
	if r.pending[target] == nil {
		r.pending[target] = map[string]refusal{}
	}
	if len(r.pending[target]) >= mostRefused {
		delivery = ""
	}
	if r.pending[target][delivery].at.Before(one.at) {
		r.pending[target][delivery] = one
	}
}

// Pending is how many refusals of each target are not recorded yet.
func (r *Refusals) Pending() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]int, len(r.pending))
	for target, deliveries := range r.pending {
		all[target] = len(deliveries)
	}
	return all
}

// take empties the list and returns what stood in it.
func (r *Refusals) take() map[string]map[string]refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.pending
	r.pending = nil
	return all
}

// putBack adds to the list what could not be recorded.
func (r *Refusals) putBack(all map[string]map[string]refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for target, deliveries := range all {
		for delivery, one := range deliveries {
			r.put(target, delivery, one)
		}
	}
}

// Refuse notes that a delivery was turned away which the secrets of these targets
// signed; none: whose it was is not known, and it may be any target's that takes
// webhooks. Until GitHub has delivered it again, or the workflow jobs were
// compared, muster does not know all that GitHub told (issue 10). It is recorded at
// once where that is possible, and else by Run.
func (i *Intake) Refuse(ctx context.Context, d fleet.Delivery, targets []string, why string) {
	if i.Refusals == nil || !d.TellsOfJobs() {
		return
	}
	if len(targets) == 0 {
		targets = Hooked(i.Targets())
	}
	for _, target := range targets {
		i.observeFor(target, ViaWebhook, OutcomeFailed)
	}
	i.noteRefused(ctx, d, targets, why)
}

// noteRefused is Refuse for what was observed before.
func (i *Intake) noteRefused(ctx context.Context, d fleet.Delivery, targets []string, why string) {
	if i.Refusals == nil || !d.TellsOfJobs() {
		return
	}
	i.Refusals.Add(targets, d.ID, why)
	// The request may be over, and the next policy must not have to wait for Run.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordEvery)
	defer cancel()
	_ = i.recordRefusals(ctx) // Run tries again, and says so
}

// Hooked are the targets that take webhooks, by name.
func Hooked(targets map[string]Target) []string {
	var names []string
	for name, t := range targets {
		if t.Secrets != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Run records which deliveries were turned away, as soon as that is possible,
// until ctx ends.
func (i *Intake) Run(ctx context.Context) error {
	if i.Refusals == nil {
		return nil
	}
	failing := false
	tick := time.NewTicker(recordEvery)
	defer tick.Stop()
	for {
		err := i.recordRefusals(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			i.Log.WarnContext(ctx, "refused deliveries are not recorded yet, retrying", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (i *Intake) recordRefusals(ctx context.Context) error {
	all := i.Refusals.take()
	if len(all) == 0 {
		return nil
	}
	err := i.saveRefusals(ctx, all)
	if err != nil {
		i.Refusals.putBack(all)
	}
	return err
}

func (i *Intake) saveRefusals(ctx context.Context, all map[string]map[string]refusal) error {
	now, err := i.Now(ctx)
	if err != nil {
		return err
	}
	var refused []db.RefusedDelivery
	for _, target := range slices.Sorted(maps.Keys(all)) {
		for delivery, one := range all[target] {
			// One that waited for Postgres is as old as it is.
			at := now.Add(-time.Since(one.at))
			refused = append(refused, db.RefusedDelivery{Target: target, Delivery: delivery, At: at, Reason: one.why})
		}
	}
	slices.SortFunc(refused, func(a, b db.RefusedDelivery) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Delivery, b.Delivery))
	})
	return i.DB.InTx(ctx, func(tx *db.Tx) error { return tx.RefuseDeliveries(ctx, refused, now) })
}

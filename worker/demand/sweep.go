package demand

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

const (
	// sweepEvery is how often a webhook's log of deliveries is read: one request
	// where little happens. sweepRefused is how long one waits that GitHub does
	// not show.
	sweepEvery   = 5 * time.Minute
	sweepRefused = time.Hour
	// mostAgain is how many deliveries are asked for again at a time. GitHub
	// allows 80 such requests a minute, deletions among them.
	mostAgain = 30
	// sweepOverlap is by how much deliveries stand in the log in another order
	// than that of their times.
	sweepOverlap = time.Minute
)

// heardHook is the webhook of a delivery, and the target whose credential is to
// read its log.
type heardHook struct {
	db.Hook
	target string
}

// hookOf says which webhook a delivery came from; nil: one whose log is not
// shown, as of those of enterprises and Apps, or none that can be made out.
func hookOf(targets []Target, d fleet.Delivery, e github.WorkflowJobEvent) *heardHook {
	hook := &heardHook{Hook: db.Hook{ID: d.Hook}, target: targets[0].Name}
	switch d.HookOf {
	case "organization":
		hook.Scope = fleet.Scope{Kind: fleet.ScopeOrg, Owner: e.Organization}
	case "repository":
		hook.Scope, _ = fleet.ParseScope("repo/" + e.Job.Repository) // zero where it is none
	}
	if hook.ID <= 0 || hook.Scope.Valid() != nil {
		return nil
	}
	for _, t := range targets {
		if strings.EqualFold(t.Scope.String(), hook.Scope.String()) {
			hook.target = t.Name // whose credential is more likely to do
		}
	}
	return hook
}

// hooks is what a sweep asks of GitHub.
type hooks interface {
	HookDeliveries(ctx context.Context, scope fleet.Scope, hook int64, since time.Time) (github.HookLog, error)
	Redeliver(ctx context.Context, scope fleet.Scope, hook, attempt int64) error
}

// Sweep reads the logs of a target's webhooks, where that is due, and asks
// GitHub to deliver once more what nobody took: GitHub does not do so by
// itself. It reports how many deliveries it asked for. An error is Postgres's;
// what GitHub refused stands in the record.
func (r *Reconciler) Sweep(ctx context.Context, name string) (int, error) {
	target, known := r.Targets()[name]
	if !known {
		return 0, fmt.Errorf("read the webhooks of %s: no target of that name is configured", name)
	}
	now, err := r.Intake.Now(ctx)
	if err != nil {
		return 0, err
	}
	var all []db.Hook
	err = r.Intake.DB.InTx(ctx, func(tx *db.Tx) error {
		all, err = tx.ClaimHooks(ctx, name, now, now.Add(sweepEvery))
		return err
	})
	if err != nil {
		return 0, err
	}
	total := 0
	for _, hook := range all {
		n, err := sweep(ctx, target.GitHub, &hook)
		if err != nil && ctx.Err() != nil {
			return total, ctx.Err()
		}
		total += n
		log := r.Intake.Log.With("target", name, "hook", hook.ID)
		if n > 0 {
			log.InfoContext(ctx, "deliveries that nobody took are asked for again", "counts", n)
		}
		pause, before := sweepEvery, hook.Fault
		hook.Fault = ""
		if err != nil {
			hook.Fault = fleet.CleanText(err.Error(), maxError)
			if errors.Is(err, fleet.ErrForbidden) || errors.Is(err, fleet.ErrNotFound) || errors.Is(err, fleet.ErrUnauthorized) {
				pause = sweepRefused
			}
			var refused *github.Error
			if errors.As(err, &refused) {
				pause = max(pause, refused.Wait)
			}
			if hook.Fault != before {
				log.WarnContext(ctx, "log of deliveries not read", "err", err)
			}
		}
		err = r.Intake.DB.InTx(ctx, func(tx *db.Tx) error { return tx.SaveHook(ctx, name, hook, now.Add(pause)) })
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// sweep reads one log and moves the hook on to where it has got.
func sweep(ctx context.Context, gh hooks, hook *db.Hook) (int, error) {
	log, err := gh.HookDeliveries(ctx, hook.Scope, hook.ID, hook.SweptTo.Add(-sweepOverlap))
	if err != nil {
		return 0, err
	}
	asked := 0
	var refused error
	for n, d := range untaken(log.Deliveries) {
		if n == mostAgain {
			hook.SweptTo = later(hook.SweptTo, d.At)
			return asked, refused
		}
		err := gh.Redeliver(ctx, hook.Scope, hook.ID, d.ID)
		switch {
		case errors.Is(err, fleet.ErrNotFound): // too old by now
		case errors.Is(err, fleet.ErrMalformed): // GitHub has something against this one
			refused = err
		case err != nil:
			hook.SweptTo = later(hook.SweptTo, d.At)
			return asked, err
		default:
			asked++
		}
	}
	if len(log.Deliveries) > 0 {
		hook.SweptTo = later(hook.SweptTo, log.Deliveries[0].At)
	}
	if refused == nil && log.Lacks() != "" {
		refused = errors.New(log.Lacks())
	}
	return asked, refused
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// untaken are the deliveries of workflow jobs that no attempt got to anybody
// and that nobody has asked for again, the oldest first, each by its newest
// attempt. It is pure.
func untaken(log []github.HookDelivery) []github.HookDelivery {
	newest := map[string]github.HookDelivery{}
	settled := map[string]bool{}
	for _, d := range log {
		if d.Event != github.EventWorkflowJob || d.Taken() || d.Again {
			settled[d.GUID] = true
		}
		if have, ok := newest[d.GUID]; !ok || d.ID > have.ID {
			newest[d.GUID] = d
		}
	}
	var all []github.HookDelivery
	for guid, d := range newest {
		if !settled[guid] {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b github.HookDelivery) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	return all
}

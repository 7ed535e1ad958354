// Package inventory keeps the record of runners in step with GitHub. A sync
// walks a target's listing, compares it with what is stored, and writes what
// changed: the number of statements does not depend on the size of the fleet,
// and an unchanged fleet writes no runner row.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/worker"
)

// Target is a target with the client for its credential.
type Target struct {
	fleet.Target
	GitHub lister
}

// lister is what a sync asks of GitHub.
type lister interface {
	Runners(ctx context.Context, scope fleet.Scope, kept fleet.KeptListing) (github.Listing, error)
	Confirm(ctx context.Context, scope fleet.Scope, id int64) (fleet.Runner, error)
	RunnerNamed(ctx context.Context, scope fleet.Scope, name string, heeded bool) (fleet.Runner, error)
	HeedsName(ctx context.Context, scope fleet.Scope) (bool, error)
	CanList(ctx context.Context, scope fleet.Scope) error
}

// Syncer is the sync job. All fields but Enforce, Pools and Observe are
// required. It
// is safe for concurrent use; of two walks over one target the one that began
// later counts.
type Syncer struct {
	Log     *slog.Logger
	DB      *db.DB
	Now     func(context.Context) (time.Time, error) // Postgres's clock, shared by all replicas
	Targets func() map[string]Target                 // by name, as configured now
	// Enforce reports whether policies want to run after a complete sync of
	// the target. Nil: never.
	Enforce func(target string) bool
	// Pools are those to be decided on after a complete sync of the target, in
	// the order of their names. Nil: none.
	Pools func(target string) []string
	// Observe sees every sync that was recorded. Nil: nobody does.
	Observe func(fleet.Sync)
}

// Handle syncs the target that the trigger names.
func (s *Syncer) Handle(ctx context.Context, trigger fleet.Trigger) (fleet.Counts, error) {
	target, ok := s.Targets()[trigger.Name]
	if !ok {
		return nil, worker.Permanent(fmt.Errorf("sync %s: no target of that name is configured", trigger.Name))
	}
	began, err := s.Now(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.InTx(ctx, func(tx *db.Tx) error {
		if err := tx.EnsureTarget(ctx, target.Target, began); err != nil {
			return err
		}
		return tx.SetObservationGap(ctx, target.Target)
	})
	if errors.Is(err, fleet.ErrConflict) {
		return nil, worker.Permanent(err)
	}
	if err != nil {
		return nil, err
	}

	w := &walk{
		target: target, began: began,
		sync: fleet.Sync{ID: uuid.Must(uuid.NewV7()).String(), Target: target.Name, TriggerID: trigger.ID, StartedAt: began},
	}
	kept, err := s.DB.KeptListing(ctx, target.Name)
	if err != nil {
		return nil, fmt.Errorf("sync %s: %w", target.Name, err)
	}
	w.look(ctx, kept)
	if w.err != nil && errors.Is(ctx.Err(), context.Canceled) {
		// Nothing was seen because we stopped looking: no fault of GitHub's.
		return nil, fmt.Errorf("sync %s: %w", target.Name, w.err)
	}
	err = s.record(ctx, w)
	var identity *db.IdentityError
	if errors.As(err, &identity) {
		return nil, worker.Permanent(fmt.Errorf("record the sync of %s: %w", target.Name, err))
	}
	if err != nil {
		err = fmt.Errorf("record the sync of %s: %w", target.Name, err)
		return nil, errors.Join(err, s.recordFailure(ctx, w, err))
	}
	if s.Observe != nil {
		s.Observe(w.sync)
	}
	counts := fleet.Counts{
		"pages": int64(w.sync.Pages), "api_calls": int64(w.sync.APICalls),
		"not_modified": int64(w.sync.NotModified), "runners": int64(w.sync.Runners),
		"added": int64(w.sync.Added), "changed": int64(w.sync.Changed), "removed": int64(w.sync.Removed),
		"unreadable": int64(w.sync.Unreadable),
	}
	if w.sync.Unreadable > 0 {
		s.Log.WarnContext(ctx, "items of the listing could not be read and are kept as they were known", "target", target.Name,
			"trigger", trigger.ID, "unreadable", w.sync.Unreadable, "items", w.sync.UnreadableItems)
	}
	switch {
	case w.err != nil:
		return counts, retry(fmt.Errorf("sync %s: %w", target.Name, w.err))
	case w.twin != nil:
		return counts, worker.Permanent(fmt.Errorf("sync %s: %w", target.Name, w.twin))
	case w.sync.Outcome != fleet.SyncComplete:
		s.Log.WarnContext(ctx, "sync incomplete, nothing counts as missing", "target", target.Name,
			"trigger", trigger.ID, "reason", w.sync.Error)
	case w.sync.Suspect != fleet.SuspectNot:
		s.Log.WarnContext(ctx, "sync looks like a fault, policies do not act on it", "target", target.Name,
			"trigger", trigger.ID, "reason", string(w.sync.Suspect), "runners", w.sync.Runners)
	}
	return counts, nil
}

// retry makes the pause that GitHub asks for the trigger's.
func retry(err error) error {
	var refused *github.Error
	if errors.As(err, &refused) && refused.Wait > 0 {
		return worker.RetryAfter(refused.Wait, err)
	}
	return err
}

// walk is one sync under way.
type walk struct {
	target  Target
	began   time.Time
	keeps   int // pages kept before
	listing github.Listing
	prints  []int64 // fingerprints of listing.Runners
	err     error   // nothing was seen at all
	// twin is set where the first complete listing is another target's.
	twin *db.IdentityError
	// looked holds what GitHub said of single runners that the listing lacked;
	// nil until somebody had to look.
	looked map[int64]look
	turn   int64 // counts the target's complete syncs up
	// names of those, where the server lists by name.
	names  map[int64]string
	probed *fleet.Known // whether the server does; nil: nobody had to ask
	sync   fleet.Sync
}

// look walks the listing, given what is kept of earlier walks.
func (w *walk) look(ctx context.Context, kept fleet.KeptListing) {
	w.keeps = max(w.keeps, len(kept.Pages))
	w.listing, w.err = w.target.GitHub.Runners(ctx, w.target.Scope, kept)
	w.prints = make([]int64, len(w.listing.Runners))
	for i, r := range w.listing.Runners {
		w.prints[i] = fingerprint(r)
	}
	w.sync.Pages, w.sync.Runners = w.listing.Pages, w.listing.Count
	w.sync.APICalls += w.listing.Calls
	w.sync.NotModified += w.listing.NotModified
	w.sync.APIRemaining = w.listing.RateRemaining
	w.sync.Unreadable, w.sync.UnreadableItems = unreadable(w.listing)
}

// maxNamed is how many unreadable items a sync names; it counts all.
const maxNamed = 20

// unreadable counts the items of a listing that could not be read in full, and
// names the first of them.
func unreadable(l github.Listing) (int, []string) {
	n := len(l.Nameless)
	named := slices.Clone(l.Nameless[:min(n, maxNamed)])
	for _, r := range l.Runners {
		if r.Unreadable == "" {
			continue
		}
		n++
		if len(named) < maxNamed {
			named = append(named, strings.Join(strings.Fields(fmt.Sprintf("runner %d %s", r.ID, r.Name)), " ")+": "+r.Unreadable)
		}
	}
	return n, named
}

// record stores what the walk saw. Runners that a complete listing lacks are
// looked up one by one, outside of any transaction, before anything is
// concluded.
func (s *Syncer) record(ctx context.Context, w *walk) error {
	for {
		unclear, err := s.write(ctx, w)
		switch {
		case errors.Is(err, errUnclear):
			var calls int
			w.looked, calls = lookUp(ctx, w.target, unclear, w.names, w.turn)
			w.sync.APICalls += calls
		case errors.Is(err, errUnprobed):
			w.probe(ctx)
		case errors.Is(err, errStale):
			w.look(ctx, fleet.KeptListing{})
		default:
			return err
		}
	}
}

// recordFailure leaves a failed row of a sync that could not be recorded, and
// what the target's inventory is worth since: nothing may act on it before a
// later sync is recorded.
func (s *Syncer) recordFailure(ctx context.Context, w *walk, fault error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	finished, err := s.Now(ctx)
	if err != nil {
		return err
	}
	failed := w.sync
	failed.FinishedAt, failed.Outcome, failed.Suspect = finished, fleet.SyncFailed, fleet.SuspectNot
	failed.Error = fleet.CleanText(fault.Error(), maxError)
	failed.Added, failed.Changed, failed.Removed = 0, 0, 0
	err = s.DB.InTx(ctx, func(tx *db.Tx) error {
		clock, err := tx.LockTarget(ctx, w.target.Target)
		if err != nil {
			return err
		}
		if !w.began.After(clock.LastWalkAt) {
			return tx.SaveSync(ctx, failed, nil)
		}
		clock.LastWalkAt = w.began
		return s.finish(ctx, tx, w, failed, clock, nil)
	})
	if err != nil {
		return fmt.Errorf("record that the sync failed: %w", err)
	}
	if s.Observe != nil {
		s.Observe(failed)
	}
	return nil
}

// write is one attempt at the transaction. GitHub has been asked, so a
// shutdown does not waste the answer.
func (s *Syncer) write(ctx context.Context, w *walk) ([]int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	finished, err := s.Now(ctx)
	if err != nil {
		return nil, err
	}
	var unclear []int64
	var done fleet.Sync
	err = s.DB.InTx(ctx, func(tx *db.Tx) error {
		var err error
		done = w.sync
		done.FinishedAt = finished
		if unclear, err = s.apply(ctx, tx, w, &done); err != nil {
			return err
		}
		if len(unclear) > 0 {
			return errUnclear
		}
		return nil
	})
	if err == nil {
		w.sync = done
	}
	return unclear, err
}

// errUnclear rolls a transaction back until the missing have been looked up.
var errUnclear = errors.New("runners are missing and were not looked up")

// errStale rolls a transaction back until every page has been decoded: one that
// is as it was kept shows runners that other pages have shown otherwise since.
var errStale = errors.New("pages are kept that the record has moved away from")

// apply writes the walk into the transaction, or returns the ids that must be
// looked up first.
func (s *Syncer) apply(ctx context.Context, tx *db.Tx, w *walk, sync *fleet.Sync) ([]int64, error) {
	clock, err := tx.LockTarget(ctx, w.target.Target)
	if err != nil {
		return nil, err
	}
	if !w.began.After(clock.LastWalkAt) {
		sync.Outcome, sync.Error = fleet.SyncPartial, "a walk that began later was recorded first"
		return nil, tx.SaveSync(ctx, *sync, nil)
	}
	if clock.Capabilities, err = w.learn(clock.Capabilities); err != nil {
		return nil, err
	}
	if err := s.noteCredential(ctx, tx, w, clock.CredentialFault); err != nil {
		return nil, err
	}
	if err := w.compareFirst(ctx, tx, clock); err != nil {
		return nil, err
	}

	before := clock
	clock.LastWalkAt, w.turn = w.began, clock.CompleteSyncs
	if w.twin != nil {
		sync.Outcome, sync.Error = fleet.SyncFailed, w.twin.Error()
		return nil, s.finish(ctx, tx, w, *sync, clock, nil)
	}
	if w.err != nil {
		sync.Outcome, sync.Error = fleet.SyncFailed, fleet.CleanText(w.err.Error(), maxError)
		return nil, s.finish(ctx, tx, w, *sync, clock, nil)
	}
	sync.Outcome = fleet.SyncPartial
	if w.listing.Complete {
		sync.Outcome = fleet.SyncComplete
		clock = tick(clock, w.began, w.target.MaxObservationGap)
	} else if w.listing.Incomplete != nil {
		sync.Error = fleet.CleanText(w.listing.Incomplete.Error(), maxError)
	}
	if w.isNoNews(before.Proven) {
		if err := s.keep(ctx, tx, w); err != nil {
			return nil, err
		}
		return nil, s.finish(ctx, tx, w, *sync, clock, nil)
	}

	known, err := tx.KnownRunners(ctx, w.target.Name, w.began, w.listing.Count)
	if err != nil {
		return nil, err
	}
	if !upToDate(known, w.listing.Same) {
		return nil, errStale
	}
	d, count := compare(known, w.listing, w.prints, w.looked)
	if len(d.missing) > 0 && w.looked == nil {
		if clock.Capabilities.NameFilter == fleet.Yes {
			w.names, err = tx.RunnerNames(ctx, w.target.Name, d.missing)
		}
		return d.missing, err
	}
	sync.Suspect = suspect(w.listing, d, count)
	changes, err := conclude(ctx, tx, w, d, observation{
		at: w.began, complete: w.listing.Complete, clock: clock, before: before.LastCompleteSyncAt,
		counted: clock.ObservedUS - before.ObservedUS, baseline: before.CompleteSyncs == 0,
		suspect: sync.Suspect != fleet.SuspectNot, nameless: len(w.listing.Nameless) > 0,
	})
	if err != nil {
		return nil, err
	}
	sync.Added, sync.Changed, sync.Removed = changes.added, changes.written()-changes.added-changes.removed, changes.removed
	clock.Proven = proven(clock.Proven, w.listing, count, changes.written())
	if sync.Unreadable > 0 {
		clock.Proven = fleet.Digest{} // the next walk counts them again
	}
	if err := s.save(ctx, tx, w, changes); err != nil {
		return nil, err
	}
	return nil, s.finish(ctx, tx, w, *sync, clock, changes.history)
}

// compareFirst sets twin where the first complete listing of the target shows
// the runners of another one.
func (w *walk) compareFirst(ctx context.Context, tx *db.Tx, clock db.TargetClock) error {
	w.twin = nil
	if clock.CompleteSyncs > 0 || w.err != nil || !w.listing.Complete {
		return nil
	}
	err := tx.FindTwin(ctx, w.target.Target, w.listing.Runners)
	if errors.As(err, &w.twin) {
		return nil
	}
	return err
}

// save stores what a walk changed.
func (s *Syncer) save(ctx context.Context, tx *db.Tx, w *walk, c changes) error {
	if err := tx.AddEach(ctx, w.target.Name, len(c.fresh), c.freshRow); err != nil {
		return err
	}
	if err := tx.SaveRunners(ctx, w.target.Name, w.began, c.rows); err != nil {
		return err
	}
	if c.added > 0 {
		if err := tx.LinkHosts(ctx, w.target.Name, w.began); err != nil {
			return err
		}
	}
	if err := tx.AddHistory(ctx, w.target.Name, w.sync.ID, c.history); err != nil {
		return err
	}
	if err := tx.Audit(ctx, c.audit...); err != nil {
		return err
	}
	return s.keep(ctx, tx, w)
}

// tick moves the target's clock of observed time on by the interval since the
// complete sync before, unless it was too long to count.
func tick(c db.TargetClock, at time.Time, maxGap time.Duration) db.TargetClock {
	if gap := at.Sub(c.LastCompleteSyncAt); !c.LastCompleteSyncAt.IsZero() && gap > 0 && gap <= maxGap {
		c.ObservedUS += gap.Microseconds()
	}
	c.CompleteSyncs++
	c.LastCompleteSyncAt = at
	return c
}

// noteCredential keeps the target's row true about whether GitHub takes its
// credential.
func (s *Syncer) noteCredential(ctx context.Context, tx *db.Tx, w *walk, have string) error {
	switch {
	case errors.Is(w.err, fleet.ErrUnauthorized), errors.Is(w.err, fleet.ErrForbidden), errors.Is(w.err, fleet.ErrNotFound):
		return tx.RefuseCredential(ctx, w.target.Name, db.RefusedList, fleet.CleanText(w.err.Error(), maxError), w.began)
	case w.err != nil || have == "":
		return nil // it says nothing about the credential, or nothing new
	}
	return tx.AcceptCredential(ctx, w.target.Name, w.began)
}

// maxError bounds what is kept of an error, in bytes.
const maxError = 4 << 10

// finish stores the record of the walk, moves the target on, tells subscribers
// and asks for enforcement and scaling, all with the same commit.
func (s *Syncer) finish(ctx context.Context, tx *db.Tx, w *walk, sync fleet.Sync, clock db.TargetClock, history []db.HistoryRow) error {
	if err := tx.SaveSync(ctx, sync, &clock); err != nil {
		return err
	}
	messages, err := events(sync, history)
	if err != nil {
		return err
	}
	var pools []string
	if s.Pools != nil && sync.Outcome != fleet.SyncFailed {
		pools = s.Pools(w.target.Name)
	}
	// Also where nothing is new: a heartbeat may have told since the last walk
	// whose host a runner is on.
	if len(pools) > 0 {
		if err := tx.AdvanceLeases(ctx, w.target.Name, w.began); err != nil {
			return err
		}
	}
	if sync.Outcome == fleet.SyncComplete {
		if err := tx.SaveClaims(ctx, w.target.Name, w.target.Hosts, w.began); err != nil {
			return err
		}
	}
	if sync.Outcome == fleet.SyncComplete && s.Enforce != nil && s.Enforce(w.target.Name) {
		err := tx.QueueOnce(ctx, fleet.Trigger{
			ID: uuid.NewString(), Job: fleet.JobEnforce, Name: w.target.Name, Source: fleet.SourceSync, Parent: sync.TriggerID,
		})
		if err != nil {
			return err
		}
	}
	if sync.Outcome == fleet.SyncComplete && len(pools) > 0 {
		scale := make([]fleet.Trigger, len(pools))
		for i, pool := range pools {
			scale[i] = fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobScale, Name: pool, Source: fleet.SourceSync, Parent: sync.TriggerID}
		}
		if err := tx.QueueOnce(ctx, scale...); err != nil {
			return err
		}
	}
	return tx.Enqueue(ctx, messages...)
}

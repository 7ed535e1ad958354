package policies

import (
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// guards gives the reasons to keep a runner whatever the expressions say, all
// of them.
func (d *decider) guards(r *fleet.Observed) []string {
	var reasons []string
	keep := func(when bool, reason string) {
		if when {
			reasons = append(reasons, reason)
		}
	}
	g, t := d.policy.Guards, &d.in.Target
	deletes := d.policy.Action == fleet.ActionDeleteRunner

	keep(!r.RemovedAt.IsZero(), ReasonRemoved)
	if deletes {
		keep(r.Name == "", ReasonNameless)
		keep(!r.MissingSince.IsZero(), ReasonMissing)
		keep(r.Status != fleet.StatusOffline, ReasonOnline)
		keep(r.Busy, ReasonBusy)
		keep(r.SparedAt.After(t.LastCompleteSyncAt), ReasonSpared)
		keep(t.CredentialFault != "", ReasonCredential)
	}
	keep((g.Complete || deletes) && t.LastOutcome != fleet.SyncComplete, ReasonInventoryIncomplete)
	keep(d.stale(), ReasonInventoryStale)
	keep(t.Suspect != fleet.SuspectNot, ReasonInventorySuspect)
	if deletes {
		keep(r.OfflineListings < g.Listings, ReasonWitnessListings)
		keep(r.OfflineSpan < g.Apart, ReasonWitnessApart)
		keep(d.now.Sub(d.matchedSince(r)) < g.Grace, ReasonGrace)
	}
	return reasons
}

// stale holds too for a sync that lies further in the future than the age
// allowed: then a clock was set, and nothing says how old it is.
func (d *decider) stale() bool {
	last := d.in.Target.LastCompleteSyncAt
	return last.IsZero() || d.now.Sub(last).Abs() > d.policy.Guards.MaxAge
}

func (d *decider) matchedSince(r *fleet.Observed) time.Time {
	if since, ok := d.in.MatchedSince[r.ID]; ok {
		return since
	}
	return d.now
}

// evidence is what a decision on a matched runner rests on. Durations are whole
// seconds, times RFC 3339 in UTC; what is not known is left out.
func (d *decider) evidence(r *fleet.Observed) fleet.Evidence {
	t, g := &d.in.Target, d.policy.Guards
	e := fleet.Evidence{
		"status":            string(r.Status),
		"busy":              r.Busy,
		"population":        t.Population,
		"inventory_outcome": string(t.LastOutcome),
	}
	put := func(key string, at time.Time) {
		if !at.IsZero() {
			e[key] = at.UTC().Format(time.RFC3339)
		}
	}
	if !t.LastCompleteSyncAt.IsZero() {
		e["inventory_age_seconds"] = seconds(d.now.Sub(t.LastCompleteSyncAt))
	}
	e["inventory_max_age_seconds"] = seconds(g.MaxAge)
	if t.Suspect != fleet.SuspectNot {
		e["inventory_suspect"] = string(t.Suspect)
	}
	if t.CredentialFault != "" {
		e["credential_fault"] = t.CredentialFault
	}
	put("removed_at", r.RemovedAt)
	put("missing_since", r.MissingSince)
	put("last_online_at", r.LastOnlineAt)
	put("last_busy_at", r.LastBusyAt)
	if r.Status == fleet.StatusOffline && !r.OfflineSince.IsZero() {
		put("offline_since", r.OfflineSince)
		e["offline_for"] = short(r.OfflineFor.Truncate(time.Second))
		e["offline_for_seconds"] = seconds(r.OfflineFor)
		e["listings"] = r.OfflineListings
		e["span_seconds"] = seconds(r.OfflineSpan)
	}
	if d.policy.Action != fleet.ActionDeleteRunner {
		return e
	}
	if g.Listings > 0 || g.Apart > 0 {
		e["listings_wanted"], e["span_wanted_seconds"] = g.Listings, seconds(g.Apart)
	}
	if g.Grace > 0 {
		since := d.matchedSince(r)
		put("matched_since", since)
		put("grace_until", since.Add(g.Grace))
	}
	return e
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

package policies

import (
	"maps"
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
		keep(r.Unreadable != "", ReasonUnreadable)
		if d.policy.Drain {
			keep(r.Status != fleet.StatusOnline, ReasonOffline)
			keep(r.Machine() == "", ReasonNoHost)
			keep(d.now.Sub(r.FirstSeenAt) < g.MinLifetime, ReasonYoung)
		} else {
			keep(r.Status != fleet.StatusOffline, ReasonOnline)
		}
		keep(r.Busy, ReasonBusy)
		reasons = append(reasons, d.policy.Objections(r, d.now)...)
		keep(r.SparedAt.After(t.LastCompleteSyncAt) || d.policy.Drain && d.now.Sub(r.SparedAt) < askAgain, ReasonSpared)
		keep(t.CredentialFault != "", ReasonCredential)
	}
	keep((g.Complete || deletes) && t.LastOutcome != fleet.SyncComplete, ReasonInventoryIncomplete)
	keep(d.stale(), ReasonInventoryStale)
	keep(t.Suspect != fleet.SuspectNot, ReasonInventorySuspect)
	if deletes {
		keep(r.OfflineListings < g.Listings, ReasonWitnessListings)
		keep(r.OfflineSpan < g.Apart, ReasonWitnessApart)
		keep(d.in.Neighbours[r.ID].Alike < g.MinSurvivors, ReasonMinSurvivors)
		keep(d.now.Sub(d.matchedSince(r)) < g.Grace, ReasonGrace)
	}
	return reasons
}

// Objections gives the reasons why the policy must not delete a runner that
// come from others than GitHub's listings: workflow jobs, its host, the token it
// was registered with, an operator. Silence is none. They hold whoever wants it
// deleted, and are asked for once more right before the deletion. That its host
// is there and waits for work is none against a drain, which asks the host.
func (p *Policy) Objections(r *fleet.Observed, now time.Time) []string {
	var reasons []string
	object := func(when bool, reason string) {
		if when {
			reasons = append(reasons, reason)
		}
	}
	object(r.Work.Open(now), ReasonOpenJob)
	object(r.Refused.Stands(now), ReasonRefused)
	object(r.HostSays.Says(now) == fleet.HostRunnerBusy, ReasonHostBusy)
	object(r.HostSays.Says(now) == fleet.HostRunnerIdle && !p.Drain, ReasonHostAlive)
	object(r.Booting(now), ReasonBooting)
	object(r.Hold.Stands(now), ReasonHold)
	return reasons
}

// askAgain is how long after a host did not let a runner go it is not asked
// again: the trail need not tell every minute that it is at work.
const askAgain = 10 * time.Minute

// stale holds too for a sync that lies further in the future than the age
// allowed: then a clock was set, and nothing says how old it is.
func (d *decider) stale() bool {
	last := d.in.Target.LastCompleteSyncAt
	return last.IsZero() || d.now.Sub(last).Abs() > d.policy.Guards.MaxAge
}

// matchedSince is when the grace of a runner begins. Before a deletion of
// offline runners it begins no earlier than the runner went offline, whatever
// the match says: else grace would pass while the runner is online and serve
// nobody. While the runner is online, or nobody knows since when it has been
// offline, it begins now.
func (d *decider) matchedSince(r *fleet.Observed) time.Time {
	since, marked := d.in.MatchedSince[r.ID]
	if !marked {
		return d.now
	}
	if d.policy.Action != fleet.ActionDeleteRunner || d.policy.Drain {
		return since
	}
	if r.Status != fleet.StatusOffline || r.OfflineSince.IsZero() {
		return d.now
	}
	if since.Before(r.OfflineSince) {
		return r.OfflineSince
	}
	return since
}

// shared is the evidence that all decisions of a pass have in common. With
// room for the rest, so that a copy need not grow: of 100,000 decisions the
// evidence is what costs most.
func (d *decider) shared() fleet.Evidence {
	t, g := &d.in.Target, d.policy.Guards
	e := make(fleet.Evidence, 28)
	e["population"], e["inventory_outcome"] = t.Population, string(t.LastOutcome)
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
	if d.policy.Action == fleet.ActionDeleteRunner && (g.Listings > 0 || g.Apart > 0) {
		e["listings_wanted"], e["span_wanted_seconds"] = g.Listings, seconds(g.Apart)
	}
	return e
}

// maxStamps bounds how many times are kept as text: runners share theirs, as
// most are those of a sync.
const maxStamps = 4096

// stamp is a time as evidence has it.
func (d *decider) stamp(at time.Time) any {
	if text, ok := d.stamps[at]; ok {
		return text
	}
	var text any = at.UTC().Format(time.RFC3339)
	if len(d.stamps) < maxStamps {
		d.stamps[at] = text
	}
	return text
}

// evidence is what a decision on a matched runner rests on, besides what is
// given. Durations are whole
// seconds, times RFC 3339 in UTC; what is not known is left out.
func (d *decider) evidence(r *fleet.Observed, given fleet.Evidence) fleet.Evidence {
	g := d.policy.Guards
	e := maps.Clone(given)
	e["status"], e["busy"] = string(r.Status), r.Busy
	put := func(key string, at time.Time) {
		if !at.IsZero() {
			e[key] = d.stamp(at)
		}
	}
	put("removed_at", r.RemovedAt)
	put("missing_since", r.MissingSince)
	if r.Unreadable != "" {
		e["unreadable"] = r.Unreadable
	}
	put("last_online_at", r.LastOnlineAt)
	put("last_busy_at", r.LastBusyAt)
	d.testimony(e, r)
	if r.Status == fleet.StatusOffline && !r.OfflineSince.IsZero() {
		put("offline_since", r.OfflineSince)
		e["offline_for"] = short(r.OfflineFor.Truncate(time.Second))
		e["offline_for_seconds"] = seconds(r.OfflineFor)
		e["listings"] = r.OfflineListings
		e["span_seconds"] = seconds(r.OfflineSpan)
	}
	if r.Host != "" && d.policy.asksForNewer() {
		e["host"], e["newer_registrations"] = r.Host, d.in.Neighbours[r.ID].Newer
	}
	if d.policy.Action != fleet.ActionDeleteRunner {
		return e // a report minds none of the guards that follow
	}
	if d.policy.Drain {
		if host := r.Machine(); host != "" {
			e["host"] = host
		}
		put("spared_at", r.SparedAt)
		put("idle_since", r.IdleSince(d.now))
		put("first_seen_at", r.FirstSeenAt)
	}
	if d.policy.Pool != "" {
		e["pool"] = d.policy.Pool
	}
	if g.MinLifetime > 0 {
		e["min_lifetime_seconds"] = seconds(g.MinLifetime)
	}
	if g.MinSurvivors > 0 {
		e["survivors"], e["min_survivors"] = d.in.Neighbours[r.ID].Alike, g.MinSurvivors
	}
	if g.Grace > 0 {
		since := d.matchedSince(r)
		put("matched_since", since)
		put("grace_until", since.Add(g.Grace))
	}
	return e
}

// testimony is what others than GitHub's listings say, where they say
// anything.
func (d *decider) testimony(e fleet.Evidence, r *fleet.Observed) {
	if r.Work.Open(d.now) {
		e["open_job"] = r.Work.OpenJob
		putTime(e, "open_job_since", r.Work.OpenSince)
	}
	putTime(e, "last_job_done_at", r.Work.LastDoneAt)
	if r.Refused.Stands(d.now) {
		e["refused_deliveries"] = r.Refused.Deliveries
		putTime(e, "refused_since", r.Refused.Since)
	}
	if state := r.HostSays.State(d.now); state != "" {
		e["host_state"] = string(state)
		putTime(e, "host_seen_at", r.HostSays.SeenAt)
		putTime(e, "token_at", r.HostSays.TokenAt)
	}
	if says := r.HostSays.Says(d.now); says != "" {
		e["host_says"] = string(says)
	}
	if r.Hold.Stands(d.now) {
		e["hold_reason"], e["hold_by"] = r.Hold.Reason, r.Hold.By
		putTime(e, "hold_until", r.Hold.Until)
	}
}

// putTime leaves out a time that is not known.
func putTime(e fleet.Evidence, key string, at time.Time) {
	if !at.IsZero() {
		e[key] = at.UTC().Format(time.RFC3339)
	}
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

package enforce

import (
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// Testimony is what one witness says of a runner.
type Testimony struct {
	Witness string
	Says    string
	At      time.Time // of what it says; zero: it says nothing
	// Objects tells that it alone keeps the runner from being deleted.
	Objects bool
}

// Witnesses are all there are, with what each says of the runner. It is pure.
func (x Explanation) Witnesses() []Testimony {
	r := &x.Runner
	return []Testimony{x.listings(), x.lastLook(), jobs(r, x.Now), host(r, x.Now), token(r, x.Now), hold(r, x.Now)}
}

func (x Explanation) listings() Testimony {
	r := &x.Runner
	t := Testimony{Witness: "listings", At: r.LastSeenAt}
	switch {
	case !r.MissingSince.IsZero():
		t.Says, t.Objects = "the newest complete listing lacks it, and whether it is gone is being found out", true
	case r.Status == fleet.StatusOffline:
		t.Says = fmt.Sprintf("offline in %d complete listings in a row", r.OfflineListings)
		if r.OfflineListings == 1 {
			t.Says = "offline in the newest complete listing alone"
		}
	default:
		t.Says, t.Objects = string(r.Status), true
	}
	if r.Busy {
		t.Says, t.Objects = t.Says+", busy", true
	}
	if s := x.Target.Suspect; s != fleet.SuspectNot {
		t.Says += fmt.Sprintf("; the newest looks more like a fault than a fleet (%s)", s)
	}
	if o := x.Target.LastOutcome; o != "" && o != fleet.SyncComplete {
		t.Says += fmt.Sprintf("; the newest sync was %s", o)
	}
	return t
}

func (x Explanation) lastLook() Testimony {
	t := Testimony{Witness: "last look", Says: "never asked: it comes right before a deletion"}
	if x.Deletion == nil || x.Deletion.Action.SettledAt.IsZero() {
		return t
	}
	a := x.Deletion.Action
	t.At, t.Says = a.SettledAt, "before the last deletion that was tried: "+string(a.State)
	if a.Reason != "" {
		t.Says += ", " + a.Reason
	}
	t.Objects = x.Runner.SparedAt.After(x.Target.LastCompleteSyncAt)
	return t
}

func jobs(r *fleet.Observed, now time.Time) Testimony {
	t := Testimony{Witness: "workflow jobs"}
	switch w := r.Work; {
	case w.Open(now):
		t.Says, t.At, t.Objects = fmt.Sprintf("job %d runs on it", w.OpenJob), w.OpenSince, true
	case r.Refused.Stands(now):
		t.Says, t.At, t.Objects = fmt.Sprintf("%d refused deliveries may have told of one on it", r.Refused.Deliveries), r.Refused.Since, true
	case w.OpenJob != 0:
		t.Says, t.At = fmt.Sprintf("job %d began longer ago than GitHub lets one run: its end was lost", w.OpenJob), w.OpenSince
	case !w.LastDoneAt.IsZero():
		t.Says, t.At = "none runs on it; the last one ended", w.LastDoneAt
	default:
		t.Says = "no event of one on it has come"
	}
	return t
}

func host(r *fleet.Observed, now time.Time) Testimony {
	t := Testimony{Witness: "host", At: r.HostSays.SeenAt}
	name := r.Host
	if name == "" {
		name = "its host"
	}
	switch state := r.HostSays.State(now); {
	case state == "" && r.Host == "":
		t.Says = "not known, and none speaks of it"
	case state == "":
		t.Says = name + " sends no heartbeats"
	default:
		t.Says = fmt.Sprintf("%s is %s", name, state)
	}
	if stranger := r.HostSays.Stranger; stranger != "" {
		t.Says += fmt.Sprintf("; %s lists it and has neither a token nor a grant for its name, so no host is asked to drain it", stranger)
	}
	switch r.HostSays.Says(now) {
	case fleet.HostRunnerBusy:
		t.Says, t.Objects = t.Says+", and says that the runner is at work", true
	case fleet.HostRunnerIdle:
		t.Says, t.Objects = t.Says+", and says that the runner waits for work", true
	}
	return t
}

func token(r *fleet.Observed, now time.Time) Testimony {
	t := Testimony{Witness: "tokens", At: r.HostSays.TokenAt, Says: "its host has been given none"}
	switch {
	case r.Booting(now):
		t.Says, t.Objects = "registered a moment ago with one: it may be booting", true
	case !t.At.IsZero():
		t.Says = "the last that its host was given to register with"
	}
	return t
}

func hold(r *fleet.Observed, now time.Time) Testimony {
	if !r.Hold.Stands(now) {
		return Testimony{Witness: "hold", Says: "none"}
	}
	e := fleet.Evidence{"hold_by": r.Hold.By, "hold_reason": r.Hold.Reason}
	if !r.Hold.Until.IsZero() {
		e["hold_until"] = stamp(r.Hold.Until)
	}
	return Testimony{Witness: "hold", At: r.Hold.At, Objects: true, Says: policies.InWords(policies.ReasonHold, e).Says}
}

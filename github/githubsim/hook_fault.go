package githubsim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Faults of webhooks. They are those of the hooks in Scope, of Event, and are
// decided when there is something to tell.
const (
	FaultHookDropped   FaultKind = "hook-dropped"
	FaultHookTwice     FaultKind = "hook-twice"     // with the same GUID
	FaultHookLate      FaultKind = "hook-late"      // by Delay, of the Sim's clock
	FaultHookReordered FaultKind = "hook-reordered" // after the next one to the same hook, or after a minute
	FaultHookSignature FaultKind = "hook-signature" // by another secret
	FaultHookType      FaultKind = "hook-type"      // a form, as hooks can be set to
	FaultHookBig       FaultKind = "hook-big"       // more than 25 MiB
	FaultHookUnknown   FaultKind = "hook-unknown"   // an event that nobody knows
)

var hookKinds = []FaultKind{
	FaultHookDropped, FaultHookTwice, FaultHookLate, FaultHookReordered,
	FaultHookSignature, FaultHookType, FaultHookBig, FaultHookUnknown,
}

// befall decides which faults a delivery suffers, and reports whether it goes
// out twice.
func (s *Sim) befall(d *delivery) (twice bool) {
	s.expire()
	name := fmt.Sprint(d.Hook, " ", d.Event, " ", d.Action, " ", d.Job)
	var names []string
	for _, f := range s.faults {
		if !f.concernsHook(d) {
			continue
		}
		if _, struck := s.roll(f, name); !struck {
			continue
		}
		names = append(names, string(f.Kind))
		switch f.Kind {
		case FaultHookDropped:
			d.dropped = true
		case FaultHookTwice:
			twice = true
		case FaultHookLate:
			d.due = d.due.Add(f.Delay)
		case FaultHookReordered:
			d.held, d.due = true, d.due.Add(time.Minute)
		}
	}
	d.Fault = strings.Join(names, ",")
	return twice
}

// concernsHook reports whether the fault could strike this delivery.
func (f *injected) concernsHook(d *delivery) bool {
	event, action, _ := strings.Cut(f.Event, ".")
	return slices.Contains(hookKinds, f.Kind) && d.Event != eventPing && !d.Redelivery &&
		(f.Scope == fleet.Scope{} || key(f.Scope) == key(d.hook.in.scope)) &&
		(event == "" || event == d.Event) && (action == "" || action == d.Action)
}

// suffers are the kinds of the faults of a delivery.
func (d *delivery) suffers() []FaultKind {
	var kinds []FaultKind
	for name := range strings.SplitSeq(d.Fault, ",") {
		kinds = append(kinds, FaultKind(name))
	}
	return kinds
}

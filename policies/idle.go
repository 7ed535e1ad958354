package policies

import (
	"cmp"
	"slices"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// ChooseIdle gives the runners that a pool may give up, at most n, those first
// that have had no work for longest, and last those that were spared within a
// day: online, idle by everybody's word, on a host that is known, and first seen
// minLifetime ago or longer. It is pure, and the order of the runners does not
// matter. What is chosen is decided on once more,
// one by one, before anything is done about it.
func ChooseIdle(runners []fleet.Observed, n int, now time.Time, minLifetime time.Duration) []fleet.Observed {
	drain := &Policy{Drain: true}
	var idle []fleet.Observed
	for i := range runners {
		r := &runners[i]
		if r.Status == fleet.StatusOnline && !r.Busy && r.RemovedAt.IsZero() && r.MissingSince.IsZero() && r.Machine() != "" &&
			now.Sub(r.FirstSeenAt) >= minLifetime && len(drain.Objections(r, now)) == 0 {
			idle = append(idle, *r)
		}
	}
	slices.SortFunc(idle, func(a, b fleet.Observed) int { return byIdleness(&a, &b, now) })
	return idle[:min(max(n, 0), len(idle))]
}

// byIdleness puts the runner first that has had no work for longer; one that
// never had any, since it was first seen. Those that were asked for in vain come
// after all others, the last one last: else hosts that never answer would keep
// the others from being asked.
func byIdleness(a, b *fleet.Observed, now time.Time) int {
	return cmp.Or(a.SparedAt.Compare(b.SparedAt), workedAt(a, now).Compare(workedAt(b, now)), cmp.Compare(a.ID, b.ID))
}

func workedAt(r *fleet.Observed, now time.Time) time.Time {
	if since := r.IdleSince(now); !since.IsZero() {
		return since
	}
	return r.FirstSeenAt
}

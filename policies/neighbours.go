package policies

import (
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// neighbours counts what stands around each of a target's live runners.
func neighbours(live []fleet.Observed) map[int64]fleet.Neighbours {
	online := map[string]int{}           // by labels
	appeared := map[string][]time.Time{} // by host
	keys := make([]string, len(live))
	for i := range live {
		r := &live[i]
		keys[i] = strings.Join(r.Labels, "\x00")
		if !r.RemovedAt.IsZero() || !r.MissingSince.IsZero() {
			continue
		}
		if survives(r) {
			online[keys[i]]++
		}
		if r.Host != "" {
			appeared[r.Host] = append(appeared[r.Host], r.FirstSeenAt)
		}
	}
	for _, times := range appeared {
		slices.SortFunc(times, time.Time.Compare)
	}
	around := make(map[int64]fleet.Neighbours, len(live))
	for i := range live {
		r := &live[i]
		n := fleet.Neighbours{Alike: online[keys[i]]}
		if survives(r) {
			n.Alike-- // not beside itself
		}
		// Its own first appearance is never later than when it was last there.
		times := appeared[r.Host]
		first := sort.Search(len(times), func(n int) bool { return times[n].After(r.LastThereAt()) })
		n.Newer = len(times) - first
		around[r.ID] = n
	}
	return around
}

// survives reports whether a runner counts among those that min_survivors wants:
// it is listed as online, and its labels are known.
func survives(r *fleet.Observed) bool {
	return r.Status == fleet.StatusOnline && len(r.Labels) > 0 && r.RemovedAt.IsZero() && r.MissingSince.IsZero()
}

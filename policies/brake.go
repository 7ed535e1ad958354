package policies

import (
	"fmt"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// alarm is the evidence of what the brake minds.
func (d *decider) alarm() fleet.Evidence {
	a, b := d.in.Alarm, d.in.Brake.OrDefault()
	e := fleet.Evidence{
		"newly_offline": a.Offline, "newly_missing": a.Missing, "newly_removed": a.Removed, "newly_of": a.Of,
		"brake_percent": b.Percent, "brake_min": b.Min, "brake_window_seconds": seconds(b.Window),
	}
	putTime(e, "newly_since", a.Since)
	return e
}

// darkness puts a halt of the brake in words.
func (d *decider) darkness() string {
	a, b := d.in.Alarm, d.in.Brake.OrDefault()
	var kinds []string
	kind := func(n int, what string) {
		if n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, what))
		}
	}
	kind(a.Offline, "offline")
	kind(a.Missing, "missing")
	kind(a.Removed, "removed, not by muster")
	share := b.Percent * a.Of / 100
	most := fmt.Sprintf("%d%%, which is %d,", b.Percent, share)
	if b.Min-1 > share { // a small target: the share alone would not have halted it
		most = fmt.Sprintf("%d, below the brake's min of %d,", b.Min-1, b.Min)
	}
	return fmt.Sprintf("brake: %d of %d runners went dark since %s (%s); at most %s may within %s",
		a.Newly(), a.Of, a.First.UTC().Format(time.RFC3339), strings.Join(kinds, ", "), most, short(b.Window))
}

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
	return fmt.Sprintf("brake: %d of %d runners went dark since %s (%s); at most %d%%, which is %d, may within %s",
		a.Newly(), a.Of, a.First.UTC().Format(time.RFC3339), strings.Join(kinds, ", "), b.Percent, b.Percent*a.Of/100, short(b.Window))
}

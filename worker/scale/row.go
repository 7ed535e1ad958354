package scale

import (
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// Row is a pool as it was last decided on, by the columns of api.pools, in
// events and in what commands print.
type Row struct {
	Pool          string           `json:"pool"`
	Target        string           `json:"target"`
	Labels        []string         `json:"labels"`
	Min           int              `json:"min"`
	Max           int              `json:"max"`
	Desired       int              `json:"desired"`
	Online        int              `json:"online"`
	Busy          int              `json:"busy"`
	Booting       int              `json:"booting"`
	Draining      int              `json:"draining"`
	Queued        int              `json:"queued"`
	InProgress    int              `json:"in_progress"`
	DemandAt      *time.Time       `json:"demand_at"` // null: never compared
	Confidence    fleet.Confidence `json:"confidence"`
	LeasesExpired int              `json:"leases_expired"`
	Reason        string           `json:"reason"`
	DecidedAt     time.Time        `json:"decided_at"`
}

// RowOf is the row of a pool.
func RowOf(s db.PoolState) Row {
	row := Row{
		Pool: s.Pool, Target: s.Target, Labels: s.Labels, Min: s.Decision.Bounds.Min, Max: s.Decision.Bounds.Max,
		Desired: s.Decision.Desired, Online: s.Supply.Online, Busy: s.Supply.Busy, Booting: s.Supply.Booting,
		Draining: s.Supply.Draining, Queued: s.Demand.Queued, InProgress: s.Demand.InProgress,
		Confidence: s.Demand.Confidence, LeasesExpired: s.Supply.Expired, Reason: s.Reason, DecidedAt: s.Decision.At,
	}
	if !s.Demand.At.IsZero() {
		row.DemandAt = &s.Demand.At
	}
	return row
}

// poolEvent is what a scale event says.
type poolEvent struct {
	Row
	Change int `json:"change"` // hosts asked for, or too many
}

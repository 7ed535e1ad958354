package db

import (
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// capabilities is the form of fleet.Capabilities in the record. What is not
// known is null.
type capabilities struct {
	ServerVersion *string    `json:"server_version"`
	JIT           *bool      `json:"jit"`
	NameFilter    *bool      `json:"name_filter"`
	RunnerGroups  *bool      `json:"runner_groups"`
	Ephemeral     *bool      `json:"ephemeral"`
	Version       *bool      `json:"version"`
	DeleteBusy    *int       `json:"delete_busy"`
	ProbedAt      *time.Time `json:"probed_at"`
}

func stored(c fleet.Capabilities) capabilities {
	return capabilities{
		ServerVersion: orNull(c.ServerVersion), JIT: c.JIT.Answer(), NameFilter: c.NameFilter.Answer(),
		RunnerGroups: c.RunnerGroups.Answer(), Ephemeral: c.Ephemeral.Answer(), Version: c.Version.Answer(),
		DeleteBusy: orNull(c.DeleteBusy), ProbedAt: orNull(c.ProbedAt),
	}
}

func (c capabilities) read() fleet.Capabilities {
	f := fleet.Capabilities{
		ServerVersion: text(c.ServerVersion), JIT: known(c.JIT), NameFilter: known(c.NameFilter),
		RunnerGroups: known(c.RunnerGroups), Ephemeral: known(c.Ephemeral), Version: known(c.Version), ProbedAt: utc(c.ProbedAt),
	}
	if c.DeleteBusy != nil {
		f.DeleteBusy = *c.DeleteBusy
	}
	return f
}

func known(b *bool) fleet.Known {
	if b == nil {
		return fleet.NotKnown
	}
	return fleet.KnownAs(*b)
}

package githubsim

import (
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// limitsCommand is Limits as the control API has it. What is left out is not
// limited.
type limitsCommand struct {
	Primary          int        `json:"primary"`
	PrimaryStatus    int        `json:"primary_status"`
	Concurrent       int        `json:"concurrent"`
	Points           int        `json:"points"`
	Mutations        int        `json:"mutations"`
	MutationsPerHour int        `json:"mutations_per_hour"`
	SecondaryStatus  int        `json:"secondary_status"`
	PenaltySeconds   int        `json:"penalty_seconds"`
	Extend           bool       `json:"extend"`
	Retry            RetryAfter `json:"retry"`
	OldDocs          bool       `json:"old_docs"`
}

const limitsFields = "primary primary_status concurrent points mutations mutations_per_hour secondary_status penalty_seconds extend retry old_docs"

func (s *Sim) commandLimits(c command, _ fleet.Scope) (any, error) {
	l := c.limitsCommand
	for _, status := range []int{l.PrimaryStatus, l.SecondaryStatus} {
		if status != 0 && status != 403 && status != 429 {
			return nil, fmt.Errorf("%w: limits: status %d: want 403 or 429", errCommand, status)
		}
	}
	switch l.Retry {
	case RetrySeconds, RetryDate, RetryAbsent:
	default:
		return nil, fmt.Errorf("%w: limits: retry %q: want date, absent or nothing", errCommand, l.Retry)
	}
	s.SetLimits(Limits{
		Primary: l.Primary, PrimaryStatus: l.PrimaryStatus,
		Concurrent: l.Concurrent, Points: l.Points, Mutations: l.Mutations, MutationsPerHour: l.MutationsPerHour,
		SecondaryStatus: l.SecondaryStatus, Penalty: time.Duration(l.PenaltySeconds) * time.Second,
		Extend: l.Extend, RetryAfter: l.Retry, OldDocs: l.OldDocs,
	})
	return nil, nil
}

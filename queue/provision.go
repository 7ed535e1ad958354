package queue

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// provision is the body of a request for a host.
type provision struct {
	V         int       `json:"v"`
	RequestID string    `json:"request_id"`
	Pool      string    `json:"pool"`
	Target    string    `json:"target"`
	Labels    []string  `json:"labels"`
	Deadline  time.Time `json:"deadline"`
}

// Provision makes the message that asks for the host of a lease, whose runner
// is to carry these labels. The id of the lease is the message's, so that a
// repeat is the same request.
func Provision(l fleet.Lease, labels []string) (fleet.OutboxMessage, error) {
	body, err := json.Marshal(provision{
		V: 1, RequestID: l.RequestID, Pool: l.Pool, Target: l.Target, Labels: labels, Deadline: l.Deadline.UTC(),
	})
	if err != nil {
		return fleet.OutboxMessage{}, fmt.Errorf("encode the request for host %s of pool %s: %w", l.RequestID, l.Pool, err)
	}
	return fleet.OutboxMessage{ID: l.RequestID, Subject: ProvisionSubject(l.Pool), Body: body}, nil
}

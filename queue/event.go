package queue

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/fleet"
)

// cloudEvent is the envelope of CloudEvents 1.0, JSON format.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject,omitempty"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            any       `json:"data"`
}

// Event makes the message that tells subscribers of something that happened to
// a target. subject is the runner, policy or pool it happened to. It goes into
// the outbox, in the transaction of what it tells of, so its id is the
// outbox's. data must encode as a JSON object with the keys of the api views.
func Event(typ, target, subject string, at time.Time, data any) (fleet.OutboxMessage, error) {
	id := uuid.NewString()
	body, err := json.Marshal(cloudEvent{
		SpecVersion: "1.0", ID: id, Source: "muster/" + target, Type: typ, Subject: subject,
		Time: at.UTC(), DataContentType: "application/json", Data: data,
	})
	if err != nil {
		return fleet.OutboxMessage{}, fmt.Errorf("encode event %s of %s: %w", typ, target, err)
	}
	return fleet.OutboxMessage{ID: id, Subject: EventSubject(typ), Body: body}, nil
}

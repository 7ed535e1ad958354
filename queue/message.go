package queue

import (
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
)

const (
	eventPrefix = "muster.v1.event."
	tokenPrefix = "muster.v1.token."
	// headerSource is how the command line says that it was it who published.
	headerSource = "Muster-Source"
)

// TriggerSubject is where a trigger for the job is published; name is a target
// or fleet.All, or a wildcard.
func TriggerSubject(job fleet.Job, name string) string {
	return fleet.Trigger{Job: job, Name: name}.Subject()
}

// EventSubject is where events of the type are published.
func EventSubject(eventType string) string { return eventPrefix + eventType }

// TokenSubject is where the host asks for a token; "*" stands for every host.
func TokenSubject(host string) string { return tokenPrefix + host + ".issue" }

// Message is one delivery of a message of the trigger stream.
type Message struct {
	Subject string
	Headers map[string][]string
	Body    []byte
	// TriggerID is the same UUID at each delivery and, where the publisher
	// gave a message id, for each repeat of it on one UTC day.
	TriggerID string
	// FromOutbox says that muster itself published it: TriggerID is the id of
	// a run that is already recorded.
	FromOutbox bool
	Source     fleet.Source // SourceNATS or SourceCLI; the record knows better where FromOutbox
	Delivered  int          // from 1
	At         time.Time    // when the stream took it in, by the server's clock
}

func newMessage(m jetstream.Msg, streamCreated time.Time) (Message, error) {
	meta, err := m.Metadata()
	if err != nil {
		return Message{}, fmt.Errorf("message on %s: %w", m.Subject(), err)
	}
	message := Message{
		Subject: m.Subject(), Headers: m.Headers(), Body: m.Data(),
		Source: fleet.SourceNATS, Delivered: int(meta.NumDelivered), At: meta.Timestamp.UTC(),
	}
	if m.Headers().Get(headerSource) == string(fleet.SourceCLI) {
		message.Source = fleet.SourceCLI
	}
	message.TriggerID, message.FromOutbox = outboxID(m.Headers())
	if message.FromOutbox {
		return message, nil
	}
	if msgID := m.Headers().Get(nats.MsgIdHdr); msgID != "" {
		message.TriggerID = idFromMsgID(m.Subject(), msgID, meta.Timestamp)
	} else {
		message.TriggerID = idFromSequence(streamCreated, meta.Sequence.Stream)
	}
	return message, nil
}

// outboxID is the id that the relay gave: the same in both headers. A header
// that anybody else made up counts for nothing unless it has that form.
func outboxID(h nats.Header) (string, bool) {
	given := h.Get(fleet.HeaderTrigger)
	if given == "" || given != h.Get(nats.MsgIdHdr) {
		return "", false
	}
	id, err := uuid.Parse(given)
	if err != nil || id.String() != given {
		return "", false
	}
	return given, true
}

// triggerSpace is the name space of the ids below. It must never change: an
// upgrade would take known messages for new ones.
var triggerSpace = uuid.MustParse("a2f7c0de-6d75-5374-8572-747269676772")

// idFromMsgID counts the day by the stream's clock, so that every consumer of
// every delivery agrees.
func idFromMsgID(subject, msgID string, at time.Time) string {
	// Neither a subject nor a date can hold a line break.
	name := "msg-id\n" + subject + "\n" + at.UTC().Format(time.DateOnly) + "\n" + msgID
	return uuid.NewSHA1(triggerSpace, []byte(name)).String()
}

// idFromSequence needs the stream's time of birth too: one that was made anew
// counts from 1 again.
func idFromSequence(streamCreated time.Time, sequence uint64) string {
	name := "sequence\n" + strconv.FormatInt(streamCreated.UnixNano(), 10) + "\n" + strconv.FormatUint(sequence, 10)
	return uuid.NewSHA1(triggerSpace, []byte(name)).String()
}

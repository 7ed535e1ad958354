package queue

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
)

const (
	eventPrefix     = "muster.v1.event."
	githubPrefix    = "muster.v1.github."
	hostPrefix      = "muster.v1.host."
	probeSubject    = "muster.v1.probe"
	provisionPrefix = "muster.v1.provision."
	tokenPrefix     = "muster.v1.token."
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

// ProvisionSubject is where hosts of the pool are asked for; "*" stands for
// every pool.
func ProvisionSubject(pool string) string { return provisionPrefix + pool }

// TokenSubject is where the host asks for a token; "*" stands for every host.
func TokenSubject(host string) string { return tokenPrefix + host + ".issue" }

// GitHubSubject is where webhook receivers hand on events of GitHub's of that
// kind; ">" stands for every kind.
func GitHubSubject(event string) string { return githubPrefix + event }

// HeartbeatSubject is where the host sends heartbeats; "*" stands for every
// host.
func HeartbeatSubject(host string) string { return hostPrefix + host + ".heartbeat" }

// Message is one delivery of a message of a stream.
type Message struct {
	Subject string
	Headers map[string][]string
	Body    []byte
	// TriggerID is the same UUID at each delivery, in whatever stream, and, where the publisher
	// gave a message id, for each repeat of it on one UTC day. It is made of
	// what the stream knows, so that nobody can choose it.
	TriggerID string
	// Claimed is the id of a run that the message says it belongs to, as those
	// of the outbox do; empty: of none. Anybody can write it: it counts where
	// the record has such a run.
	Claimed   string
	Source    fleet.Source // SourceNATS or SourceCLI; of what is Claimed the record knows better
	Delivered int          // from 1
	At        time.Time    // when the stream took it in, by the server's clock
}

// Header is the first value of a header, whose name counts without regard to
// case: what hands on HTTP headers may have changed it. Empty: there is none.
func (m Message) Header(name string) string {
	for key, values := range m.Headers {
		if strings.EqualFold(key, name) && len(values) > 0 {
			return values[0]
		}
	}
	return ""
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
	message.Claimed = claimed(m.Headers(), m.Data())
	if msgID := m.Headers().Get(nats.MsgIdHdr); msgID != "" {
		message.TriggerID = idFromMsgID(m.Subject(), msgID, meta.Timestamp)
	} else {
		message.TriggerID = idFromSequence(streamCreated, meta.Sequence.Stream)
	}
	return message, nil
}

// claimed is the id that the relay gave: the same in both headers, over a body
// that says nothing. A message of another form is not the relay's, whatever its
// headers say, and cannot make a run of the outbox's fail by a body of its own.
func claimed(h nats.Header, body []byte) string {
	given := h.Get(fleet.HeaderTrigger)
	if given == "" || given != h.Get(nats.MsgIdHdr) || string(body) != fleet.OutgoingBody {
		return ""
	}
	id, err := uuid.Parse(given)
	if err != nil || id.String() != given {
		return ""
	}
	return given
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

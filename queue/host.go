package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/fleet"
)

// DrainSubject is where the host is asked to let a runner go; "*" stands for
// every host. Its answer goes to a subject below that one, on which the server
// lets no other host publish.
func DrainSubject(host string) string { return hostPrefix + host + ".drain" }

// ReleaseSubject is where the host is told that it is not needed any more; "*"
// stands for every host.
func ReleaseSubject(host string) string { return hostPrefix + host + ".release" }

// ErrUnclear says that a host answered something that cannot be read.
var ErrUnclear = errors.New("not an answer to a drain")

// hostRequest is the body of a drain and of a release.
type hostRequest struct {
	V          int    `json:"v"`
	Runner     string `json:"runner"`
	Reason     string `json:"reason"`
	DecisionID string `json:"decision_id"`
}

func bodyOf(r fleet.HostRequest) ([]byte, error) {
	body, err := json.Marshal(hostRequest{V: 1, Runner: r.Runner, Reason: r.Reason, DecisionID: r.DecisionID})
	if err != nil {
		return nil, fmt.Errorf("encode a request to host %s: %w", r.Host, err)
	}
	return body, nil
}

// Drain asks a host to keep a runner from taking another workflow job, and
// returns whether one is on it. Anything but an answer that says so in so many
// words is an error: fleet.ErrUnavailable where none came, ErrUnclear where it
// cannot be read.
func (c *Conn) Drain(ctx context.Context, r fleet.HostRequest) (busy bool, err error) {
	answer, err := c.askHost(ctx, r)
	if err != nil {
		return false, fmt.Errorf("drain runner %s on host %s: %w", r.Runner, r.Host, err)
	}
	return busyIn(answer, r.Host)
}

func (c *Conn) askHost(ctx context.Context, r fleet.HostRequest) ([]byte, error) {
	if !fleet.ValidName(r.Host) {
		return nil, fmt.Errorf("%q cannot be a host: %w", r.Host, fleet.ErrUnavailable)
	}
	body, err := bodyOf(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply := DrainSubject(r.Host) + "." + uuid.NewString()
	sub, err := c.nc.SubscribeSync(reply)
	if err != nil {
		return nil, c.explain(err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only where it is over already
	if err := c.nc.PublishRequest(DrainSubject(r.Host), reply, body); err != nil {
		return nil, c.explain(err)
	}
	m, err := sub.NextMsgWithContext(ctx)
	switch {
	case errors.Is(err, nats.ErrNoResponders): // the server's word, at once
		return nil, fmt.Errorf("the host does not listen: %w", fleet.ErrUnavailable)
	case err != nil:
		return nil, fmt.Errorf("no answer: %w", c.explain(err))
	}
	return m.Data, nil
}

// busyIn reads a host's answer. A body that leaves busy out, or says more than
// muster knows, says nothing.
func busyIn(body []byte, host string) (bool, error) {
	var answer struct {
		V    int   `json:"v"`
		Busy *bool `json:"busy"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&answer); err != nil || d.More() || len(body) > MaxBody || answer.V != 1 || answer.Busy == nil {
		return false, fmt.Errorf(`host %s answered with %d bytes that are not {"v":1,"busy":true|false}: %w`, host, len(body), ErrUnclear)
	}
	return *answer.Busy, nil
}

// Release makes the message that tells a host that it is not needed any more.
// It goes into the outbox, in the transaction of the outcome.
func Release(r fleet.HostRequest) (fleet.OutboxMessage, error) {
	body, err := bodyOf(r)
	if err != nil {
		return fleet.OutboxMessage{}, err
	}
	return fleet.OutboxMessage{ID: uuid.NewString(), Subject: ReleaseSubject(r.Host), Body: body}, nil
}

// toHost reports whether a message is for a host, which no stream keeps.
func toHost(m fleet.OutboxMessage) bool { return strings.HasPrefix(m.Subject, hostPrefix) }

// tellHosts publishes messages for hosts and returns the ids of those that the
// server has. Whether a host was there to hear is not known.
func (c *Conn) tellHosts(messages []fleet.OutboxMessage) ([]string, error) {
	var sent []string
	for _, m := range messages {
		if !toHost(m) {
			continue
		}
		msg := nats.NewMsg(m.Subject)
		msg.Data = m.Body
		if err := c.nc.PublishMsg(msg); err != nil {
			return nil, fmt.Errorf("publish %s to %s: %w", m.ID, m.Subject, c.explain(err))
		}
		sent = append(sent, m.ID)
	}
	if len(sent) == 0 {
		return nil, nil
	}
	if err := c.nc.FlushTimeout(callTimeout); err != nil {
		return nil, fmt.Errorf("publish %d messages to hosts: %w", len(sent), c.explain(err))
	}
	return sent, nil
}

package db

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// auditTimeout is how long the trail may hold up what it tells of (policy:
// no audit row, no act).
const auditTimeout = 2 * time.Second

// What an event takes of texts, in bytes of its JSON, so that all of it stays
// within the 16 KiB that a payload may have.
const (
	maxName  = 256  // of an actor, a runner, a host…
	maxWords = 1024 // of the reason and of each detail
)

// payload is an audit event as it is sealed: its JSON, in this order of keys,
// is the canonical text.
type payload struct {
	V         int            `json:"v"`
	EventID   string         `json:"event_id"`
	Time      string         `json:"time"`
	Code      string         `json:"code"`
	Action    string         `json:"action"`
	Outcome   string         `json:"outcome"`
	Actor     payloadActor   `json:"actor"`
	Target    string         `json:"target,omitempty"`
	Runner    *payloadRunner `json:"runner,omitempty"`
	Host      string         `json:"host,omitempty"`
	Policy    string         `json:"policy,omitempty"`
	TriggerID string         `json:"trigger_id,omitempty"`
	Reason    string         `json:"reason,omitempty"`
	Details   map[string]any `json:"details,omitempty"` // encoding/json sorts the keys
}

type payloadActor struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

type payloadRunner struct {
	ID   int64  `json:"id"`
	Name string `json:"name,omitempty"`
}

// Audit adds events to the trail, all in one statement however many there
// are. They become true with the transaction.
func (tx *Tx) Audit(ctx context.Context, events ...fleet.AuditEvent) error {
	if len(events) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	var now time.Time
	if slices.ContainsFunc(events, func(e fleet.AuditEvent) bool { return e.At.IsZero() }) {
		if err := tx.tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
			return fmt.Errorf("write audit event %s: read Postgres's clock: %w", events[0].Code, translate(err))
		}
	}
	rows := make([][]any, 0, len(events))
	for _, e := range events {
		if e.At.IsZero() {
			e.At = now
		}
		row, err := auditRow(e)
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	var err error
	if len(rows) == 1 {
		_, err = tx.tx.Exec(ctx, `
			INSERT INTO audit.event (event_id, occurred_at, payload, leaf_hash)
			VALUES ($1, $2, $3, $4)`, rows[0]...)
	} else {
		_, err = tx.tx.CopyFrom(ctx, pgx.Identifier{"audit", "event"},
			[]string{"event_id", "occurred_at", "payload", "leaf_hash"}, pgx.CopyFromRows(rows))
	}
	if err != nil {
		return fmt.Errorf("write audit event %s: %w", events[0].Code, translate(err))
	}
	return nil
}

func auditRow(e fleet.AuditEvent) ([]any, error) {
	if err := e.Valid(); err != nil {
		return nil, err
	}
	id := uuid.Must(uuid.NewV7())
	if e.ID != "" {
		var err error
		if id, err = uuid.Parse(e.ID); err != nil {
			return nil, fmt.Errorf("audit event %s: id %q: %w", e.Code, e.ID, err)
		}
	}
	at := e.At.UTC().Truncate(time.Microsecond) // what timestamptz can hold
	kind, _ := e.Code.Kind()
	p := payload{
		V: 1, EventID: id.String(), Time: at.Format(time.RFC3339Nano),
		Code: string(e.Code), Action: kind.Action, Outcome: string(kind.Outcome),
		Actor:  payloadActor{Type: string(e.Actor.Type), Name: fit(e.Actor.Name, maxName)},
		Target: fit(e.Target, maxName), Host: fit(e.Host, maxName), Policy: fit(e.Policy, maxName),
		TriggerID: fit(e.TriggerID, maxName), Reason: fit(e.Reason, maxWords),
	}
	if len(e.Details) > 0 {
		p.Details = make(map[string]any, len(e.Details))
		for key, value := range e.Details {
			if words, ok := value.(string); ok {
				value = fit(words, maxWords)
			}
			p.Details[key] = value
		}
	}
	if e.RunnerID != 0 {
		p.Runner = &payloadRunner{ID: e.RunnerID, Name: fit(e.RunnerName, maxName)}
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p); err != nil {
		return nil, fmt.Errorf("audit event %s: encode: %w", e.Code, err)
	}
	body := storableJSON(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
	leaf := sha256.Sum256(append([]byte{0}, body...))
	return []any{id, at, string(body), leaf[:]}, nil
}

// fit makes a text one that the payload holds in at most so many bytes: what
// somebody else chose, a reason or a name, must not keep its event out of the
// trail by its length.
func fit(s string, most int) string {
	s = fleet.CleanText(s, most)
	size := 0
	for i, r := range s {
		switch {
		case r < ' ' || r == '\u2028' || r == '\u2029':
			size += len(`\u0000`) // the longest that any of them becomes
		case r == '"' || r == '\\':
			size += 2
		default:
			size += utf8.RuneLen(r)
		}
		if size > most {
			return s[:i]
		}
	}
	return s
}

// storableJSON replaces each NUL within a string, which JSON can hold and
// Postgres's text cannot: a name that somebody else chose must not keep its
// event out of the trail.
func storableJSON(body []byte) []byte {
	const escape = `\u`
	for i := 0; i+6 <= len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		if string(body[i:i+6]) == escape+"0000" {
			copy(body[i:], escape+"fffd")
		}
		i++ // what is escaped is no escape itself
	}
	return body
}

package token

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

const (
	// tokenLife is how long GitHub's tokens are good for: older ones need not be
	// told of.
	tokenLife = time.Hour
	// exposedAgain is when to try again to write down which tokens were exposed.
	exposedAgain = time.Second
)

// unsafe returns the refusal for a request while a token could be read along; nil:
// it may be answered.
func (i *Issuer) unsafe(ctx context.Context, q request) *answer {
	err := i.Conn.Safe(ctx)
	if err == nil {
		return nil
	}
	a := q.refused(auditUnavailable, err.Error())
	a.retryAfter = unsafePause
	return &a
}

// tellExposed writes the tokens that a stream has captured into the trail, as
// soon as one is found, until stop. What Postgres does not take is tried again.
func (i *Issuer) tellExposed(ctx context.Context, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			i.ExposedSoFar(ctx)
			return
		case found := <-i.Conn.Captures():
			i.tellUntilWritten(ctx, found, stop)
		}
	}
}

// ExposedSoFar writes the tokens of the streams that were found and not told of
// yet. It is for a service that refuses to start because of such a stream.
func (i *Issuer) ExposedSoFar(ctx context.Context) {
	for {
		select {
		case found := <-i.Conn.Captures():
			if err := i.exposed(ctx, found); err != nil {
				i.Log.ErrorContext(ctx, "exposed tokens not written down", "reason", found.Stream, "err", err)
			}
		default:
			return
		}
	}
}

func (i *Issuer) tellUntilWritten(ctx context.Context, found queue.Capture, stop <-chan struct{}) {
	for said := false; ; said = true {
		err := i.exposed(ctx, found)
		if err == nil {
			return
		}
		if !said {
			i.Log.ErrorContext(ctx, "exposed tokens not written down, trying again", "reason", found.Stream, "err", err)
		}
		select {
		case <-stop:
			return
		case <-time.After(exposedAgain):
		}
	}
}

// exposed names in the trail each token that a stream may have captured. It names
// those of all replicas, since the one that handed a token out may be gone, and
// each token once for each stream.
func (i *Issuer) exposed(ctx context.Context, found queue.Capture) error {
	now, err := i.clock(ctx)
	if err != nil {
		return err
	}
	span := found.For
	if span == 0 {
		span = tokenLife
	}
	span = min(span, tokenLife)

	// A row says issued up to outcomeLimit before its answer goes out.
	window := time.Since(found.Found) + span + outcomeLimit
	var again []db.TokenKey
	for _, key := range i.turns.sentSince(time.Now().Add(-window)) {
		again = append(again, db.TokenKey{Host: key.host, RequestID: key.id})
	}
	var rows []fleet.TokenRequest
	err = i.inTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		rows, err = tx.ExposedTokens(ctx, found.Stream, now.Add(-window), again)
		if err != nil {
			return err
		}
		events := make([]fleet.AuditEvent, 0, len(rows))
		for _, row := range rows {
			e := event(fleet.AuditTokenExposed, row, now)
			e.Actor = fleet.System
			e.Reason = fmt.Sprintf("stream %s captures %s: the token was handed out meanwhile and may lie in it", printable(found.Stream), found.Subject)
			e.Details["stream"] = printable(found.Stream)
			events = append(events, e)
		}
		return tx.Audit(ctx, events...)
	})
	if err != nil {
		return fmt.Errorf("name the tokens that stream %s captured: %w", found.Stream, err)
	}
	if len(rows) > 0 {
		i.Log.ErrorContext(ctx, "tokens were captured by a stream", "reason", printable(found.Stream), "counts", len(rows))
	}
	return nil
}

package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/queue"
)

const (
	// quotaWindow is what PerHour counts over.
	quotaWindow = time.Hour
	// livePause is when to ask again where MaxLive is reached: a sync may have
	// found runners gone by then.
	livePause = time.Minute
)

// issue records what it is about to do, does it, and records how it went.
func (i *Issuer) issue(ctx context.Context, q request, now time.Time) answer {
	target := i.Targets()[q.target]
	grant, _ := authorise(i.Grants(), q)
	var row fleet.TokenRequest
	var no *answer
	err := i.inTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		if err := tx.LockHost(ctx, q.host); err != nil {
			return err
		}
		attempts, firstBody, err := tx.TokenAttempts(ctx, q.host, q.id)
		if err != nil {
			return err
		}
		row = fleet.TokenRequest{
			RequestID: q.id, Attempt: attempts + 1, Host: q.host, Target: q.target, Kind: q.kind,
			Outcome: fleet.TokenRequested, BodySHA256: q.bodySHA256, DemandID: q.demandID, RequestedAt: now,
		}
		no = i.notGranted(q)
		if no == nil {
			no, err = i.check(ctx, tx, q, target, grant, attempts > 0 && firstBody != q.bodySHA256, now)
			if err != nil {
				return err
			}
		}
		if no != nil {
			row.Outcome, row.Code, row.Reason = fleet.TokenDenied, no.refusal.code, no.reason
			written, err := tx.RefusalsSince(ctx, q.host, row.Code, now.Add(-refusalWindow))
			if err != nil {
				return err
			}
			no.counted = !i.refusals.keep(no.sum().key, written, time.Now())
			if no.counted {
				return nil
			}
		}
		return i.open(ctx, tx, row)
	})
	if err != nil {
		return q.refused(auditUnavailable, err.Error())
	}
	if no != nil {
		if no.counted {
			i.refusals.count(no.sum(), time.Now())
		}
		return *no
	}

	url, token, err := i.mint(ctx, target, q.kind, now)
	if err != nil {
		return i.settleFailure(ctx, q, row, err)
	}
	minted := q.kind != fleet.TokenRegistration || !target.ShareRegistration
	return i.settleToken(ctx, q, row, url, token, minted)
}

// notGranted is the refusal of a request that no grant covers; nil: one does. It
// asks nobody.
func (i *Issuer) notGranted(q request) *answer {
	if _, known := i.Targets()[q.target]; !known {
		a := q.refused(denied, "there is no such target")
		return &a
	}
	if _, granted := authorise(i.Grants(), q); !granted {
		a := q.refused(denied, fmt.Sprintf("no grant gives this host %s tokens of this target", q.kind))
		return &a
	}
	return nil
}

// check looks for what speaks against a request that a grant covers; nil:
// nothing does.
func (i *Issuer) check(
	ctx context.Context, tx *db.Tx, q request, t Target, g Grant, otherBody bool, now time.Time,
) (*answer, error) {
	no := func(why refusal, reason string, retryAfter time.Duration) (*answer, error) {
		a := q.refused(why, reason)
		a.retryAfter = retryAfter
		return &a, nil
	}
	var identity *db.IdentityError
	err := tx.EnsureTarget(ctx, t.Target, now)
	switch {
	case errors.As(err, &identity):
		return no(denied, err.Error(), 0)
	case err != nil:
		return nil, err
	}
	lease, err := demanded(ctx, tx, q)
	switch {
	case err != nil:
		return nil, err
	case lease.State != "" && lease.Target != q.target:
		return no(denied, fmt.Sprintf("lease %s is of another target, %s", lease.RequestID, lease.Target), 0)
	case otherBody:
		return no(conflict, "the request id was used with another body before", 0)
	case lease.State != "":
		if why := claimable(lease, q.host, now); why != "" {
			return no(leaseOver, why, 0)
		}
	}
	if g.PerHour > 0 {
		n, oldest, err := tx.TokensSince(ctx, q.host, now.Add(-quotaWindow))
		if err != nil {
			return nil, err
		}
		if n >= g.PerHour {
			return no(quota, fmt.Sprintf("%d tokens within the hour, %d allowed", n, g.PerHour), oldest.Add(quotaWindow).Sub(now))
		}
	}
	// Who takes a runner away is not to be kept from it by too many of them.
	if g.MaxLive > 0 && q.kind != fleet.TokenRemoval {
		if err := tx.LockGrant(ctx, g.lock()); err != nil {
			return nil, err
		}
		n, err := tx.LiveWithin(ctx, g.reach(), now)
		if err != nil {
			return nil, err
		}
		if n >= g.MaxLive {
			return no(quota, fmt.Sprintf("%d tokens and runners are live under the grant, %d allowed", n, g.MaxLive), livePause)
		}
	}
	if q.kind == fleet.TokenJIT {
		return no(kindUnsupported, "jit tokens are not there yet", 0)
	}
	if lease.State == fleet.LeaseRequested {
		return nil, tx.ClaimLease(ctx, lease.RequestID, q.host, now)
	}
	return nil, nil
}

// open stores an intent or a refusal, with the event that tells of it.
func (i *Issuer) open(ctx context.Context, tx *db.Tx, row fleet.TokenRequest) error {
	if err := tx.AddToken(ctx, row); err != nil {
		return err
	}
	if row.Outcome == fleet.TokenRequested {
		return tx.Audit(ctx, event(fleet.AuditTokenIntended, row, row.RequestedAt))
	}
	if err := tx.Audit(ctx, event(fleet.AuditTokenDenied, row, row.RequestedAt)); err != nil {
		return err
	}
	return publish(ctx, tx, "token.denied", row, row.RequestedAt)
}

func (i *Issuer) mint(ctx context.Context, t Target, kind fleet.TokenKind, now time.Time) (string, fleet.Token, error) {
	url, err := t.WebURL()
	if err != nil {
		return "", fleet.Token{}, err
	}
	if kind == fleet.TokenRegistration && t.ShareRegistration {
		token, err := i.shared.get(ctx, t, now)
		return url, token, err
	}
	ctx, cancel := context.WithTimeout(ctx, mintLimit)
	defer cancel()
	call := t.GitHub.RegistrationToken
	if kind == fleet.TokenRemoval {
		call = t.GitHub.RemovalToken
	}
	token, err := call(ctx, t.Scope)
	return url, token, err
}

// settleToken records that a token is about to be handed out. Where that does
// not succeed, it is not handed out. A token that GitHub minted for this request
// ends an earlier refusal of the credential.
func (i *Issuer) settleToken(ctx context.Context, q request, row fleet.TokenRequest, url string, token fleet.Token, minted bool) answer {
	auditID := uuid.Must(uuid.NewV7()).String()
	err := i.settle(ctx, func(ctx context.Context, tx *db.Tx, now time.Time) error {
		row.Outcome, row.IssuedAt = fleet.TokenIssued, now
		row.ExpiresAt, row.Fingerprint = token.ExpiresAt, token.Secret.Fingerprint()
		if minted {
			if err := tx.CredentialAnswered(ctx, row.Target, db.AnsweredMint, row.RequestedAt, now); err != nil {
				return err
			}
		}
		if err := tx.SettleToken(ctx, row); err != nil {
			return err
		}
		e := event(fleet.AuditTokenIssued, row, now)
		e.ID = auditID
		if err := tx.Audit(ctx, e); err != nil {
			return err
		}
		return publish(ctx, tx, "token.issued", row, now)
	})
	if err != nil {
		return q.refused(auditUnavailable, err.Error())
	}
	return answer{request: q, auditID: auditID, url: url, token: token, issuedAt: row.IssuedAt}
}

// settleFailure records that GitHub gave no token.
func (i *Issuer) settleFailure(ctx context.Context, q request, row fleet.TokenRequest, cause error) answer {
	a := q.refused(githubError, failure(cause))
	var gh *github.Error
	if errors.As(cause, &gh) {
		a.retryAfter = gh.Wait
	}
	err := i.settle(ctx, func(ctx context.Context, tx *db.Tx, now time.Time) error {
		row.Outcome, row.Code, row.Reason = fleet.TokenFailed, a.refusal.code, a.reason
		if err := tx.SettleToken(ctx, row); err != nil {
			return err
		}
		if err := tx.Audit(ctx, event(fleet.AuditTokenFailed, row, now)); err != nil {
			return err
		}
		// Not for a 403: rights to list and rights to mint differ, and the next
		// sync would take the mark away again.
		if errors.Is(cause, fleet.ErrUnauthorized) {
			return tx.RefuseCredential(ctx, row.Target, db.RefusedList, a.reason, now)
		}
		return nil
	})
	if err != nil {
		return q.refused(auditUnavailable, err.Error())
	}
	return a
}

// settle records an outcome also where the request has used its time up or the
// stop has come.
func (i *Issuer) settle(ctx context.Context, do func(context.Context, *db.Tx, time.Time) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeLimit)
	defer cancel()
	now, err := i.Now(ctx)
	if err != nil {
		return err
	}
	return i.DB.InTx(ctx, func(tx *db.Tx) error { return do(ctx, tx, now) })
}

// failure puts why GitHub gave no token in words of ours and the class of its
// status: bodies of a service that hands out secrets have no place in a record.
func failure(err error) string {
	kind := "no token"
	for _, known := range []error{
		fleet.ErrRateLimited, fleet.ErrUnauthorized, fleet.ErrForbidden, fleet.ErrNotFound, fleet.ErrUnavailable, fleet.ErrMalformed,
	} {
		if errors.Is(err, known) {
			kind = known.Error()
			break
		}
	}
	var gh *github.Error
	if errors.As(err, &gh) && gh.Status != 0 {
		return fmt.Sprintf("%s (%dxx)", kind, gh.Status/100)
	}
	return kind + " (no answer)"
}

// event is an entry of the trail for one attempt.
func event(code fleet.AuditCode, row fleet.TokenRequest, at time.Time) fleet.AuditEvent {
	details := map[string]any{"request_id": row.RequestID, "attempt": row.Attempt, "kind": string(row.Kind)}
	if row.Code != 0 {
		details["code"] = row.Code
	}
	if row.Count > 1 {
		details["count"] = row.Count
	}
	if row.DemandID != "" {
		details["demand_id"] = row.DemandID
	}
	if row.Fingerprint != "" {
		details["fingerprint"] = row.Fingerprint
		details["expires_at"] = row.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return fleet.AuditEvent{
		At: at, Code: code, Actor: fleet.Actor{Type: fleet.ActorHost, Name: row.Host},
		Target: row.Target, Host: row.Host, Reason: row.Reason, Details: details,
	}
}

// tokenData is what an event says of an attempt, by the columns of api.tokens.
type tokenData struct {
	RequestID   string    `json:"request_id"`
	Attempt     int       `json:"attempt"`
	Host        string    `json:"host"`
	Target      string    `json:"target"`
	Kind        string    `json:"kind"`
	Outcome     string    `json:"outcome"`
	Code        int       `json:"code,omitempty"`
	RequestedAt time.Time `json:"requested_at"`
	IssuedAt    time.Time `json:"issued_at,omitzero"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	Count       int       `json:"count"`
}

func publish(ctx context.Context, tx *db.Tx, eventType string, row fleet.TokenRequest, at time.Time) error {
	m, err := queue.Event(eventType, row.Target, row.Host, at, tokenData{
		RequestID: row.RequestID, Attempt: row.Attempt, Host: row.Host, Target: row.Target,
		Kind: string(row.Kind), Outcome: string(row.Outcome), Code: row.Code, RequestedAt: row.RequestedAt,
		IssuedAt: row.IssuedAt, ExpiresAt: row.ExpiresAt, Fingerprint: row.Fingerprint, Count: max(row.Count, 1),
	})
	if err != nil {
		return err
	}
	return tx.Enqueue(ctx, m)
}

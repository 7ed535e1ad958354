package db_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func request(host string, at time.Time) fleet.TokenRequest {
	return fleet.TokenRequest{
		RequestID: uuid.NewString(), Attempt: 1, Host: host, Target: "acme", Kind: fleet.TokenRegistration,
		Outcome: fleet.TokenRequested, BodySHA256: "body", RequestedAt: at,
	}
}

func issue(r fleet.TokenRequest, at time.Time) fleet.TokenRequest {
	r.Outcome, r.IssuedAt, r.ExpiresAt, r.Fingerprint = fleet.TokenIssued, at, at.Add(time.Hour), "sha256:0011223344556677"
	return r
}

// token stores a request and, where it is not requested only, its outcome.
func (w *world) token(r fleet.TokenRequest) {
	w.Helper()
	w.tx(func(tx *db.Tx) error {
		intent := r
		intent.Outcome = fleet.TokenRequested
		if err := tx.AddToken(w.ctx, intent); err != nil || r.Outcome == fleet.TokenRequested {
			return err
		}
		return tx.SettleToken(w.ctx, r)
	})
}

func TestTokenAttempts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := request("build-01", t0)
	check := func(host string, wantN int, wantBody string) {
		t.Helper()
		w.tx(func(tx *db.Tx) error {
			n, body, err := tx.TokenAttempts(w.ctx, host, r.RequestID)
			if n != wantN || body != wantBody {
				t.Errorf("TokenAttempts(%s) = %d, %q, want %d, %q", host, n, body, wantN, wantBody)
			}
			return err
		})
	}
	check("build-01", 0, "")
	w.token(r)
	again := r
	again.Attempt, again.BodySHA256 = 2, "other"
	w.token(again)
	check("build-01", 2, "body")
	check("build-02", 0, "")
}

func TestTokenIsSettledOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := issue(request("build-01", t0), t0)
	w.token(r)
	conflict(t, "SettleToken again", w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.SettleToken(w.ctx, r) }))
	w.want("1 build-01 acme registration issued sha256:0011223344556677", `
		SELECT concat_ws(' ', attempt, host, target, kind, outcome, code, fingerprint, runner_id) FROM api.tokens`)
}

func TestTokensSinceCountsWhatMayHaveBeenGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := func(minutes int) time.Time { return t0.Add(time.Duration(minutes) * time.Minute) }
	denied, unknown, failed := request("h", at(2)), request("h", at(3)), request("h", at(4))
	denied.Outcome, unknown.Outcome, failed.Outcome = fleet.TokenDenied, fleet.TokenUnknown, fleet.TokenFailed
	for _, r := range []fleet.TokenRequest{
		request("h", at(0)), issue(request("h", at(1)), at(1)), denied, unknown, failed, request("other", at(1)),
	} {
		w.token(r)
	}
	w.tx(func(tx *db.Tx) error {
		n, oldest, err := tx.TokensSince(w.ctx, "h", at(0))
		if n != 2 || !oldest.Equal(at(1)) {
			t.Errorf("TokensSince = %d, %v, want the issued and the unknown one", n, oldest)
		}
		if err != nil {
			return err
		}
		n, oldest, err = tx.TokensSince(w.ctx, "nobody", at(0))
		if n != 0 || !oldest.IsZero() {
			t.Errorf("TokensSince of nobody = %d, %v", n, oldest)
		}
		return err
	})
}

func TestLiveWithinCountsHostsByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	live := func(r db.Reach, now time.Time) int {
		t.Helper()
		var n int
		w.tx(func(tx *db.Tx) error {
			var err error
			n, err = tx.LiveWithin(w.ctx, r, now)
			return err
		})
		return n
	}
	grant := db.Reach{Hosts: []string{"build-01"}, HostPrefix: "gpu-", Targets: []string{"acme"}}
	removal := issue(request("gpu-1", t0), t0)
	removal.Kind = fleet.TokenRemoval
	elsewhere := issue(request("gpu-1", t0), t0)
	elsewhere.Target = "widgets"
	for _, r := range []fleet.TokenRequest{
		issue(request("gpu-1", t0), t0), issue(request("gpu-1", t0), t0), request("build-01", t0),
		issue(request("build-011", t0), t0), issue(request("gp", t0), t0), removal, elsewhere,
	} {
		w.token(r)
	}
	if n := live(grant, t0); n != 3 {
		t.Errorf("%d live, want 3 tokens", n)
	}
	// A runner that appeared since takes the place of one token.
	w.exec(`INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, fingerprint, host, first_seen_at, seen_at, status_since)
		VALUES ('acme', 1, 'gpu-1', 'linux', 'online', false, '{}', 0, 'gpu-1', $1, $1, $1)`, t0.Add(time.Minute))
	if n := live(grant, t0.Add(time.Minute)); n != 3 {
		t.Errorf("%d live, want 2 tokens and 1 runner", n)
	}
	if n := live(grant, t0.Add(2*time.Hour)); n != 2 {
		t.Errorf("%d live after the tokens expired, want the open intent and 1 runner", n)
	}
	if n := live(db.Reach{Hosts: []string{"build-01"}, Targets: []string{"acme"}}, t0); n != 1 {
		t.Errorf("%d live without a prefix, want 1", n)
	}
}

func TestForgottenTokensAreUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stale, fresh := request("h", t0), request("h", t0.Add(time.Minute))
	w.token(stale)
	w.token(fresh)
	w.token(issue(request("h", t0), t0))
	held := request("h", t0)
	w.token(held)
	lock := connect(t, w.url)
	mustExec(t, lock, `BEGIN`)
	mustExec(t, lock, `SELECT FROM muster.token WHERE request_id = $1 FOR UPDATE`, held.RequestID)
	w.tx(func(tx *db.Tx) error {
		forgotten, err := tx.ForgetTokens(w.ctx, t0.Add(time.Minute))
		if len(forgotten) != 1 || forgotten[0].RequestID != stale.RequestID || forgotten[0].Outcome != fleet.TokenUnknown || forgotten[0].Target != "acme" {
			t.Errorf("ForgetTokens = %+v, want the stale one that nobody is settling", forgotten)
		}
		return err
	})
	conflict(t, "SettleToken of a forgotten one", w.db.InTx(w.ctx, func(tx *db.Tx) error {
		return tx.SettleToken(w.ctx, issue(stale, t0.Add(time.Minute)))
	}))
}

func TestTokenLocksHoldAcrossTransactions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tx(func(tx *db.Tx) error {
		if err := tx.LockHost(w.ctx, "h"); err != nil {
			return err
		}
		if err := tx.LockGrant(w.ctx, "g"); err != nil {
			return err
		}
		w.want("false false true", `SELECT concat_ws(' ',
			pg_try_advisory_xact_lock(hashtextextended('muster.token.host:h', 0))::text,
			pg_try_advisory_xact_lock(hashtextextended('muster.token.grant:g', 0))::text,
			pg_try_advisory_xact_lock(hashtextextended('muster.token.host:other', 0))::text)`)
		return nil
	})
	w.want("true", `SELECT pg_try_advisory_xact_lock(hashtextextended('muster.token.host:h', 0))`)
}

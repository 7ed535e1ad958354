package main

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/remove"
)

// reconciled is what a record and GitHub's log agree on.
type reconciled struct {
	deleted int // DELETEs that took effect
	minted  int
	unknown int // of those minted: nobody lived to record the outcome
}

// reconcile sets the record against GitHub's own log: each deletion and each
// token that GitHub knows of was intended before and is recorded once, the
// record claims no other, and no intent is open.
func reconcile(t testing.TB, w *world) reconciled {
	t.Helper()
	for _, open := range []string{
		`SELECT count(*) FROM api.actions WHERE state = 'intended'`,
		`SELECT count(*) FROM api.tokens WHERE outcome = 'requested'`,
	} {
		if n := w.value(open); n != "0" {
			t.Errorf("%s = %s, want no open intent", open, n)
		}
	}
	r := reconciled{deleted: reconcileDeletions(t, w)}
	r.minted, r.unknown = reconcileTokens(t, w)
	return r
}

// deletions are the DELETEs that took effect, as GitHub saw them.
func deletions(sim *githubsim.Sim) []githubsim.Event {
	return slices.DeleteFunc(sim.Log(), func(e githubsim.Event) bool { return e.Method != "DELETE" || !e.Acted })
}

// mints are the tokens that GitHub made.
func mints(sim *githubsim.Sim) []githubsim.Event {
	return slices.DeleteFunc(sim.Log(), func(e githubsim.Event) bool { return e.Method != "POST" || !e.Acted })
}

// action is a deletion as it was recorded, with what has to lie around it.
type action struct {
	id, scope, runner, state, reason, verdict, cause string
	intents, outcomes                                string // numbers of audit events
	intendedAt                                       time.Time
}

// wantCause is whose doing the removal was: where nobody lived to hear GitHub's
// answer, it may as well have been somebody else.
func (a action) wantCause() fleet.RemovalCause {
	if a.state == string(fleet.ActionDone) || a.reason == remove.ReasonUnanswered {
		return fleet.CausePolicy
	}
	return fleet.CauseUnknown
}

func recordedActions(t testing.TB, w *world) []action {
	t.Helper()
	var all []action
	for _, row := range w.rows(`
		WITH event AS MATERIALIZED ( -- each payload is read once
			SELECT payload->'details'->>'action_id' AS action_id, code, outcome, occurred_at
			FROM api.audit
			WHERE action = 'runner.delete'
		)
		SELECT a.action_id::text, t.scope, a.runner_id::text, a.state, a.reason, d.verdict, r.removal_cause,
			count(e.action_id) FILTER (WHERE e.code = 'RN100I')::text,
			count(e.action_id) FILTER (WHERE e.outcome = a.state)::text,
			(min(e.occurred_at) FILTER (WHERE e.code = 'RN100I'))::text
		FROM api.actions a
		JOIN api.targets t USING (target)
		LEFT JOIN api.decisions d USING (decision_id)
		LEFT JOIN api.runners r ON r.target = a.target AND r.runner_id = a.runner_id
		LEFT JOIN event e ON e.action_id = a.action_id::text
		GROUP BY a.action_id, t.scope, a.runner_id, a.state, a.reason, d.verdict, r.removal_cause`) {
		all = append(all, action{row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], parseTime(t, row[9])})
	}
	return all
}

// parseTime reads a timestamptz as Postgres writes it.
func parseTime(t testing.TB, text string) time.Time {
	t.Helper()
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse("2006-01-02 15:04:05.999999-07", text)
	if err != nil {
		t.Fatalf("a time of the record: %v", err)
	}
	return at
}

func reconcileDeletions(t testing.TB, w *world) int {
	t.Helper()
	acted := deletions(w.sim)
	claimed := map[string][]action{} // by scope and runner
	for _, a := range recordedActions(t, w) {
		if a.verdict != string(fleet.VerdictAct) || a.intents != "1" || a.outcomes != "1" {
			t.Errorf("action %s on runner %s (%s) has verdict %q, %s audit events of its intent and %s of its outcome, want act, 1 and 1",
				a.id, a.runner, a.state, a.verdict, a.intents, a.outcomes)
		}
		if a.state == string(fleet.ActionDone) || a.state == string(fleet.ActionGone) {
			key := a.scope + " " + a.runner
			claimed[key] = append(claimed[key], a)
		}
	}
	for _, e := range acted {
		key := e.Scope + " " + strconv.FormatInt(e.RunnerID, 10)
		as := claimed[key]
		delete(claimed, key)
		switch {
		case len(as) != 1:
			t.Errorf("GitHub deleted runner %s once, and %d actions claim it: %+v", key, len(as), as)
		case as[0].intendedAt.IsZero() || as[0].intendedAt.After(e.At):
			t.Errorf("GitHub deleted runner %s at %s, the intent is of %s", key, e.At, as[0].intendedAt)
		case as[0].cause != string(as[0].wantCause()):
			t.Errorf("runner %s was deleted (%s), and recorded as removed by %q, want %q", key, as[0].state, as[0].cause, as[0].wantCause())
		}
	}
	for key, as := range claimed {
		t.Errorf("%d actions claim the deletion of runner %s, which GitHub never saw", len(as), key)
	}
	return len(acted)
}

// tokenRow is an attempt at a token as it was recorded.
type tokenRow struct {
	scope, kind, outcome, fingerprint string
	intents                           string // number of audit events
	intendedAt                        time.Time
}

func recordedTokens(t testing.TB, w *world) []tokenRow {
	t.Helper()
	var all []tokenRow
	for _, row := range w.rows(`
		SELECT coalesce(t.scope, ''), k.kind, k.outcome, k.fingerprint,
			count(e.*)::text, min(e.occurred_at)::text
		FROM api.tokens k
		LEFT JOIN api.targets t USING (target)
		LEFT JOIN api.audit e ON e.code = 'TK100I' AND e.host = k.host
			AND e.payload->'details'->>'request_id' = k.request_id::text
			AND e.payload->'details'->>'attempt' = k.attempt::text
		WHERE k.outcome <> 'denied'
		GROUP BY k.host, k.request_id, k.attempt, t.scope, k.kind, k.outcome, k.fingerprint, k.requested_at
		ORDER BY k.requested_at DESC`) {
		all = append(all, tokenRow{row[0], row[1], row[2], row[3], row[4], parseTime(t, row[5])})
	}
	return all
}

func reconcileTokens(t testing.TB, w *world) (minted, unknown int) {
	t.Helper()
	rows := recordedTokens(t, w)
	for _, r := range rows {
		if r.intents != "1" {
			t.Errorf("a %s request for a %s token has %s audit events of its intent, want 1", r.outcome, r.kind, r.intents)
		}
	}
	known := map[string]bool{}
	lost := make([]bool, len(rows)) // whose mint was found
	all := mints(w.sim)
	for _, e := range all {
		known[e.Token] = true
		kind := string(fleet.TokenRegistration)
		if e.Path[len(e.Path)-len("/remove-token"):] == "/remove-token" {
			kind = string(fleet.TokenRemoval)
		}
		before := func(r tokenRow) bool {
			return r.scope == e.Scope && r.kind == kind && !r.intendedAt.IsZero() && !r.intendedAt.After(e.At)
		}
		if slices.ContainsFunc(rows, func(r tokenRow) bool { return r.fingerprint == e.Token && before(r) }) {
			continue
		}
		// Whoever minted it did not live to record it. The newest intent
		// before it is its own.
		i := -1
		for j, r := range rows {
			if r.outcome == string(fleet.TokenUnknown) && !lost[j] && before(r) {
				i = j
				break
			}
		}
		if i < 0 {
			t.Errorf("GitHub minted a %s token at %s, and nothing in the record intended it", kind, e.At)
			continue
		}
		lost[i] = true
		unknown++
	}
	for _, r := range rows {
		if r.outcome == string(fleet.TokenIssued) && !known[r.fingerprint] {
			t.Errorf("the record says that a token %s was issued, which GitHub never minted", r.fingerprint)
		}
	}
	return len(all), unknown
}

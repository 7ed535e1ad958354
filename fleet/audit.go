package fleet

import (
	"fmt"
	"time"
)

// AuditOutcome is how the thing that an audit event tells of came out.
type AuditOutcome string

const (
	OutcomeIntended AuditOutcome = "intended"
	OutcomeDone     AuditOutcome = "done"
	OutcomeGone     AuditOutcome = "gone"
	OutcomeSpared   AuditOutcome = "spared"
	OutcomeFailed   AuditOutcome = "failed"
	OutcomeDenied   AuditOutcome = "denied"
	OutcomeUnknown  AuditOutcome = "unknown"
	OutcomeNoted    AuditOutcome = "noted"
)

// ActorType is what kind of thing an actor is.
type ActorType string

const (
	ActorCron   ActorType = "cron"
	ActorNATS   ActorType = "nats"
	ActorCLI    ActorType = "cli"
	ActorHost   ActorType = "host"
	ActorPolicy ActorType = "policy"
	ActorSystem ActorType = "system"
)

// Actor is who did it: the host, the policy, the operating-system user at the
// command line, or "muster" for what the system does by itself.
type Actor struct {
	Type ActorType
	Name string
}

// System is muster itself.
var System = Actor{Type: ActorSystem, Name: "muster"}

// AuditEvent is one entry of the trail. It is written once, in the transaction
// of the thing it tells of, and never changed. Its Code fixes what it is:
// action, outcome and required fields come from the registry below.
type AuditEvent struct {
	ID         string    // UUIDv7; made by the store where empty
	At         time.Time // made by the store where zero
	Code       AuditCode
	Actor      Actor
	Target     string
	RunnerID   int64
	RunnerName string
	Host       string
	Policy     string
	TriggerID  string
	Reason     string
	// Details are the facts that have no column: numbers, hashes, ids of other
	// rows. Never a secret. Keys are stable; values strings, bools, numbers.
	Details map[string]any
}

// AuditCode is the stable number of one kind of event. A number is never given
// to another kind, also not after its own kind is gone. The letter says how
// loud it is: I informs, W wants a look, E wants a person.
type AuditCode string

const (
	AuditDeleteIntended AuditCode = "RN100I"
	AuditDeleteDone     AuditCode = "RN101I"
	AuditDeleteGone     AuditCode = "RN102I"
	AuditDeleteSpared   AuditCode = "RN103W"
	AuditDeleteFailed   AuditCode = "RN104E"
	AuditDeleteRefused  AuditCode = "RN105W"
	AuditRunnerVanished AuditCode = "RN110I"
	AuditRemovalCause   AuditCode = "RN111I"
	AuditRunnerHeld     AuditCode = "RN120I"
	AuditRunnerUnheld   AuditCode = "RN121I"
	AuditHostDrained    AuditCode = "RN130I"
	AuditHostReleased   AuditCode = "RN131I"
	AuditHostKept       AuditCode = "RN132W"

	AuditPolicyHalted  AuditCode = "PL220W"
	AuditPolicyResumed AuditCode = "PL221I"

	AuditTokenIntended   AuditCode = "TK100I"
	AuditTokenIssued     AuditCode = "TK101I"
	AuditTokenUnknown    AuditCode = "TK102E"
	AuditTokenDenied     AuditCode = "TK103W"
	AuditTokenFailed     AuditCode = "TK104E"
	AuditTokenExposed    AuditCode = "TK105E"
	AuditTokenBadRequest AuditCode = "TK108W"
	AuditTokenBadReply   AuditCode = "TK109W"

	AuditCredentialRefused  AuditCode = "TG300E"
	AuditCredentialAccepted AuditCode = "TG301I"
	AuditTargetNew          AuditCode = "TG302I"
	AuditTargetMended       AuditCode = "TG303I"
	AuditTargetRenamed      AuditCode = "TG304I"
	AuditTargetForgotten    AuditCode = "TG305W"

	AuditConfigRefused AuditCode = "CF700E"
	AuditConfigLoaded  AuditCode = "CF701I"

	AuditTickMissed AuditCode = "CR401W"

	AuditTriggerDead    AuditCode = "TR500E"
	AuditTriggerRetried AuditCode = "TR501I"
	AuditTriggerDropped AuditCode = "TR502I"

	AuditHousekept AuditCode = "HK600I"

	AuditScaleUp       AuditCode = "SC800I"
	AuditScaleDown     AuditCode = "SC801I"
	AuditLeasesExpired AuditCode = "SC802W"

	AuditClockStepped AuditCode = "CK900W"
)

// AuditKind is what a code stands for.
type AuditKind struct {
	Code    AuditCode
	Action  string
	Outcome AuditOutcome
	// Requires names the fields that must not be empty: target, runner_id,
	// runner_name, host, policy, trigger_id, reason, or details.KEY.
	Requires []string
	Meaning  string
}

// AuditKinds is the registry: every code once, every pair of action and
// outcome once.
var AuditKinds = []AuditKind{
	{AuditDeleteIntended, "runner.delete", OutcomeIntended, []string{"target", "runner_id", "runner_name", "policy", "details.action_id", "details.decision_id"}, "a deletion was decided and is about to be tried; reason is an operator's, or the decision's"},
	{AuditDeleteDone, "runner.delete", OutcomeDone, []string{"target", "runner_id", "policy", "reason", "details.action_id"}, "GitHub confirmed the deletion; reason is why it was wanted"},
	{AuditDeleteGone, "runner.delete", OutcomeGone, []string{"target", "runner_id", "policy", "details.action_id"}, "the runner was not registered any more"},
	{AuditDeleteSpared, "runner.delete", OutcomeSpared, []string{"target", "runner_id", "policy", "reason", "details.action_id"}, "the last look spoke against the deletion"},
	{AuditDeleteFailed, "runner.delete", OutcomeFailed, []string{"target", "runner_id", "policy", "reason", "details.action_id"}, "the deletion was tried and failed"},
	{AuditDeleteRefused, "runner.delete", OutcomeDenied, []string{"target", "policy", "reason"}, "an operator's deletion was refused by a guard"},
	{AuditRunnerVanished, "runner.vanish", OutcomeNoted, []string{"target", "runner_id", "reason"}, "a runner that muster did not remove is no longer registered; details.removal_cause says why, as far as it is known"},
	{AuditRemovalCause, "runner.cause", OutcomeNoted, []string{"target", "runner_id", "reason", "details.removal_cause"}, "why a runner is gone became known after it had been found gone"},
	{AuditRunnerHeld, "runner.hold", OutcomeNoted, []string{"target", "runner_id", "runner_name", "reason"}, "an operator wants a runner kept, until details.until or until it is lifted"},
	{AuditRunnerUnheld, "runner.unhold", OutcomeNoted, []string{"target", "runner_id", "runner_name", "reason"}, "an operator lifted the hold on a runner"},
	{AuditHostDrained, "host.drain", OutcomeDone, []string{"target", "runner_id", "runner_name", "host", "policy", "details.action_id", "details.decision_id"}, "a host said that no workflow job is on its runner, and lets it take none"},
	{AuditHostReleased, "host.release", OutcomeDone, []string{"target", "runner_id", "runner_name", "host", "policy", "details.action_id", "details.decision_id"}, "a host whose runner is gone is told that it is not needed any more"},
	{AuditHostKept, "host.release", OutcomeSpared, []string{"target", "runner_id", "runner_name", "host", "policy", "reason", "details.action_id", "details.decision_id"}, "a host whose runner is gone is not released, since it may be at work"},

	{AuditPolicyHalted, "policy.halt", OutcomeNoted, []string{"target", "policy", "reason"}, "a policy ran into its limit or its target's brake (details.halted_by is over_max or brake), and acts on nobody until it is resumed"},
	{AuditPolicyResumed, "policy.resume", OutcomeNoted, []string{"target", "policy", "reason"}, "an operator reopened a halted policy"},

	{AuditTokenIntended, "token.issue", OutcomeIntended, []string{"target", "host", "details.request_id", "details.kind"}, "a token was granted and is about to be fetched"},
	{AuditTokenIssued, "token.issue", OutcomeDone, []string{"target", "host", "details.request_id", "details.kind", "details.fingerprint"}, "a token was handed to a host"},
	{AuditTokenUnknown, "token.issue", OutcomeUnknown, []string{"target", "host", "details.request_id"}, "a token was intended and its outcome was never recorded: it may exist, unsent"},
	{AuditTokenDenied, "token.issue", OutcomeDenied, []string{"host", "reason", "details.request_id"}, "a request for a token was refused"},
	{AuditTokenFailed, "token.issue", OutcomeFailed, []string{"target", "host", "reason", "details.request_id"}, "GitHub gave no token"},
	{AuditTokenExposed, "token.expose", OutcomeNoted, []string{"target", "host", "reason", "details.request_id", "details.fingerprint", "details.stream"}, "a token was handed out while a stream captured answers, and may lie in it"},
	{AuditTokenBadRequest, "token.request", OutcomeDenied, []string{"host", "reason"}, "a request for a token could not be read"},
	{AuditTokenBadReply, "token.reply", OutcomeDenied, []string{"host", "reason"}, "a request asked for the answer in a place that is not its own, and got none"},

	{AuditCredentialRefused, "target.credential", OutcomeDenied, []string{"target", "reason"}, "GitHub refuses the credential of a target"},
	{AuditCredentialAccepted, "target.credential", OutcomeNoted, []string{"target"}, "GitHub accepts the credential of a target again"},
	{AuditTargetNew, "target.new", OutcomeNoted, []string{"target", "details.scope", "details.api_url"}, "a target was used for the first time: its scope and address are fixed by its first complete sync"},
	{AuditTargetMended, "target.mend", OutcomeNoted, []string{"target", "details.scope", "details.api_url"}, "the scope or address of a target was changed before its first complete sync; what had been listed before is dropped"},
	{AuditTargetRenamed, "target.rename", OutcomeDone, []string{"target", "details.from", "details.scope", "details.api_url"}, "an operator renamed a target: what was recorded under details.from is recorded under target now"},
	{AuditTargetForgotten, "target.forget", OutcomeDone, []string{"target", "details.scope", "details.api_url"}, "an operator had muster forget a target, with its runners, holds, workflow jobs and history; its events stay in the trail"},

	{AuditConfigRefused, "config.load", OutcomeDenied, []string{"reason"}, "a changed configuration or policy was refused: the one before goes on"},
	{AuditConfigLoaded, "config.load", OutcomeDone, nil, "a changed configuration came into force, with the policies in details.policies"},

	{AuditTickMissed, "tick.miss", OutcomeNoted, []string{"reason", "details.schedule", "details.tick_at"}, "a due moment passed its deadline with nobody there"},

	{AuditTriggerDead, "trigger.die", OutcomeFailed, []string{"reason", "details.subject"}, "a trigger failed for good; target, or details.pool, is as it asked"},
	{AuditTriggerRetried, "trigger.retry", OutcomeNoted, []string{"details.dead_letter_id"}, "an operator sent a dead trigger again"},
	{AuditTriggerDropped, "trigger.drop", OutcomeNoted, []string{"reason", "details.dead_letter_id"}, "an operator gave a dead trigger up"},

	{AuditHousekept, "housekeep", OutcomeDone, []string{"details.before"}, "records older than retain_days were deleted"},

	{AuditScaleUp, "scale.up", OutcomeDone, []string{"target", "reason", "details.pool", "details.change"}, "so many hosts more were asked for"},
	{AuditScaleDown, "scale.down", OutcomeNoted, []string{"target", "reason", "details.pool", "details.change"}, "a pool has so many hosts too many"},
	{AuditLeasesExpired, "lease.expire", OutcomeNoted, []string{"target", "reason", "details.pool", "details.leases"}, "hosts that were asked for were not online by their deadline"},

	{AuditClockStepped, "clock.step", OutcomeNoted, []string{"reason", "details.by"}, "Postgres's clock went back or leapt ahead; details.ticks were recorded while it was ahead, and are fired when they come"},
}

var auditKinds = func() map[AuditCode]AuditKind {
	m := make(map[AuditCode]AuditKind, len(AuditKinds))
	for _, k := range AuditKinds {
		m[k.Code] = k
	}
	return m
}()

// Kind looks the code up in the registry.
func (c AuditCode) Kind() (AuditKind, bool) {
	k, ok := auditKinds[c]
	return k, ok
}

// Valid reports what keeps the event out of the trail: an unknown code, or a
// field that its code requires and that is empty.
func (e AuditEvent) Valid() error {
	kind, ok := e.Code.Kind()
	if !ok {
		return fmt.Errorf("audit event: code %q is not in the registry", e.Code)
	}
	if e.Actor.Type == "" || e.Actor.Name == "" {
		return fmt.Errorf("audit event %s: no actor", e.Code)
	}
	for _, field := range kind.Requires {
		if !e.has(field) {
			return fmt.Errorf("audit event %s (%s): %s is required", e.Code, kind.Action, field)
		}
	}
	return nil
}

func (e AuditEvent) has(field string) bool {
	switch field {
	case "target":
		return e.Target != ""
	case "runner_id":
		return e.RunnerID != 0
	case "runner_name":
		return e.RunnerName != ""
	case "host":
		return e.Host != ""
	case "policy":
		return e.Policy != ""
	case "trigger_id":
		return e.TriggerID != ""
	case "reason":
		return e.Reason != ""
	}
	const prefix = "details."
	if len(field) <= len(prefix) || field[:len(prefix)] != prefix {
		return false
	}
	v, ok := e.Details[field[len(prefix):]]
	return ok && v != nil && v != ""
}

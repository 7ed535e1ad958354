package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/worker/enforce"
	"github.com/muster-fleet/muster/worker/scale"
)

// judge turns what was found of a target into lines. It is pure.
func (t *targetExam) judge(c *config, r *recordExam) []check {
	s := &sheet{target: t.Name}
	if t.secret != nil {
		s.add(levelFail, "credential", "put it there", "%s", oneLine(t.secret))
	} else {
		t.judgeCredential(s)
		t.judgeScope(s)
		if t.x.Err == nil {
			t.judgePermission(s, c, r)
		}
		t.judgeClock(s, r)
		t.judgeRate(s)
	}
	if err := t.webhookFaults.err(); err != nil {
		s.add(levelFail, "webhook", "until then muster serve neither starts nor takes a changed configuration up", "%s", oneLine(err))
	}
	t.judgeBounds(s, c)
	if r.readable() {
		h, used := r.targets[t.Name]
		t.judgeServer(s, h)
		t.judgeRecord(s, c, h, used, r)
		pools := scale.Of(c.pools, t.Name)
		t.judgeEvents(s, len(pools) > 0, h, r)
		if len(pools) > 0 {
			judgeDemand(s, r.hearings[t.Name].Reconciliation, r.now)
			judgeLeases(s, pools, r.leases[t.Name])
			judgeFindings(s, t.Name, r.findings)
		}
	}
	return s.checks
}

func (t *targetExam) judgeCredential(s *sheet) {
	x := t.x
	var e *github.Error
	switch {
	case errors.As(x.Err, &e) && e.Op == github.OpInstallationToken, errors.Is(x.Err, fleet.ErrUnauthorized):
		l := levelFail
		if !refusedBy(x.Err) {
			l = levelWarn // nobody has said anything against it
		}
		s.add(l, "credential", "", "%s", oneLine(x.Err))
		return
	case x.Answered.IsZero():
		return // the scope's line says that nobody answered
	}
	kind := "fine-grained token"
	switch {
	case t.auth.app != 0:
		s.ok("credential", "App %d, installation %d", t.auth.app, t.auth.installation)
		return
	case x.Classic && len(x.Scopes) == 0:
		kind = "classic token without any scope"
	case x.Classic:
		kind = "classic token with " + strings.Join(x.Scopes, ", ")
	}
	left := x.Expires.Sub(x.ServerTime)
	switch {
	case x.Expires.IsZero() || x.ServerTime.IsZero():
		s.ok("credential", "%s; GitHub names no end of it", kind)
	case left <= 0:
		s.add(levelFail, "credential", t.renew(), "%s; it ended %s", kind, moment(x.Expires))
	case left < expiryWarn:
		s.add(levelWarn, "credential", t.renew(), "%s; it ends in %s, on %s", kind, span(left), moment(x.Expires))
	default:
		s.ok("credential", "%s; it ends in %s", kind, span(left))
	}
}

func (t *targetExam) renew() string { return "put a new token into the " + t.auth.source }

func (t *targetExam) judgeScope(s *sheet) {
	x := t.x
	switch {
	case x.Err == nil:
		s.ok("scope", "runners in %s: %d", t.Scope, x.Runners)
		return
	case errors.Is(x.Err, fleet.ErrRateLimited):
		s.add(levelWarn, "scope", "", "%s", oneLine(x.Err))
		return
	}
	mend := ""
	if may, enough := github.MayAct(t.Scope.Kind, x.Scopes); x.Classic && !may && refusedBy(x.Err) {
		mend = "the token has none of the OAuth scopes " + strings.Join(enough, ", ")
	} else if errors.Is(x.Err, fleet.ErrForbidden) && x.Wants != "" {
		mend = "GitHub wants the permission " + x.Wants
	}
	var e *github.Error
	if errors.As(x.Err, &e) && (e.Op == github.OpInstallationToken || errors.Is(e.Kind, fleet.ErrUnauthorized)) {
		return // the credential's line has said it
	}
	s.add(levelFail, "scope", mend, "%s", oneLine(x.Err))
}

// judgePermission says whether muster may delete and get tokens, as far as that
// can be known without doing it. GitHub lists to some who may not.
func (t *targetExam) judgePermission(s *sheet, c *config, r *recordExam) {
	missing := levelWarn
	if c.acts(t.Name) {
		missing = levelFail
	}
	permission := github.ActPermission(t.Scope.Kind)
	may, enough := github.MayAct(t.Scope.Kind, t.x.Scopes)
	h := r.targets[t.Name]
	switch {
	case h.FaultOf == db.RefusedAct:
		s.add(levelFail, "permission", "once GitHub allows it, muster goes on by itself within a quarter of an hour", "%s", h.CredentialFault)
	case t.permissions != nil && t.permissions[permission] != "write":
		has := t.permissions[permission]
		if has == "" {
			has = "none"
		}
		s.add(missing, "permission", "give the App write access and have its installation accept that",
			"%s is %s: neither deletions nor tokens", permission, has)
	case t.permissions != nil:
		s.ok("permission", "%s is write", permission)
	case t.x.Classic && !may:
		s.add(missing, "permission", "give the token one of the OAuth scopes "+strings.Join(enough, ", "), "it may list, and its OAuth scopes do not suffice to act")
	case t.x.Classic:
		s.ok("permission", "its OAuth scopes suffice")
	case !h.LastActAt.IsZero():
		s.ok("permission", "GitHub let muster act on %s", moment(h.LastActAt))
	default:
		s.ok("permission", "it may list; whether %s is write shows when muster first acts", permission)
	}
}

// acts reports whether anything configured deletes runners of a target or gets
// tokens for it.
func (c *config) acts(target string) bool {
	for _, g := range c.grants {
		if slices.Contains(g.Targets, target) {
			return true
		}
	}
	for _, p := range enforce.Covering(c.policies, target) {
		if p.Enforcement == fleet.EnforcementEnforce {
			return true
		}
	}
	return false
}

// judgeClock takes the worse of the differences to this host and to Postgres,
// whose clock is the one that counts.
func (t *targetExam) judgeClock(s *sheet, r *recordExam) {
	ahead, within, known := t.x.Offset()
	if !known {
		return
	}
	than := "this host"
	if r.reach == nil && !r.now.IsZero() {
		postgres := r.now.Sub(r.at)
		if ofPostgres := ahead - postgres; ofPostgres.Abs() > ahead.Abs() {
			ahead, within, than = ofPostgres, within+r.within, "Postgres"
		}
	}
	skew(s, ahead, within, "GitHub", than)
}

func (t *targetExam) judgeRate(s *sheet) {
	x := t.x
	switch until := moment(x.Reset); {
	case x.Answered.IsZero():
	case x.Limit == 0:
		s.ok("rate", "the server names no limit")
	case x.Remaining == 0:
		s.add(levelFail, "rate", "muster waits; see what else uses the credential", "none of %d requests are left until %s", x.Limit, until)
	case x.Remaining*100 < x.Limit*rateWarnPct:
		s.add(levelWarn, "rate", "see what else uses the credential, or sync less often", "%d of %d requests are left until %s", x.Remaining, x.Limit, until)
	default:
		s.ok("rate", "%d of %d requests are left until %s", x.Remaining, x.Limit, until)
	}
}

// judgeServer tells of the server, as it answered now or else as it is
// recorded.
func (t *targetExam) judgeServer(s *sheet, h db.TargetHealth) {
	c := github.Learn(h.Capabilities, t.x.Server)
	if t.x.Server.Answered {
		c.ProbedAt = t.x.Answered
	}
	server := "github.com"
	switch {
	case c.ServerVersion != "":
		server = "GitHub Enterprise Server " + c.ServerVersion
	case !t.x.Server.Answered && h.Capabilities.ProbedAt.IsZero():
		return // the scope's line says why
	}
	if github.SendsWorkflowJobs(c) == fleet.No {
		server += ", which sends no workflow_job event (3.3 and later do)"
	}
	s.ok("server", "%s", server)
	if h.Capabilities.ProbedAt.IsZero() {
		s.ok("capabilities", "not known yet: the first sync finds out")
		return
	}
	var yes, no, unknown []string
	for _, f := range []struct {
		name string
		is   fleet.Known
	}{
		{"jit", c.JIT}, {"name_filter", c.NameFilter}, {"runner_groups", c.RunnerGroups}, {"ephemeral", c.Ephemeral}, {"version", c.Version},
	} {
		switch f.is {
		case fleet.Yes:
			yes = append(yes, f.name)
		case fleet.No:
			no = append(no, f.name)
		default:
			unknown = append(unknown, f.name)
		}
	}
	var parts []string
	for _, p := range []struct {
		word  string
		names []string
	}{{"has", yes}, {"lacks", no}, {"not known yet:", unknown}} {
		if len(p.names) > 0 {
			parts = append(parts, p.word+" "+strings.Join(p.names, ", "))
		}
	}
	if c.DeleteBusy != 0 {
		parts = append(parts, fmt.Sprintf("answers %d to the deletion of a busy runner", c.DeleteBusy))
	}
	s.ok("capabilities", "%s", strings.Join(parts, "; "))
}

// judgeRecord is what muster itself has seen of the target.
func (t *targetExam) judgeRecord(s *sheet, c *config, h db.TargetHealth, used bool, r *recordExam) {
	trigger := "muster trigger sync " + t.Name + " --wait"
	if !used || h.LastOutcome == "" {
		s.add(levelWarn, "sync", trigger, "never synced")
		return
	}
	if h.CredentialFault != "" && h.FaultOf == db.RefusedList {
		l, mend := levelFail, ""
		if t.secret == nil && t.x.Err == nil {
			l, mend = levelWarn, "it is accepted now: the next sync takes note, or "+trigger
		}
		s.add(l, "refusal", mend, "%s", h.CredentialFault)
	}
	t.judgeSync(s, c, h, r.now, trigger)
	if h.Suspect != fleet.SuspectNot {
		s.add(levelWarn, "suspect", "look at GitHub; policies keep everybody until a complete sync looks like a fleet",
			"the newest complete listing looks like a fault: %s", h.Suspect)
	}
	if h.Unreadable > 0 {
		s.add(levelWarn, "unreadable", "each is kept as it was known, and no policy deletes it; see api.syncs.unreadable_items, and register it anew where GitHub goes on showing it so",
			"%s: %s", counted(h.Unreadable, "item of the newest listing could not be read", "items of the newest listing could not be read"), strings.Join(h.UnreadableItems, "; "))
	}
	halted := 0
	for _, p := range r.policies {
		if p.Halted && p.Target == t.Name && c.runs(p.Policy, p.Target) {
			halted++
			s.add(levelWarn, "policy", fmt.Sprintf("see muster plan --policy %s, then muster policy resume %s --target %s --reason WHY", p.Policy, p.Policy, t.Name),
				"%s is halted: %s", p.Policy, p.Reason)
		}
	}
	if halted == 0 {
		s.ok("policy", "none is halted")
	}
}

func (t *targetExam) judgeSync(s *sheet, c *config, h db.TargetHealth, now time.Time, trigger string) {
	last := "there never was a complete one"
	var age time.Duration
	if !h.LastCompleteSyncAt.IsZero() {
		age = max(now.Sub(h.LastCompleteSyncAt), 0) // it may have begun since the clock was read
		last = "the last complete one began " + orNone(span(age)) + " ago"
	}
	why := ""
	if h.LastError != "" {
		why = ": " + h.LastError
	}
	switch {
	case h.LastOutcome == fleet.SyncFailed:
		s.add(levelFail, "sync", "nothing counts as missing meanwhile; mend what it says", "the newest failed%s; %s", why, last)
	case h.LastOutcome == fleet.SyncPartial:
		s.add(levelWarn, "sync", "nothing counts as missing meanwhile; see api.syncs", "the newest was %s%s; %s", h.LastOutcome, why, last)
	case age > t.MaxObservationGap:
		s.add(levelFail, "sync", "does a muster serve run, and is there a schedule? "+trigger, "%s: longer than max_observation_gap, so that offline time does not count", last)
	case c.overdue(t.Name, h.LastCompleteSyncAt, now):
		s.add(levelWarn, "sync", "does a muster serve run? "+trigger, "%s, and its schedule was due since", last)
	default:
		s.ok("sync", "complete; %s", last)
	}
}

// overdue reports whether two ticks of a target's sync have come since the last
// complete one, the second of them a while ago.
func (c *config) overdue(target string, last, now time.Time) bool {
	for _, schedule := range c.schedules {
		if spec := schedule.Spec(); spec.Job != fleet.JobSync || spec.Name != target {
			continue
		}
		first := schedule.Next(last)
		if first.IsZero() {
			return false
		}
		second := schedule.Next(first)
		return !second.IsZero() && now.Sub(second)-schedule.Spec().Jitter > tickWarn
	}
	return false
}

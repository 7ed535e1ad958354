package main

import (
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// silenceWarn is how long no event may come while runners are at work: few
// workflow jobs take longer.
const silenceWarn = 2 * time.Hour

// judgeEvents says whether GitHub's events of workflow jobs arrive, where
// somebody wants them.
func (t *targetExam) judgeEvents(s *sheet, pools bool, h db.TargetHealth, r *recordExam) {
	heard := r.hearings[t.Name]
	if heard.Refused.Stands(r.now) {
		s.add(levelWarn, "deliveries", refusedMeanwhile+whyNotCompared(heard.Reconciliation), "%s: %s", refusedText(heard.Refused), heard.Refused.Reason)
	}
	if t.webhookSecrets == nil && heard.EventAt.IsZero() && !pools {
		return
	}
	last, silent := "none has come within days", true
	if !heard.EventAt.IsZero() {
		age := max(r.now.Sub(heard.EventAt), 0)
		last, silent = "the newest came "+orNone(span(age))+" ago", age > silenceWarn
	}
	sends := github.SendsWorkflowJobs(github.Learn(h.Capabilities, t.x.Server))
	switch {
	case sends == fleet.No && t.webhookSecrets != nil:
		s.add(levelWarn, "events", "leave webhook_secret_file or webhook_secret_env out, or bring the server to 3.3",
			"this server sends no events of workflow jobs: nobody tells which runner works")
	case sends == fleet.No:
		s.ok("events", "this server sends none of workflow jobs: its API is asked for them")
	case t.webhookSecrets == nil && silent:
		s.ok("events", "no webhook: workflow jobs are found a minute or more after they are queued")
	case silent && heard.Busy > 0:
		s.add(levelWarn, "events", "see the webhook's page at GitHub: is Workflow jobs chosen, and what do Recent Deliveries say? docs/webhooks.md has the answers",
			"runners are at work (%d) and no event of a workflow job arrives: %s", heard.Busy, last)
	case heard.HookFault != "":
		s.add(levelWarn, "events", "until then nobody asks GitHub for deliveries that failed", "%s; what failed is not known: %s", last, heard.HookFault)
	default:
		s.ok("events", "%s", last)
	}
}

// judgeDemand says how far pools can rely on all workflow jobs being known.
func judgeDemand(s *sheet, r db.Reconciliation, now time.Time) {
	if r.GroupsFault != "" {
		s.add(levelWarn, "groups", "until then workflow jobs are counted for pools by their labels, and by the runner groups that were known before",
			"%s: whose workflow jobs its runners take is not known", r.GroupsFault)
	}
	if r.Unreadable > 0 {
		s.add(levelWarn, "repositories", "their workflow jobs are known by events alone; see api.comparisons.unreadable_items, and ask GitHub what is wrong with them",
			"%s: %s", counted(r.Unreadable, "repository of the newest listing could not be read", "repositories of the newest listing could not be read"), strings.Join(r.UnreadableItems, "; "))
	}
	const meanwhile = "meanwhile pools grow and do not shrink"
	last := "workflow jobs were never all compared with GitHub's"
	if !r.AsOf.IsZero() {
		last = "all workflow jobs were compared with GitHub's " + orNone(span(max(now.Sub(r.AsOf), 0))) + " ago"
	}
	switch fleet.DemandConfidence(r.AsOf, r.Fault == "" && !r.Refused.Stands(now), now) {
	case fleet.ConfidenceKnown:
		s.ok("demand", "%s", last)
	case fleet.ConfidenceStale:
		s.add(levelWarn, "demand", "does a muster serve run? "+meanwhile, "%s", last)
	case fleet.ConfidenceUnknown:
		if r.Fault != "" {
			s.add(levelWarn, "demand", meanwhile, "%s; %s", r.Fault, last)
			return
		}
		if r.Refused.Stands(now) {
			s.add(levelWarn, "demand", meanwhile, "%s; %s", refusedText(r.Refused), last)
			return
		}
		s.add(levelWarn, "demand", "a muster serve compares them part by part, with a third of the requests that the credential has; "+meanwhile, "%s", last)
	}
}

// whyNotCompared says what keeps a comparison from making refusals good.
func whyNotCompared(r db.Reconciliation) string {
	if r.Fault == "" {
		return ""
	}
	return "; the comparison fails: " + r.Fault
}

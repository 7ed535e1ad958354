package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/policies"
)

func TestDoctorOnEventsAndDemand(t *testing.T) {
	t.Parallel()
	pool := []*policies.Pool{{Pool: fleet.Pool{Name: "linux", Target: "acme"}}}
	fresh := db.Reconciliation{AsOf: noon.Add(-time.Minute)}
	heard := func(h db.Hearing, ago time.Duration) db.Hearing {
		h.EventAt = noon.Add(-ago)
		return h
	}
	for _, tt := range []struct {
		name    string
		hook    bool
		pools   []*policies.Pool
		version string
		hearing db.Hearing
		events  string // with its level; empty: no line
		demand  string
	}{
		{"nobody wants them", false, nil, "3.11.0", db.Hearing{}, "", ""},
		{"events, and no pool", true, nil, "3.11.0", heard(db.Hearing{Busy: 3}, time.Minute), "ok the newest came 1m ago", ""},
		{"a quiet night", true, nil, "3.11.0", heard(db.Hearing{}, 9*time.Hour), "ok the newest came 9h ago", ""},
		{"none arrives", true, pool, "3.11.0", heard(db.Hearing{Busy: 3, Reconciliation: fresh}, 3*time.Hour),
			"warn runners are at work (3) and no event of a workflow job arrives: the newest came 3h ago; see the webhook's page at GitHub: is Workflow jobs chosen, and what do Recent Deliveries say? docs/webhooks.md has the answers",
			"ok all workflow jobs were compared with GitHub's 1m ago"},
		{"none ever did", true, nil, "3.11.0", db.Hearing{Busy: 1},
			"warn runners are at work (1) and no event of a workflow job arrives: none has come within days; see", ""},
		{"a log that is not shown", true, nil, "3.11.0", heard(db.Hearing{HookFault: "forbidden"}, time.Minute),
			"warn the newest came 1m ago; what failed is not known: forbidden; until then nobody asks GitHub for deliveries that failed", ""},
		{"an old server with a webhook", true, nil, "3.2.0", db.Hearing{},
			"warn this server sends no events of workflow jobs: nobody tells which runner works; leave webhook_secret_file or webhook_secret_env out, or bring the server to 3.3", ""},
		{"an old server with pools", false, pool, "3.1.0", db.Hearing{Reconciliation: fresh},
			"ok this server sends none of workflow jobs: its API is asked for them", "ok all workflow jobs were compared with GitHub's 1m ago"},
		{"pools without a webhook", false, pool, "3.11.0", db.Hearing{Reconciliation: fresh},
			"ok no webhook: workflow jobs are found a minute or more after they are queued", "ok all workflow jobs were compared with GitHub's 1m ago"},
		{"events by NATS", false, pool, "3.11.0", heard(db.Hearing{Reconciliation: db.Reconciliation{AsOf: noon.Add(-time.Hour)}}, time.Minute),
			"ok the newest came 1m ago", "warn all workflow jobs were compared with GitHub's 1h ago; does a muster serve run? meanwhile pools grow and do not shrink"},
		{"a fault", false, pool, "3.11.0", heard(db.Hearing{Reconciliation: db.Reconciliation{AsOf: noon.Add(-time.Hour), Fault: "HTTP 502"}}, time.Minute),
			"ok the newest came 1m ago", "warn HTTP 502; all workflow jobs were compared with GitHub's 1h ago; meanwhile pools grow and do not shrink"},
		{"refused deliveries", true, pool, "3.11.0", heard(db.Hearing{Reconciliation: db.Reconciliation{
			AsOf: noon.Add(-time.Minute), Refused: fleet.Refused{Deliveries: 2, Since: noon.Add(-time.Hour), Until: noon, Reason: "too many at once"},
		}}, time.Minute),
			"ok the newest came 1m ago",
			"warn 2 deliveries of its webhook were refused since " + noon.Add(-time.Hour).UTC().Format(time.RFC3339) + "; all workflow jobs were compared with GitHub's 1m ago; meanwhile"},
		{"an unreadable repository", false, pool, "3.11.0", heard(db.Hearing{Reconciliation: db.Reconciliation{
			AsOf: noon.Add(-time.Minute), Unreadable: 1, UnreadableItems: []string{"repository 2 of page 1: it is null"},
		}}, time.Minute),
			"ok the newest came 1m ago", "ok all workflow jobs were compared with GitHub's 1m ago"},
		{"a first day", false, pool, "3.11.0", heard(db.Hearing{}, time.Minute),
			"ok the newest came 1m ago", "warn workflow jobs were never all compared with GitHub's; a muster serve compares them part by part"},
	} {
		e, c := wellExamined(t)
		c.pools = tt.pools
		if tt.hook {
			e.targets[0].webhookSecrets = func(context.Context) ([]fleet.Secret, error) { return nil, nil }
		}
		e.targets[0].x.Server = github.Sight{Answered: true, Version: tt.version}
		h := e.record.targets["acme"]
		h.Capabilities.ServerVersion = tt.version
		e.record.targets["acme"] = h
		e.record.hearings = map[string]db.Hearing{"acme": tt.hearing}
		got := e.judge(c)
		text, level := found(got), levels(got)
		if r := tt.hearing.Reconciliation; r.Unreadable > 0 && !strings.Contains(text["acme repositories"], r.UnreadableItems[0]) {
			t.Errorf("%s: acme repositories: %q does not name the one that cannot be read", tt.name, text["acme repositories"])
		}
		if refused := tt.hearing.Refused; refused.Deliveries > 0 && !strings.Contains(text["acme deliveries"], refused.Reason) {
			t.Errorf("%s: acme deliveries: %q does not say why", tt.name, text["acme deliveries"])
		}
		for check, want := range map[string]string{"acme events": tt.events, "acme demand": tt.demand} {
			line, there := text[check]
			if there != (want != "") {
				t.Errorf("%s: %s is there: %v, %q", tt.name, check, there, line)
				continue
			}
			if have := strings.TrimSpace(string(level[check]) + " " + line); there && !strings.HasPrefix(have, want) {
				t.Errorf("%s: %s\n got %q\nwant %q", tt.name, check, have, want)
			}
		}
	}
}

func TestDoctorOnPools(t *testing.T) {
	t.Parallel()
	e, c := wellExamined(t)
	said := e.judge(c)
	if text := found(said); text["acme leases"]+text["acme findings"] != "" {
		t.Errorf("doctor speaks of pools where there are none: %+v", said)
	}
	c.pools = []*policies.Pool{{Pool: fleet.Pool{Name: "gpu", Target: "acme"}}, {Pool: fleet.Pool{Name: "linux", Target: "acme"}}}
	e.record.hearings = map[string]db.Hearing{"acme": {Reconciliation: db.Reconciliation{AsOf: noon}}}
	e.record.leases = map[string]map[string]db.LeaseCounts{"acme": {"linux": {Expired: 9, Rounds: 1}}}
	e.record.findings = []fleet.Finding{{Kind: fleet.FindingUnservedJob, Target: "widgets", Subject: "arm"}}
	said = e.judge(c)
	for check, want := range map[string]string{"acme leases": "no pool waits in vain for hosts", "acme findings": "none"} {
		if got, level := found(said)[check], levels(said)[check]; got != want || level != levelOK {
			t.Errorf("%s: %s %q, want ok %q", check, level, got, want)
		}
	}

	e.record.leases["acme"]["linux"] = db.LeaseCounts{Expired: 9, Rounds: 3, LastDeadline: noon}
	detail := fleet.Evidence{"jobs": 2.0, "hosts": 1.0, "they_lack": "gpu"}
	e.record.findings = append(e.record.findings,
		fleet.Finding{Kind: fleet.FindingUnservedJob, Target: "acme", Subject: "arm", Since: noon, Detail: detail},
		fleet.Finding{Kind: fleet.FindingMislabelledHost, Target: "acme", Subject: "gpu", Since: noon, Detail: detail})
	var got []string
	for _, line := range e.judge(c) {
		if line.Check == "leases" || line.Check == "findings" {
			got = append(got, string(line.Level)+" "+line.Found+"; "+deref(line.Mend))
		}
	}
	want := []string{
		"warn hosts of pool linux were asked for 3 times in a row, and none came online: 9 leases ran out, the last at 2026-03-01T12:00:00Z; see what muster.v1.provision.linux sets off, and api.leases for how far its hosts came; boot_deadline may be too short",
		"warn 2 workflow jobs want arm since 2026-03-01T12:00:00Z, which no pool and no other runner has; correct runs-on in the workflow, or have a pool with these labels",
		"warn 1 host of pool gpu was registered without gpu: hosts like that count, and take none of its jobs; mend what provisions them",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("doctor (-want +got):\n%s", diff)
	}

	for range 2 * mostFindings {
		e.record.findings = append(e.record.findings, e.record.findings[1])
	}
	said = e.judge(c)
	if last := said[len(said)-1]; last.Found != "12 more" || deref(last.Mend) != "see api.findings" {
		t.Errorf("of many findings doctor says last %+v, want how many more", last)
	}
}

func TestDoctorSaysWhereRunnerGroupsAreNotKnown(t *testing.T) {
	t.Parallel()
	e, c := wellExamined(t)
	c.pools = []*policies.Pool{{Pool: fleet.Pool{Name: "linux", Target: "acme"}}}
	e.record.hearings = map[string]db.Hearing{"acme": {Reconciliation: db.Reconciliation{AsOf: noon, GroupsFault: "HTTP 403"}}}
	const want = "HTTP 403: whose workflow jobs its runners take is not known; until then workflow jobs are counted for pools by their labels"
	said := e.judge(c)
	if got, level := found(said)["acme groups"], levels(said)["acme groups"]; !strings.HasPrefix(got, want) || level != levelWarn {
		t.Errorf("doctor says %s %q, want a warning: %q", level, got, want)
	}
}

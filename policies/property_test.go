package policies_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// drawRunner gives any runner, about half of them with nothing against their
// deletion.
func drawRunner(t *rapid.T, id int64) fleet.Observed {
	r := due(id)
	r.OfflineFor = time.Duration(rapid.IntRange(168, 172).Draw(t, "offline for")) * time.Hour
	for range rapid.IntRange(0, 2).Draw(t, "changes") {
		switch rapid.IntRange(0, 11).Draw(t, "change") {
		case 0:
			r.Status = rapid.SampledFrom([]fleet.Status{fleet.StatusOnline, "", "idle"}).Draw(t, "status")
		case 1:
			r.Busy = true
		case 2:
			r.MissingSince = now.Add(-time.Minute)
		case 3:
			r.RemovedAt = now.Add(-time.Minute)
		case 4:
			r.OfflineListings = rapid.IntRange(0, 3).Draw(t, "listings")
		case 5:
			r.OfflineSpan = time.Duration(rapid.IntRange(0, 4).Draw(t, "span")) * time.Minute
		case 6:
			r.Labels = []string{"keep"}
		case 7:
			r.Labels = nil // the second exemption cannot be evaluated
		case 8:
			r.OfflineSince = time.Time{}
		case 9:
			r.OfflineFor = time.Hour
		}
	}
	return r
}

func drawInput(t *rapid.T) policies.Input {
	in := policies.Input{Target: healthy(), MatchedSince: map[int64]time.Time{}}
	in.Target.Population = rapid.IntRange(0, 120).Draw(t, "population")
	for i := range rapid.IntRange(0, 30).Draw(t, "runners") {
		r := drawRunner(t, int64(i+1))
		in.Runners = append(in.Runners, r)
		if rapid.IntRange(0, 9).Draw(t, "marked") > 0 {
			in.MatchedSince[r.ID] = now.Add(-time.Duration(rapid.IntRange(20, 100).Draw(t, "matched for")) * time.Hour)
		}
	}
	in.Acted = rapid.SampledFrom([]int{0, 0, 1, 5, 40}).Draw(t, "acted")
	in.ActedLastMinute = rapid.SampledFrom([]int{0, 0, 1, 3, 40}).Draw(t, "acted in the last minute")
	in.State.Halted = rapid.IntRange(0, 9).Draw(t, "halted") == 0
	in.State.Allowance = rapid.SampledFrom([]int{0, 0, 3, 30}).Draw(t, "allowance")
	in.Alarm = fleet.Alarm{Offline: rapid.SampledFrom([]int{0, 0, 0, 5, 30}).Draw(t, "newly offline"), Of: in.Target.Population}
	switch rapid.IntRange(0, 14).Draw(t, "inventory") {
	case 0:
		in.Target.LastOutcome = fleet.SyncPartial
	case 1:
		in.Target.LastCompleteSyncAt = now.Add(-time.Hour)
	case 2:
		in.Target.LastCompleteSyncAt = time.Time{}
	case 3:
		in.Target.Suspect = fleet.SuspectMassOffline
	case 4:
		in.Target.CredentialFault = "401"
	}
	return in
}

// TestDeletionsKeepTheRules checks what must hold for every deletion, written
// down anew and without the help of the code.
func TestDeletionsKeepTheRules(t *testing.T) {
	t.Parallel()
	const rules = `
  exempt: {keep-label: '"keep" in runner.labels', first: 'runner.labels[0] == "first"'}`
	deleting := load(t, document(longOffline+rules))
	operator := policies.Operator()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		p := rapid.SampledFrom([]*policies.Policy{deleting, operator}).Draw(t, "policy")
		plan := policies.Decide(p, in, now)

		runners := map[int64]fleet.Observed{}
		for _, r := range in.Runners {
			runners[r.ID] = r
		}
		acts, waits, last := 0, 0, int64(0)
		shortestAct, longestWait := time.Duration(1<<62), time.Duration(0)
		for _, d := range plan.Decisions {
			r := runners[d.RunnerID]
			if d.RunnerID <= last {
				t.Fatalf("decision on %d comes after the one on %d", d.RunnerID, last)
			}
			last = d.RunnerID
			if len(d.Reasons) == 0 {
				t.Fatalf("no reasons: %+v", d)
			}
			if d.Verdict == fleet.VerdictKeep && d.Reasons[0] == policies.ReasonRate {
				waits++
				longestWait = max(longestWait, r.OfflineFor)
			}
			if d.Verdict != fleet.VerdictAct {
				continue
			}
			acts++
			shortestAct = min(shortestAct, r.OfflineFor)
			age := now.Sub(in.Target.LastCompleteSyncAt)
			switch {
			case r.Status != fleet.StatusOffline, r.Busy, !r.MissingSince.IsZero(), !r.RemovedAt.IsZero():
				t.Fatalf("acts on %+v", r)
			case in.Target.LastOutcome != fleet.SyncComplete, age > 10*time.Minute, in.Target.Suspect != "", in.Target.CredentialFault != "":
				t.Fatalf("acts on the inventory %+v", in.Target)
			case in.State.Halted:
				t.Fatalf("acts while halted")
			case in.Alarm.Offline >= 10 && in.Alarm.Offline*5 > in.Alarm.Of:
				t.Fatalf("acts while %d of %d are newly offline", in.Alarm.Offline, in.Alarm.Of)
			}
			if p == operator {
				continue
			}
			since, marked := in.MatchedSince[r.ID]
			switch {
			case r.OfflineSince.IsZero(), r.OfflineFor <= 168*time.Hour, r.OfflineListings < 2, r.OfflineSpan < 2*time.Minute:
				t.Fatalf("acts without witnesses on %+v", r)
			case !marked, now.Sub(since) < 24*time.Hour:
				t.Fatalf("acts within the grace, marked %v", since)
			case len(r.Labels) == 0 || r.Labels[0] == "keep":
				t.Fatalf("acts on an exempt runner %+v", r)
			}
		}
		if acts > max(10-in.ActedLastMinute, 0) {
			t.Fatalf("%d acts after %d in the last minute", acts, in.ActedLastMinute)
		}
		if waits > 0 && longestWait > shortestAct {
			t.Fatalf("one offline for %v waits while one for %v does not", longestWait, shortestAct)
		}
		if p != operator {
			allowed := max(min(5, in.Target.Population/10)-in.Acted, 0) + in.State.Allowance
			if acts > max(allowed, 0) {
				t.Fatalf("%d acts, %d allowed", acts, allowed)
			}
			if plan.Halt != "" && acts > 0 {
				t.Fatalf("%d acts beside the halt %q", acts, plan.Halt)
			}
		}
	})
}

func TestDecideIsPure(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline+"\n  exempt: {keep-label: '\"keep\" in runner.labels', first: 'runner.labels[0] == \"first\"'}"))
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		first := policies.Decide(p, in, now)
		shuffled := in
		shuffled.Runners = append([]fleet.Observed(nil), in.Runners...)
		seed := rapid.Uint64().Draw(t, "order")
		rand.New(rand.NewPCG(seed, seed)).Shuffle(len(shuffled.Runners), func(i, j int) {
			shuffled.Runners[i], shuffled.Runners[j] = shuffled.Runners[j], shuffled.Runners[i]
		})
		for _, again := range []policies.Input{in, shuffled} {
			if diff := cmp.Diff(first, policies.Decide(p, again, now)); diff != "" {
				t.Fatalf("Decide twice (-) (+):\n%s", diff)
			}
		}
		// One runner alone is judged no milder than among the others.
		for i, r := range in.Runners {
			alone := in
			alone.Runners = in.Runners[i : i+1]
			for _, d := range policies.Decide(p, alone, now).Decisions {
				whole := decisionOn(first, r.ID)
				if d.Verdict == fleet.VerdictKeep && whole.Verdict == fleet.VerdictAct {
					t.Fatalf("runner %d alone: %v, among the others %v", r.ID, d.Reasons, whole.Reasons)
				}
			}
		}
	})
}

func decisionOn(p policies.Plan, id int64) fleet.Decision {
	for _, d := range p.Decisions {
		if d.RunnerID == id {
			return d
		}
	}
	return fleet.Decision{}
}

func BenchmarkDecide(b *testing.B) {
	text := document(longOffline + "\n  exempt: {keep-label: '\"keep\" in runner.labels'}")
	for _, share := range []int{0, 1, 100} {
		b.Run(fmt.Sprintf("10000 runners/%d percent due", share), func(b *testing.B) {
			p := load(b, text)
			var runners []fleet.Observed
			for i := range 10_000 {
				r := due(int64(i + 1))
				if i%100 >= share {
					r.Status, r.OfflineSince, r.OfflineFor = fleet.StatusOnline, time.Time{}, 0
				}
				runners = append(runners, r)
			}
			in := input(runners...)
			in.Target.Population = len(runners)
			b.ReportAllocs()
			for b.Loop() {
				policies.Decide(p, in, now)
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	text := []byte(document(longOffline + "\n  exempt: {keep-label: '\"keep\" in runner.labels'}"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policies.Load("p.yaml", text); err != nil {
			b.Fatal(err)
		}
	}
}

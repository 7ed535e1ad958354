package storm_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// judge checks what has to hold over a whole life.
func (w *world) judge() {
	log := w.sim.Log()
	w.wantLooks(log)
	if !w.overlapped {
		for _, e := range githubsim.DeletesUnseen(log) {
			w.Errorf("DELETE of a runner that no coherent walk had shown: %s", text(e))
		}
	}
	w.wantIntents(log)
	w.wantCap(log)
	w.wantHolds(log)
	w.wantOfflineTime(log)
	if w.about != aboutWork {
		w.wantPauses(log)
	}
	w.wantHistory()
	w.wantNothingLost()
}

func isLook(e githubsim.Event) bool {
	return e.Method == http.MethodGet && strings.HasSuffix(e.Path, ofRunner)
}

func isDelete(e githubsim.Event) bool {
	return e.Method == http.MethodDelete && strings.HasSuffix(e.Path, ofRunner)
}

func isKept(s githubsim.State) bool { return slices.Contains(s.Labels, keepLabel) }

// wantLooks checks that the last thing asked before each DELETE was for that
// runner, and that GitHub's answer spoke for it: what came to life afterwards
// nobody could know of, and neither what GitHub itself did not know.
func (w *world) wantLooks(log []githubsim.Event) {
	looks := map[string]githubsim.Event{} // by runner and credential; used up by a DELETE
	drained := w.drainedRunners()
	late := map[string]bool{}             // likewise: it was online, and GitHub did not show it yet
	alive := map[string]githubsim.Event{} // the last time that the runner came to life or to work
	for _, e := range log {
		runner := fmt.Sprintf("%s/%d", e.Scope, e.RunnerID)
		asker := runner + " " + e.Credential
		switch {
		case e.Change == githubsim.ChangeConnected, e.Change == githubsim.ChangeAssigned:
			alive[runner] = e
		case isLook(e):
			looks[asker] = e
			late[asker] = e.Online && alive[runner].Change == githubsim.ChangeConnected && e.At.Sub(alive[runner].At) < w.lags.Connect
		case isDelete(e):
			look, asked := looks[asker]
			delete(looks, asker)
			switch {
			case !asked, look.Status != http.StatusOK:
				w.Errorf("DELETE without a look: %s, last look: %s", text(e), text(look))
			case strings.Contains(look.Fault, string(githubsim.FaultStale)), strings.Contains(look.Fault, string(githubsim.FaultMistaken)), late[asker]:
				// GitHub itself said that it was dead.
			case drained[runner] && !look.Busy && (!e.Busy || alive[runner].Seq >= look.Seq):
				// It may be online: its host was asked.
			case look.Busy, look.Online:
				w.Errorf("DELETE of a runner at work: %s, look: %s", text(e), text(look))
			case (e.Busy || e.Online) && alive[runner].Seq < look.Seq:
				w.Errorf("DELETE of a runner at work that the look did not show: %s, look: %s", text(e), text(look))
			}
		}
	}
}

// drainedRunners are those, by SCOPE/ID, of which their hosts were asked.
func (w *world) drainedRunners() map[string]bool {
	all := map[string]bool{}
	for _, t := range w.targets {
		for _, a := range read[struct{ ID int64 }](w, `SELECT runner_id FROM muster.action WHERE target = $1 AND drained_at IS NOT NULL`, t.Name) {
			all[runnerKey(t.Scope, a.ID)] = true
		}
	}
	return all
}

// wantIntents checks the record against what GitHub did.
func (w *world) wantIntents(log []githubsim.Event) {
	for _, r := range w.unrecorded {
		w.Errorf("DELETE of %s/%d without an intent", r.Scope, r.RunnerID)
	}
	for _, t := range w.targets {
		w.wantExemptAlive(t)
		kept := map[int64]bool{}
		acted := map[int64]bool{}
		denied := map[int64]bool{} // GitHub showed it all the same, when it was asked what had become of it
		for _, e := range log {
			switch {
			case e.Scope != t.Scope.String():
			case isDelete(e) && e.Acted:
				acted[e.RunnerID] = true
			case isLook(e) && acted[e.RunnerID] && e.Status == http.StatusOK:
				denied[e.RunnerID] = true
			}
		}
		ended := map[int64]bool{}
		for _, a := range read[struct {
			ID             int64
			State, Verdict string
			Kept, NoPolicy bool
		}](w, `
			SELECT a.runner_id, a.state, d.verdict, $2 = ANY(r.labels) AND a.policy <> 'operator', a.policy IN ('operator', 'scale_down')
			FROM muster.action a
			JOIN muster.decision d USING (decision_id)
			JOIN muster.runner r ON r.target = a.target AND r.runner_id = a.runner_id
			WHERE a.target = $1`, t.Name, keepLabel) {
			kept[a.ID] = kept[a.ID] || a.Kept
			switch fleet.ActionState(a.State) {
			case fleet.ActionDone:
				if !acted[a.ID] {
					w.Errorf("%s/%d is said to be deleted, and GitHub did not do it", t.Name, a.ID)
				}
				ended[a.ID] = true
			case fleet.ActionGone:
				ended[a.ID] = true
			case fleet.ActionIntended:
				w.Errorf("the intent on %s/%d stays open", t.Name, a.ID)
			}
			if a.Verdict != string(fleet.VerdictAct) || !t.covered && !a.NoPolicy {
				w.Errorf("action on %s/%d by a decision to %s", t.Name, a.ID, a.Verdict)
			}
		}
		for id := range acted {
			if !ended[id] && !denied[id] {
				w.Errorf("GitHub deleted %s/%d for us, and the record does not say so", t.Name, id)
			}
			if kept[id] {
				w.Errorf("%s/%d was deleted although it is exempt", t.Name, id)
			}
		}
	}
}

// wantCap checks that no hour of the storm has more deletions than the policy
// and the operators allow, over all replicas and crashes.
func (w *world) wantCap(log []githubsim.Event) {
	for _, t := range w.targets {
		others := map[int64]bool{} // deletions that the policy's cap does not count
		for _, a := range read[struct{ ID int64 }](w, `
			SELECT runner_id FROM muster.action WHERE target = $1 AND policy <> $2`, t.Name, w.reap.policy.Name) {
			others[a.ID] = true
		}
		var at []time.Time
		for _, e := range log {
			if isDelete(e) && e.Acted && !others[e.RunnerID] && e.Scope == t.Scope.String() && e.Seq <= w.calmSince {
				at = append(at, e.At)
			}
		}
		first := 0
		for i := range at {
			for at[i].Sub(at[first]) >= time.Hour-slack {
				first++
			}
			if n := i - first + 1; n > w.reap.count+t.allowed {
				w.Errorf("%d deletions in %s within an hour, %d are allowed", n, t.Name, w.reap.count+t.allowed)
				break
			}
		}
	}
}

// slack is for the time from an intent to its deletion, where answers take
// theirs.
const slack = 10 * time.Minute

// judgeRound checks what has to hold in the middle of a storm: a runner that is
// there is taken for removed only where GitHub has said so.
func (w *world) judgeRound() {
	for _, t := range w.targets {
		there := map[int64]bool{}
		for _, s := range w.sim.Snapshot(t.Scope) {
			there[s.ID] = true
		}
		for _, r := range read[struct{ ID int64 }](w, `
			SELECT runner_id FROM api.runners WHERE target = $1 AND removed_at IS NOT NULL`, t.Name) {
			if there[r.ID] {
				w.wantEvidence(t, r.ID)
			}
		}
	}
}

// wantEvidence checks that GitHub has lied about a runner that is there: it said
// 404 to somebody who asked for it by id, or two coherent walks lacked it.
func (w *world) wantEvidence(t *target, id int64) {
	log := w.sim.Log()
	scope, since := t.Scope.String(), int64(0)
	for _, e := range log {
		switch {
		case e.Scope != scope || e.RunnerID != id:
		case since == 0:
			since = e.Seq // it has come to be
		case isLook(e) && e.Status == http.StatusNotFound && e.Fault != "":
			w.tally.count("believed a false 404")
			return
		}
	}
	lacking := 0
	for _, walk := range githubsim.CoherentWalks(log) {
		if walk.Scope == scope && walk.To > since && !walk.IDs[id] {
			lacking++
		}
	}
	if lacking < 2 && !w.overlapped {
		w.Fatalf("%s/%d is taken for removed, and GitHub never said so (%d walks lack it)", t.Name, id, lacking)
	}
	w.tally.count("believed two false walks")
}

// wantTruth compares the record with what GitHub knows.
func (w *world) wantTruth(when string) {
	type seen struct {
		Name, Labels string
		Status       fleet.Status
		Busy         bool
	}
	for _, t := range w.targets {
		want, got := map[int64]seen{}, map[int64]seen{}
		for _, s := range w.sim.Snapshot(t.Scope) {
			labels := make([]string, len(s.Labels))
			for i, l := range s.Labels {
				labels[i] = strings.ToLower(l)
			}
			slices.Sort(labels)
			want[s.ID] = seen{s.Name, strings.Join(labels, ","), s.Shown, s.Busy}
		}
		for _, r := range read[struct {
			ID           int64
			Name, Labels string
			Status       fleet.Status
			Busy         bool
		}](w, `
			SELECT runner_id, name, array_to_string(labels, ','), status, busy
			FROM api.runners WHERE target = $1 AND removed_at IS NULL`, t.Name) {
			got[r.ID] = seen{r.Name, r.Labels, r.Status, r.Busy}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			w.Fatalf("record of %s %s (-truth +record):\n%s", t.Name, when, diff)
		}
	}
}

package storm_test

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// jobs is the work of a life that is about work.
type jobs struct {
	inside  bool          // the fault model: see TestTruth
	abreast bool          // replicas work side by side; else a life that fails is lived again as it was
	caches  bool          // GitHub's answers may be old, or lack runners: no listing and no look can be trusted
	beatAge time.Duration // how old the newest heartbeat of a host is at worst

	mu         sync.Mutex // time passes, and stretches begin, one after the other
	hosts      map[string]*host
	lies       map[string][]func() // what ends those about a runner
	looked     map[string]int      // GETs of a runner in this batch
	drained    map[string]int      // its host's answers in this batch
	begun      []stretch
	hookFaults []func()
	stranger   *stranger        // nil: there is none
	slow       *slow            // likewise
	moved      map[int64]string // workflow jobs that had another runner before, by which
	mourned    map[string]bool  // runners whose webhooks have lost the end of their work

	drains   bool // a policy drains hosts
	compares bool // workflow jobs are compared with GitHub's
	// hiddenJobs and hiddenRuns are those that comparisons are not told of.
	hiddenJobs, hiddenRuns map[int64]bool
}

// about is the lie that GitHub tells of a runner at work; empty: none.
type about string

const (
	aboutAll    about = "offline and idle"
	aboutStatus about = "offline"
	aboutBusy   about = "idle"
)

// stretch is one workflow job on one runner, and who tells of it.
type stretch struct {
	honest     witness // empty: nobody has to be
	list, look about   // what listings and GET by id lie about
	deletes    bool    // DELETE lies too: it is not refused
	webhook    githubsim.FaultKind
	late       time.Duration // of the webhook, where it is
	says       fleet.HostRunnerState
	answers    answers // of its host, asked to let it go
	hidden     bool    // comparisons are not told of it
	moves      bool    // another runner had the job first, if there is one

	target    *target
	runner    string    // SCOPE/ID
	drainable bool      // it need not be seen offline before something is done about it
	job       int64     // at GitHub
	speaks    time.Time // by when the honest witness has spoken, but for a listing
	syncs     int       // complete ones of its target when it had begun; -1: not known yet
}

func (s stretch) String() string {
	var said []string
	for _, x := range []struct{ who, what string }{
		{"listings say", string(s.list)}, {"looks say", string(s.look)}, {"the webhook is", string(s.webhook)}, {"the host says", string(s.says)},
		{"asked to let it go the host answers", string(s.answers)},
	} {
		if x.what != "" {
			said = append(said, x.who+" "+x.what)
		}
	}
	if s.deletes {
		said = append(said, "DELETE is not refused")
	}
	if s.moves {
		said = append(said, "another runner had the job first")
	}
	return fmt.Sprintf("work of which %s tells: %s", cmp.Or(string(s.honest), "nobody has to"), strings.Join(said, ", "))
}

// prospect is what is known of a runner that is to begin a stretch of work.
type prospect struct {
	recordedOnline bool
	drainable      bool   // it may be
	at             moment // of the replicas; empty: they do nothing
}

// drawStretch draws who tells what of a stretch of work to come. Listings, and
// webhooks that come late, can be the only ones to tell the truth of a runner
// that the record has online, since only then must it be seen offline for long
// before anything is done; where it may be drained instead, nothing is asked for
// until they have spoken. So it is with the answer of a host, which is asked for
// online runners alone, and before their last look.
func (w *world) drawStretch(p prospect) stretch {
	from := []witness{byHost}
	if !w.jobs.caches {
		from = append(from, byLook)
		if p.recordedOnline {
			from = append([]witness{byListing, byListing}, from...) // its turn is rare
		}
		if p.drainable && (p.recordedOnline || p.at == atDrain) {
			from = append([]witness{byDrain, byDrain, byDrain}, from...)
		}
	}
	if w.sendsJobs {
		from = append(from, byWebhook)
	}
	s := stretch{
		list:    anyOf(w, "listings lie about", aboutAll, aboutAll, aboutAll, aboutStatus, aboutBusy, ""),
		look:    anyOf(w, "looks lie about", aboutAll, aboutAll, aboutAll, aboutStatus, aboutBusy, ""),
		deletes: !w.oneIn(5, "DELETE tells the truth"),
		webhook: anyOf(w, "webhook", githubsim.FaultHookDropped, githubsim.FaultHookDropped, githubsim.FaultHookSignature, githubsim.FaultHookLate, ""),
		late:    20 * time.Minute,
		says:    anyOf(w, "host says", "", "", fleet.HostRunnerStopped, fleet.HostRunnerBusy),
		hidden:  w.jobs.compares && !w.oneIn(4, "comparisons tell the truth"),
		moves:   w.oneIn(3, "the job moves"),
	}
	if p.drainable {
		// One that is shown offline is not drained.
		s.list = anyOf(w, "of listings", aboutBusy, aboutBusy, aboutBusy, s.list)
		s.says = anyOf(w, "of hosts", "", fleet.HostRunnerStopped, fleet.HostRunnerIdle, s.says)
		s.answers = anyOf(w, "asked, the host answers", answersIdle, answersIdle, answersIdle, answersIdle, answersTruth, answersLate, answersNoise, answersNothing, answersDeaf)
	}
	switch {
	case w.jobs.inside:
		s.honest = anyOf(w, "honest", from...)
	case w.oneIn(2, "nobody tells"):
		s.silence(p, w.jobs.compares)
	}
	switch s.honest {
	case byListing:
		s.list = anyOf(w, "of listings", aboutStatus, "")
		if !p.drainable { // else that it is online spares it nothing
			s.list = anyOf(w, "of listings", s.list, aboutBusy)
		}
	case byLook:
		s.look = anyOf(w, "of looks", aboutStatus, "")
		if w.lags.Connect == 0 && !p.drainable { // else it is shown offline for a while, whoever lies
			s.look = anyOf(w, "of looks", s.look, aboutBusy)
		}
	case byWebhook:
		if w.oneIn(2, "nobody else tells") {
			s.silence(p, w.jobs.compares)
			s.moves = true
		}
		s.webhook, s.late = anyOf(w, "of webhooks", "", "", githubsim.FaultHookTwice), 0
		if p.recordedOnline && w.oneIn(2, "late") {
			s.webhook = githubsim.FaultHookLate
			s.late = anyOf(w, "by", time.Minute, 3*time.Minute, w.reap.offlineFor+w.reap.grace-30*time.Second)
		}
	case byHost:
		s.says = anyOf(w, "of hosts", fleet.HostRunnerBusy, fleet.HostRunnerBusy, fleet.HostRunnerIdle)
		if p.drainable {
			s.says = fleet.HostRunnerBusy
		}
	case byDrain:
		s.list = anyOf(w, "of listings", aboutBusy, aboutBusy, "")
		s.answers = answersTruth
	}
	return s
}

// silence has nobody tell of a stretch of work.
func (s *stretch) silence(p prospect, compares bool) {
	s.list, s.look = aboutAll, aboutAll
	if p.drainable {
		s.list, s.look = aboutBusy, aboutBusy
		s.answers = answersIdle
	}
	s.deletes = true
	s.webhook = githubsim.FaultHookDropped
	s.says = ""
	s.hidden = compares
}

// begin gives a runner a workflow job, if it can have one: it is connected then.
// Hooks call it too.
func (w *world) begin(scope fleet.Scope, id int64, s stretch) bool {
	w.jobs.mu.Lock()
	defer w.jobs.mu.Unlock()
	return w.beginLocked(scope, id, s)
}

func (w *world) beginLocked(scope fleet.Scope, id int64, s stretch) bool {
	r, there := w.runner(scope, id)
	if !there || r.Busy {
		return false
	}
	s.target = w.targetOf(scope)
	s.runner, s.speaks = runnerKey(scope, id), w.clock.now()
	s.drainable, s.syncs = w.isDrainable(r), -1
	asked := s.drainable && r.Online && r.Shown == fleet.StatusOnline
	if s.honest == byDrain && !asked || isPooled(r) && !r.Online {
		return false
	}
	if !r.Online && w.sim.Connect(scope, id) != nil {
		return false // it has just gone
	}
	if isPooled(r) {
		s.list = map[about]about{aboutAll: aboutBusy, aboutBusy: aboutBusy}[s.list]
	}
	w.slander(scope, id, s)
	if w.jobs.hosts[s.runner] != nil || s.says != "" {
		h := w.hostOf(scope, r)
		h.says = s.says
		w.teach(h, s.answers)
	}
	if w.assign(scope, r, s) != nil {
		return false
	}
	if r, there := w.runner(scope, id); there {
		s.job = r.Job
	}
	if s.hidden {
		w.hide(s.job)
	}
	if s.honest == byWebhook {
		s.speaks = s.speaks.Add(s.late)
	}
	w.jobs.begun = append(w.jobs.begun, s)
	w.sim.Deliver(w.ctx)
	w.lapseLocked(5 * time.Second) // or a host would say two things at once
	return true
}

// slander has GitHub lie about a runner, in place of what it lied before.
func (w *world) slander(scope fleet.Scope, id int64, s stretch) {
	key := runnerKey(scope, id)
	w.clearName(key)
	lie := func(what about, f githubsim.Fault) {
		if what == "" {
			return
		}
		f.Kind, f.Scope, f.IDs = githubsim.FaultMistaken, scope, []int64{id}
		f.Field = map[about]string{aboutStatus: "status", aboutBusy: "busy"}[what]
		w.jobs.lies[key] = append(w.jobs.lies[key], w.inject(f))
	}
	lie(s.list, githubsim.Fault{Path: ofPages})
	lie(s.look, githubsim.Fault{Path: ofRunner, Method: http.MethodGet})
	if s.deletes {
		lie(aboutAll, githubsim.Fault{Path: ofRunner, Method: http.MethodDelete})
	}
}

// clearName ends the lies about a runner.
func (w *world) clearName(key string) {
	for _, lift := range w.jobs.lies[key] {
		lift()
	}
	delete(w.jobs.lies, key)
}

func (w *world) inject(f githubsim.Fault) func() {
	lift, err := w.sim.Inject(f)
	if err != nil {
		panic(err) // the fault is one of ours
	}
	return lift
}

func runnerKey(scope fleet.Scope, id int64) string { return fmt.Sprintf("%s/%d", scope, id) }

func (w *world) targetOf(scope fleet.Scope) *target {
	i := slices.IndexFunc(w.targets, func(t *target) bool { return t.Scope == scope })
	return w.targets[i]
}

// runner is the truth about a runner, if it is there.
func (w *world) runner(scope fleet.Scope, id int64) (githubsim.State, bool) {
	all := w.sim.Snapshot(scope)
	i := slices.IndexFunc(all, func(s githubsim.State) bool { return s.ID == id })
	if i < 0 {
		return githubsim.State{}, false
	}
	return all[i], true
}

// strikeWork is an interruption that begins a stretch of work while replicas are
// at theirs. Somebody else may be between a look at that runner and its DELETE,
// or on the way from the one to the other: then GitHub does refuse the DELETE,
// or it is outside the fault model.
func (w *world) strikeWork(at moment, asked githubsim.Request, id int64, s stretch) {
	w.jobs.mu.Lock()
	defer w.jobs.mu.Unlock()
	key := runnerKey(asked.Scope, id)
	own := asked.RunnerID == id && (at == atLook && w.jobs.looked[key] == 1 ||
		at == atDrain && w.jobs.looked[key] == 0 && w.jobs.drained[key] == 0)
	if w.jobs.inside && !own {
		s.deletes = false
	}
	w.beginLocked(asked.Scope, id, s)
}

// endWork is for a runner that somebody has killed meanwhile: GitHub is right
// about it from then on. Its host goes on as before.
func (w *world) endWork(scope fleet.Scope, id int64) {
	if w.jobs == nil {
		return
	}
	w.jobs.mu.Lock()
	defer w.jobs.mu.Unlock()
	w.clearName(runnerKey(scope, id))
}

// sawLook counts looks. It waits for a stretch that is just beginning, so that
// its witness has spoken when the look is answered.
func (w *world) sawLook(r githubsim.Request) {
	w.jobs.mu.Lock()
	defer w.jobs.mu.Unlock()
	w.jobs.looked[runnerKey(r.Scope, r.RunnerID)]++
}

// liveWorking is what befalls fleets at work between two rounds.
func (w *world) liveWorking() {
	w.hookWeather()
	w.claimOthers()
	for _, t := range w.targets {
		changes := rapid.IntRange(0, 4).Draw(w.T, "changes")
		if w.wires != nil {
			changes += 2 // or little happens to hosts
		}
		for range changes {
			w.changeWork(t)
		}
	}
}

func (w *world) changeWork(t *target) {
	which := rapid.IntRange(0, 999).Draw(w.T, "runner")
	what := rapid.SampledFrom([]string{"begin", "begin", "begin", "begin", "slander", "slander", "finish", "kill", "connect", "remove", "create"}).Draw(w.T, "change")
	all := w.sim.Snapshot(t.Scope)
	if what == "create" || len(all) == 0 {
		w.newcomer(t.Scope, which)
		return
	}
	if idle := slices.DeleteFunc(slices.Clone(all), func(r githubsim.State) bool {
		return !w.isDrainable(r) || r.Busy || r.Shown != fleet.StatusOnline
	}); what == "begin" && len(idle) > 0 && !w.oneIn(3, "of all runners") {
		all = idle // or those that may be drained would have little work
	}
	r := all[which%len(all)]
	key := runnerKey(t.Scope, r.ID)
	working := r.Online && r.Busy
	switch {
	case what == "begin" && !r.Busy:
		s := w.drawStretch(prospect{
			recordedOnline: r.Shown == fleet.StatusOnline && w.recordedOnline(t, r.ID), drainable: w.isDrainable(r),
		})
		if w.begin(t.Scope, r.ID, s) {
			w.tell("runner %s begins %v", key, s)
		}
	case what == "slander" && r.Online && !r.Busy && !isPooled(r):
		s := stretch{list: aboutAll, look: aboutAll, deletes: true}
		w.slander(t.Scope, r.ID, s)
		w.tell("runner %s is idle and said to be offline", key)
	case what == "finish" && working:
		w.ok(w.sim.Finish(t.Scope, r.ID))
		if h := w.jobs.hosts[key]; h != nil {
			h.says = anyOf(w, "host says then", "", fleet.HostRunnerIdle)
			w.teach(h, anyOf(w, "asked then, the host answers", answersTruth, answersTruth, answersIdle, answersNothing))
		}
		if w.oneIn(2, "the lies end with it") {
			w.clearName(key)
		}
	case what == "kill":
		w.ok(w.sim.Kill(t.Scope, r.ID))
		w.clearName(key)
		if h := w.jobs.hosts[key]; h != nil {
			h.says = anyOf(w, "host says then", "", fleet.HostRunnerStopped)
			w.teach(h, anyOf(w, "asked then, the host answers", answersDeaf, answersNothing, answersTruth))
		}
	case what == "connect" && !isPooled(r):
		w.ok(w.sim.Connect(t.Scope, r.ID))
	case what == "remove":
		w.ok(w.sim.Remove(t.Scope, r.ID))
		if h := w.jobs.hosts[key]; h != nil {
			w.teach(h, answersDeaf)
			delete(w.jobs.hosts, key)
		}
	}
}

// recordedOnline reports whether muster takes a runner for online: the time that
// counts as offline has then not begun. It is for what to draw, and judges
// nothing.
func (w *world) recordedOnline(t *target, id int64) bool {
	return w.count(`SELECT count(*) FROM muster.runner WHERE target = $1 AND runner_id = $2 AND status = 'online'
		AND missing_since IS NULL AND removed_at IS NULL`, t.Name, id) == 1
}

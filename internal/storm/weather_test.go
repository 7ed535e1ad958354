package storm_test

import (
	"net/http"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/github/githubsim"
)

// weather is something that is wrong with GitHub, until it is lifted.
type weather struct {
	what string
	lift func()
}

// turnWeather ends some of what is wrong, and begins something else.
func (w *world) turnWeather() {
	var lasting []*weather
	for _, x := range w.weather {
		if w.oneIn(2, "lasts") {
			lasting = append(lasting, x)
		} else {
			x.lift()
		}
	}
	w.weather = lasting
	odds := 3
	if w.shared && len(w.replicas) > 1 {
		odds = 2 // one is told, and all have to know
	}
	if w.oneIn(odds, "a penalty") {
		r := rapid.SampledFrom(w.replicas).Draw(w.T, "whose penalty")
		w.sim.Penalise(r.credential, anyOf(w, "for", 90*time.Second, 25*time.Minute))
	}
	if !w.store.full && w.oneIn(5, "the store fills") {
		w.weather = append(w.weather, w.fillStore())
	}
	w.stepNow(5)
	if w.oneIn(3, "lost machines show no labels") {
		w.weather = append(w.weather, w.emptyLabels())
	}
	some := []int{0, 0, 1, 1, 2, 4}
	if w.reaping {
		some = []int{0, 0, 1, 1}
	}
	for range anyOf(w, "troubles", some...) {
		if w.oneIn(6, "as a whole") {
			w.weather = append(w.weather, w.outage())
		} else {
			w.weather = append(w.weather, w.fault())
		}
	}
}

// clearUp ends all that is wrong.
func (w *world) clearUp() {
	for _, x := range w.weather {
		x.lift()
	}
	w.weather = nil
	w.sim.SetLimits(githubsim.Limits{})
}

// outage is one that concerns all requests, or all of one credential.
func (w *world) outage() *weather {
	r := rapid.SampledFrom(w.replicas).Draw(w.T, "whose credential")
	t := rapid.SampledFrom(w.targets).Draw(w.T, "where")
	what := rapid.SampledFrom([]string{"down", "maintenance", "revoked", "forbidden", "invisible"}).Draw(w.T, "outage")
	x := &weather{what: what, lift: func() {}}
	token, scope := r.credential, t.Scope
	switch what {
	case "down":
		w.sim.Down(true)
		x.lift = func() { w.sim.Down(false) }
	case "maintenance":
		w.sim.Maintenance(true)
		x.lift = func() { w.sim.Maintenance(false) }
	case "revoked":
		w.sim.Revoke(token)
		x.lift = func() { w.sim.Accept(token) }
	case "forbidden":
		w.sim.Grant(token, scope, githubsim.AccessForbidden)
		x.lift = func() { w.sim.Grant(token, scope, githubsim.AccessFull) }
	case "invisible":
		w.sim.Grant(token, scope, githubsim.AccessInvisible)
		x.lift = func() { w.sim.Grant(token, scope, githubsim.AccessFull) }
	}
	w.tally.count("outage " + what)
	return x
}

// anyOf draws one of a few.
func anyOf[V any](w *world, label string, of ...V) V { return rapid.SampledFrom(of).Draw(w.T, label) }

const (
	ofPages  = "/actions/runners"
	ofRunner = "/actions/runners/{runner_id}"
)

// faultFamilies are the kinds of faults, by how they look to a client.
var faultFamilies = [][]githubsim.FaultKind{
	{githubsim.FaultStatus},
	{githubsim.FaultLost},
	{githubsim.FaultHidden, githubsim.FaultOffline},
	{githubsim.FaultStale, githubsim.FaultStale304},
	{githubsim.FaultShift, githubsim.FaultSwap},
	{githubsim.FaultRowsTwice, githubsim.FaultRowsLost, githubsim.FaultRowsNull, githubsim.FaultTotal},
	{githubsim.FaultFieldMissing, githubsim.FaultFieldNull, githubsim.FaultFieldWrong},
	{githubsim.FaultTruncated, githubsim.FaultShortBody, githubsim.FaultResetBody, githubsim.FaultBody},
	{githubsim.FaultReset, githubsim.FaultRedirect},
	{githubsim.FaultLatency, githubsim.FaultSlowBody, githubsim.FaultSkew, githubsim.FaultZombie},
}

// lying are the kinds of faults by which whole answers are of another time, or
// lack somebody without showing it.
var lying = []githubsim.FaultKind{
	githubsim.FaultHidden, githubsim.FaultOffline, githubsim.FaultStale, githubsim.FaultStale304, githubsim.FaultShift, githubsim.FaultSwap,
}

// families are those that may strike in this life.
func (w *world) families() [][]githubsim.FaultKind {
	if w.jobs == nil || w.jobs.caches {
		return faultFamilies
	}
	return slices.DeleteFunc(slices.Clone(faultFamilies), func(kinds []githubsim.FaultKind) bool { return slices.Contains(lying, kinds[0]) })
}

// fault draws one of the simulator's faults, and injects it.
func (w *world) fault() *weather {
	family := rapid.SampledFrom(w.families()).Draw(w.T, "family")
	kind := rapid.SampledFrom(family).Draw(w.T, "fault")
	f := githubsim.Fault{
		Kind:        kind,
		Probability: anyOf(w, "probability", 0, 0, 0.2, 0.5),
		Nth:         anyOf(w, "nth", 0, 0, 0, 2),
		Count:       anyOf(w, "count", 2, 1, 5, 0),
		For:         time.Duration(anyOf(w, "for minutes", 0, 4, 20)) * time.Minute,
	}
	if len(w.targets) > 1 && w.oneIn(2, "in one scope") {
		f.Scope = rapid.SampledFrom(w.targets).Draw(w.T, "scope").Scope
	}
	w.shape(&f)
	if w.reaping && w.oneIn(2, "of single runners") {
		f.Path = ofRunner
	}
	w.suffered[kind] = true
	lift, err := w.sim.Inject(f)
	w.ok(err)
	return &weather{what: string(kind), lift: lift}
}

// longestDelay is the most that faults make an answer late by.
const longestDelay = 3 * time.Minute

// shape draws what the kind of a fault wants to know.
func (w *world) shape(f *githubsim.Fault) {
	where := func(of ...string) { f.Path = anyOf(w, "path", of...) }
	switch f.Kind {
	case githubsim.FaultLatency, githubsim.FaultSlowBody:
		where("", ofPages, ofRunner)
		f.Delay = anyOf(w, "delay", time.Second, 20*time.Second, longestDelay)
	case githubsim.FaultSkew:
		f.Skew = anyOf(w, "skew", time.Hour, -time.Hour)
	case githubsim.FaultStatus:
		w.shapeStatus(f)
	case githubsim.FaultRedirect:
		where("", ofPages, ofRunner)
		f.Status = anyOf(w, "status", 301, 302, 307, 308)
	case githubsim.FaultLost:
		// What GitHub has done it does not call refused: that would be a lie
		// that nobody could see through.
		f.Method = anyOf(w, "method", "", http.MethodDelete, http.MethodDelete)
		f.Status = anyOf(w, "status", 0, 500, 502, 504)
	case githubsim.FaultReset, githubsim.FaultResetBody, githubsim.FaultShortBody, githubsim.FaultTruncated:
		where("", ofPages, ofRunner)
	case githubsim.FaultBody:
		where("", ofPages, ofRunner)
		f.Body = anyOf(w, "body", "", "null", "{}", "[]", "<html>", `{"total_count":0}`)
	case githubsim.FaultFieldMissing, githubsim.FaultFieldNull, githubsim.FaultFieldWrong:
		where("", ofPages, ofRunner)
		f.Field = anyOf(w, "field", "id", "name", "os", "status", "busy", "labels", "ephemeral", "version", "runner_group_id", "total_count", "runners")
		f.Rows = anyOf(w, "rows", 0, 1)
	case githubsim.FaultRowsTwice, githubsim.FaultRowsLost, githubsim.FaultRowsNull:
		f.Rows = anyOf(w, "rows", 0, 3)
	case githubsim.FaultTotal:
		f.By = anyOf(w, "by", 1, -1, 100, -100)
	case githubsim.FaultHidden, githubsim.FaultOffline:
		f.Rows = anyOf(w, "rows", 1, 5, 30, 0) // 0: all
	case githubsim.FaultStale:
		where("", ofPages, ofPages)
		f.Age = anyOf(w, "age", time.Minute, 6*time.Minute, 20*time.Minute)
	case githubsim.FaultZombie:
		f.Probability, f.Nth = 0, 0
	}
}

// shapeStatus draws a refusal. That a runner is not there is said of single
// ones, and that it is busy in answer to a DELETE.
func (w *world) shapeStatus(f *githubsim.Fault) {
	f.Status = anyOf(w, "status", 400, 401, 403, 404, 422, 429, 500, 502, 503)
	switch f.Status {
	case 403, 429, 503:
		f.RetryAfter = anyOf(w, "retry after", 0, time.Second, time.Minute, 7*time.Minute, 40*time.Minute)
	case 404:
		f.Path = anyOf(w, "path", ofRunner, ofPages, "")
		return
	case 422:
		f.Method = http.MethodDelete
		return
	}
	f.Path = anyOf(w, "path", "", ofPages, ofRunner)
	f.Method = anyOf(w, "method", "", http.MethodGet, http.MethodDelete)
}

// drawLimits are what GitHub allows a credential in this life, half of the time
// nothing but what anybody can keep to.
func (w *world) drawLimits() githubsim.Limits {
	if !w.oneIn(2, "limited") {
		return githubsim.Limits{}
	}
	return githubsim.Limits{
		Primary:         anyOf(w, "primary", 0, 5000, 200, 40),
		PrimaryStatus:   anyOf(w, "status of primary", 0, 429),
		Points:          anyOf(w, "points", 0, 900, 30),
		Concurrent:      anyOf(w, "concurrent", 0, 100),
		Mutations:       anyOf(w, "mutations", 0, 80, 5),
		SecondaryStatus: anyOf(w, "status of secondary", 0, 429),
		Penalty:         time.Duration(anyOf(w, "penalty minutes", 0, 8, 30)) * time.Minute,
		Extend:          w.oneIn(2, "extend"),
		RetryAfter:      anyOf(w, "retry after", githubsim.RetrySeconds, githubsim.RetryDate, githubsim.RetryAbsent),
		OldDocs:         w.oneIn(2, "old docs"),
	}
}

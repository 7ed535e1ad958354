package token_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/token"
)

func TestWhatNoGrantCoversIsDeniedInTheSameWords(t *testing.T) {
	t.Parallel()
	r := start(t, settings{grants: []token.Grant{{
		Hosts: []string{"build-01"}, Targets: []string{"acme", "gone"}, Labels: []string{"linux"},
		Kinds: []fleet.TokenKind{fleet.TokenRegistration, fleet.TokenJIT},
	}}})
	tests := []struct {
		name, host, target, kind, more string
	}{
		{"a host without a grant", "build-02", "acme", "registration", ""},
		{"a target that is not in the grant", "build-01", "widgets", "registration", ""},
		{"a target that is in the grant and nowhere else", "build-01", "gone", "registration", ""},
		{"the word for all targets", "build-01", "all", "registration", ""},
		{"a kind that is not in the grant", "build-01", "acme", "removal", ""},
		{"a label that is not in the grant", "build-01", "acme", "jit", `,"labels":["linux","gpu"]`},
	}
	id := regexp.MustCompile(`"request_id":"[^"]*"`)
	for n, tt := range tests {
		got := r.ask(t, tt.host, fmt.Sprintf(`{"target":%q,"kind":%q%s}`, tt.target, tt.kind, tt.more))
		const want = `{"v":1,"code":403,"error":"denied","retry_after_ms":0}`
		if body := id.ReplaceAllString(got.body, ""); strings.Replace(body, ",,", ",", 1) != want {
			t.Errorf("%s: answer is %s", tt.name, got.body)
		}
		if got.description != "no grant allows this" {
			t.Errorf("%s: description is %q", tt.name, got.description)
		}
		rows := r.rows(t, "request_id::text, attempt, host, target, kind, outcome, code")
		if len(rows) != n+1 || rows[n] != fmt.Sprintf("%s 1 %s %s %s denied 403", got.RequestID, tt.host, tt.target, tt.kind) {
			t.Errorf("%s: api.tokens: %q", tt.name, rows)
		}
		if codes := r.trail(t); len(codes) != n+1 || codes[n] != "TK103W" {
			t.Errorf("%s: trail: %q", tt.name, codes)
		}
	}
	if n := len(r.minted()); n != 0 {
		t.Errorf("GitHub minted %d times", n)
	}
}

func TestAMalformedRequestIsAnEventOfTheTrailAlone(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	r.pass(time.Hour) // events are dated by the clock of all replicas
	id := newID()
	tests := []struct {
		body, reason string
	}{
		{"", "the body is not one JSON object in UTF-8"},
		{`{"target":"acme","kind":"registration","host":"build-02"}`, "the body has an unknown field: host"},
		{registration + registration, "the body is not one JSON object in UTF-8"},
		{`{"target":"acme","kind":"registration","demand_id":"` + strings.Repeat("x", queue.MaxBody) + `"}`, "the body is longer than 16 KiB"},
		{`{"target":"acme","kind":"registration","xkey":"XAB","request_id":"` + id + `"}`, "xkey: sealed answers are not there yet, and nothing is sent unsealed to who asks for sealing"},
		{`{"target":"acme","kind":"bad\u0000kind"}`, "kind is not registration, removal or jit: bad kind"},
	}
	for n, tt := range tests {
		got := r.ask(t, "build-01", tt.body)
		if got.Code != 400 || got.Error != "bad_request" || got.RequestID == "" {
			t.Errorf("%.60q: answer is %s", tt.body, got.body)
		}
		if !strings.HasPrefix(tt.reason, got.description) {
			t.Errorf("%.60q: description is %q", tt.body, got.description)
		}
		events, err := r.db.Trail(t.Context(), db.TrailFilter{Host: "build-01"})
		if err != nil {
			t.Fatal(err)
		}
		if len(events) != n+1 || events[n].Code != fleet.AuditTokenBadRequest || events[n].Reason != tt.reason ||
			!strings.Contains(string(events[n].Payload), got.RequestID) {
			t.Errorf("%.60q: %d events, the last of them is %s", tt.body, len(events), events[len(events)-1].Payload)
		}
		if !events[n].At.After(time.Now().Add(30 * time.Minute)) {
			t.Errorf("%.60q: the event is of %s", tt.body, events[n].At)
		}
		if strings.Contains(tt.body, id) && got.RequestID != id {
			t.Errorf("%.60q: the answer has another id: %s", tt.body, got.body)
		}
	}
	// A host that cannot be one is refused likewise.
	if got := r.ask(t, "BUILD-01", registration); got.Code != 400 {
		t.Errorf("host BUILD-01: answer is %s", got.body)
	}
	if rows := r.rows(t, "host"); len(rows) != 0 {
		t.Errorf("api.tokens has %q", rows)
	}
	if strings.Contains(r.log.String(), "audit event not written") {
		t.Error("the log says that an event was not written")
	}
}

func TestAnIDWithAnotherBodyIsAConflict(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	id := newID()
	first := r.ask(t, "build-01", request(fleet.TokenRegistration, id))
	if got := r.ask(t, "build-01", request(fleet.TokenRemoval, id)); got.Code != 409 || got.Error != "conflict" {
		t.Errorf("answer is %s", got.body)
	}
	// Somebody else's id is nobody's business.
	if got := r.ask(t, "build-02", request(fleet.TokenRemoval, id)); got.Token == "" {
		t.Errorf("answer is %s", got.body)
	}
	if again := r.ask(t, "build-01", request(fleet.TokenRegistration, id)); again.body != first.body {
		t.Errorf("after the conflict the first request is answered %s, before %s", again.body, first.body)
	}
	want := []string{"build-01 1 registration issued ", "build-01 2 removal denied 409", "build-02 1 removal issued "}
	if diff := cmp.Diff(want, r.rows(t, "host, attempt, kind, outcome, code")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
}

func TestTheQuotaHoldsForAnyHourAndAnyReplica(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.URL(t))
	three := anyone()
	three.grants[0].PerHour = 3
	replicas := []*replica{w.replica(t, three), w.replica(t, three)}
	for n := range 3 {
		if got := replicas[n%2].ask(t, "build-01", registration); got.Token == "" {
			t.Fatalf("answer %d is %s", n, got.body)
		}
		w.pass(10 * time.Minute)
	}
	for _, r := range replicas {
		got := r.ask(t, "build-01", registration)
		// The first of three was given half an hour ago.
		left := time.Duration(got.RetryAfterMS) * time.Millisecond
		if got.Code != 429 || got.Error != "quota" || left > 30*time.Minute || left < 29*time.Minute {
			t.Errorf("answer is %s", got.body)
		}
	}
	if got := replicas[0].ask(t, "build-02", registration); got.Token == "" {
		t.Errorf("another host is answered %s", got.body)
	}
	w.pass(30 * time.Minute)
	if got := replicas[1].ask(t, "build-01", registration); got.Token == "" {
		t.Errorf("after an hour the answer is %s", got.body)
	}
	want := []string{"issued ", "issued ", "issued ", "denied 429", "denied 429", "issued ", "issued "}
	if diff := cmp.Diff(want, w.rows(t, "outcome, code")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
}

func TestTheQuotaHoldsForRequestsThatComeTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.URL(t))
	five := anyone()
	five.grants[0].PerHour = 5
	replicas := []*replica{w.replica(t, five), w.replica(t, five)}
	codes := make(chan int, 20)
	var asking sync.WaitGroup
	for n := range cap(codes) {
		nc := replicas[n%2].client(t, "build-01")
		asking.Go(func() { codes <- ask(t, nc, "build-01", registration).Code })
	}
	asking.Wait()
	close(codes)
	got := map[int]int{}
	for code := range codes {
		got[code]++
	}
	if diff := cmp.Diff(map[int]int{0: 5, 429: 15}, got); diff != "" {
		t.Errorf("answers by code: %s", diff)
	}
}

func TestWhatIsLiveUnderAGrantIsLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.URL(t))
	few := anyone()
	few.grants[0].MaxLive = 3
	alone := generous()
	alone.HostPrefix, alone.MaxLive = "lone-", 1
	few.grants = append(few.grants, alone)
	replicas := []*replica{w.replica(t, few), w.replica(t, few)}

	// Hosts that come together, on two replicas, get three between them.
	const hosts = 8
	codes := make([]int, hosts)
	var asking sync.WaitGroup
	for n := range hosts {
		host := fmt.Sprintf("build-%02d", n)
		nc := replicas[n%2].client(t, host)
		asking.Go(func() { codes[n] = ask(t, nc, host, registration).Code })
	}
	asking.Wait()
	issued, lucky := 0, ""
	for n, code := range codes {
		switch code {
		case 0:
			issued++
			lucky = fmt.Sprintf("build-%02d", n)
		case 429:
		default:
			t.Errorf("host %d is refused with %d", n, code)
		}
	}
	if issued != 3 {
		t.Fatalf("%d tokens were issued, want 3", issued)
	}
	r := replicas[0]
	if got := r.ask(t, "build-99", registration); got.Code != 429 || got.RetryAfterMS != 60_000 {
		t.Errorf("answer is %s", got.body)
	}
	if got := r.ask(t, "build-99", request(fleet.TokenRemoval, newID())); got.Token == "" {
		t.Errorf("the limit keeps a host from removing its runner: %s", got.body)
	}

	if got := r.ask(t, "lone-01", registration); got.Token == "" {
		t.Errorf("the one that its grant allows is answered %s", got.body)
	}
	if got := r.ask(t, "lone-02", registration); got.Code != 429 {
		t.Errorf("the second where one is allowed is answered %s", got.body)
	}

	// One of the three becomes a runner, which counts in place of its token
	// and goes on counting once the tokens have expired.
	raw := w.raw(t)
	if _, err := raw.Exec(t.Context(), `
		INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, fingerprint, host,
			first_seen_at, seen_at, status_since)
		VALUES ('acme', 7, $1, 'linux', 'online', false, '{}', 0, $1, clock_timestamp(), clock_timestamp(), clock_timestamp())`,
		lucky); err != nil {
		t.Fatal(err)
	}
	if got := r.ask(t, "build-99", registration); got.Code != 429 {
		t.Errorf("answer is %s", got.body)
	}
	w.pass(61 * time.Minute)
	for n := range 2 {
		if got := r.ask(t, fmt.Sprintf("build-9%d", n), registration); got.Token == "" {
			t.Errorf("with one runner live the answer is %s", got.body)
		}
	}
	if got := r.ask(t, "build-99", registration); got.Code != 429 {
		t.Errorf("with a runner and two tokens live the answer is %s", got.body)
	}
	if _, err := raw.Exec(t.Context(), `UPDATE muster.runner SET removed_at = clock_timestamp(), removal_cause = 'policy'`); err != nil {
		t.Fatal(err)
	}
	if got := r.ask(t, "build-99", registration); got.Token == "" {
		t.Errorf("with two tokens live the answer is %s", got.body)
	}
}

func TestKindsThatAreNotThereYetAreNamed(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	const body = `{"target":"acme","kind":"jit","runner_name":"r1","runner_group":"default","labels":["Linux"],"work_folder":"_work"}`
	if got := r.ask(t, "build-01", body); got.Code != 501 || got.Error != "kind_unsupported" {
		t.Errorf("answer is %s", got.body)
	}
	if diff := cmp.Diff([]string{"build-01 acme jit denied 501"}, r.rows(t, "host, target, kind, outcome, code")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
	if diff := cmp.Diff([]string{"TK103W"}, r.trail(t)); diff != "" {
		t.Errorf("trail: %s", diff)
	}
}

func TestRefusalsComeInTheOrderOfTheContract(t *testing.T) {
	t.Parallel()
	one := anyone()
	one.grants[0].PerHour = 1
	one.grants[0].Kinds = []fleet.TokenKind{fleet.TokenRegistration, fleet.TokenJIT}
	r := start(t, one)
	id := newID()
	if got := r.ask(t, "build-01", request(fleet.TokenRegistration, id)); got.Token == "" {
		t.Fatalf("answer is %s", got.body)
	}
	r.sim.Down(true)
	steps := []struct {
		name, body string
		want       int
	}{
		{"all at once, and malformed", `{"target":"acme","kind":"removal","request_id":"` + id + `","x":1}`, 400},
		{"no grant, another body, no quota", request(fleet.TokenRemoval, id), 403},
		{"another body, no quota, unsupported", request(fleet.TokenJIT, id), 409},
		{"no quota, unsupported", request(fleet.TokenJIT, newID()), 429},
		{"no quota, GitHub away", request(fleet.TokenRegistration, newID()), 429},
	}
	for _, step := range steps {
		if got := r.ask(t, "build-01", step.body); got.Code != step.want {
			t.Errorf("%s: answer is %s, want %d", step.name, got.body, step.want)
		}
	}
	if got := r.ask(t, "build-02", request(fleet.TokenJIT, newID())); got.Code != 501 {
		t.Errorf("unsupported, GitHub away: answer is %s", got.body)
	}
}

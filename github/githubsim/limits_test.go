package githubsim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/github/githubsim"
)

const (
	mint     = list + "/registration-token"
	allSpent = "API rate limit exceeded for user ID 1."
	tooFast  = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
)

// limited is what an answer says of limits.
type limited struct {
	Status         int
	Remaining      string
	RetryAfter     string
	Message, Docs  string
	Points         int // the log's
	LogRemaining   int
	Penalty        bool
	ToldForSeconds int
}

func (s *simulator) limited(method, path string, header ...string) limited {
	s.t.Helper()
	r := s.ask(method, path, "", header...)
	var body struct {
		Message string
		Docs    string `json:"documentation_url"`
	}
	if r.status >= 400 {
		r.decode(s.t, &body)
	}
	e := s.last()
	return limited{
		r.status, r.header.Get("X-RateLimit-Remaining"), r.header.Get("Retry-After"), body.Message, body.Docs,
		e.Points, e.RateRemaining, e.Penalty, int(e.ToldFor / time.Second),
	}
}

func (s *simulator) wantLimited(name string, want limited, method, path string, header ...string) {
	s.t.Helper()
	got := s.limited(method, path, header...)
	if want.Docs == "" {
		got.Docs = ""
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestThePrimaryLimit(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Limits: githubsim.Limits{Primary: 5}})
	s.wantLimited("first", limited{Status: 200, Remaining: "4", LogRemaining: 4, Points: 1}, "GET", list)
	first := s.ask("GET", list, "")
	for name, want := range map[string]string{"Limit": "5", "Remaining": "3", "Used": "2", "Resource": "core", "Reset": fmt.Sprint(s.now.Add(time.Hour).Unix())} {
		if got := first.header.Get("X-RateLimit-" + name); got != want {
			t.Errorf("X-RateLimit-%s: %q, want %s", name, got, want)
		}
	}
	s.now = s.now.Add(59 * time.Minute)
	s.wantLimited("not modified", limited{Status: 304, Remaining: "3", LogRemaining: 3, Points: 1}, "GET", list, "If-None-Match", first.header.Get("ETag"))
	s.wantLimited("an error", limited{Status: 404, Remaining: "2", LogRemaining: 2, Points: 1, Message: "Not Found"}, "GET", list+"/9")
	s.wantLimited("a mutation", limited{Status: 201, Remaining: "1", LogRemaining: 1, Points: 5}, "POST", mint)
	if r := s.ask("GET", "/api/v3/rate_limit", ""); r.status != 200 || !strings.Contains(r.body, `"rate":{"limit":5,"used":4,"remaining":1,"reset":`) {
		t.Errorf("rate limit: %d %s", r.status, r.body)
	}
	s.wantLimited("the last", limited{Status: 200, Remaining: "0", Points: 1}, "GET", list)
	s.wantLimited("one too many", limited{Status: 403, Remaining: "0", Points: 1, Message: allSpent}, "GET", list)
	s.now = s.now.Add(10 * time.Second)
	s.wantLimited("in spite of it", limited{Status: 403, Remaining: "0", Points: 5, Message: allSpent, Penalty: true, ToldForSeconds: 10}, "POST", mint)
	s.wantLimited("even what is there", limited{Status: 403, Remaining: "0", Points: 1, Message: allSpent, Penalty: true, ToldForSeconds: 10}, "GET", list, "If-None-Match", "*")
	s.wantLimited("another credential", limited{Status: 200, Remaining: "4", LogRemaining: 4, Points: 1}, "GET", list, "Authorization", "token other")
	if r := s.ask("GET", "/api/v3/rate_limit", ""); r.status != 200 || s.last().Penalty {
		t.Errorf("rate limit, which is free: %d, %+v", r.status, s.last())
	}
	s.now = s.now.Add(50 * time.Second)
	s.wantLimited("the next hour", limited{Status: 200, Remaining: "4", LogRemaining: 4, Points: 1}, "GET", list)
	s.Spend(credential, 9)
	s.SetLimits(githubsim.Limits{Primary: 6, PrimaryStatus: http.StatusTooManyRequests})
	s.wantLimited("with 429", limited{Status: 429, Remaining: "0", Points: 1, Message: allSpent}, "GET", list)
}

func TestPointsPerMinuteAndRoute(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Limits: githubsim.Limits{Points: 10, Primary: 1000}})
	refused := limited{Status: 403, Points: 1, Message: tooFast, RetryAfter: "60", Remaining: "990", LogRemaining: 990}
	for i := range 10 {
		s.wantLimited("fits", limited{Status: 200, Points: 1, Remaining: fmt.Sprint(999 - i), LogRemaining: 999 - i}, "GET", list)
		s.now = s.now.Add(time.Second)
	}
	s.wantLimited("the eleventh", refused, "GET", list)
	s.now = s.now.Add(20 * time.Second)
	refused.RetryAfter, refused.Penalty, refused.ToldForSeconds = "40", true, 20
	s.wantLimited("a minute after the first, but in the penalty", refused, "GET", list)
	refused.Points = 5
	s.wantLimited("another route in the penalty", refused, "POST", mint)
	s.now = s.now.Add(40 * time.Second)
	for i := range 2 {
		s.wantLimited("afterwards", limited{Status: 201, Points: 5, Remaining: fmt.Sprint(989 - i), LogRemaining: 989 - i}, "POST", mint)
	}
	s.wantLimited("another route has points of its own", limited{Status: 201, Points: 5, Remaining: "987", LogRemaining: 987}, "POST", list+"/remove-token")
	s.wantLimited("a third", limited{Status: 403, Points: 5, Message: tooFast, RetryAfter: "60", Remaining: "987", LogRemaining: 987}, "POST", mint)
	if got := len(s.tokensMinted()); got != 3 {
		t.Errorf("%d tokens were minted, want 3: what is refused is not done", got)
	}
}

func (s *simulator) tokensMinted() []string {
	var tokens []string
	for _, e := range s.Log() {
		if e.Token != "" {
			tokens = append(tokens, e.Token)
		}
	}
	return tokens
}

func TestMutations(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Limits: githubsim.Limits{Mutations: 3, MutationsPerHour: 5}})
	for range 20 {
		s.wantLimited("reads are none", limited{Status: 200, Points: 1}, "GET", list)
	}
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	s.wantLimited("1", limited{Status: 201, Points: 5}, "POST", mint)
	s.wantLimited("2", limited{Status: 204, Points: 5}, "DELETE", fmt.Sprintf("%s/%d", list, id))
	s.wantLimited("3", limited{Status: 201, Points: 5}, "POST", mint)
	s.wantLimited("4 in a minute", limited{Status: 403, Points: 5, Message: tooFast, RetryAfter: "60"}, "POST", mint)
	s.now = s.now.Add(time.Minute)
	s.wantLimited("4", limited{Status: 201, Points: 5}, "POST", mint)
	s.wantLimited("5", limited{Status: 201, Points: 5}, "POST", mint)
	s.now = s.now.Add(time.Minute)
	s.wantLimited("6 in an hour", limited{Status: 403, Points: 5, Message: tooFast, RetryAfter: "60"}, "POST", mint)
	s.now = s.now.Add(58 * time.Minute)
	s.wantLimited("6", limited{Status: 201, Points: 5}, "POST", mint)
}

func TestHowARefusalSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	const (
		now  = "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"
		then = "https://docs.github.com/en/free-pro-team@latest/rest/overview/resources-in-the-rest-api#secondary-rate-limits"
	)
	for _, tt := range []struct {
		limits githubsim.Limits
		want   limited
	}{
		{githubsim.Limits{}, limited{Status: 403, RetryAfter: "60", Docs: now}},
		{githubsim.Limits{SecondaryStatus: 429, Penalty: 90500 * time.Millisecond}, limited{Status: 429, RetryAfter: "91", Docs: now}},
		{githubsim.Limits{RetryAfter: githubsim.RetryDate, OldDocs: true}, limited{Status: 403, RetryAfter: "Sun, 01 Mar 2026 12:01:00 GMT", Docs: then}},
		{githubsim.Limits{RetryAfter: githubsim.RetryAbsent}, limited{Status: 403, Docs: now}},
	} {
		tt.limits.Points = 1
		tt.want.Points, tt.want.Message = 1, tooFast
		s := start(t, githubsim.Config{Limits: tt.limits})
		s.ask("GET", list, "")
		s.wantLimited(fmt.Sprintf("%+v", tt.limits), tt.want, "GET", list)
	}
}

func TestARequestInThePenaltyMayExtendIt(t *testing.T) {
	t.Parallel()
	for extend, want := range map[bool]int{false: 200, true: 403} {
		s := start(t, githubsim.Config{Limits: githubsim.Limits{Extend: extend, Concurrent: 100}})
		s.Penalise(credential, time.Minute)
		s.now = s.now.Add(40 * time.Second)
		if got := s.limited("GET", list); got.Status != 403 || got.Penalty {
			t.Errorf("the first, which could not know: %+v", got)
		}
		s.now = s.now.Add(40 * time.Second)
		if got := s.limited("GET", list); got.Status != want || got.Penalty != extend {
			t.Errorf("extend %t, 80 s later: %+v, want %d", extend, got, want)
		}
	}
}

// TestConcurrentRequests holds two requests in the middle of their being
// answered. They came before the penalty, and nobody holds it against them.
func TestConcurrentRequests(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Limits: githubsim.Limits{Concurrent: 2}})
	arrived, release := make(chan struct{}), make(chan struct{})
	off := s.Before(func(githubsim.Request) {
		arrived <- struct{}{}
		<-release
	})
	statuses := make(chan int, 2)
	for range 2 {
		go func() { statuses <- s.ask("GET", list, "").status }()
		<-arrived
	}
	s.wantLimited("the third", limited{Status: 403, Points: 1, Message: tooFast, RetryAfter: "60"}, "GET", list)
	off()
	close(release)
	for range 2 {
		if status := <-statuses; status != 200 {
			t.Errorf("one of the first two: %d, want 200", status)
		}
	}
	s.now = s.now.Add(time.Minute)
	for _, e := range s.Log() {
		if e.Penalty {
			t.Errorf("%+v came in spite of the penalty", e)
		}
	}
	s.wantLimited("once they are answered", limited{Status: 200, Points: 1}, "GET", list)
}

func TestLimitsConcernGoodCredentialsOnly(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Tokens: []string{credential}, Limits: githubsim.Usual})
	r := s.ask("GET", list, "", "Authorization", "token bad")
	if e := s.last(); r.status != 401 || r.header.Get("X-RateLimit-Limit") != "" || e.Points != 0 || e.RateLimit != 0 {
		t.Errorf("%d, header %v, log %+v", r.status, r.header, e)
	}
}

func TestTheServersClockMayBeWrong(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Skew: 2 * time.Minute, Limits: githubsim.Usual})
	r := s.ask("GET", list, "")
	if want := s.now.Add(2 * time.Minute).Format(http.TimeFormat); r.header.Get("Date") != want {
		t.Errorf("Date %s, want %s", r.header.Get("Date"), want)
	}
	if want := fmt.Sprint(s.now.Add(62 * time.Minute).Unix()); r.header.Get("X-RateLimit-Reset") != want {
		t.Errorf("reset at %s, want %s", r.header.Get("X-RateLimit-Reset"), want)
	}
	if e := s.last(); !e.At.Equal(s.now) {
		t.Errorf("the log is by the server's clock: %s", e.At)
	}
}

func TestLimitsByCommand(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	for _, bad := range []string{`{"secondary_status":500}`, `{"primary_status":1}`, `{"retry":"soon"}`, `{"secondary":1}`} {
		if status, text := s.control("limits", bad); status != 400 {
			t.Errorf("%s: %d %s, want 400", bad, status, text)
		}
	}
	if status, text := s.control("limits", `{"primary":10,"points":1,"penalty_seconds":7,"secondary_status":429}`); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	s.wantLimited("first", limited{Status: 200, Remaining: "9", LogRemaining: 9, Points: 1}, "GET", list)
	s.wantLimited("second", limited{Status: 429, Remaining: "9", LogRemaining: 9, Points: 1, Message: tooFast, RetryAfter: "7"}, "GET", list)
	if status, text := s.control("limits", `{}`); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	s.now = s.now.Add(7 * time.Second)
	s.wantLimited("none", limited{Status: 200, Points: 1}, "GET", list)
}

// TestRetryAfterOfAFaultIsAPenaltyInTheLog has a server without limits.
func TestRetryAfterOfAFaultIsAPenaltyInTheLog(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.inject(githubsim.Fault{Kind: githubsim.FaultStatus, Status: 503, RetryAfter: 30 * time.Second, Count: 1})
	if r := s.ask("GET", list, ""); r.status != 503 || s.last().Penalty {
		t.Errorf("the fault: %d, %+v", r.status, s.last())
	}
	for _, tt := range []struct {
		after time.Duration
		want  limited
	}{
		{10 * time.Second, limited{Status: 200, Points: 1, Penalty: true, ToldForSeconds: 10}},
		{20 * time.Second, limited{Status: 200, Points: 1}},
	} {
		s.now = s.now.Add(tt.after)
		s.wantLimited(tt.after.String(), tt.want, "GET", list)
	}
	s.wantLimited("another credential", limited{Status: 200, Points: 1}, "GET", list, "Authorization", "token other")
}

func TestARefusalThatGotLostTellsNothing(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Limits: githubsim.Limits{Points: 1}})
	s.ask("GET", list, "")
	s.inject(githubsim.Fault{Kind: githubsim.FaultLost, Status: 502, Count: 1})
	if r := s.ask("GET", list, ""); r.status != 502 {
		t.Errorf("lost: %d, want 502", r.status)
	}
	s.now = s.now.Add(time.Second)
	s.wantLimited("is told", limited{Status: 403, Points: 1, Message: tooFast, RetryAfter: "59"}, "GET", list)
	s.now = s.now.Add(time.Second)
	s.wantLimited("knows", limited{Status: 403, Points: 1, Message: tooFast, RetryAfter: "58", Penalty: true, ToldForSeconds: 1}, "GET", list)
}

package githubsim_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/github/githubsim"
)

func TestValidatorsHashWhoAsksAndTheBody(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.create(org, githubsim.RunnerSpec{Name: "a"})
	for _, tt := range []struct{ asker, accept, cookie string }{
		{"application/json:token " + credential + ":", "application/json", ""},
		{"token " + credential + ":", "", ""},
		{"*/*:token " + credential + ":a=b:", "*/*", "a=b"},
	} {
		header := []string{"Accept", tt.accept, "Cookie", tt.cookie, "Accept-Encoding", "identity"}
		r := s.ask("GET", list, "", header...)
		if want := fmt.Sprintf(`"%x"`, sha256.Sum256([]byte(tt.asker+r.body))); r.header.Get("ETag") != want {
			t.Errorf("%q: ETag %s, want %s", tt.asker, r.header.Get("ETag"), want)
		}
	}
}

func TestAnAnswerThatTheClientHasIsNotSentAgain(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	one := fmt.Sprintf("%s/%d", list, id)
	for _, path := range []string{list, one, list + "?per_page=100", list + "/downloads"} {
		strong := s.ask("GET", path, "", "Accept-Encoding", "identity").header.Get("ETag")
		weak := s.ask("GET", path, "", "Accept-Encoding", "gzip").header.Get("ETag")
		if weak != "W/"+strong || len(strong) != 66 {
			t.Errorf("GET %s: ETags %s and, compressed, %s", path, strong, weak)
		}
		for given, want := range map[string]int{
			strong: 304, weak: 304, "*": 304, `"other", ` + weak: 304, strong + `,"x"`: 304,
			`"other"`: 200, strings.Trim(strong, `"`): 200, "": 200,
		} {
			r := s.ask("GET", path, "", "If-None-Match", given)
			if r.status != want || s.last().Status != want || (want == 304) != (r.body == "") {
				t.Errorf("GET %s with %s: %d %q, logged as %d, want %d", path, given, r.status, r.body, s.last().Status, want)
			}
			if want == 304 && (r.header.Get("Cache-Control") == "" || r.header.Get("ETag") != "W/"+strong && r.header.Get("ETag") != strong || r.header.Get("Content-Type") != "") {
				t.Errorf("GET %s with %s: header %v", path, given, r.header)
			}
		}
		if r := s.ask("GET", path, "", "If-None-Match", weak, "Authorization", "Bearer "+credential); r.status != 200 {
			t.Errorf("GET %s with the validator of another way to log in: %d, want 200", path, r.status)
		}
	}
}

func TestWhatHasAValidator(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	for _, tt := range []struct {
		method, path string
		status       int
		etag         bool
	}{
		{"POST", list + "/registration-token", 201, true},
		{"GET", list + "/99", 404, false},
		{"GET", "/", 404, false},
		{"DELETE", fmt.Sprintf("%s/%d", list, id), 204, false},
	} {
		r := s.ask(tt.method, tt.path, "", "If-None-Match", "*")
		if has := r.header.Get("ETag") != ""; r.status != tt.status || has != tt.etag {
			t.Errorf("%s %s: %d, ETag %t; want %d, %t", tt.method, tt.path, r.status, has, tt.status, tt.etag)
		}
	}
}

func TestAChangeSpoilsTheValidatorOfItsPageAlone(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Lag: githubsim.Lags{Offline: time.Minute}})
	ids, err := s.CreateMany(org, 120, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprint("r", i), Online: true}
	})
	must(t, err)
	tags := func() [4]string {
		var tags [4]string
		for i := range tags {
			tags[i] = s.ask("GET", fmt.Sprintf("%s?page=%d", list, i+1), "").header.Get("ETag")
		}
		return tags
	}
	changed := func(name string, before, after [4]string, want string) {
		t.Helper()
		got := ""
		for i := range before {
			if before[i] != after[i] {
				got += fmt.Sprint(i + 1)
			}
		}
		if got != want {
			t.Errorf("%s: the pages %q changed, want %q", name, got, want)
		}
	}
	whole := tags()
	must(t, s.Kill(org, ids[31]))
	changed("killed, and not shown so", whole, tags(), "")
	s.now = s.now.Add(time.Minute)
	offline := tags()
	changed("shown offline", whole, offline, "2")
	must(t, s.Assign(org, ids[119]))
	changed("busy", offline, tags(), "4")
	must(t, s.Finish(org, ids[119]))
	must(t, s.Connect(org, ids[31]))
	changed("all as before", whole, tags(), "")
	must(t, s.Remove(org, ids[90]))
	changed("one less", whole, tags(), "1234")
}

func TestTheDateIsTheSimulatorsOwn(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	for range 2 {
		if got := s.ask("GET", list, "").header.Get("Date"); got != s.now.Format(http.TimeFormat) {
			t.Errorf("Date %s, want %s", got, s.now.Format(http.TimeFormat))
		}
		s.now = s.now.Add(36 * time.Hour)
	}
}

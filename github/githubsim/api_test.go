package githubsim_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

const list = "/api/v3/orgs/acme/actions/runners"

func TestCredentials(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Tokens: []string{credential}})
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	for _, auth := range []string{
		"token " + credential, "Bearer " + credential, "bearer " + credential,
		basic("octocat", credential), basic(credential, ""), basic(credential, "x-oauth-basic"),
	} {
		if r := s.ask("GET", list, "", "Authorization", auth); r.status != http.StatusOK {
			t.Errorf("%s: %d, want 200", auth, r.status)
		}
	}
	for _, auth := range []string{"", "token", "token ", "Digest x", "Basic ###", "RemoteAuth " + credential, credential} {
		wantError(t, auth, s.ask("GET", list, "", "Authorization", auth), http.StatusUnauthorized, "Requires authentication")
	}
	for _, auth := range []string{"token other", "Bearer " + credential + "x", basic("octocat", "other")} {
		wantError(t, auth, s.ask("GET", list, "", "Authorization", auth), http.StatusUnauthorized, "Bad credentials")
	}
	s.Revoke(credential)
	wantError(t, "revoked", s.ask("GET", list, ""), http.StatusUnauthorized, "Bad credentials")
	s.Accept(credential)
	if r := s.ask("GET", list, ""); r.status != http.StatusOK {
		t.Errorf("accepted again: %d", r.status)
	}
	if e := s.last(); e.Credential != fleet.NewSecret(credential).Fingerprint() {
		t.Errorf("the log has credential %q", e.Credential)
	}
}

func TestWithoutTokensAnyCredentialIsGoodUntilRevoked(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	if r := s.ask("GET", list, "", "Authorization", "token whatever"); r.status != http.StatusOK {
		t.Errorf("%d, want 200", r.status)
	}
	s.Revoke("whatever")
	wantError(t, "revoked", s.ask("GET", list, "", "Authorization", "token whatever"), http.StatusUnauthorized, "Bad credentials")
}

func TestTooManyBadLoginsAreForbiddenForAMinute(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Tokens: []string{credential}, LoginAttempts: 2})
	try := func() response { return s.ask("GET", list, "", "Authorization", "token bad") }
	wantError(t, "1", try(), http.StatusUnauthorized, "Bad credentials")
	wantError(t, "2", try(), http.StatusUnauthorized, "Bad credentials")
	wantError(t, "3", try(), http.StatusForbidden, "Maximum number of login attempts exceeded. Please try again later.")
	s.now = s.now.Add(time.Minute)
	wantError(t, "later", try(), http.StatusUnauthorized, "Bad credentials")
}

func TestAccess(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	for access, want := range map[githubsim.Access]int{
		githubsim.AccessForbidden: http.StatusForbidden, githubsim.AccessInvisible: http.StatusNotFound, githubsim.AccessFull: http.StatusOK,
	} {
		s.Grant(credential, org, access)
		if r := s.ask("GET", list, ""); r.status != want {
			t.Errorf("%s: %d, want %d", access, r.status, want)
		}
		if r := s.ask("GET", "/api/v3/repos/acme/widgets/actions/runners", ""); r.status != http.StatusOK {
			t.Errorf("%s elsewhere: %d, want 200", access, r.status)
		}
	}
}

func TestAddressing(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{}) // scopes 1, 2 and 3
	for _, path := range []string{
		"/enterprises/octo", "/enterprises/OCTO", "/enterprises/1", "/orgs/acme", "/orgs/Acme", "/organizations/2",
		"/repos/acme/widgets", "/repos/ACME/Widgets", "/repositories/3",
	} {
		if r := s.ask("GET", "/api/v3"+path+"/actions/runners", ""); r.status != http.StatusOK {
			t.Errorf("GET %s: %d, want 200", path, r.status)
		}
	}
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	one := fmt.Sprintf("%s/%d", list, id)
	for _, ask := range [][2]string{
		{"GET", list + "/"}, {"GET", one + "/"}, {"GET", "/api/v3/orgs/nobody/actions/runners"}, {"GET", "/api/v3/orgs/2/actions/runners"},
		{"GET", "/api/v3/organizations/3/actions/runners"}, {"GET", "/api/v3/organizations/x/actions/runners"}, {"GET", "/api/v3/repositories/2/actions/runners"},
		{"GET", "/api/v3/repos/acme/actions/runners"}, {"GET", "/api/v3/orgs/acme/actions"}, {"GET", "/api/v3/orgs/acme/actions/runnersx"},
		{"GET", "/api/v3"}, {"GET", "/api/v3/"}, {"GET", "/api/v3/orgs"}, {"GET", "/api/v3//orgs/acme/actions/runners"},
		{"GET", list + "/abc"}, {"GET", list + "/0"}, {"GET", list + "/-1"}, {"GET", list + "/99999"}, {"GET", list + "/99999999999999999999"}, {"DELETE", list + "/abc"}, {"DELETE", list + "/99999"},
		{"GET", one + "/labels"}, {"POST", list + "/generate-jitconfig"}, {"GET", "/api/v3/orgs/../orgs/acme/actions/runners"},
		{"POST", list}, {"DELETE", list}, {"PUT", one}, {"PATCH", one}, {"POST", one}, {"GET", list + "/registration-token"}, {"PUT", list + "/remove-token"}, {"POST", list + "/downloads"},
	} {
		wantError(t, ask[0]+" "+ask[1], s.ask(ask[0], ask[1], ""), http.StatusNotFound, "Not Found")
	}
	wantError(t, "rate limit", s.ask("GET", "/api/v3/rate_limit", ""), http.StatusNotFound, "Rate limiting is not enabled.")
	for _, path := range []string{"/", "/orgs/acme/actions/runners", "/api/v4/x", "/api/v3x", "/API/V3/orgs/acme/actions/runners"} {
		wantPage(t, path, s.ask("GET", path, ""), http.StatusNotFound)
	}
	if got := s.Snapshot(org); len(got) != 1 {
		t.Errorf("%d runners are left, want 1", len(got))
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	if _, err := s.CreateMany(org, 245, func(i int) githubsim.RunnerSpec { return githubsim.RunnerSpec{Name: fmt.Sprint("r", i)} }); err != nil {
		t.Fatal(err)
	}
	type page struct {
		query       string
		first, rows int
		link        string // rels with their queries
	}
	for _, tt := range []page{
		{"", 1, 30, "next:page=2 last:page=9"},
		{"?page=9", 241, 5, "prev:page=8 first:page=1"},
		{"?per_page=100", 1, 100, "next:per_page=100&page=2 last:per_page=100&page=3"},
		{"?per_page=100&page=2", 101, 100, "prev:per_page=100&page=1 next:per_page=100&page=3 last:per_page=100&page=3 first:per_page=100&page=1"},
		{"?per_page=500&page=3", 201, 45, "prev:per_page=500&page=2 first:per_page=500&page=1"},
		{"?per_page=1", 1, 1, "next:per_page=1&page=2 last:per_page=1&page=245"},
		{"?per_page=0&page=0", 1, 30, "next:per_page=0&page=2 last:per_page=0&page=9"},
		{"?per_page=-1&page=-1", 1, 30, "next:per_page=-1&page=2 last:per_page=-1&page=9"},
		{"?per_page=x&page=x", 1, 30, "next:per_page=x&page=2 last:per_page=x&page=9"},
		{"?page=10", 0, 0, "prev:page=9 first:page=1"},
		{"?page=99999999999999999999", 1, 30, "next:page=2 last:page=9"},
		{"?page=9223372036854775807", 0, 0, "prev:page=9223372036854775806 first:page=1"},
	} {
		r := s.ask("GET", list+tt.query, "")
		var body struct {
			TotalCount int `json:"total_count"`
			Runners    []struct{ ID int }
		}
		r.decode(t, &body)
		first := 0
		if len(body.Runners) > 0 {
			first = body.Runners[0].ID
		}
		var rels []string
		for link := range strings.SplitSeq(r.header.Get("Link"), ", ") {
			at, rel, _ := strings.Cut(link, "; ")
			path, query, _ := strings.Cut(strings.Trim(at, "<>"), "?")
			if path != s.url+"/api/v3/organizations/2/actions/runners" {
				t.Errorf("%q: link to %s", tt.query, path)
			}
			rels = append(rels, strings.TrimSuffix(strings.TrimPrefix(rel, `rel="`), `"`)+":"+query)
		}
		got := page{tt.query, first, len(body.Runners), strings.Join(rels, " ")}
		if diff := cmp.Diff(tt, got, cmp.AllowUnexported(page{})); diff != "" || body.TotalCount != 245 {
			t.Errorf("total %d (-want +got):\n%s", body.TotalCount, diff)
		}
	}
	if r := s.ask("GET", list+"?per_page=100&name=r7", ""); !strings.Contains(r.body, `"total_count":245`) {
		t.Errorf("a filter by name was heeded, which came with 3.11: %.40s", r.body)
	}
	s.create(repo, githubsim.RunnerSpec{Name: "only"})
	if r := s.ask("GET", "/api/v3/repos/acme/widgets/actions/runners", ""); r.header.Get("Link") != "" {
		t.Errorf("a single page has Link %s", r.header.Get("Link"))
	}
}

func TestTheJSONOfARunner(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: `b"ü`, OS: "windows", Labels: []string{"gpu", "x64"}, Online: true, Busy: true})
	want := fmt.Sprintf(`{"id":%d,"name":"b\"ü","os":"windows","status":"online","busy":true,"labels":[`+
		`{"id":1,"name":"self-hosted","type":"read-only"},{"id":2,"name":"Windows","type":"read-only"},{"id":3,"name":"X64","type":"read-only"},{"id":4,"name":"gpu","type":"custom"}]}`, id)
	if r := s.ask("GET", fmt.Sprintf("%s/%d", list, id), ""); r.body != want {
		t.Errorf("got  %s\nwant %s", r.body, want)
	}
	if r := s.ask("GET", list, ""); r.body != `{"total_count":1,"runners":[`+want+`]}` {
		t.Errorf("listed as %s", r.body)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{0: 422, 500: 500} {
		s := start(t, githubsim.Config{BusyDeleteStatus: status})
		idle := s.create(org, githubsim.RunnerSpec{Name: "idle", Online: true})
		busy := s.create(org, githubsim.RunnerSpec{Name: "busy", Online: true, Busy: true})
		at := func(id int64) string { return fmt.Sprintf("%s/%d", list, id) }
		wantError(t, "busy", s.ask("DELETE", at(busy), ""), want, `Bad request - Runner "busy" is still running a job"`)
		if e := s.last(); e.Acted || !e.Busy || !e.Online || e.RunnerName != "busy" || e.RunnerID != busy || e.Scope != "org/acme" || e.Status != want {
			t.Errorf("log of the refusal: %+v", e)
		}
		if r := s.ask("DELETE", at(idle), `{"ignored":true}`); r.status != http.StatusNoContent || r.body != "" {
			t.Errorf("idle: %d %q", r.status, r.body)
		}
		if e := s.last(); !e.Is("DELETE", "/orgs/{org}/actions/runners/{runner_id}") || !e.Acted || e.Busy || !e.Online || e.RunnerName != "idle" {
			t.Errorf("log of the deletion: %+v", e)
		}
		wantError(t, "again", s.ask("DELETE", at(idle), ""), http.StatusNotFound, "Not Found")
		if e := s.last(); e.Acted {
			t.Errorf("log of the second deletion: %+v", e)
		}
		if err := s.Connect(org, idle); err == nil || !strings.Contains(err.Error(), "registration deleted") {
			t.Errorf("a deleted runner connects: %v", err)
		}
		if next := s.create(org, githubsim.RunnerSpec{Name: "idle"}); next <= busy {
			t.Errorf("id %d after %d: ids must rise and never come again", next, busy)
		}
	}
}

func TestMissingUserAgent(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	wantPage(t, "no user agent", s.ask("GET", list, "", "User-Agent", ""), http.StatusForbidden)
}

func TestMaintenance(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	s.Maintenance(true)
	wantPage(t, "list", s.ask("GET", list, ""), http.StatusServiceUnavailable)
	wantPage(t, "delete", s.ask("DELETE", fmt.Sprintf("%s/%d", list, id), ""), http.StatusServiceUnavailable)
	s.Maintenance(false)
	if r := s.ask("GET", list, ""); r.status != http.StatusOK || !strings.Contains(r.body, `"total_count":1`) {
		t.Errorf("afterwards: %d %s", r.status, r.body)
	}
}

func TestRenamedScopesRedirect(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	renamed := fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme-corp"}
	must(t, s.Rename(org, renamed))
	for _, ask := range []struct {
		method, rest string
		want         int
	}{
		{"GET", "", 301}, {"GET", fmt.Sprintf("/%d", id), 301}, {"DELETE", fmt.Sprintf("/%d", id), 307}, {"POST", "/registration-token", 307},
	} {
		r := s.ask(ask.method, list+ask.rest, "")
		to := s.url + "/api/v3/organizations/2/actions/runners" + ask.rest
		if r.status != ask.want || r.header.Get("Location") != to || !strings.Contains(r.body, `"url":"`+to+`"`) {
			t.Errorf("%s: %d to %s %s, want %d to %s", ask.method, r.status, r.header.Get("Location"), r.body, ask.want, to)
		}
	}
	if r := s.ask("GET", "/api/v3/organizations/2/actions/runners", ""); r.status != http.StatusOK || !strings.Contains(r.body, `"total_count":1`) {
		t.Errorf("at the target: %d %s", r.status, r.body)
	}
	if got := s.Snapshot(renamed); len(got) != 1 {
		t.Errorf("under the new name: %v", got)
	}
	must(t, s.AddScope(org)) // the old name is taken by somebody else
	if r := s.ask("GET", list, ""); r.status != http.StatusOK || !strings.Contains(r.body, `"total_count":0`) {
		t.Errorf("after the name was taken again: %d %s", r.status, r.body)
	}
	for _, bad := range [][2]fleet.Scope{{org, renamed}, {org, repo}, {enterprise, {Kind: fleet.ScopeEnterprise, Owner: "x"}}, {org, {Kind: fleet.ScopeOrg, Owner: ".."}}, {{Kind: fleet.ScopeOrg, Owner: "nobody"}, {Kind: fleet.ScopeOrg, Owner: "x"}}} {
		if err := s.Rename(bad[0], bad[1]); err == nil {
			t.Errorf("Rename(%s, %s) = nil, want an error", bad[0], bad[1])
		}
	}
}

func TestAnswersAreCompressedWhenAskedFor(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.create(org, githubsim.RunnerSpec{Name: "a"})
	if r := s.ask("GET", list, "", "Accept-Encoding", "gzip"); r.header.Get("Content-Encoding") != "gzip" || !strings.HasPrefix(r.body, "\x1f\x8b") {
		t.Errorf("asked for gzip: %v %q", r.header, r.body)
	}
	if r := s.ask("GET", list, "", "Accept-Encoding", "identity"); r.header.Get("Content-Encoding") != "" || !strings.HasPrefix(r.body, "{") {
		t.Errorf("asked for none: %v %q", r.header, r.body)
	}
}

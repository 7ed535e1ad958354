package github_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// one is a well-formed runner on the wire.
func one(id int) string {
	return fmt.Sprintf(`{"id":%d,"name":"r%d","os":"linux","status":"online","busy":false,"labels":[]}`, id, id)
}

// several are runners from..to.
func several(from, to int) string {
	all := make([]string, 0, to-from+1)
	for id := from; id <= to; id++ {
		all = append(all, one(id))
	}
	return strings.Join(all, ",")
}

// listing is a page on the wire.
func listing(total int, runners string) string {
	return fmt.Sprintf(`{"total_count":%d,"runners":[%s]}`, total, runners)
}

// paged answers each page with what pages holds for its number.
func paged(pages map[string]http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := pages[r.URL.Query().Get("page")]
		if h == nil {
			h = says(http.StatusInternalServerError, `{"message":"unexpected page"}`)
		}
		h(w, r)
	}
}

func TestRunnersAreAllThereAtEverySizeAndScope(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 99, 100, 101, 200, 1050} {
		for _, scope := range scopes {
			sim, url := simulator(t)
			ids := fill(t, sim, scope, n)
			got, err := client(t, url).Runners(t.Context(), scope, fleet.KeptListing{})
			if err != nil {
				t.Fatalf("%d runners of %s: %v", n, scope, err)
			}
			pages := max((n+99)/100, 1)
			if !got.Complete || got.Incomplete != nil || got.Pages != pages || got.Calls != pages {
				t.Errorf("%d runners of %s: complete %v (%v), %d pages, %d calls, want %d", n, scope, got.Complete, got.Incomplete, got.Pages, got.Calls, pages)
			}
			if diff := cmp.Diff(append([]int64{}, ids...), idsOf(got.Runners)); diff != "" {
				t.Errorf("%d runners of %s: ids (-want +got):\n%s", n, scope, diff)
			}
		}
	}
}

func idsOf(runners []fleet.Runner) []int64 {
	ids := make([]int64, 0, len(runners))
	for _, r := range runners {
		ids = append(ids, r.ID)
	}
	return ids
}

func TestAFirstPageThatCannotBeBelievedGivesNoListing(t *testing.T) {
	t.Parallel()
	html := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprint(w, "<html>sign in</html>")
	}
	untyped := func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = fmt.Fprint(w, listing(0, ""))
	}
	tests := []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"empty", says(200, ``)},
		{"white space", says(200, "\n ")},
		{"null", says(200, `null`)},
		{"empty object", says(200, `{}`)},
		{"a message", says(200, `{"message":"Not Found"}`)},
		{"an array", says(200, `[]`)},
		{"a string", says(200, `"x"`)},
		{"no runners", says(200, `{"total_count":0}`)},
		{"null runners", says(200, `{"total_count":0,"runners":null}`)},
		{"runners that are none", says(200, `{"total_count":1,"runners":{}}`)},
		{"no total", says(200, `{"runners":[]}`)},
		{"null total", says(200, `{"total_count":null,"runners":[]}`)},
		{"negative total", says(200, listing(-1, ``))},
		{"half a runner in total", says(200, `{"total_count":0.5,"runners":[]}`)},
		{"a total beyond belief", says(200, `{"total_count":1e15,"runners":[`+one(1)+`]}`)},
		{"a total in words", says(200, `{"total_count":"1","runners":[]}`)},
		{"a null runner", says(200, listing(1, `null`))},
		{"no id", says(200, listing(1, `{"name":"x","labels":[]}`))},
		{"id zero", says(200, listing(1, one(0)))},
		{"negative id", says(200, listing(1, one(-7)))},
		{"id beyond int64", says(200, listing(1, `{"id":9223372036854775808,"labels":[]}`))},
		{"id in words", says(200, listing(1, `{"id":"1","labels":[]}`))},
		{"more than asked for", says(200, listing(101, several(1, 101)))},
		{"truncated", says(200, `{"total_count":0,"runners":[`)},
		{"trailing garbage", says(200, listing(0, ``)+`x`)},
		{"two values", says(200, listing(0, ``)+listing(0, ``))},
		{"beyond the size limit", says(200, listing(0, ``)+strings.Repeat(" ", 8<<20))},
		{"a page in HTML", html},
		{"of no type", untyped},
	}
	for _, tt := range tests {
		gh := answers(t, tt.answer)
		got, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
		wantKind(t, tt.name, err, fleet.ErrMalformed)
		e := details(t, tt.name, err)
		if got.Complete || len(got.Runners) > 0 || got.Calls != 1 || e.Status != http.StatusOK || e.Op != github.OpRunners {
			t.Errorf("%s: %+v with %+v", tt.name, got, e)
		}
	}
	for _, tt := range tests[:10] {
		wantKind(t, "CanList: "+tt.name, answers(t, tt.answer).CanList(t.Context(), org), fleet.ErrMalformed)
	}
}

func TestAPageThatGoesWrongLaterGivesAPartialListing(t *testing.T) {
	t.Parallel()
	link := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<https://x/organizations/1/actions/runners?per_page=100&page=2>; rel="next", <https://x/organizations/1/actions/runners?per_page=100&page=2>; rel="last"`)
			next(w, r)
		}
	}
	limited := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "30")
		says(http.StatusForbidden, `{"message":"x"}`)(w, r)
	}
	tests := []struct {
		name   string
		first  http.HandlerFunc
		second http.HandlerFunc
		want   error
		seen   int
		pages  int
		detail string
	}{
		{"unavailable", says(200, listing(150, several(1, 100))), says(502, ``), fleet.ErrUnavailable, 100, 1, "page 2: "},
		{"rate limited", says(200, listing(150, several(1, 100))), limited, fleet.ErrRateLimited, 100, 1, "wait 30s"},
		{"malformed", says(200, listing(150, several(1, 100))), says(200, `{}`), fleet.ErrMalformed, 100, 1, "page 2: "},
		{"not found", says(200, listing(150, several(1, 100))), says(404, `{"message":"Not Found"}`), fleet.ErrNotFound, 100, 1, "page 2: "},
		{"another total", says(200, listing(150, several(1, 100))), says(200, listing(149, several(101, 150))), fleet.ErrMalformed, 150, 2, "total_count is 150 on page 1 and 149 on page 2"},
		{"one missing", says(200, listing(150, several(1, 100))), says(200, listing(150, several(102, 150))), fleet.ErrMalformed, 149, 2, "149 distinct runners where total_count says 150"},
		{"one twice instead of another", says(200, listing(150, several(1, 100))), says(200, listing(150, several(100, 149))), fleet.ErrMalformed, 149, 2, "149 distinct"},
		{"one too many", says(200, listing(150, several(1, 100))), says(200, listing(150, several(101, 151))), fleet.ErrMalformed, 151, 2, "151 distinct"},
		{"an empty page that is announced", link(says(200, listing(100, several(1, 99)))), says(200, listing(100, ``)), fleet.ErrMalformed, 99, 2, "99 distinct"},
	}
	for _, tt := range tests {
		gh := answers(t, paged(map[string]http.HandlerFunc{"1": tt.first, "2": tt.second}))
		got, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
		if err != nil {
			t.Errorf("%s: %v, want a partial listing", tt.name, err)
			continue
		}
		wantKind(t, tt.name, got.Incomplete, tt.want)
		calls := 4 // it was tried once more
		if tt.want == fleet.ErrRateLimited || tt.want == fleet.ErrNotFound {
			calls = 2
		}
		if got.Complete || len(got.Runners) != tt.seen || got.Pages != tt.pages || got.Calls != calls || !strings.Contains(got.Incomplete.Error(), tt.detail) {
			t.Errorf("%s: complete %v, %d runners, %d pages, %d calls, %v", tt.name, got.Complete, len(got.Runners), got.Pages, got.Calls, got.Incomplete)
		}
	}
}

func TestASinglePageHasToAddUpToo(t *testing.T) {
	t.Parallel()
	for body, complete := range map[string]bool{
		listing(2, several(1, 2)):                               true,
		`{"total_count":2.0,"runners":[` + several(1, 2) + `]}`: true,
		listing(2, one(1)+","+one(1)):                           false,
		listing(3, ``):                                          false,
		listing(0, one(1)):                                      false,
	} {
		got, err := answers(t, paged(map[string]http.HandlerFunc{"1": says(200, body)})).Runners(t.Context(), org, fleet.KeptListing{})
		if err != nil || got.Complete != complete || (got.Incomplete == nil) != complete {
			t.Errorf("%s: complete %v (%v), %v, want %v", body, got.Complete, got.Incomplete, err, complete)
		}
	}
}

func TestTheServersPageSizeCounts(t *testing.T) {
	t.Parallel()
	// A server that gives no more than 30, whatever is asked, and says so in
	// its Link headers or not at all.
	for _, withLink := range []bool{true, false} {
		gh := answers(t, func(w http.ResponseWriter, r *http.Request) {
			var page int
			if _, err := fmt.Sscan(r.URL.Query().Get("page"), &page); err != nil {
				t.Error(err)
			}
			if withLink {
				w.Header().Set("Link", `<https://x/?page=3>; rel="last"`)
			}
			says(200, listing(75, several(page*30-29, min(page*30, 75))))(w, r)
		})
		got, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
		if err != nil || !got.Complete || len(got.Runners) != 75 || got.Calls != 3 {
			t.Errorf("link %v: %d runners in %d calls, %v, %v", withLink, len(got.Runners), got.Calls, got.Incomplete, err)
		}
	}
}

func TestALinkThatLiesDoesNotMakeTheWalkEndless(t *testing.T) {
	t.Parallel()
	for _, link := range []string{
		`<https://x/?page=999999999>; rel="last"`,
		`<https://x/?page=-3>; rel="last"`,
		`<https://x/?page=two>; rel="last"`,
		`<%zz>; rel="last"`,
		`rel="last"`,
		`,,;;<>`,
	} {
		asked := atomic.Int64{}
		gh := answers(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			w.Header().Set("Link", link)
			page := listing(150, several(1, 100))
			if r.URL.Query().Get("page") == "2" {
				page = listing(150, several(101, 150))
			} else if r.URL.Query().Get("page") != "1" {
				page = listing(150, ``)
			}
			says(200, page)(w, r)
		})
		got, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
		if err != nil || !got.Complete || asked.Load() > 3 {
			t.Errorf("link %s: %d requests, complete %v (%v), %v", link, asked.Load(), got.Complete, got.Incomplete, err)
		}
	}
}

// The pages of a walk are counted as they arrive, in no order.
func TestTheLeastThatIsLeftOfTheRateIsTold(t *testing.T) {
	t.Parallel()
	left := func(n, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if n != "" {
				w.Header().Set("X-RateLimit-Remaining", n)
			}
			says(http.StatusOK, body)(w, r)
		}
	}
	full := listing(201, several(1, 100))
	for _, tt := range []struct {
		first, second, third string
		want                 int
	}{
		{"4999", "4997", "4998", 4997},
		{"", "12", "", 12},
		{"3", "0", "1", 0},
		{"", "", "", -1},
		{"many", "", "", -1},
	} {
		srv := httptest.NewServer(paged(map[string]http.HandlerFunc{
			"1": left(tt.first, full), "2": left(tt.second, listing(201, several(101, 200))), "3": left(tt.third, listing(201, one(201))),
		}))
		t.Cleanup(srv.Close)
		got, err := client(t, srv.URL).Runners(t.Context(), org, fleet.KeptListing{})
		if err != nil || !got.Complete || got.RateRemaining != tt.want {
			t.Errorf("%+v: %d left of a complete %v listing (%v), want %d", tt, got.RateRemaining, got.Complete, err, tt.want)
		}
	}
}

func TestOfTwoSightsTheLivelierCounts(t *testing.T) {
	t.Parallel()
	sight := func(status string, busy bool) string {
		return fmt.Sprintf(`{"id":100,"name":"r100","os":"linux","status":%q,"busy":%v,"labels":[]}`, status, busy)
	}
	for _, tt := range []struct {
		first, second string
		want          fleet.Status
		busy          bool
	}{
		{sight("offline", false), sight("online", false), "online", false},
		{sight("online", false), sight("offline", false), "online", false},
		{sight("offline", true), sight("online", false), "offline", true},
		{sight("online", false), sight("offline", true), "offline", true},
	} {
		gh := answers(t, paged(map[string]http.HandlerFunc{
			"1": says(200, listing(101, several(1, 99)+","+tt.first)),
			"2": says(200, listing(101, tt.second+","+one(101))),
		}))
		got, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
		if err != nil || !got.Complete {
			t.Fatal(err, got.Incomplete)
		}
		if r := got.Runners[99]; r.Status != tt.want || r.Busy != tt.busy {
			t.Errorf("%s and %s: %+v", tt.first, tt.second, r)
		}
	}
}

package githubsim_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/github/githubsim"
)

// try sends a request on a connection of its own and gives what came of it,
// the part of the body that arrived included.
func (s *simulator) try(method, path string, header ...string) (response, error) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, nil)
	must(s.t, err)
	req.Header.Set("Authorization", "token "+credential)
	req.Header.Set("User-Agent", "muster/test")
	req.Header.Set("Accept-Encoding", "identity")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	hc := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := hc.Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(text)}, err
}

func (s *simulator) inject(f githubsim.Fault) func() {
	s.t.Helper()
	remove, err := s.Inject(f)
	must(s.t, err)
	return remove
}

// the rows of a listing of two runners, as they are without faults.
const (
	rowA = `{"id":1,"name":"a","os":"linux","status":"online","busy":false,"labels":[{"id":1,"name":"self-hosted","type":"read-only"},{"id":2,"name":"Linux","type":"read-only"},{"id":3,"name":"X64","type":"read-only"}]}`
	rowB = `{"id":2,"name":"b","os":"linux","status":"offline","busy":false,"labels":[{"id":1,"name":"self-hosted","type":"read-only"},{"id":2,"name":"Linux","type":"read-only"},{"id":3,"name":"X64","type":"read-only"}]}`
	both = `{"total_count":2,"runners":[` + rowA + "," + rowB + "]}"
)

func TestFaultsAsTheWireShowsThem(t *testing.T) {
	t.Parallel()
	type F = githubsim.Fault
	const one, token = list + "/1", list + "/registration-token"
	reset := func(err error) bool { return errors.Is(err, syscall.ECONNRESET) }
	cut := func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }
	none := func(err error) bool { return err == nil }
	docs := `"documentation_url":"https://docs.github.com/enterprise-server@3.1/rest`
	for name, tt := range map[string]struct {
		fault        F
		method, path string
		status       int // as the client sees it; zero: none
		body         string
		fails        func(error) bool
		acted        bool
	}{
		"500":                       {F{Kind: githubsim.FaultStatus, Status: 500}, "DELETE", one, 500, `{"message":"Server Error",` + docs, none, false},
		"502 page":                  {F{Kind: githubsim.FaultStatus, Status: 502}, "DELETE", one, 502, "<!DOCTYPE html>", none, false},
		"503":                       {F{Kind: githubsim.FaultStatus, Status: 503}, "GET", list, 503, "<!DOCTYPE html>", none, false},
		"504":                       {F{Kind: githubsim.FaultStatus, Status: 504}, "GET", list, 504, "<!DOCTYPE html>", none, false},
		"token endpoint 401":        {F{Kind: githubsim.FaultStatus, Status: 401, Path: "/registration-token"}, "POST", token, 401, `{"message":"Bad credentials",`, none, false},
		"token endpoint 403":        {F{Kind: githubsim.FaultStatus, Status: 403, Path: "/registration-token"}, "POST", token, 403, `{"message":"Resource not accessible by integration",`, none, false},
		"token endpoint 5xx":        {F{Kind: githubsim.FaultStatus, Status: 503, Path: "/registration-token"}, "POST", token, 503, "<!DOCTYPE html>", none, false},
		"the whole scope lost":      {F{Kind: githubsim.FaultStatus, Status: 404, Scope: org}, "GET", list, 404, `{"message":"Not Found",`, none, false},
		"429":                       {F{Kind: githubsim.FaultStatus, Status: 429, RetryAfter: time.Minute}, "GET", list, 429, `{"message":"You have exceeded a secondary rate limit`, none, false},
		"422 for ever":              {F{Kind: githubsim.FaultStatus, Status: 422, Method: "DELETE"}, "DELETE", one, 422, `{"message":"Bad request - Runner \"a\" is still running a job\"",`, none, false},
		"redirected DELETE":         {F{Kind: githubsim.FaultRedirect, Method: "DELETE"}, "DELETE", one, 301, `{"message":"Moved Permanently",`, none, false},
		"redirect loop":             {F{Kind: githubsim.FaultRedirect, Status: 302}, "GET", list, 302, `{"message":"Moved Permanently",`, none, false},
		"reset":                     {F{Kind: githubsim.FaultReset}, "DELETE", one, 0, "", reset, false},
		"204 lost to a reset":       {F{Kind: githubsim.FaultLost}, "DELETE", one, 0, "", reset, true},
		"204 lost to a 502":         {F{Kind: githubsim.FaultLost, Status: 502}, "DELETE", one, 502, "<!DOCTYPE html>", none, true},
		"201 lost to a reset":       {F{Kind: githubsim.FaultLost}, "POST", token, 0, "", reset, true},
		"201 lost to a 502":         {F{Kind: githubsim.FaultLost, Status: 502}, "POST", token, 502, "<!DOCTYPE html>", none, true},
		"reset in the body":         {F{Kind: githubsim.FaultResetBody}, "GET", list, 200, both[:len(both)/2], reset, false},
		"less than Content-Length":  {F{Kind: githubsim.FaultShortBody}, "GET", list, 200, both[:len(both)/2], cut, false},
		"truncated":                 {F{Kind: githubsim.FaultTruncated}, "GET", list, 200, both[:len(both)/2], none, false},
		"empty":                     {F{Kind: githubsim.FaultBody}, "GET", list, 200, "", none, false},
		"null":                      {F{Kind: githubsim.FaultBody, Body: "null"}, "GET", list, 200, "null", none, false},
		"empty object":              {F{Kind: githubsim.FaultBody, Body: "{}"}, "GET", list, 200, "{}", none, false},
		"a page with 200":           {F{Kind: githubsim.FaultBody, Body: "<html></html>"}, "GET", list, 200, "<html></html>", none, false},
		"busy missing":              {F{Kind: githubsim.FaultFieldMissing, Field: "busy"}, "GET", list, 200, strings.ReplaceAll(both, `"busy":false,`, ""), none, false},
		"labels missing":            {F{Kind: githubsim.FaultFieldMissing, Field: "labels"}, "GET", one, 200, `{"id":1,"name":"a","os":"linux","status":"online","busy":false}`, none, false},
		"null name":                 {F{Kind: githubsim.FaultFieldNull, Field: "name"}, "GET", one, 200, strings.Replace(rowA, `"a"`, "null", 1), none, false},
		"null runners":              {F{Kind: githubsim.FaultFieldNull, Field: "runners"}, "GET", list, 200, `{"total_count":2,"runners":null}`, none, false},
		"no total_count":            {F{Kind: githubsim.FaultFieldMissing, Field: "total_count"}, "GET", list, 200, `{"runners":[` + rowA + "," + rowB + "]}", none, false},
		"busy of another type":      {F{Kind: githubsim.FaultFieldWrong, Field: "busy"}, "GET", list, 200, strings.ReplaceAll(both, `"busy":false`, `"busy":"false"`), none, false},
		"name of another type":      {F{Kind: githubsim.FaultFieldWrong, Field: "name"}, "GET", one, 200, strings.Replace(rowA, `"a"`, "7", 1), none, false},
		"labels of another type":    {F{Kind: githubsim.FaultFieldWrong, Field: "labels"}, "GET", one, 200, `{"id":1,"name":"a","os":"linux","status":"online","busy":false,"labels":"none"}`, none, false},
		"rows twice":                {F{Kind: githubsim.FaultRowsTwice, Rows: 2}, "GET", list, 200, `{"total_count":2,"runners":[` + rowA + "," + rowA + "]}", none, false},
		"all rows lost":             {F{Kind: githubsim.FaultRowsLost, Rows: 9}, "GET", list, 200, `{"total_count":2,"runners":[]}`, none, false},
		"null rows":                 {F{Kind: githubsim.FaultRowsNull, Rows: 2}, "GET", list, 200, `{"total_count":2,"runners":[null,null]}`, none, false},
		"total_count too great":     {F{Kind: githubsim.FaultTotal}, "GET", list, 200, strings.Replace(both, ":2", ":3", 1), none, false},
		"total_count too small":     {F{Kind: githubsim.FaultTotal, By: -2}, "GET", list, 200, strings.Replace(both, ":2", ":0", 1), none, false},
		"all offline":               {F{Kind: githubsim.FaultOffline}, "GET", list, 200, strings.Replace(both, "online", "offline", 1), none, false},
		"all hidden":                {F{Kind: githubsim.FaultHidden}, "GET", list, 200, `{"total_count":0,"runners":[]}`, none, false},
		"one missing from one list": {F{Kind: githubsim.FaultHidden, IDs: []int64{1}}, "GET", list, 200, `{"total_count":1,"runners":[` + rowB + "]}", none, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, githubsim.Config{})
			s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
			s.create(org, githubsim.RunnerSpec{Name: "b"})
			clean, err := s.try("GET", list)
			must(t, err)
			if clean.body != both {
				t.Fatalf("without a fault: %s", clean.body)
			}
			remove := s.inject(tt.fault)
			got, err := s.try(tt.method, tt.path)
			if !tt.fails(err) {
				t.Errorf("%s %s: %v", tt.method, tt.path, err)
			}
			exact := got.body == tt.body
			if got.status >= 300 {
				exact = strings.HasPrefix(got.body, tt.body)
			}
			if got.status != tt.status || !exact {
				t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.path, got.status, got.body, tt.status, tt.body)
			}
			e := s.last()
			if e.Status != tt.status || e.Acted != tt.acted || e.Fault != string(tt.fault.Kind) || e.Scope != "org/acme" {
				t.Errorf("log: %+v", e)
			}
			if at := got.header.Get("Location"); tt.fault.Kind == githubsim.FaultRedirect && at != s.url+tt.path {
				t.Errorf("Location %q, want where it was", at)
			}
			want := ""
			if tt.fault.RetryAfter > 0 {
				want = strconv.Itoa(int(tt.fault.RetryAfter / time.Second))
			}
			if after := got.header.Get("Retry-After"); after != want {
				t.Errorf("Retry-After %q, want %q", after, want)
			}
			remove()
			if r, err := s.try("GET", list); err != nil || s.last().Fault != "" || !tt.acted && r.body != both {
				t.Errorf("once it has ended: %v %s", err, r.body)
			}
		})
	}
}

func TestAnEmptyBodyKeepsItsType(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.inject(githubsim.Fault{Kind: githubsim.FaultBody})
	if got := s.ask("GET", list, "").header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("content type %q", got)
	}
}

func TestETagsAreOfWhatTheServerSentOff(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.create(org, githubsim.RunnerSpec{Name: "a"})
	clean := s.ask("GET", list, "").header.Get("ETag")
	for _, tt := range []struct {
		fault githubsim.Fault
		same  bool
	}{
		{githubsim.Fault{Kind: githubsim.FaultTruncated}, true},
		{githubsim.Fault{Kind: githubsim.FaultBody, Body: "{}"}, true},
		{githubsim.Fault{Kind: githubsim.FaultRowsLost}, false},
		{githubsim.Fault{Kind: githubsim.FaultHidden}, false},
	} {
		remove := s.inject(tt.fault)
		if got := s.ask("GET", list, "").header.Get("ETag"); (got == clean) != tt.same || got == "" {
			t.Errorf("%s: ETag %s, the clean one is %s", tt.fault.Kind, got, clean)
		}
		if r := s.ask("GET", list, "", "If-None-Match", clean); (r.status == http.StatusNotModified) != tt.same || tt.same && r.body != "" {
			t.Errorf("%s: %d for the validator of the clean answer", tt.fault.Kind, r.status)
		}
		remove()
	}
}

func TestDelaysAreOfTheFaultsClock(t *testing.T) {
	t.Parallel()
	var waits []time.Duration
	s := start(t, githubsim.Config{Sleep: func(_ context.Context, d time.Duration) error {
		waits = append(waits, d)
		return nil
	}})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	s.inject(githubsim.Fault{Kind: githubsim.FaultLatency, Delay: time.Hour, Method: "delete"})
	s.inject(githubsim.Fault{Kind: githubsim.FaultSlowBody, Delay: 8 * time.Second, Method: "GET"})
	if r := s.ask("GET", list, ""); !strings.HasPrefix(r.body, `{"total_count":1,"runners":[{"id":1,`) || !strings.HasSuffix(r.body, "]}]}") {
		t.Errorf("slow: %d %s", r.status, r.body)
	}
	if r := s.ask("DELETE", fmt.Sprintf("%s/%d", list, id), ""); r.status != http.StatusNoContent || s.last().Fault != "latency" {
		t.Errorf("late: %d, log %+v", r.status, s.last())
	}
	want := []time.Duration{1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, time.Hour}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

func TestWhatTheClientGaveUpOnIsDoneAllTheSame(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	s := start(t, githubsim.Config{Sleep: func(ctx context.Context, _ time.Duration) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}})
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	s.inject(githubsim.Fault{Kind: githubsim.FaultLatency, Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, fmt.Sprintf("%s%s/%d", srv.URL, list, id), nil)
	must(t, err)
	req.Header.Set("Authorization", "token "+credential)
	asked := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		asked <- err
	}()
	<-entered
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("the client: %v, want its own giving up", err)
	}
	srv.Close() // waits for the request
	if e := s.last(); e.Status != http.StatusNoContent || !e.Acted {
		t.Errorf("log: %+v", e)
	}
}

func TestTheClockOfTheServerMayBeOff(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.inject(githubsim.Fault{Kind: githubsim.FaultSkew, Skew: -time.Hour})
	if got := s.ask("GET", list, "").header.Get("Date"); got != "Sun, 01 Mar 2026 11:00:00 GMT" {
		t.Errorf("Date %q", got)
	}
}

package githubsim_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// answerSchema is what the published description says of one status of one
// operation; a nil body means that there has to be none.
type answerSchema struct{ body *jsonschema.Schema }

// description is the published API: "GET /orgs/{org}/actions/runners 200" →
// schema. The error wraps fs.ErrNotExist where the file is not there.
var description = sync.OnceValues(func() (map[string]answerSchema, error) {
	dir, set := os.LookupEnv("MUSTER_CONTRACT_DIR")
	if !set {
		dir = filepath.Join("..", "..", "..", "shared", "contract")
	}
	data, err := os.ReadFile(filepath.Join(dir, "contract-ghes-3.1.json"))
	if err != nil {
		return nil, err
	}
	var file struct {
		Operations map[string]struct {
			Responses map[string]struct{ Body json.RawMessage }
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	schemas := make(map[string]answerSchema)
	for op, o := range file.Operations {
		for status, r := range o.Responses {
			name := op + " " + status
			if string(r.Body) == "null" {
				schemas[name] = answerSchema{}
				continue
			}
			doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(r.Body)))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			c := jsonschema.NewCompiler()
			c.AssertFormat()
			if err := c.AddResource("answer.json", doc); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			compiled, err := c.Compile("answer.json")
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			schemas[name] = answerSchema{compiled}
		}
	}
	return schemas, nil
})

// agrees checks an answer against the published description, where it has this
// operation and status, and reports whether it has.
func agrees(t *testing.T, method, template string, r response) bool {
	t.Helper()
	schemas, err := description()
	if _, set := os.LookupEnv("MUSTER_CONTRACT_DIR"); !set && errors.Is(err, fs.ErrNotExist) {
		return false
	}
	must(t, err)
	name := fmt.Sprintf("%s %s %d", method, template, r.status)
	s, ok := schemas[name]
	switch {
	case !ok:
		return false
	case s.body == nil:
		if r.body != "" {
			t.Errorf("%s: body %q, want none", name, r.body)
		}
		return true
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(r.body))
	must(t, err)
	if err := s.body.Validate(doc); err != nil {
		t.Errorf("%s: %v\n%s", name, err, r.body)
	}
	return true
}

func TestAllOperationsAgreeWithThePublishedDescription(t *testing.T) {
	t.Parallel()
	schemas, err := description()
	if _, set := os.LookupEnv("MUSTER_CONTRACT_DIR"); !set && errors.Is(err, fs.ErrNotExist) {
		t.Skip("no API description in ../shared/contract: set MUSTER_CONTRACT_DIR to the folder that has contract-ghes-3.1.json")
	}
	must(t, err)
	s := start(t, githubsim.Config{})
	seen := make(map[string]bool)
	for base, scope := range map[string]fleet.Scope{"/enterprises/octo": enterprise, "/orgs/acme": org, "/repos/acme/widgets": repo} {
		idle := s.create(scope, githubsim.RunnerSpec{Name: `idle "quoted" ü`, Online: true, Labels: []string{"gpu"}})
		busy := s.create(scope, githubsim.RunnerSpec{Name: "busy", OS: "windows", Busy: true})
		s.create(scope, githubsim.RunnerSpec{Name: "ephemeral", OS: "macos", Ephemeral: true})
		for _, ask := range []struct{ method, path string }{
			{"GET", ""}, {"GET", "?per_page=1"}, {"GET", "?per_page=2&page=2"}, {"GET", "?page=99"}, {"GET", "/downloads"},
			{"POST", "/registration-token"}, {"POST", "/remove-token"},
			{"GET", fmt.Sprintf("/%d", idle)}, {"GET", fmt.Sprintf("/%d", busy)}, {"DELETE", fmt.Sprintf("/%d", idle)},
		} {
			r := s.ask(ask.method, "/api/v3"+base+"/actions/runners"+ask.path, "")
			e := s.last()
			if !agrees(t, ask.method, e.Path, r) {
				t.Errorf("%s %s: status %d is not described", ask.method, e.Path, r.status)
			}
			seen[fmt.Sprintf("%s %s %d", ask.method, e.Path, r.status)] = true
		}
		must(t, s.EmptyListing(scope, 1))
		if r := s.ask("GET", "/api/v3"+base+"/actions/runners", ""); !agrees(t, "GET", s.last().Path, r) || !strings.Contains(r.body, `"total_count":0,"runners":[]`) {
			t.Errorf("an empty listing: %d %s", r.status, r.body)
		}
	}
	for name := range schemas {
		if !seen[name] {
			t.Errorf("%s was not asked for", name)
		}
	}
	if len(schemas) != 18 {
		t.Errorf("the description has %d answers, want 18", len(schemas))
	}
}

// last is the newest request in the log.
func (s *simulator) last() githubsim.Event {
	s.t.Helper()
	log := s.Log()
	for i := len(log) - 1; i >= 0; i-- {
		if log[i].Method != "" {
			return log[i]
		}
	}
	s.t.Fatal("no request in the log")
	return githubsim.Event{}
}

// wantError checks a JSON error answer.
func wantError(t *testing.T, name string, r response, status int, message string) {
	t.Helper()
	var body struct {
		Message string `json:"message"`
		Docs    string `json:"documentation_url"`
	}
	if r.header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("%s: content type %s (%d)", name, r.header.Get("Content-Type"), r.status)
		return
	}
	r.decode(t, &body)
	if r.status != status || body.Message != message || !strings.HasPrefix(body.Docs, "https://docs.github.com/enterprise-server@3.1/rest") {
		t.Errorf("%s: %d %s, want %d %q", name, r.status, r.body, status, message)
	}
}

// wantPage checks an answer in HTML.
func wantPage(t *testing.T, name string, r response, status int) {
	t.Helper()
	if r.status != status || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") || !strings.Contains(r.body, "<html>") {
		t.Errorf("%s: %d %s %s, want a page with %d", name, r.status, r.header.Get("Content-Type"), r.body, status)
	}
}

func TestEveryAnswerSaysWhoItIsFrom(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	ids := make(map[string]bool)
	paths := []string{"/", "/api/v3/orgs/acme/actions/runners", "/api/v3/orgs/acme/actions/runners/1", "/api/v3/nothing"}
	for _, path := range paths {
		r := s.ask(http.MethodGet, path, "")
		ids[r.header.Get("X-Github-Request-Id")] = true
		if got := r.header.Get("X-Github-Enterprise-Version"); got != "3.1.0" {
			t.Errorf("GET %s: version %q", path, got)
		}
		if h := r.header.Get("X-Ratelimit-Remaining"); h != "" {
			t.Errorf("GET %s: rate limit header %q on a server that has none", path, h)
		}
	}
	if len(ids) != len(paths) || ids[""] {
		t.Errorf("request ids %v are not distinct", ids)
	}
}

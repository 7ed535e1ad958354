package githubsim_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// answerSchema is what the published description says of one status of one
// operation; a nil body means that there has to be none.
type answerSchema struct{ body *jsonschema.Schema }

// described names the file with the published API of a version; those that have
// none go by the next lower one.
var described = map[string]string{
	"3.1": "ghes-3.1", "3.4": "ghes-3.1", "3.7": "ghes-3.1", "3.10": "ghes-3.10", "3.11": "ghes-3.10", "3.19": "ghes-3.19",
	githubsim.DotCom: "api.github.com",
}

// description is the published API of a version:
// "GET /orgs/{org}/actions/runners 200" → schema.
func description(t *testing.T, version string) map[string]answerSchema {
	t.Helper()
	schemas, err := compile(descriptionFile(t, version))
	must(t, err)
	return schemas
}

// descriptionFile is the published description of a version. The test is skipped
// where it is not there, unless somebody said where it is.
func descriptionFile(t *testing.T, version string) []byte {
	t.Helper()
	dir, set := os.LookupEnv("MUSTER_CONTRACT_DIR")
	if !set {
		dir = filepath.Join("..", "..", "..", "shared", "contract")
	}
	name := "contract-" + described[version] + ".json"
	data, err := os.ReadFile(filepath.Join(dir, name))
	if !set && errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no API description in ../shared/contract: set MUSTER_CONTRACT_DIR to the folder that has %s", name)
	}
	must(t, err)
	return data
}

// compileSchema is one schema by itself.
func compileSchema(text []byte) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("answer.json", doc); err != nil {
		return nil, err
	}
	return c.Compile("answer.json")
}

func compile(data []byte) (map[string]answerSchema, error) {
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
			compiled, err := compileSchema(r.Body)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			schemas[name] = answerSchema{compiled}
		}
	}
	return schemas, nil
}

// agrees checks an answer against the published description, where it has this
// operation and status, and reports whether it has.
func agrees(t *testing.T, schemas map[string]answerSchema, method, template string, r response) bool {
	t.Helper()
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
	for _, version := range githubsim.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			schemas := description(t, version)
			s := start(t, githubsim.Config{Version: version})
			seen := make(map[string]bool)
			for base, scope := range map[string]fleet.Scope{"/enterprises/octo": enterprise, "/orgs/acme": org, "/repos/acme/widgets": repo} {
				s.operate(schemas, base, scope, seen)
			}
			for name := range schemas {
				// Nothing is said of when all labels of a runner cannot be removed.
				cannot := strings.HasPrefix(name, "DELETE") && strings.HasSuffix(name, "/labels 422")
				if !seen[name] && !cannot {
					t.Errorf("%s was not asked for", name)
				}
			}
		})
	}
}

// operate asks for everything at one scope, checks what it is answered and adds
// that to seen. What succeeds has to be described, where the description has the
// operation at all: it may be that of an older version, and that of
// api.github.com has no enterprises.
func (s *simulator) operate(schemas map[string]answerSchema, base string, scope fleet.Scope, seen map[string]bool) {
	t := s.t
	t.Helper()
	idle := s.create(scope, githubsim.RunnerSpec{Name: `idle "quoted" ü`, Online: true, Labels: []string{"gpu"}})
	busy := s.create(scope, githubsim.RunnerSpec{Name: "busy", OS: "windows", Busy: true})
	s.create(scope, githubsim.RunnerSpec{Name: "ephemeral", OS: "macos", Ephemeral: true})
	one, missing := fmt.Sprintf("/%d", idle), "/999999"
	const jit = `{"name":"jit","runner_group_id":1,"labels":["self-hosted","gpu"],"work_folder":"w"}`
	since := func(version string, status int) int { // 404 before
		if slices.Index(githubsim.Versions(), s.version) < slices.Index(githubsim.Versions(), version) {
			return http.StatusNotFound
		}
		return status
	}
	for _, ask := range []struct {
		method, path, body string
		want               int // 0: as the version does
	}{
		{"GET", "", "", 200}, {"GET", "?per_page=1", "", 200}, {"GET", "?per_page=2&page=2", "", 200}, {"GET", "?page=99", "", 200}, {"GET", "?name=busy", "", 200},
		{"GET", "/downloads", "", 200}, {"POST", "/registration-token", "", 201}, {"POST", "/remove-token", "", 201},
		{"POST", "/generate-jitconfig", jit, since("3.10", 201)}, {"POST", "/generate-jitconfig", jit, since("3.10", 409)},
		{"POST", "/generate-jitconfig", `{"name":"x","runner_group_id":9,"labels":["a"]}`, 404},
		{"POST", "/generate-jitconfig", `{"name":"x","runner_group_id":1,"labels":[]}`, since("3.10", 422)},
		{"GET", one + "/labels", "", since("3.4", 200)}, {"GET", missing + "/labels", "", 404},
		{"POST", one + "/labels", `{"labels":["a","b","GPU"]}`, since("3.4", 200)}, {"POST", missing + "/labels", `{"labels":["a"]}`, 404}, {"POST", one + "/labels", `{"labels":[]}`, since("3.4", 422)},
		{"PUT", one + "/labels", `{"labels":["c","d"]}`, since("3.4", 200)}, {"PUT", missing + "/labels", `{"labels":["a"]}`, 404}, {"PUT", one + "/labels", `{}`, since("3.4", 422)},
		{"DELETE", one + "/labels/C", "", since("3.4", 200)}, {"DELETE", one + "/labels/c", "", 404}, {"DELETE", one + "/labels/linux", "", since("3.4", 422)},
		{"DELETE", one + "/labels", "", since("3.4", 200)}, {"DELETE", missing + "/labels", "", 404},
		{"GET", one, "", 200}, {"GET", fmt.Sprintf("/%d", busy), "", 200}, {"DELETE", fmt.Sprintf("/%d", busy), "", 0}, {"DELETE", one, "", 204}, {"DELETE", one, "", 404},
	} {
		r := s.ask(ask.method, "/api/v3"+base+"/actions/runners"+ask.path, ask.body)
		e := s.last()
		if !agrees(t, schemas, ask.method, e.Path, r) && r.status < 400 && knows(schemas, ask.method+" "+e.Path+" ") {
			t.Errorf("%s %s: status %d is not described", ask.method, e.Path, r.status)
		}
		if ask.want != 0 && r.status != ask.want {
			t.Errorf("%s %s %s: %d %s, want %d", ask.method, e.Path, ask.body, r.status, r.body, ask.want)
		}
		seen[fmt.Sprintf("%s %s %d", ask.method, e.Path, r.status)] = true
	}
	must(t, s.EmptyListing(scope, 1))
	r := s.ask("GET", "/api/v3"+base+"/actions/runners", "")
	agrees(t, schemas, "GET", s.last().Path, r)
	if !strings.Contains(r.body, `"total_count":0,"runners":[]`) {
		t.Errorf("an empty listing: %d %s", r.status, r.body)
	}
}

func knows(schemas map[string]answerSchema, operation string) bool {
	for name := range schemas {
		if strings.HasPrefix(name, operation) {
			return true
		}
	}
	return false
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

package policies_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/muster-fleet/muster/policies"
)

const schemaFile = "../docs/policy.schema.json"

// object is a JSON object.
type object = map[string]any

// schema is the schema for editors, as a validator and as text.
func schema(t testing.TB) (*jsonschema.Schema, object) {
	t.Helper()
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled, doc.(object)
}

// drained are the actions of a policy that drains; full takes it for one.
const drained = `drain_host": {}}, {"delete_runner": {}}, {"release_host`

// full is a policy that says everything there is to say, for one action.
func full(t testing.TB, action string) object {
	t.Helper()
	text := `{
		"apiVersion": "muster/v1", "kind": "RunnerPolicy", "metadata": {"name": "p", "owner": "o"},
		"spec": {
			"enforcement": "audit", "scope": {"targets": ["acme"]}, "params": {},
			"match": "runner.status == 'offline' && runner.offline_for > duration('168h')",
			"exempt": {"keep": "'keep' in runner.labels"},
			"guards": {
				"inventory": {"complete": true, "max_age": "10m"}, "grace": "1d",
				"max": {"count": 5, "percent": 10, "min_population": 3, "window": "1h", "on_exceed": "halt"},
				"rate": "10/m", "witnesses": {"listings": 2, "apart": "2m"}, "min_survivors": 1,
				"freeze": [{"cron": "0 6 * * *", "duration": "1h", "time_zone": "UTC"}]
			},
			"actions": [{"ACTION": {}}],
			"tests": [{
				"name": "t", "want": "keep",
				"runner": {"name": "n", "os": "o", "status": "online", "busy": true, "labels": ["l"], "group": "g", "version": "2.3",
					"ephemeral": true, "never_online": true, "offline_for": "1s", "idle_for": "1s", "age": "1s", "online_seen": "1s",
					"newer_registrations": 1},
				"host": {"known": true, "state": "gone", "silent_for": "1s"}
			}]
		}
	}`
	var doc object
	if err := json.Unmarshal([]byte(strings.Replace(text, "ACTION", action, 1)), &doc); err != nil {
		t.Fatal(err)
	}
	if action == drained {
		doc = changed(t, doc, "spec", "match", true, "runner.status == 'online' && !runner.busy")
		return changed(t, doc, "spec.guards", "witnesses", false, nil)
	}
	return doc
}

// at gives the value at a dotted path, in which [0] is the first of a list.
func at(doc any, path string) any {
	for _, step := range steps(path) {
		switch v := doc.(type) {
		case object:
			doc = v[step]
		case []any:
			doc = v[0]
		}
	}
	return doc
}

func steps(path string) []string {
	return strings.FieldsFunc(strings.ReplaceAll(path, "[0]", ".[0]"), func(r rune) bool { return r == '.' })
}

// changed is the policy with one key of an object set, or without it.
func changed(t testing.TB, doc object, path, key string, set bool, value any) object {
	t.Helper()
	var fresh object
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &fresh); err != nil {
		t.Fatal(err)
	}
	parent := at(fresh, path).(object)
	if parent[key] = value; !set {
		delete(parent, key)
	}
	return fresh
}

// judge asks the loader and the schema.
func judge(t testing.TB, s *jsonschema.Schema, doc object) (loader, editor error) {
	t.Helper()
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	_, loader = policies.Load("p.yaml", text)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return loader, s.Validate(value)
}

// properties walks over the objects of the schema, by path, down to where the
// policy itself chooses the keys.
func properties(root object, path string, node object, visit func(path string, properties object)) {
	if ref, ok := node["$ref"].(string); ok {
		node = root["$defs"].(object)[strings.TrimPrefix(ref, "#/$defs/")].(object)
	}
	if items, ok := node["items"].(object); ok {
		properties(root, path+"[0]", items, visit)
	}
	if closed, ok := node["additionalProperties"].(bool); !ok || closed {
		return
	}
	all, _ := node["properties"].(object)
	visit(path, all)
	for name, property := range all {
		properties(root, strings.TrimPrefix(path+"."+name, "."), property.(object), visit)
	}
}

// The loader lists the keys it knows where it meets one that it does not.
func TestSchemaHasTheLoadersKeys(t *testing.T) {
	t.Parallel()
	_, root := schema(t)
	wanted := regexp.MustCompile(`zzzzzz: unknown key, (?:want one of (.*)|here is none)`)
	for _, action := range []string{"delete_runner", "report", drained} {
		doc := full(t, action)
		properties(root, "", root, func(path string, all object) {
			if at(doc, path) == nil {
				return // of the other action
			}
			text, _ := json.Marshal(changed(t, doc, path, "zzzzzz", true, 1))
			_, err := policies.Load("p.yaml", text)
			m := wanted.FindStringSubmatch(fmt.Sprint(err))
			if m == nil {
				t.Errorf("%s: an unknown key gives %v", path, err)
				return
			}
			var has []string
			if m[1] != "" {
				has = strings.Split(strings.SplitN(m[1], "\n", 2)[0], ", ")
			}
			slices.Sort(has)
			if diff := cmp.Diff(has, slices.Sorted(maps.Keys(all))); diff != "" {
				t.Errorf("%s: keys of the loader (-), of the schema (+):\n%s", path, diff)
			}
			for name, property := range all {
				if property.(object)["description"] == nil {
					t.Errorf("%s.%s has no description", path, name)
				}
			}
		})
	}
}

// form is how the loader speaks of what a schema can see.
var form = regexp.MustCompile(`is missing: |: want (text|true or false|a whole number|a mapping|a list), got|is unknown, want |is out of bounds|is empty|unknown key|is not a rate|want a number with a unit|spec\.actions|a drain takes`)

// Whatever is put in place of a value, or left out: the schema takes what the
// loader takes, and refuses what it refuses for its form.
func TestSchemaJudgesLikeTheLoader(t *testing.T) {
	t.Parallel()
	s, root := schema(t)
	values := []any{
		nil, true, 0, 1, -1, 101, 3_000_000_000, 1.5, "", "zzz", "1d12h", "10/m", "-1h", []any{}, []any{"a"}, []any{1}, object{}, object{"zzz": 1},
	}
	tried := 0
	for _, action := range []string{"delete_runner", "report", drained} {
		doc := full(t, action)
		if loader, editor := judge(t, s, doc); loader != nil || editor != nil {
			t.Fatalf("the policy to start from: loader %v, schema %v", loader, editor)
		}
		properties(root, "", root, func(path string, all object) {
			if at(doc, path) == nil {
				return
			}
			check := func(what string, candidate object) {
				tried++
				loader, editor := judge(t, s, candidate)
				switch {
				case loader == nil && editor != nil:
					t.Errorf("%s of a %s, %s: the loader takes it, the schema does not: %v", path, action, what, editor)
				case loader != nil && editor == nil && form.MatchString(loader.Error()):
					t.Errorf("%s of a %s, %s: the schema takes it, the loader does not: %v", path, action, what, loader)
				}
			}
			for name, property := range all {
				check("without "+name, changed(t, doc, path, name, false, nil))
				for _, value := range append(bounds(property.(object)), values...) {
					check(fmt.Sprintf("%s: %#v", name, value), changed(t, doc, path, name, true, value))
				}
				words, _ := property.(object)["enum"].([]any)
				if words == nil {
					continue
				}
				text, _ := json.Marshal(changed(t, doc, path, name, true, "zzzzzz"))
				_, err := policies.Load("p.yaml", text)
				var list []string
				for _, word := range words {
					list = append(list, word.(string))
				}
				if want := strconv.Quote("zzzzzz") + " is unknown, want " + strings.Join(list, " or "); !strings.Contains(fmt.Sprint(err), want) {
					t.Errorf("%s.%s: the schema has %q, the loader says %v", path, name, list, err)
				}
			}
		})
	}
	if tried < 1000 {
		t.Errorf("%d changes tried, want 1,000 or more", tried)
	}
}

// bounds are the numbers on either side of those that the schema gives.
func bounds(property object) []any {
	var all []any
	for _, key := range []string{"minimum", "maximum"} {
		if n, ok := property[key].(json.Number); ok {
			if i, err := n.Int64(); err == nil {
				all = append(all, i-1, i, i+1)
			}
		}
	}
	return all
}

// validate asks the schema about YAML, as an editor would.
func validate(t testing.TB, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		return err
	}
	asJSON, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

func TestSchemaTakesEverySample(t *testing.T) {
	t.Parallel()
	s, _ := schema(t)
	files, err := fs.Glob(policies.Samples(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := fs.ReadFile(policies.Samples(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// beyond are the mistakes that lie within an expression, or between parts of a
// policy: a schema sees none of them.
var beyond = regexp.MustCompile(`-(freeze-.*|expression-single-equals|field-misspelt|text-unquoted|duration-in-days|duration-as-number|time-literal|` +
	`unset-duration-compared-as-short|always-true|matches-online-runners|label-.*|pattern-broken|macros-nested|cost-bomb|status-never-shown|` +
	`version-as-number|param-.*|test-fails)\.yaml$`)

func TestSchemaRefusesTheMistakesThatItCanSee(t *testing.T) {
	t.Parallel()
	s, _ := schema(t)
	seen := 0
	for name, text := range mistakes(t) {
		err := validate(t, s, text)
		if hidden := beyond.MatchString(name); hidden != (err == nil) {
			t.Errorf("%s: the schema says %v", name, err)
		}
		if err != nil {
			seen++
		}
	}
	if seen < 14 {
		t.Errorf("the schema sees %d mistakes, want 14 or more", seen)
	}
}

package policies_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/policies"
)

// What people write from other languages is answered with what to write here.
func TestExpressionsAreAnsweredWithARemedy(t *testing.T) {
	t.Parallel()
	const (
		noWords  = "and, or and not are no operators"
		quoteIt  = "a duration stands in quotes"
		unclosed = "the text is not closed"
	)
	for match, want := range map[string]string{
		`runner.busy and runner.ephemeral`:      noWords,
		`runner.busy or runner.ephemeral`:       noWords,
		`not runner.busy`:                       noWords,
		`runner.busy && not runner.ephemeral`:   noWords,
		`runner.busy not(runner.ephemeral)`:     noWords,
		`runner.offline_for > 7 d`:              quoteIt,
		`runner.offline_for > 7 x`:              "'x' cannot stand here",
		`runner.offline_for > 7 days`:           "'days' cannot stand here",
		`runner.name == 'abc`:                   unclosed,
		`runner.name == "abc`:                   unclosed,
		`runner.name == null`:                   "nothing is null here",
		`runner.name == true`:                   "write it alone, or with ! in front",
		`runner.name == 2`:                      "put the number in quotes",
		`runner.name == 2.5`:                    "put the number in quotes",
		`runner.labels.size() == 1.5`:           "compare like with like",
		`runner.labels.size() == runner.age`:    `write duration("168h")`,
		`runner.labels == "gpu"`:                `write "gpu" in runner.labels`,
		`1 in runner.labels`:                    "a number is never in a list of texts",
		`runner.nam == "a"`:                     "a runner has",
		`host.stat == "gone"`:                   "a host has",
		`target.nam == "acme"`:                  "a target has",
		"\n\nrunner.busy &&\nhost.stat == \"\"": "a host has",
		`params.long == "x"`:                    "the policy has no params",
		`params == "x"`:                         "the policy has no params",
	} {
		_, err := policies.Load("p.yaml", []byte(reporting(match)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want a fault with %q", match, err, want)
		}
	}
}

// Numbers are taken at their bounds and refused beyond them.
func TestNumbersAtTheirBounds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key         string
		least, most int
	}{
		{"count", 1, 2147483647}, {"percent", 1, 100}, {"min_population", 0, 2147483647},
	} {
		with := func(n string) error {
			numbers := map[string]string{"count": "5", "percent": "5", "min_population": "5"}
			numbers[tt.key] = n
			text := reporting("runner.busy") + "  guards: {max: {count: " + numbers["count"] + ", percent: " + numbers["percent"] + ", min_population: " + numbers["min_population"] + "}}\n"
			_, err := policies.Load("p.yaml", []byte(text))
			return err
		}
		for _, n := range []int{tt.least, tt.most} {
			if err := with(strconv.Itoa(n)); err != nil {
				t.Errorf("%s: %d: %v, want it taken", tt.key, n, err)
			}
		}
		for _, n := range []int{tt.least - 1, tt.most + 1} {
			want := "spec.guards.max." + tt.key + ": " + strconv.Itoa(n) + " is out of bounds"
			if err := with(strconv.Itoa(n)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %d: got %v, want %q", tt.key, n, err, want)
			}
		}
	}
}

// One mistake is one fault: what follows from it is not told as well.
func TestOneMistakeIsOneFault(t *testing.T) {
	t.Parallel()
	plain := document(quote(longOffline))
	line := func(begin, instead string) string {
		lines := strings.Split(plain, "\n")
		for i, l := range lines {
			if strings.HasPrefix(strings.TrimSpace(l), begin) {
				lines[i] = "  " + instead
			}
		}
		return strings.Join(lines, "\n")
	}
	for _, tt := range []struct{ name, text, want string }{
		{"guards that are no mapping", line("guards:", "guards: strict"), "spec.guards: want a mapping"},
		{"actions that are no list", line("actions:", "actions: report"), "spec.actions: want a list"},
		{"an action that is none", line("actions:", "actions: [{}]"), "spec.actions[0]: no action"},
		{"no action", line("actions:", "actions: []"), "spec.actions is empty"},
		{"a report beside a deletion", line("actions:", "actions: [{delete_runner: {}}, {report: {}}]"), "a report stands alone"},
		{"an exemption with a mistake", plain + "  exempt: {a: runner.nam == 'x'}\n", "the field 'nam' is unknown"},
		{"a param that is no text", document(quote("runner.name in params.names && "+longOffline)) + "  params: {names: [1, a]}\n", "want text, got the number 1"},
		{"a param with a name of CEL's", document(quote(longOffline)) + "  params: {\"true\": 1}\n", `"true" cannot be a name`},
		{"another name of CEL's", document(quote(longOffline)) + "  params: {\"false\": 1}\n", `"false" cannot be a name`},
		{"one more", document(quote(longOffline)) + "  params: {\"null\": 1}\n", `"null" cannot be a name`},
		{"and the last", document(quote(longOffline)) + "  params: {\"in\": 1}\n", `"in" cannot be a name`},
		{"a match that a param makes true", withParams("on: true", "params.on || runner.busy && false"), ""},
	} {
		_, err := policies.Load("p.yaml", []byte(tt.text))
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one fault with %q", tt.name, err, tt.want)
		}
	}
}

// Params that are not there, and a policy without any, are told apart.
func TestMissingParamsAreTold(t *testing.T) {
	t.Parallel()
	_, err := policies.Load("p.yaml", []byte(document("params == 1")))
	if err == nil || !strings.Contains(err.Error(), "the policy has no params: write them under spec.params") {
		t.Errorf("got %v, want it to say that there are none", err)
	}
	_, err = policies.Load("p.yaml", []byte(withParams("on: true", "params.off")))
	if err == nil || !strings.Contains(err.Error(), "there is params.on") {
		t.Errorf("got %v, want the one there is", err)
	}
}

// A deletion that a param turns into one of everybody is refused.
func TestParamsCannotMakeADeletionMatchAll(t *testing.T) {
	t.Parallel()
	for _, params := range []string{"on: true", "on: true, off: false"} {
		match := "params.on"
		if strings.Contains(params, "off") {
			match = "params.on && !params.off"
		}
		_, err := policies.Load("p.yaml", []byte(document(match)+"  params: {"+params+"}\n"))
		if err == nil || !strings.Contains(err.Error(), "true for every runner") {
			t.Errorf("%s: got %v, want it refused", params, err)
		}
	}
	_, err := policies.Load("p.yaml", []byte(withParams("on: false", "params.on")))
	if err == nil || !strings.Contains(err.Error(), "false for every runner") {
		t.Errorf("got %v, want a match that is never true refused", err)
	}
}

package policies_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/policies"
)

// A mistake is found in whatever part of an expression it stands.
func TestMistakesAreFoundInEveryPart(t *testing.T) {
	t.Parallel()
	const status, length, upper = `never "offlin"`, `write "24h"`, `never meet "X"`
	for match, want := range map[string]string{
		`[runner.status == "offlin"] == [true]`:               status,
		`{runner.status == "offlin": true} == {true: true}`:   status,
		`{"a": runner.status == "offlin"}["a"]`:               status,
		`Target{name: string(duration("1d"))}.name == "b"`:    length,
		`[string(duration("1d"))].exists(x, x == "a")`:        length,
		`"offlin" == runner.status`:                           status,
		`"Linux" == runner.status`:                            `never "Linux"`,
		`runner.labels[0] < "X"`:                              upper,
		`runner.labels[0] <= "X"`:                             upper,
		`runner.labels[0] > "X"`:                              upper,
		`"X" >= runner.labels[0]`:                             upper,
		`runner.labels.exists(l, l == "X")`:                   upper,
		`runner.labels.filter(l, l != "x") == ["X"]`:          upper,
		`["X"].exists(l, l == runner.labels[0])`:              upper,
		`"Linux".startsWith("L") && runner.labels[0] == "x"`:  "",
		`runner.name == "X" || "X" in [runner.name]`:          "",
		`runner.labels.exists(l, l == "x") && "A" != "B"`:     "",
		`runner.labels.exists(l, l.matches("(?i)X"))`:         "",
		`runner.name.matches("^[A-Z]") || runner.name == "A"`: "",
	} {
		_, err := policies.Load("p.yaml", []byte(reporting(match)))
		if want == "" && err != nil && strings.Contains(err.Error(), "labels") {
			t.Errorf("%s: got %v, want no fault about labels", match, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want a fault with %q", match, err, want)
		}
	}
}

// A fault points at the rune that it is about, also where the expression is one
// rune long and where its end is missing.
func TestAFaultPointsAtItsRune(t *testing.T) {
	t.Parallel()
	block := strings.Replace(reporting("x"), "    x\n", "    runner.busy &&\n    (\n", 1)
	for _, tt := range []struct{ text, want string }{
		{document(`'a'`), "p.yaml:7:11: spec.match: "},
		{document(`a`), "p.yaml:7:10: spec.match: "},
		{block, "p.yaml:9:6: spec.match: "},
	} {
		_, err := policies.Load("p.yaml", []byte(tt.text))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("got %v, want it to begin with %q, for\n%s", err, tt.want, tt.text)
		}
	}
}

// A question about what was meant is only asked where the word is close.
func TestOnlyACloseWordIsAskedFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ old, new, want string }{
		{"name: reap, owner", "name: reap, ownr", "did you mean owner?"},
		{"name: reap, owner", "name: reap, onwre", ""}, // three changes
		{"name: reap, owner", "name: reap, nax", ""},   // two changes of three letters
		{"enforcement:", "enforcmnt:", "did you mean enforcement?"},
		{"enforcement:", "enforcemxyz:", ""},
	} {
		_, err := policies.Load("p.yaml", []byte(strings.Replace(document(longOffline), tt.old, tt.new, 1)))
		if err == nil {
			t.Errorf("%s is taken", tt.new)
			continue
		}
		asks := strings.Contains(err.Error(), "did you mean")
		if asks != (tt.want != "") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.new, err, tt.want)
		}
	}
}

// An expression costs more with a long list among the params than with a short
// one, and more with long texts than with short ones.
func TestParamsCostWhatTheyHold(t *testing.T) {
	t.Parallel()
	list := func(entries, length int) string {
		var texts []string
		for i := range entries {
			texts = append(texts, fmt.Sprintf("x%0*d", length-1, i))
		}
		return "[" + strings.Join(texts, ", ") + "]"
	}
	const walk = `params.p.exists(m, runner.name.contains(m))`
	const text = `runner.labels.exists(l, l.contains(params.p))`
	for _, tt := range []struct {
		name, part, value string
		cheap             bool
	}{
		{"few short texts", walk, list(3, 3), true},
		{"many short texts", walk, list(100, 3), true},
		{"few long texts", walk, list(3, 250), true},
		{"many long texts", walk, list(100, 250), false},
		{"a short text", text, "xyz", true},
		{"a long text", text, strings.Repeat("x", 250), false},
	} {
		_, err := policies.Load("p.yaml", []byte(document(quote(longOffline+" && "+tt.part))+"  params: {p: "+tt.value+"}\n"))
		if (err == nil) != tt.cheap || !tt.cheap && !strings.Contains(err.Error(), "10000 is the most") {
			t.Errorf("%s: got %v, cheap is %t", tt.name, err, tt.cheap)
		}
	}
}

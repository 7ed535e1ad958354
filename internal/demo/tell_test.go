package demo

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func removedNamed(n int) []happening {
	var all []happening
	for i := n; i > 0; i-- {
		all = append(all, happening{typ: "runner.removed", target: "acme", name: fmt.Sprintf("r%d", i)})
	}
	return all
}

func TestSummaryStaysShort(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		all  []happening
		want []string
	}{
		{"nothing", nil, nil},
		{"one runner", removedNamed(1), []string{"acme: 1 runner removed [r1]"}},
		{"as many as have a name, sorted", removedNamed(3), []string{"acme: 3 runners removed [r1 r2 r3]"}},
		{"more", removedNamed(5), []string{"acme: 5 runners removed [r1 r2 r3 …]"}},
		{"by what and where", []happening{
			{typ: "runner.offline", target: "octo", name: "b"},
			{typ: "runner.online", target: "acme", name: "c"},
			{typ: "runner.offline", target: "octo", name: "a"},
			{typ: "runner.registered", target: "octo", name: "d"},
		}, []string{"octo: 2 runners went offline [a b]", "acme: 1 runner came online [c]", "octo: 1 runner registered [d]"}},
		{"tokens and halts one by one", []happening{
			{typ: "token.issued", target: "acme", host: "build-01", kind: "removal"},
			{typ: "token.denied", target: "acme", host: "stranger"},
			{typ: "policy.halted", target: "octo", reason: "9 due, 7 allowed"},
		}, []string{
			"build-01 gets a removal token for acme",
			"stranger asks for a token and is refused",
			"octo: the policy halts itself. 9 due, 7 allowed",
		}},
		{"a pool that changes", []happening{
			{typ: "scale.up", target: "acme", change: 3, reason: "4 are desired"},
			{typ: "scale.down", target: "acme", change: 2, reason: "1 is desired"},
		}, []string{"acme: 3 more for the pool. 4 are desired", "acme: 2 fewer for the pool. 1 is desired"}},
		{"what is no news", []happening{{typ: "sync.complete", target: "acme"}, {typ: "runner.busy", target: "acme", name: "a"}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, summary(tt.all)); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHappeningsAreReadFromEvents(t *testing.T) {
	t.Parallel()
	tests := []struct {
		body string
		want happening
		ok   bool
	}{
		{`{"specversion":"1.0","type":"runner.removed","data":{"target":"acme","name":"r1","runner_id":7,"change":"removed"}}`,
			happening{typ: "runner.removed", target: "acme", name: "r1"}, true},
		{`{"type":"token.issued","data":{"target":"acme","host":"build-01","kind":"removal"}}`,
			happening{typ: "token.issued", target: "acme", host: "build-01", kind: "removal"}, true},
		{`{"type":"policy.halted","data":{"target":"octo","reason":"too many"}}`,
			happening{typ: "policy.halted", target: "octo", reason: "too many"}, true},
		{`{"type":"scale.up","data":{"pool":"linux","target":"acme","change":3,"reason":"more jobs"}}`,
			happening{typ: "scale.up", target: "acme", reason: "more jobs", change: 3}, true},
		{`{`, happening{}, false},
		{`{"type":1}`, happening{}, false},
		{``, happening{}, false},
	}
	for _, tt := range tests {
		if got, ok := readHappening([]byte(tt.body)); got != tt.want || ok != tt.ok {
			t.Errorf("readHappening(%s) = %+v, %t, want %+v, %t", tt.body, got, ok, tt.want, tt.ok)
		}
	}
}

func TestTellerWritesALineAThing(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	tell := newTeller(&out)
	tell.chapter("Of %d runners.", 5)
	tell.say("100%% of %s", "them")
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 4 || lines[1] != "Of 5 runners." || !strings.HasSuffix(lines[2], "s  100% of them") {
		t.Errorf("account = %q, want a chapter and a line with the time", lines)
	}
}

package policies_test

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestBadPoliciesAreRefused holds what is said of each file in testdata/bad:
// one line per fault, beside the file in a .txt of its name.
func TestBadPoliciesAreRefused(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/bad has %v, %v", files, err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := policies.Load(filepath.Base(path), text)
		if err == nil || loaded != nil {
			t.Errorf("Load(%s) = %d policies, %v, want none and an error", path, len(loaded), err)
			continue
		}
		got := err.Error() + "\n"
		golden := strings.TrimSuffix(path, ".yaml") + ".txt"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("Load(%s), want (-) got (+):\n%s", path, diff)
		}
	}
}

func fault(err error) *policies.Fault {
	var f *policies.Fault
	if !errors.As(err, &f) {
		return nil
	}
	return f
}

// document is a policy that deletes, with room for another match.
func document(match string) string {
	return fmt.Sprintf(`apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: reap, owner: ci}
spec:
  enforcement: enforce
  scope: {targets: [acme, beta]}
  match: %s
  guards: {grace: 1d, max: {count: 5, percent: 10}}
  actions: [{delete_runner: {}}]
`, match)
}

const longOffline = `runner.status == "offline" && runner.offline_for > duration("168h")`

func load(t testing.TB, text string) *policies.Policy {
	t.Helper()
	loaded, err := policies.Load("p.yaml", []byte(text))
	if err != nil || len(loaded) != 1 {
		t.Fatalf("Load = %d policies, %v, want one\n%s", len(loaded), err, text)
	}
	return loaded[0]
}

func TestLoadFillsInTheDefaults(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline))
	want := policies.Guards{
		Complete: true, MaxAge: 10 * time.Minute, Grace: 24 * time.Hour, Rate: 10, Listings: 2, Apart: 2 * time.Minute,
		Max: policies.Max{Count: 5, Percent: 10, Window: time.Hour},
	}
	if diff := cmp.Diff(want, p.Guards); diff != "" {
		t.Errorf("guards of a deletion, want (-) got (+):\n%s", diff)
	}
	if p.Name != "reap" || p.Owner != "ci" || p.Enforcement != fleet.EnforcementEnforce || p.Action != fleet.ActionDeleteRunner ||
		!cmp.Equal(p.Targets, []string{"acme", "beta"}) {
		t.Errorf("Load = %+v", p)
	}

	report := load(t, strings.Replace(strings.Replace(document(longOffline), "delete_runner", "report", 1), "  guards: {grace: 1d, max: {count: 5, percent: 10}}\n", "", 1))
	if diff := cmp.Diff(policies.Guards{Complete: true, MaxAge: 10 * time.Minute}, report.Guards); diff != "" {
		t.Errorf("guards of a report, want (-) got (+):\n%s", diff)
	}
}

func TestLoadReadsEveryGuard(t *testing.T) {
	t.Parallel()
	p := load(t, strings.Replace(document(longOffline), "{grace: 1d, max: {count: 5, percent: 10}}", `
    inventory: {complete: true, max_age: 1h}
    grace: 1w
    max: {count: 7, percent: 100, min_population: 3, window: 2d, on_exceed: halt}
    rate: 30/m
    witnesses: {listings: 1, apart: 0}`, 1))
	want := policies.Guards{
		Complete: true, MaxAge: time.Hour, Grace: 7 * 24 * time.Hour, Rate: 30, Listings: 1,
		Max: policies.Max{Count: 7, Percent: 100, MinPopulation: 3, Window: 48 * time.Hour},
	}
	if diff := cmp.Diff(want, p.Guards); diff != "" {
		t.Errorf("guards, want (-) got (+):\n%s", diff)
	}
}

func TestLoadReadsSeveralDocuments(t *testing.T) {
	t.Parallel()
	second := strings.Replace(document(longOffline), "name: reap", "name: other", 1)
	first := document(longOffline)
	text := "\xef\xbb\xbf---\n# nothing\n---\n---\n" + first + "---\n\n--- # nothing\n---\n" + second + "...\n...\n---\n"
	for _, text := range []string{text, strings.ReplaceAll(text, "\n", "\r\n"), first + "...\n" + second, "..." + "\n" + first + "--- \n" + second} {
		loaded, err := policies.Load("p.yaml", []byte(text))
		if err != nil || len(loaded) != 2 || loaded[0].Name != "reap" || loaded[1].Name != "other" {
			t.Errorf("Load = %v, %v, want reap and other", loaded, err)
		}
	}
}

func TestOneFaultKeepsTheOtherPoliciesOut(t *testing.T) {
	t.Parallel()
	loaded, err := policies.Load("p.yaml", []byte(document(longOffline)+"---\n"+strings.Replace(document("runner.nope"), "name: reap", "name: other", 1)))
	if loaded != nil || err == nil {
		t.Errorf("Load = %v, %v, want an error alone", loaded, err)
	}
	f := fault(err)
	if f == nil || f.File != "p.yaml" || f.Line != 17 || f.Col != 16 || !strings.Contains(f.Text, "'nope'") {
		t.Errorf("the fault is %+v, want it at p.yaml:17:16", f)
	}
}

func TestSHA256FollowsTheContentAlone(t *testing.T) {
	t.Parallel()
	base := document(longOffline)
	same := `# a comment
kind:    RunnerPolicy
apiVersion: "muster/v1"
spec:
  actions:
    - delete_runner: {}
  enforcement: enforce
  guards: {max: {percent: 10, count: 5}, grace: 1d}
  match: >-
    runner.status == "offline" &&
    runner.offline_for > duration("168h")
  scope: {targets: [acme, beta]}
metadata: {owner: ci, name: reap}
`
	digest := load(t, base).SHA256
	if len(digest) != 64 {
		t.Errorf("SHA256 = %q, want 64 hex digits", digest)
	}
	if got := load(t, same).SHA256; got != digest {
		t.Errorf("another layout has digest %s, want %s", got, digest)
	}
	for _, change := range [][2]string{{"168h", "169h"}, {"owner: ci", "owner: cd"}, {"[acme, beta]", "[beta, acme]"}, {"grace: 1d", "grace: 2d"}} {
		if got := load(t, strings.Replace(base, change[0], change[1], 1)).SHA256; got == digest {
			t.Errorf("%s for %s leaves the digest as it was", change[1], change[0])
		}
	}
}

func TestWhatIsTooLongIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := policies.Load("p.yaml", make([]byte, 2<<20)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("Load of 2 MiB: %v", err)
	}
	if _, err := policies.Load("p.yaml", []byte(strings.Repeat("---\n", 10_000))); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("Load of 10,000 documents: %v", err)
	}
	for name, text := range map[string]string{
		"freezes":    freezing("freeze: [" + strings.Repeat(`{cron: "0 6 * * *", duration: 1h}, `, 21) + "]"),
		"exemptions": document(longOffline + "\n  exempt: {" + manyExemptions(101) + "}"),
	} {
		if _, err := policies.Load("p.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "too many") {
			t.Errorf("Load of too many %s: %v", name, err)
		}
	}
	long := document(longOffline + strings.Repeat(" && !runner.busy", 2000))
	if _, err := policies.Load("p.yaml", []byte(long)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("Load of a long expression: %v", err)
	}
}

func manyExemptions(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("a%d: runner.busy", i))
	}
	return strings.Join(all, ", ")
}

// Whatever the file: faults have a place, nothing panics, and no policy that is
// taken deletes a runner that is online, busy, or not known.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, text := range mistakes(f) {
		f.Add(text)
	}
	samples, err := fs.Glob(policies.Samples(), "*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range samples {
		text, err := fs.ReadFile(policies.Samples(), name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(freezing(`min_survivors: 1, freeze: [{cron: "30 1 * * *", duration: 2h, time_zone: Europe/London}]`)))
	f.Add([]byte(withParams("teams: [team-web, team-db], least: 2.320.0, on: true", `params.on && runner.labels.exists(l, l in params.teams) && version_at_least(runner.version, params.least)`)))

	nothing, atWork, busy := fleet.Observed{}, online(2, "linux"), due(3)
	nothing.ID, nothing.Busy, busy.Busy = 1, true, true
	f.Fuzz(func(t *testing.T, text []byte) {
		loaded, err := policies.Load("p.yaml", text)
		if (err == nil) == (len(loaded) == 0) {
			t.Errorf("Load = %d policies, %v", len(loaded), err)
		}
		for _, p := range loaded {
			in := input(nothing, atWork, busy, due(4))
			if in.Target.Name = "acme"; len(p.Targets) > 0 {
				in.Target.Name = p.Targets[0]
			}
			for _, d := range policies.Decide(p, in, now).Decisions {
				if d.RunnerID < 4 && d.Verdict == fleet.VerdictAct && p.Action == fleet.ActionDeleteRunner {
					t.Errorf("%s deletes runner %d: %v", p.Name, d.RunnerID, d.Reasons)
				}
			}
		}
		if err == nil {
			return
		}
		for _, line := range strings.Split(err.Error(), "\n") {
			if !strings.HasPrefix(line, "p.yaml:") {
				t.Errorf("a line without a place: %q", line)
			}
		}
	})
}

// A file with one fault is refused with that fault alone.
func TestOneFaultIsToldAlone(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no mapping":                      "- a\n- b\n",
		"a broken exemption":              document(`runner.os == "linux"`) + "  exempt: {a: 'runner.busy &&'}\n",
		"an exemption that is always":     document(longOffline) + "  exempt: {a: 'true'}\n",
		"a match that is never true":      document(quote(longOffline + ` && runner.busy`)),
		"a match that is always true":     document("'true'"),
		"a drain without a deletion":      strings.Replace(document(longOffline), "{delete_runner: {}}", "{drain_host: {}}", 1),
		"a release without a drain":       strings.Replace(document(longOffline), "{delete_runner: {}}", "{delete_runner: {}}, {release_host: {}}", 1),
		"a report beside a deletion":      strings.Replace(document(longOffline), "{delete_runner: {}}", "{report: {}}, {delete_runner: {}}", 1),
		"an empty list of actions":        strings.Replace(document(longOffline), "[{delete_runner: {}}]", "[]", 1),
		"a policy in the operator's name": strings.Replace(document(longOffline), "name: reap", "name: operator", 1),
	} {
		_, err := policies.Load("p.yaml", []byte(text))
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one fault", name, err)
		}
	}
}

// A report alone may name all targets.
func TestAReportMayCoverAllTargets(t *testing.T) {
	t.Parallel()
	p := load(t, strings.Replace(reporting("runner.busy"), "targets: [acme]", "targets: [all]", 1))
	if !slices.Equal(p.Targets, []string{fleet.All}) || !p.Covers("anything") || p.Action != fleet.ActionReport {
		t.Errorf("targets = %q with action %s, want all of a report", p.Targets, p.Action)
	}
}

// A fault of the whole file has a place, and a hint about quotes is given on
// whichever line it is needed.
func TestFaultsOfFilesHavePlaces(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"too long":       {strings.Repeat("#", 256<<10+1), "p.yaml:1:1: 262145 bytes are too long"},
		"not UTF-8":      {"a: 1\nb: \xff\n", "p.yaml:2:1: the line is not UTF-8"},
		"too many":       {strings.Repeat("---\na: 1\n", 201), "p.yaml:401:1: more than 200 documents"},
		"empty":          {"# nothing\n", "p.yaml:1:1: the file holds no policy"},
		"an open list":   {"a: [", "p.yaml:1:4: not YAML"},
		"an open map":    {"a: 1\nb: {", "p.yaml:2:4: not YAML"},
		"an open quote":  {"a: 'x", "p.yaml:1:4: not YAML"},
		"a first star":   {"cron: */2 * * * *", "p.yaml:1:11: not YAML: a value that begins"},
		"a last star":    {"a: 1\ncron: */2 * * * *", "p.yaml:2:11: not YAML: a value that begins"},
		"a star between": {"a: 1\ncron: */2 * * * *\nb: 2\n", "p.yaml:2:11: not YAML: a value that begins"},
	} {
		_, err := policies.Load("p.yaml", []byte(tt.text))
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		found := slices.ContainsFunc(strings.Split(err.Error(), "\n"), func(line string) bool { return strings.HasPrefix(line, tt.want) })
		if !found {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// Windows line ends, a byte order mark and the mark of an ended document change
// nothing.
func TestTheFormOfAFileDoesNotMatter(t *testing.T) {
	t.Parallel()
	plain := load(t, document(longOffline))
	for name, text := range map[string]string{
		"CRLF":         strings.ReplaceAll(document(longOffline), "\n", "\r\n"),
		"CRLF, folded": strings.ReplaceAll(strings.Replace(document("x"), "match: x", "match: >-\n    runner.status == \"offline\"\n    && runner.offline_for > duration(\"168h\")", 1), "\n", "\r\n"),
		"a mark":       "\xef\xbb\xbf" + document(longOffline),
		"an end":       "...\n---\n" + document(longOffline) + "...\n",
	} {
		p := load(t, text)
		if p.SHA256 != plain.SHA256 {
			t.Errorf("%s: another policy", name)
		}
	}
}

// The policy's own tests meet the first target, errors, and runners that are
// busy, which a report may want.
func TestOwnTestsMeetWhatTheyDescribe(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		match, runner, want string
		passes              bool
	}{
		"a busy runner of a report":     {"runner.busy", "busy: true", "act", true},
		"the first target":              {`target.name == "acme"`, "busy: true", "act", true},
		"another target":                {`target.name == "beta"`, "busy: true", "keep", true},
		"an error keeps":                {"1 / (runner.busy ? 0 : 1) == 1 || runner.name == \"x\"", "busy: true", "keep", true},
		"an error does not act":         {"1 / (runner.busy ? 0 : 1) == 1 || runner.name == \"x\"", "busy: true", "act", false},
		"a field of which nothing says": {"runner.ephemeral", "busy: true", "keep", true},
	} {
		text := strings.Replace(reporting(tt.match), "targets: [acme]", "targets: [acme, beta]", 1) +
			"  tests: [{name: a, runner: {" + tt.runner + "}, want: " + tt.want + "}]\n"
		_, err := policies.Load("p.yaml", []byte(text))
		if (err == nil) != tt.passes {
			t.Errorf("%s: got %v, passes is %t", name, err, tt.passes)
		}
	}
}

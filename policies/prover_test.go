package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/policies"
)

const (
	addStatus = `add runner.status == "offline"`
	addLong   = `add runner.offline_for > duration("168h")`
	addBoth   = addStatus + ` && runner.offline_for > duration("168h")`
)

// A deletion without a drain must be decided by being offline (issue 10),
// whatever the fields beside status, busy and offline_for say.
func TestADeletionMustBeDecidedByBeingOffline(t *testing.T) {
	t.Parallel()
	for match, want := range map[string]string{
		// The issue's own.
		`"x64" in runner.labels`:              addBoth,
		`runner.name != ""`:                   addBoth,
		`runner.os == "linux"`:                addBoth,
		`runner.name.startsWith("org-")`:      addBoth,
		`runner.online_seen > duration("1h")`: addBoth,

		`runner.version != "2.320.0"`:                                 addBoth,
		`runner.group == "3"`:                                         addBoth,
		`!version_at_least(runner.version, "2.320.0")`:                addBoth,
		`runner.ephemeral`:                                            addBoth,
		`runner.age > duration("1h")`:                                 addBoth,
		`runner.idle_for > duration("720h")`:                          addBoth,
		`target.name == "acme"`:                                       addBoth,
		`!host.known`:                                                 addBoth,
		`!runner.busy`:                                                addBoth,
		`target.scope == "org/acme"`:                                  addBoth,
		`host.known && host.state == "gone"`:                          addBoth,
		`host.silent_for > duration("24h")`:                           addBoth,
		`runner.newer_registrations > 0`:                              addBoth,
		`runner.labels.all(l, l.startsWith("x"))`:                     addBoth,
		`runner.labels == []`:                                         addBoth,
		`[runner].exists(r, r.os == "linux")`:                         addBoth,
		`has(runner.os)`:                                              addBoth,
		`!has(runner.offline_for)`:                                    addStatus,
		`runner.os == "linux" || runner.offline_for > duration("1h")`: addBoth,
		// Between two of its own bounds, on which no fixed example falls.
		`has(runner.age) && runner.age > duration("1h") && runner.age < duration("2h")`: addBoth,
		// What stands in a map or a message is not listed by its constants.
		`{"a": runner.name}["a"] == "b"`:                  addBoth,
		`{runner.name: "a"}["b"] == "a"`:                  addBoth,
		`Target{name: runner.name}.name == "b"`:           addBoth,
		`[target].exists(t, t.scope == "org/acme")`:       addBoth,
		`has(runner.age) && runner.age < duration("1ns")`: addBoth,
		`runner.name == runner.group`:                     addBoth,
		// Texts that are no constant of theirs stand before, between and after.
		`runner.name < "m"`: addBoth,
		`runner.name < "m" || runner.status == "offline" && runner.offline_for > duration("168h")`:                              addBoth,
		`runner.name > "a" && runner.name < "b" || runner.status == "offline" && runner.offline_for > duration("168h")`:         addBoth,
		`"m" >= runner.version && runner.version != "m" || runner.status == "offline" && runner.offline_for > duration("168h")`: addBoth,
		`runner.name.matches("^org-[0-9]+$")`: addBoth,

		`runner.status == "offline"`:                                          addLong,
		`runner.status == "offline" && runner.os == "linux"`:                  addLong,
		`runner.status == "offline" && runner.never_online`:                   addLong,
		`runner.status == "offline" && runner.idle_for > duration("720h")`:    addLong,
		`runner.status == "offline" && runner.age > duration("720h")`:         addLong,
		`runner.status == "offline" && runner.online_seen > duration("720h")`: addLong,
		`runner.status == "offline" && runner.offline_for >= duration("0s")`:  addLong,
		`runner.status == "offline" && has(runner.offline_for)`:               addLong,
		`runner.never_online`:                                addLong,
		`runner.offline_for + runner.age > duration("720h")`: addBoth,
		`runner.os == "linux" ? runner.offline_for > duration("1h") : runner.status == "offline"`: addLong,
	} {
		_, err := policies.Load("p.yaml", []byte(document(quote(match))))
		if err == nil || !strings.Contains(err.Error(), "no deletion may: "+want+"\n") && !strings.HasSuffix(err.Error(), "no deletion may: "+want) {
			t.Errorf("%s: got %v, want a fault that ends with %q", match, err, want)
		}
	}
}

// The fault names a runner that would be met.
func TestTheFaultNamesARunner(t *testing.T) {
	t.Parallel()
	for match, want := range map[string]string{
		`runner.os == "linux" && !runner.ephemeral`: `a runner that is online (with runner.os = "linux")`,
		`runner.age > duration("1h")`:               `a runner that is online (with runner.age = 1h)`,
		`"x64" in runner.labels`:                    `a runner that is online, which`,
		`runner.status != "online"`:                 `a runner that went offline this moment, which`,
	} {
		_, err := policies.Load("p.yaml", []byte(document(quote(match))))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want a fault with %q", match, err, want)
		}
	}
}

func TestADeletionThatIsDecidedByBeingOffline(t *testing.T) {
	t.Parallel()
	const offline = `runner.status == "offline" && runner.offline_for > duration("168h")`
	for match, least := range map[string]time.Duration{
		offline:                                168*time.Hour + 1,
		offline + ` && "x64" in runner.labels`: 168*time.Hour + 1,
		`("x64" in runner.labels || runner.os == "linux") && ` + offline:                                                             168*time.Hour + 1,
		`runner.offline_for > duration("1s")`:                                                                                        time.Second + 1,
		`runner.offline_for >= duration("2h") && runner.labels.exists(l, l.startsWith("x"))`:                                         2 * time.Hour,
		`!(runner.status != "offline" || has(runner.offline_for) && runner.offline_for < duration("3h")) && has(runner.offline_for)`: 3 * time.Hour,
		`runner.os == "linux" ? runner.offline_for > duration("1h") : runner.offline_for > duration("2h")`:                           time.Hour + 1,
		offline + ` && runner.version < "2.320.0"`:                                                                                   168*time.Hour + 1,
		offline + ` && runner.name > "build-a" && "build-b" > runner.name`:                                                           168*time.Hour + 1,
		`has(runner.offline_for) && runner.offline_for > duration("1h") ? true : false`:                                              time.Hour + 1,
		`runner.never_online && runner.offline_for > duration("1h")`:                                                                 time.Hour + 1,
		`runner.offline_for - duration("1h") > duration("1h")`:                                                                       24 * time.Hour, // the first that is tried
		`duration("5h") < runner.offline_for && runner.name.matches("^org-")`:                                                        5*time.Hour + 1,
		`runner.status in ["offline"] && runner.offline_for > duration("1h") && !runner.busy`:                                        time.Hour + 1,
		`runner.offline_for > duration("1h") && target.name == "beta"`:                                                               time.Hour + 1,
		`runner.offline_for > duration("1h") && runner.newer_registrations > 0 && host.state == "gone"`:                              time.Hour + 1,
	} {
		p := load(t, document(quote(match)))
		if got := p.LeastOffline(); got != least {
			t.Errorf("%s: least offline time %v, want %v", match, got, least)
		}
	}
	// An exemption may say it too.
	p := load(t, document(quote(`"x64" in runner.labels`)+"\n  exempt: {not-long-off: '!has(runner.offline_for) || has(runner.offline_for) && runner.offline_for < duration(\"1h\")'}"))
	if got := p.LeastOffline(); got != time.Hour {
		t.Errorf("decided by an exemption: least offline time %v, want 1h", got)
	}
}

// A drain asks for what must be known.
func TestADrainOfTheUnknownIsRefused(t *testing.T) {
	t.Parallel()
	_, err := policies.Load("p.yaml", []byte(strings.Replace(draining(), `runner.status == "online" && !runner.busy`, quote(`!runner.busy`), 1)))
	if err == nil || !strings.Contains(err.Error(), "it matches a runner of which nothing is known") {
		t.Errorf("got %v, want it refused", err)
	}
}

func TestAMatchThatIsNeverTrueIsRefused(t *testing.T) {
	t.Parallel()
	const offline = `runner.offline_for > duration("1h")`
	deletes := func(match string) string { return document(quote(match)) }
	drains := func(match string) string {
		return strings.Replace(draining(), `runner.status == "online" && !runner.busy`, quote(match), 1)
	}
	for _, tt := range []struct{ text, want string }{
		{deletes(offline + ` && runner.status == "online"`), "may be deleted, which is offline and not busy"},
		{deletes(offline + ` && runner.busy`), "may be deleted, which is offline and not busy"},
		{deletes(offline + ` && has(runner.offline_for) && runner.offline_for < duration("30m")`), "conditions exclude each other"},
		{deletes(offline + ` && runner.os == "linux" && runner.os == "windows"`), "conditions exclude each other"},
		{deletes(offline + ` && has(runner.age) && runner.age < duration("1m") && runner.age > duration("2m")`), "conditions exclude each other"},
		{deletes(offline + ` && runner.newer_registrations > 3 && runner.newer_registrations < 2`), "conditions exclude each other"},
		{deletes(offline + ` && target.name == "elsewhere"`), "conditions exclude each other"},
		{deletes(offline + ` && has(runner.age) && runner.age < duration("-1h")`), "conditions exclude each other"},
		{deletes(offline + ` && host.known && !host.known`), "conditions exclude each other"},
		{document(quote(offline) + "\n  exempt: {all-of-them: runner.offline_for > duration(\"30m\")}"), "an exemption covers"},
		{drains(`runner.status == "online" && !runner.busy && runner.offline_for > duration("1h")`), "may be drained, which is online and not busy"},
		{drains(`runner.status == "offline" && !runner.busy`), "may be drained, which is online and not busy"},
		{reporting(`runner.os == "linux" && runner.os == "windows"`), "it is never true: some"},
		{reporting(`runner.busy && !runner.busy`), "it is never true: some"},
		{reporting(`1 / 0 == 1`), "it is never true: some"},
	} {
		_, err := policies.Load("p.yaml", []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), "spec.match: it is never true") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot %v, want a fault with %q", tt.text, err, tt.want)
		}
	}
}

// A report may ask for any runner there may be.
func TestAReportMayMatchAnybody(t *testing.T) {
	t.Parallel()
	for _, match := range []string{
		`runner.busy`, `runner.status == "online"`, `!has(runner.status)`, `runner.idle_for > duration("1h")`, `has(runner.offline_for) && runner.offline_for < duration("1h")`,
		`runner.busy && runner.status == "offline"`, `runner.name == runner.group`, `target.scope == "org/acme"`, `host.state == "silent"`,
	} {
		load(t, reporting(match))
	}
}

// A drain is refused where it may match a runner that is busy, whatever its
// other fields say.
func TestADrainMayNotMatchABusyRunner(t *testing.T) {
	t.Parallel()
	for _, match := range []string{
		`runner.status == "online"`, `runner.status == "online" && "x64" in runner.labels`,
		`runner.status == "online" && (!runner.busy || runner.os == "linux")`,
	} {
		_, err := policies.Load("p.yaml", []byte(strings.Replace(draining(), `runner.status == "online" && !runner.busy`, quote(match), 1)))
		if err == nil || !strings.Contains(err.Error(), "a runner that is busy") || !strings.HasSuffix(err.Error(), "add !runner.busy") {
			t.Errorf("%s: got %v, want a fault that asks for !runner.busy", match, err)
		}
	}
}

// More values than are tried leave fields open: no policy gets through by it.
func TestManyValuesLetNothingThrough(t *testing.T) {
	t.Parallel()
	var names, systems []string
	for i := range 80 {
		names = append(names, `runner.name == "`+strings.Repeat("n", i+1)+`"`)
		systems = append(systems, `runner.os == "`+strings.Repeat("o", i+1)+`"`)
	}
	any := "(" + strings.Join(names, " || ") + ") && (" + strings.Join(systems, " || ") + ")"
	_, err := policies.Load("p.yaml", []byte(document(quote(any))))
	if err == nil || !strings.Contains(err.Error(), addBoth) {
		t.Errorf("got %v, want a fault", err)
	}
	load(t, document(quote(any+` && runner.offline_for > duration("1h")`)))
}

// quote writes an expression as YAML does in single quotes.
func quote(expression string) string { return "'" + strings.ReplaceAll(expression, "'", "''") + "'" }

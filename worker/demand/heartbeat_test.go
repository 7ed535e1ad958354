package demand

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
)

func TestReadHeartbeat(t *testing.T) {
	t.Parallel()
	runner := func(name string, state fleet.HostRunnerState) fleet.HostRunner {
		return fleet.HostRunner{Target: "acme", Name: name, State: state}
	}
	for _, tt := range []struct {
		name, body string
		want       []fleet.HostRunner
	}{
		{"as the contract has it", `{"v":1,"runners":[{"target":"acme","name":"build-01","state":"idle"},{"target":"acme","name":"Build 02","state":"busy"},{"target":"acme","name":"x","state":"stopped"}]}`,
			[]fleet.HostRunner{runner("build-01", fleet.HostRunnerIdle), runner("Build 02", fleet.HostRunnerBusy), runner("x", fleet.HostRunnerStopped)}},
		{"no runner", `{"v":1,"runners":[]}`, nil},
		{"no version", ` {"runners":[]} `, nil},
	} {
		got, err := readHeartbeat("build-01", []byte(tt.body))
		if diff := cmp.Diff(fleet.Heartbeat{Host: "build-01", Runners: tt.want}, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
	one := `{"target":"acme","name":"a","state":"idle"}`
	for _, tt := range []struct{ name, host, body, want string }{
		{"no host", "Build_01", `{"runners":[]}`, "the host in the subject is not a name"},
		{"too long", "b", `{"runners":[]}` + strings.Repeat(" ", 16<<10), "the body has 16398 bytes: want at most 16384"},
		{"not UTF-8", "b", "{\"runners\":[\"\xff\"]}", "the body is not UTF-8"},
		{"nothing", "b", ``, "not one JSON object"},
		{"null", "b", `null`, "not one JSON object"},
		{"two", "b", `{"runners":[]}{}`, "not one JSON object"},
		{"another version", "b", `{"v":2,"runners":[]}`, "v is not 1"},
		{"an unknown field", "b", `{"runners":[],"load":1}`, `unknown field "load": want v, runners`},
		{"another case", "b", `{"Runners":[]}`, `unknown field "Runners": want v, runners`},
		{"no list", "b", `{"v":1}`, "runners is not a list; a host without runners says []"},
		{"null for a list", "b", `{"runners":null}`, "runners is not a list; a host without runners says []"},
		{"a runner that is none", "b", `{"runners":[` + one + `,7]}`, "runners[1]: not one JSON object"},
		{"an unknown field of a runner", "b", `{"runners":[{"target":"acme","name":"a","state":"idle","id":1}]}`, `runners[0]: unknown field "id": want target, name, state`},
		{"no target", "b", `{"runners":[{"name":"a","state":"idle"}]}`, "runners[0]: target is not a text"},
		{"a target that is none", "b", `{"runners":[{"target":"*","name":"a","state":"idle"}]}`, "runners[0]: target is not a name"},
		{"no name", "b", `{"runners":[{"target":"acme","name":"","state":"idle"}]}`, "runners[0]: name is not 1 to 256 printable bytes"},
		{"a name with a NUL", "b", `{"runners":[{"target":"acme","name":"a\u0000","state":"idle"}]}`, "runners[0]: name is not 1 to 256 printable bytes"},
		{"a state that nobody knows", "b", `{"runners":[{"target":"acme","name":"a","state":"Idle"}]}`, "runners[0]: state is not idle, busy or stopped"},
		{"a runner twice", "b", `{"runners":[` + one + `,{"target":"acme","name":"a","state":"busy"}]}`, "runners[1]: it stands there twice"},
	} {
		if _, err := readHeartbeat(tt.host, []byte(tt.body)); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

func FuzzReadHeartbeatNeverTakesWhatCannotBeRecorded(f *testing.F) {
	f.Add("build-01", []byte(`{"v":1,"runners":[{"target":"acme","name":"a\ud800","state":"idle"}]}`))
	f.Add("*", []byte(`{"runners":[{"target":"acme","name":"\u0000","state":"busy"}]}`))
	f.Fuzz(func(t *testing.T, host string, body []byte) {
		b, err := readHeartbeat(host, body)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, r := range b.Runners {
			if strings.ContainsRune(r.Name, 0) || seen[r.Target+" "+r.Name] || r.State == "" {
				t.Errorf("readHeartbeat(%q, %q) = %+v", host, body, b)
			}
			seen[r.Target+" "+r.Name] = true
		}
		if !fleet.ValidName(b.Host) {
			t.Errorf("host %q", b.Host)
		}
	})
}

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/github/githubsim"
)

// The files in testdata/golden hold what users may rely on: fields of JSON
// documents, subjects and bodies of messages, columns of SQL views, series of
// /metrics and exit statuses. go test ./cmd/muster -update writes them anew; a
// difference is a change of the contract.

// golden compares a text with a file in testdata/golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		err := os.WriteFile(path, []byte(got), 0o644)
		if err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// shape is the fields of JSON documents, by path, with the types that each has.
// Documents are merged: a field has the types of all of them.
type shape map[string]map[string]bool

var (
	timeText = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d`)
	uuidText = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

func (s shape) add(path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		s.note(path, "object")
		for key, field := range v {
			s.add(path+"."+key, field)
		}
	case []any:
		s.note(path, "array")
		for _, element := range v {
			s.add(path+"[]", element)
		}
	case string:
		switch {
		case timeText.MatchString(v):
			s.note(path, "time")
		case uuidText.MatchString(v):
			s.note(path, "uuid")
		default:
			s.note(path, "text")
		}
	case float64:
		s.note(path, "number")
	case bool:
		s.note(path, "boolean")
	case nil:
		s.note(path, "null")
	}
}

func (s shape) note(path, kind string) {
	if s[path] == nil {
		s[path] = map[string]bool{}
	}
	s[path][kind] = true
}

// decode adds the JSON document of a text.
func (s shape) decode(t *testing.T, text string) {
	t.Helper()
	var value any
	err := json.Unmarshal([]byte(text), &value)
	if err != nil {
		t.Errorf("%q is not JSON: %v", text, err)
		return
	}
	s.add("", value)
}

// String has a line for each field.
func (s shape) String() string {
	var text strings.Builder
	for _, path := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&text, "  %s: %s\n", strings.TrimPrefix(path+" ", "."), strings.Join(slices.Sorted(maps.Keys(s[path])), ", "))
	}
	return text.String()
}

// goldenHead is a fleet of which every command has something to tell.
const goldenHead = head + `
schedules:
  - {job: sync, targets: [acme], cron: "0 0 1 1 *"}
pools:
  - {name: linux, target: acme, labels: [self-hosted, linux], max: 20, target_utilisation: 1}
`

// goldenFleet has runners in all states, a job that waits, hosts that ask, and a
// trigger that failed.
func goldenFleet(t *testing.T) (*world, *process, *messages) {
	t.Helper()
	w := newWorldAt(t, dbtest.URL(t), "3.19")
	w.write("hook.secret", hookSecret+"\n")
	w.configure(strings.Replace(goldenHead, "auth: {token_file: github.token}", "auth: {token_file: github.token}, webhook_secret_file: hook.secret", 1), reaper())
	w.runners("alive-", 2, githubsim.RunnerSpec{Online: true})
	w.runners("dead-", 2, githubsim.RunnerSpec{})
	w.runners("kept-", 1, githubsim.RunnerSpec{Labels: []string{"keep"}})
	heard := w.hear(t)
	p := w.serve().up()
	w.hook(p, hookSecret)

	ask := w.asks(t)
	ask(exitDone, "trigger", "sync", "acme", "--wait")
	ask(exitDone, "hold", "acme", "dead-1", "--reason", "ticket 4711")
	for range 9 {
		_, err := w.sim.QueueJob(acme, githubsim.JobSpec{Repository: "acme/widgets"})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.nats.publish("muster.v1.host.alive-0.heartbeat", `{"v":1,"runners":[{"target":"acme","name":"alive-0","state":"idle"}]}`)
	w.host("build-01").gets(t, "registration")
	w.host("build-01").gets(t, "removal")
	_, err := w.host("elsewhere").ask(t.Context(), `{"target":"acme","kind":"registration"}`)
	if err != nil {
		t.Fatal(err)
	}
	w.nats.publish("muster.v1.trigger.sync.nobody", `{}`)
	w.becomes("true", `SELECT count(*) > 0 FROM api.hosts WHERE host = 'alive-0'`)
	w.becomes("1", `SELECT count(*) FROM api.dead_letters`)
	w.becomes("9", `SELECT count(*) FROM api.workflow_jobs WHERE state = 'queued'`)
	eventually(t, "dead-0 is deleted", func() (string, bool) {
		ask(exitDone, "trigger", "sync", "acme", "--wait")
		ask(exitDone, "trigger", "enforce", "acme", "--wait")
		n := w.value(`SELECT count(*) FROM api.runners WHERE removal_cause = 'policy'`)
		return n, n == "1"
	})
	ask(exitDone, "trigger", "scale", "linux", "--wait")
	w.becomes("true", `SELECT count(*) > 0 FROM api.leases`)
	w.becomes("0", `SELECT count(*) FROM muster.outbox WHERE claimed_until < now()`) // others are for later
	return w, p, heard
}

// asks returns a function that runs a command on the world's configuration.
func (w *world) asks(t *testing.T) func(code int, args ...string) string {
	return func(code int, args ...string) string {
		t.Helper()
		r := muster(t, nil, append(args, "--config", filepath.Join(w.dir, "muster.yaml"))...)
		if r.code != code {
			t.Errorf("muster %s: exit %d, want %d: %s", strings.Join(args, " "), r.code, code, r.stderr)
		}
		return r.stdout
	}
}

// messages are what went over NATS: the shape of the bodies, by subject.
type messages struct {
	t  *testing.T
	mu sync.Mutex
	by map[string]shape
}

// namesInSubjects are the parts of subjects that are names of this world.
var namesInSubjects = strings.NewReplacer(
	".acme", ".TARGET", ".linux", ".POOL", ".nobody", ".TARGET",
	".alive-0", ".HOST", ".build-01", ".HOST", ".build-02", ".HOST", ".elsewhere", ".HOST")

// hear takes down what is published from now on.
func (w *world) hear(t *testing.T) *messages {
	t.Helper()
	m := &messages{t: t, by: map[string]shape{}}
	_, err := w.nats.connect().Subscribe("muster.v1.>", func(msg *nats.Msg) {
		m.mu.Lock()
		defer m.mu.Unlock()
		subject := namesInSubjects.Replace(msg.Subject)
		if m.by[subject] == nil {
			m.by[subject] = shape{}
		}
		if len(msg.Data) > 0 {
			m.by[subject].decode(t, string(msg.Data))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *messages) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var text strings.Builder
	for _, subject := range slices.Sorted(maps.Keys(m.by)) {
		fmt.Fprintf(&text, "%s\n%s\n", subject, m.by[subject])
	}
	return text.String()
}

// reading are the commands that have -o json.
var reading = []string{
	"runners", "runners --removed", "plan", "plan --pool linux", "pools", "explain acme dead-0 --removed", "explain acme dead-1",
	"explain --pool linux", "audit", "dead-letters list", "downloads --target acme", "migrate status", "doctor", "policy check policy.yaml",
	"token --target acme --host build-02 --kind registration",
}

func TestGoldenDocumentsAndMessages(t *testing.T) {
	t.Parallel()
	w, p, heard := goldenFleet(t)
	ask := w.asks(t)
	var text strings.Builder
	for _, command := range reading {
		args := strings.Fields(strings.ReplaceAll(command, "policy.yaml", filepath.Join(w.dir, "policy.yaml")))
		fields := shape{}
		fields.decode(t, ask(exitDone, append(args, "-o", "json")...))
		fmt.Fprintf(&text, "muster %s -o json\n%s\n", command, fields)
	}
	golden(t, "documents.txt", text.String())
	golden(t, "messages.txt", heard.String())
	golden(t, "metrics.txt", series(fetch(t, "http://"+p.listens()+"/metrics")))
	p.stop()
}

// series are the names, types and labels in a text of /metrics.
func series(text string) string {
	types, labels := map[string]string{}, map[string]map[string]bool{}
	label := regexp.MustCompile(`[{,]([a-z_]+)="`)
	for line := range strings.Lines(text) {
		if name, kind, found := strings.Cut(strings.TrimPrefix(line, "# TYPE "), " "); found && strings.HasPrefix(line, "# TYPE muster_") {
			types[name] = strings.TrimSpace(kind)
			labels[name] = map[string]bool{}
		}
		for name := range types {
			if !strings.HasPrefix(line, name+"{") {
				continue
			}
			for _, m := range label.FindAllStringSubmatch(line, -1) {
				labels[name][m[1]] = true
			}
		}
	}
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(types)) {
		fmt.Fprintf(&all, "%s %s %s\n", name, types[name], strings.Join(slices.Sorted(maps.Keys(labels[name])), ","))
	}
	return all.String()
}

func TestGoldenViews(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(head, "")
	w.serve().up().stop()
	var text strings.Builder
	for _, row := range w.rows(`
		SELECT table_name::text, column_name::text, data_type::text
		FROM information_schema.columns
		WHERE table_schema = 'api'
		ORDER BY table_name, ordinal_position`) {
		fmt.Fprintln(&text, strings.Join(row, " "))
	}
	golden(t, "views.txt", text.String())
}

func TestGoldenExitStatuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(head, reaper())
	id := w.runners("alive-", 1, githubsim.RunnerSpec{Online: true})[0]
	p := w.serve().up()
	ask := w.asks(t)
	ask(exitDone, "trigger", "sync", "acme", "--wait")

	ask(exitDone, "version")
	ask(exitUsage, "no-such-command")
	ask(exitUsage, "runners", "--no-such-flag")
	ask(exitUsage, "runners", "--target", "nobody")
	ask(exitFailed, "remove", "acme", "nobody-1", "--reason", "x")
	ask(exitRefused, "remove", "acme", "--id", fmt.Sprint(id), "--reason", "x") // it is online
	ask(exitRefused, "token", "--target", "acme", "--host", "elsewhere", "--kind", "registration")
	ask(exitUsage, "policy", "check", filepath.Join(w.dir, "muster.yaml"))
	p.stop()
	w.nats.stop()
	ask(exitUnreachable, "trigger", "sync", "acme", "--wait", "--timeout", "1s")
	w.write("muster.yaml", strings.NewReplacer("DATABASE", "postgres://127.0.0.1:1/none", "NATS", w.nats.url, "API", w.sim.APIURL()).Replace(head))
	ask(exitUnreachable, "runners")
	w.write("muster.yaml", "targets: {")
	ask(exitUsage, "runners")
}

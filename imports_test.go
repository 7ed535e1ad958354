package muster_test

import (
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rooms is who may import whom, of ours. "*" stands for every room but the
// programs and db/dbtest. A row may stand before its room is there; a room
// without a row is a failure. A new arrow is a decision: make it here and argue
// it in the commit.
var rooms = map[string][]string{
	"":           {},
	"migrations": {},
	"fleet":      {},

	"policies":         {"fleet", "internal/calendar"},
	"github":           {"fleet"},
	"github/githubsim": {"fleet"},
	"queue":            {"fleet"},
	"scheduler":        {"fleet", "internal/calendar"},
	"db":               {"fleet", "migrations"},
	"db/dbtest":        {"db", "fleet", "migrations", "internal/standalone"},

	"worker": {"fleet", "queue"},
	// What was done is told to subscribers in the transaction of the outcome,
	// and queue has the form of events: hence the arrow to queue.
	"worker/remove":    {"db", "fleet", "github", "policies", "queue"},
	"worker/inventory": job,
	"worker/enforce":   job,
	"worker/scale":     job,
	"worker/demand":    job,
	"worker/token":     job,
	"worker/housekeep": job,
	"worker/seal":      job,

	"host": {"fleet", "queue"},

	// Schedules and the freezes of policies read cron in a zone the same way.
	"internal/calendar": {},
	// The shared clock is watched for all jobs, and knows none of them.
	"internal/clock":      {"fleet"},
	"internal/standalone": {},
	"internal/web":        {"fleet"},
	"internal/demo":       {"*"},
	"internal/storm":      {"*"}, // a test that wires every job, as cmd/muster does
	// A program for developers, which has to run the sync itself, and what it
	// is compared with, on a server of its own.
	"internal/sidebyside": {"db", "fleet", "github", "github/githubsim", "internal/standalone", "worker/inventory"},
	// A program for developers: the tests that it runs want Postgres.
	"internal/mutate": {"internal/standalone"},
	"cmd/muster":      {"*"},
}

// job is what any job may import; jobs never import each other.
var job = []string{"db", "fleet", "github", "policies", "queue", "worker", "worker/remove"}

// forTests are what _test.go files may import wherever they are.
var forTests = []string{"db/dbtest", "github/githubsim", "internal/clock", "internal/standalone"}

// owners is which rooms may import what is not ours, by the beginning of its
// path. "*" stands for every room but fleet and migrations, which have nothing
// but the standard library; no owner at all, for tests alone.
var owners = map[string][]string{
	"cel.dev/cel-go":                         {"policies"},
	"github.com/fergusstrange/":              {"internal/standalone"},
	"github.com/goccy/go-yaml":               {"cmd/muster", "policies"},
	"github.com/google/go-cmp":               {},
	"github.com/google/go-github/v45":        {"github"},
	"github.com/google/go-github/v89":        {}, // shows that the simulator is what clients of today take for GitHub
	"github.com/google/uuid":                 {"*"},
	"github.com/jackc/pgx/":                  {"db", "db/dbtest", "internal/sidebyside", "internal/standalone"},
	"github.com/jackc/tern/":                 {"db"},
	"github.com/moby/moby/":                  {"db/dbtest"},
	"github.com/nats-io/nats-server/":        {"internal/standalone"},
	"github.com/nats-io/nats.go":             {"queue"},
	"github.com/synadia-io/orbit.go":         {"queue"},
	"github.com/prometheus/client_golang":    {"cmd/muster"},
	"github.com/robfig/cron/":                {"internal/calendar"},
	"github.com/santhosh-tekuri/jsonschema/": {},
	"github.com/spf13/cobra":                 {"cmd/muster"},
	"github.com/testcontainers/":             {"db/dbtest"},
	"go.uber.org/goleak":                     {},
	"golang.org/x/sync/":                     {"*"},
	"pgregory.net/rapid":                     {},
}

// deleters are the rooms that may call the client's delete: the one that
// guards and records it, and the client itself with its tests.
var deleters = []string{"worker/remove", "github"}

// testing is for tests: it adds flags to whatever program links it.
var testRooms = []string{"db/dbtest"}

func TestImports(t *testing.T) {
	t.Parallel()
	for _, f := range sourceFiles(t) {
		for _, fault := range slices.Concat(roomFaults(f), ownerFaults(f), testingFaults(f)) {
			t.Errorf("%s: %s", f.path, fault)
		}
	}
}

func TestOneRoomDeletesRunners(t *testing.T) {
	t.Parallel()
	calls := 0
	for _, f := range sourceFiles(t) {
		for _, fault := range deleteFaults(f) {
			t.Errorf("%s: %s", f.path, fault)
		}
		if f.room == "worker/remove" && !f.test {
			calls += len(deletes(f))
		}
	}
	if calls != 1 {
		t.Errorf("worker/remove calls RemoveRunner in %d places, want one: every deletion takes the same way", calls)
	}
}

func TestRulesCatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, path, text string
		want             []string
	}{
		{"an arrow of the table", "worker/run.go", `package worker; import "` + module + `/queue"`, nil},
		{"an arrow that it lacks", "worker/run.go", `package worker; import "` + module + `/db"`,
			[]string{"worker imports db; its row in imports_test.go has fleet, queue"}},
		{"jobs that know each other", "worker/enforce/a.go", `package enforce; import "` + module + `/worker/inventory"`,
			[]string{"worker/enforce imports worker/inventory; its row in imports_test.go has db, fleet, github, policies, queue, worker, worker/remove"}},
		{"a room without a row", "util/a.go", `package util`,
			[]string{"util has no row in imports_test.go: a new room is a decision, made there"}},
		{"the simulator in a test", "worker/enforce/a_test.go", `package enforce; import "` + module + `/github/githubsim"`, nil},
		{"a test's own room", "queue/a_test.go", `package queue_test; import "` + module + `/queue"`, nil},
		{"a far room in a test", "queue/a_test.go", `package queue_test; import "` + module + `/db"`,
			[]string{"queue imports db; its row in imports_test.go has fleet"}},
		{"a program imported", "internal/demo/a.go", `package demo; import "` + module + `/cmd/muster"`,
			[]string{"internal/demo imports cmd/muster; its row in imports_test.go has *"}},
		{"test databases in a program", "cmd/muster/a.go", `package main; import "` + module + `/db/dbtest"`,
			[]string{"cmd/muster imports db/dbtest; its row in imports_test.go has *"}},
		{"anything else in a program", "cmd/muster/a.go", `package main; import "` + module + `/worker/token"`, nil},

		{"the owner", "policies/a.go", `package policies; import "cel.dev/cel-go/common/ast"`, nil},
		{"not the owner", "db/a.go", `package db; import "github.com/nats-io/nats.go/jetstream"`,
			[]string{"db imports github.com/nats-io/nats.go/jetstream, which is for queue"}},
		{"not the owner, in a test", "db/a_test.go", `package db; import "github.com/nats-io/nats.go/jetstream"`, nil},
		{"a tool for tests", "db/a.go", `package db; import "pgregory.net/rapid"`,
			[]string{"db imports pgregory.net/rapid, which is for tests"}},
		{"the vocabulary", "fleet/a.go", `package fleet; import "github.com/google/uuid"`,
			[]string{"fleet imports github.com/google/uuid; it has the standard library only"}},
		{"the vocabulary in a test", "fleet/a_test.go", `package fleet; import "github.com/google/go-cmp/cmp"`, nil},
		{"a new dependency", "db/a.go", `package db; import "example.com/orm"`,
			[]string{"db imports example.com/orm, which no row of owners in imports_test.go names: a new dependency is a decision, made there"}},
		{"a new dependency in a test", "db/a_test.go", `package db; import "example.com/mock"`,
			[]string{"db imports example.com/mock, which no row of owners in imports_test.go names: a new dependency is a decision, made there"}},

		{"testing in production", "github/githubsim/a.go", `package githubsim; import "testing"`,
			[]string{"github/githubsim imports testing outside of a test"}},
		{"below testing", "fleet/a.go", `package fleet; import "testing/fstest"`,
			[]string{"fleet imports testing/fstest outside of a test"}},
		{"a test server in production", "github/githubsim/a.go", `package githubsim; import "net/http/httptest"`,
			[]string{"github/githubsim imports net/http/httptest outside of a test"}},
		{"testing where it belongs", "db/dbtest/a.go", `package dbtest; import "testing"`, nil},

		{"the client's delete", "cmd/muster/a.go", `package main; func f(c client) { c.RemoveRunner(ctx, scope, 1) }`,
			[]string{"cmd/muster uses RemoveRunner: only worker/remove deletes runners"}},
		{"the client's delete as a value", "worker/scale/a.go", `package scale; var f = gh.RemoveRunner`,
			[]string{"worker/scale uses RemoveRunner: only worker/remove deletes runners"}},
		{"the client's delete in a test", "worker/scale/a_test.go", `package scale; var f = gh.RemoveRunner`,
			[]string{"worker/scale uses RemoveRunner: only worker/remove deletes runners"}},
		{"the guarded delete", "worker/remove/a.go", `package remove; var f = gh.RemoveRunner`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := parse(tt.path, []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			got := slices.Concat(roomFaults(f), ownerFaults(f), testingFaults(f), deleteFaults(f))
			if !slices.Equal(got, tt.want) {
				t.Errorf("faults of %s (-want +got):\n%s", tt.path, cmp.Diff(tt.want, got))
			}
		})
	}
}

// roomFaults are arrows between rooms that the table lacks.
func roomFaults(f sourceFile) []string {
	row, ok := rooms[f.room]
	if !ok {
		return []string{f.room + " has no row in imports_test.go: a new room is a decision, made there"}
	}
	var faults []string
	for _, path := range f.imports {
		room, ok := ourRoom(path)
		if !ok || slices.Contains(row, room) {
			continue
		}
		if slices.Contains(row, "*") && !strings.HasPrefix(room, "cmd/") && room != "db/dbtest" {
			continue
		}
		if f.test && (room == f.room || slices.Contains(forTests, room)) {
			continue
		}
		has := "nothing"
		if len(row) > 0 {
			has = strings.Join(row, ", ")
		}
		faults = append(faults, f.room+" imports "+room+"; its row in imports_test.go has "+has)
	}
	return faults
}

// ownerFaults are imports of what is neither ours nor the standard library's
// by somebody whom it is not for.
func ownerFaults(f sourceFile) []string {
	var faults []string
	for _, path := range f.imports {
		if _, ours := ourRoom(path); ours || isStandard(path) {
			continue
		}
		row, known := ownersOf(path)
		switch {
		case !known:
			faults = append(faults, f.room+" imports "+path+", which no row of owners in imports_test.go names: a new dependency is a decision, made there")
		case f.test:
		case f.room == "fleet" || f.room == "migrations" || f.room == "":
			faults = append(faults, f.room+" imports "+path+"; it has the standard library only")
		case len(row) == 0:
			faults = append(faults, f.room+" imports "+path+", which is for tests")
		case !slices.Contains(row, "*") && !slices.Contains(row, f.room):
			faults = append(faults, f.room+" imports "+path+", which is for "+strings.Join(row, ", "))
		}
	}
	return faults
}

func ownersOf(path string) ([]string, bool) {
	for prefix, row := range owners {
		if path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/") {
			return row, true
		}
	}
	return nil, false
}

func testingFaults(f sourceFile) []string {
	if f.test || slices.Contains(testRooms, f.room) {
		return nil
	}
	var faults []string
	for _, path := range f.imports {
		if path == "testing" || strings.HasPrefix(path, "testing/") || path == "net/http/httptest" {
			faults = append(faults, f.room+" imports "+path+" outside of a test")
		}
	}
	return faults
}

func deleteFaults(f sourceFile) []string {
	if slices.Contains(deleters, f.room) || len(deletes(f)) == 0 {
		return nil
	}
	return []string{f.room + " uses RemoveRunner: only worker/remove deletes runners"}
}

// deletes are the places that call the client's delete or take hold of it.
func deletes(f sourceFile) []token.Pos {
	var found []token.Pos
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "RemoveRunner" {
			found = append(found, s.Pos())
		}
		return true
	})
	return found
}

// A beginning that also begins another row would make the owner a matter of
// chance.
func TestOwnersAreApart(t *testing.T) {
	t.Parallel()
	prefixes := slices.Sorted(maps.Keys(owners))
	for i := 1; i < len(prefixes); i++ {
		if strings.HasPrefix(prefixes[i], strings.TrimSuffix(prefixes[i-1], "/")+"/") {
			t.Errorf("%s lies within %s", prefixes[i], prefixes[i-1])
		}
	}
}

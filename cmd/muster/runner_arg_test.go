package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// A name is a name and an id is an id, whatever the command: no text can be both.
func TestARunnerIsMeantByItsNameOrByItsMarkedID(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		runner, id string
		want       runnerArg
		err        string
	}{
		{"build-01", "", runnerArg{target: "acme", name: "build-01"}, ""},
		{"12", "", runnerArg{target: "acme", name: "12"}, ""},
		{"0700", "", runnerArg{target: "acme", name: "0700"}, ""},
		{"+700", "", runnerArg{target: "acme", name: "+700"}, ""},
		{"#12", "", runnerArg{target: "acme", id: 12}, ""},
		{"", "12", runnerArg{target: "acme", id: 12}, ""},
		{"#9223372036854775807", "", runnerArg{target: "acme", id: 9223372036854775807}, ""},
		{"#", "", runnerArg{target: "acme", name: "#"}, ""},
		{"#a12", "", runnerArg{target: "acme", name: "#a12"}, ""},
		{"#-12", "", runnerArg{target: "acme", name: "#-12"}, ""},
		{"#012", "", runnerArg{}, `"012" is not the id of a runner, want digits such as 12`},
		{"#0", "", runnerArg{}, `"0" is not the id`},
		{"#9223372036854775808", "", runnerArg{}, `"9223372036854775808" is not the id`},
		{"", "0700", runnerArg{}, `"0700" is not the id`},
		{"", "+700", runnerArg{}, `"+700" is not the id`},
		{"", "-7", runnerArg{}, `"-7" is not the id`},
		{"", "#7", runnerArg{}, `"#7" is not the id`},
		{"", "build-01", runnerArg{}, `"build-01" is not the id`},
		{"", "7\u202e", runnerArg{}, "is not the id"},
		{"", "", runnerArg{}, "RUNNER is empty, want a name, or an id as in --id 12"},
	} {
		got, err := (&runnerFlags{id: tt.id}).read("acme", tt.runner)
		if tt.err != "" {
			if err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "\u202e") {
				t.Errorf("runner %q, --id %q: %v, want exit 2 and %q", tt.runner, tt.id, err, tt.err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("runner %q, --id %q = %+v, %v, want %+v", tt.runner, tt.id, got, err, tt.want)
		}
	}
}

// Every command that takes a runner finds the same one, and does nothing where
// several may be meant.
func TestEveryCommandMeansTheSameRunner(t *testing.T) {
	t.Parallel()
	store, env := withRecord(t)
	dir := inDir(t, map[string]string{"muster.yaml": "targets: [{name: acme, scope: org/acme, auth: {token_env: TOKEN}}, {name: octo, scope: org/octo, auth: {token_env: TOKEN}}]\n"})
	env["MUSTER_CONFIG"], env["TOKEN"] = filepath.Join(dir, "muster.yaml"), "x"
	now, err := store.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	named := map[int64]string{12: "old", 30: "12", 31: "Case", 32: "CASE", 33: "case", 34: "Lone", 35: "0700", 700: "seven", 36: "pair", 37: "pair", 38: "Both", 39: "BOTH", 40: "again", 41: "again", 42: "gone", 43: "gone"}
	removed := []int64{40, 42, 43}
	inTx(t, store, func(tx *db.Tx) error {
		target := fleet.Target{Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}, APIURL: fleet.DefaultAPIURL}
		if err := tx.EnsureTarget(t.Context(), target, now); err != nil {
			return err
		}
		var rows []db.RunnerRow
		for id, name := range named {
			rows = append(rows, db.RunnerRow{
				Runner:      fleet.Runner{ID: id, Name: name, OS: "linux", Status: fleet.StatusOnline, Labels: []string{"linux"}},
				FirstSeenAt: now, SeenAt: now, StatusSince: now,
			})
		}
		if err := tx.AddRunners(t.Context(), "acme", rows); err != nil {
			return err
		}
		for _, id := range removed {
			if _, err := tx.MarkRemoved(t.Context(), "acme", id, fleet.CauseUnknown, now.Add(-time.Duration(id)*time.Minute)); err != nil {
				return err
			}
		}
		return nil
	})
	before := func() string {
		t.Helper()
		table, err := store.ReadAPI(t.Context(), `SELECT (SELECT count(*) FROM api.holds)::text, (SELECT count(*) FROM api.audit WHERE code <> 'TG302I')::text, (SELECT count(*) FROM api.decisions)::text`)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(table.Rows[0], " ")
	}
	gone := func(id int64) string { return "removed " + moment(now.Add(-time.Duration(id)*time.Minute)) }
	for _, tt := range []struct {
		runner string
		code   int
		want   string // the runner that is found, or what is said
	}{
		{"12", exitDone, "#30 (12)"},
		{"#12", exitDone, "#12 (old)"},
		{"--id 12", exitDone, "#12 (old)"},
		{"0700", exitDone, "#35 (0700)"},
		{"+700", exitFailed, "runner acme/+700: muster has never seen one of that name"},
		{"#0700", exitUsage, `"0700" is not the id of a runner`},
		{"--id +700", exitUsage, `"+700" is not the id of a runner`},
		{"--id 700", exitDone, "#700 (seven)"},
		{"case", exitDone, "#33 (case)"},
		{"cAsE", exitUsage, "runner acme/cAsE: nothing is done, it may be acme/#31 (Case), acme/#32 (CASE), acme/#33 (case): say which, as in muster VERB acme --id 31"},
		{"lone", exitDone, "#34 (Lone)"},
		{"pair", exitUsage, "runner acme/pair: nothing is done, it may be acme/#36 (pair), acme/#37 (pair): say which, as in muster VERB acme --id 36"},
		{"both", exitUsage, "runner acme/both: nothing is done, it may be acme/#38 (Both), acme/#39 (BOTH): say which, as in muster VERB acme --id 38"},
		{"again", exitDone, "#41 (again)"},
		{"gone", exitFailed, "runner acme/gone: it is no longer registered, there was acme/#42 (gone, " + gone(42) + "), acme/#43 (gone, " + gone(43) + ")"},
		{"#42", exitFailed, "runner acme/#42: it is no longer registered, there was acme/#42 (gone, " + gone(42) + ")"},
		{"#99", exitFailed, "runner acme/#99: muster has never seen one of that id: see muster runners --target acme"},
		{"99", exitFailed, "runner acme/99: muster has never seen one of that name: an id is written --id 99"},
	} {
		for _, verb := range []string{"remove", "hold", "unhold", "explain", "audit"} {
			args := append([]string{verb, "acme"}, strings.Fields(tt.runner)...)
			switch {
			case verb == "audit" && strings.HasPrefix(tt.runner, "--"):
				args = append([]string{verb, "--target", "acme"}, strings.Fields(tt.runner)...)
			case verb == "audit":
				args = []string{verb, "--target", "acme", "--runner", tt.runner}
			case verb != "explain":
				args = append(args, "--reason", "r")
			}
			was := before()
			r := muster(t, env, args...)
			said := r.stdout + r.stderr
			if tt.code != exitDone {
				want := strings.ReplaceAll(tt.want, "VERB", verb)
				if r.code != tt.code || !strings.Contains(r.stderr, want) || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
					t.Errorf("muster %s = %+v, want exit %d and %q", strings.Join(args, " "), r, tt.code, want)
				}
				if now := before(); now != was {
					t.Errorf("muster %s changed the record: holds, events and decisions were %s, and are %s", strings.Join(args, " "), was, now)
				}
				continue
			}
			id, name, _ := strings.Cut(strings.Trim(tt.want, "#)"), " (")
			want := "acme/" + id + " (" + name + ")"
			switch verb {
			case "explain":
				want = name + "  (acme, id " + id + ")"
			case "audit":
				want = name + " (" + id + ")" // the refusal of its deletion, and its hold
			}
			if !strings.Contains(said, want) {
				t.Errorf("muster %s = %+v, want it to be about %s", strings.Join(args, " "), r, want)
			}
		}
	}
}

// A runner that is no longer registered is meant with --removed alone, and then no
// other.
func TestRemovedRunnersAreMeantWithRemovedAlone(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	live := db.Namesake{Target: "acme", ID: 9, Name: "build"}
	old := db.Namesake{Target: "acme", ID: 7, Name: "build", RemovedAt: at}
	older := db.Namesake{Target: "acme", ID: 5, Name: "Build", RemovedAt: at.Add(-time.Hour)}
	all := []db.Namesake{live, old, older}
	for _, tt := range []struct {
		arg           runnerArg
		meant, others []int64
	}{
		{runnerArg{name: "build"}, []int64{9}, []int64{7, 5}},
		{runnerArg{name: "BUILD"}, []int64{9}, []int64{7, 5}},
		{runnerArg{name: "build", removed: true}, []int64{7}, []int64{9}},
		{runnerArg{name: "Build", removed: true}, []int64{5}, []int64{9}},
		{runnerArg{name: "BUILD", removed: true}, []int64{7, 5}, []int64{9}},
	} {
		meant, others := tt.arg.candidates(all)
		if !sameIDs(meant, tt.meant) || !sameIDs(others, tt.others) {
			t.Errorf("%+v means %v, others are %v, want %v and %v", tt.arg, meant, others, tt.meant, tt.others)
		}
	}
}

func sameIDs(all []db.Namesake, want []int64) bool {
	if len(all) != len(want) {
		return false
	}
	for i, n := range all {
		if n.ID != want[i] {
			return false
		}
	}
	return true
}

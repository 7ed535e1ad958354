package inventory_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// editRunner changes how listings show one runner, until the function returned
// is called.
func (w *world) editRunner(id int64, edit func(wireRunner)) func() {
	return w.editListings(func(runners []wireRunner, total int) ([]wireRunner, int) {
		for _, r := range runners {
			if shown, ok := r["id"].(float64); ok && int64(shown) == id {
				edit(r)
			}
		}
		return runners, total
	})
}

func (w *world) runner(id int64, want string) {
	w.Helper()
	w.want(want, `SELECT concat_ws(' ', name, os, status, busy, array_to_string(labels, ','), version, ephemeral, runner_group)
		FROM api.runners WHERE target = 'acme' AND runner_id = $1`, id)
}

// GitHub lists a lost machine with an empty list of labels (issue 10).
func TestEmptiedLabelsAreNoNews(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, "dotcom", nil)
	id := w.create(3, githubsim.RunnerSpec{Online: true, Labels: []string{"keep"}})[0]
	w.sync()
	w.runner(id, "r1 linux online f keep,linux,self-hosted,x64 2.329.0 f 1")

	w.ok(w.sim.Kill(acme, id))
	mend := w.editRunner(id, func(r wireRunner) { r["labels"] = []any{} })
	w.wantSync("complete +0 ~1 -0")
	s := w.wantSync("complete +0 ~0 -0")
	if s.Unreadable != 0 {
		t.Errorf("an empty list counts as unreadable: %v", s.UnreadableItems)
	}
	w.runner(id, "r1 linux offline f keep,linux,self-hosted,x64 2.329.0 f 1")
	w.want("offline", `SELECT string_agg(change, ' ') FROM api.runner_history`)

	mend()
	w.wantSync("complete +0 ~1 -0")
	w.want("offline", `SELECT string_agg(change, ' ') FROM api.runner_history`)

	w.editRunner(id, func(r wireRunner) { r["labels"] = []any{map[string]any{"name": "new"}} })
	w.wantSync("complete +0 ~1 -0")
	w.want("offline relabelled", `SELECT string_agg(change, ' ' ORDER BY at) FROM api.runner_history`)
}

func TestWhatGitHubDoesNotSayStaysKnown(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, "dotcom", nil)
	id := w.create(3, githubsim.RunnerSpec{Online: true, Ephemeral: true})[0]
	w.sync()
	const known = "r1 linux online f linux,self-hosted,x64 2.329.0 t 1"
	w.runner(id, known)
	for name, edit := range map[string]func(wireRunner){
		"nothing": func(r wireRunner) {
			for _, field := range []string{"name", "os", "labels", "version", "ephemeral", "runner_group_id"} {
				delete(r, field)
			}
			r["labels"] = []any{}
		},
		"empty": func(r wireRunner) {
			r["name"], r["os"], r["version"], r["labels"], r["ephemeral"], r["runner_group_id"] = "", "", "", []any{}, nil, 0
		},
		"the word unknown": func(r wireRunner) { r["os"] = "unknown" },
	} {
		w.editRunner(id, edit)
		if s := w.sync(); s.Outcome != fleet.SyncComplete || s.Unreadable != 0 {
			t.Errorf("%s: %s with %v", name, outcome(s), s.UnreadableItems)
		}
		w.runner(id, known)
		w.want("0", `SELECT count(*) FROM api.runner_history`)
	}
}

func TestNeverKnownIsNull(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, "dotcom", nil)
	id := w.create(1, githubsim.RunnerSpec{Online: true})[0]
	w.editRunner(id, func(r wireRunner) {
		r["os"], r["labels"], r["ephemeral"], r["status"] = "unknown", []any{}, nil, nil
	})
	w.wantSync("complete +1 ~0 -0")
	w.want("t t t {}", `SELECT concat_ws(' ', os IS NULL, status IS NULL, ephemeral IS NULL, labels) FROM api.runners`)
}

// One item that cannot be read costs that item, and no other.
func TestUnreadableItemsAreKeptAsTheyWereKnown(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		edit func(wireRunner)
		why  string
	}{
		"labels null":     {func(r wireRunner) { r["labels"] = nil }, "runner 1 r1: labels is missing"},
		"labels missing":  {func(r wireRunner) { delete(r, "labels") }, "runner 1 r1: labels is missing"},
		"labels in words": {func(r wireRunner) { r["labels"] = "keep" }, "runner 1 r1: labels has the wrong type"},
		"a label without a name": {func(r wireRunner) { r["labels"] = []any{map[string]any{"name": "x"}, map[string]any{"name": ""}} },
			"runner 1 r1: a label has no name"},
		"status null":  {func(r wireRunner) { r["status"] = nil }, "runner 1 r1: status is missing"},
		"name a list":  {func(r wireRunner) { r["name"] = []any{} }, "runner 1: name has the wrong type"},
		"busy a word":  {func(r wireRunner) { r["busy"] = "false" }, "runner 1 r1: busy has the wrong type"},
		"os a number":  {func(r wireRunner) { r["os"] = 7 }, "runner 1 r1: os has the wrong type"},
		"version true": {func(r wireRunner) { r["version"] = true }, "runner 1 r1: version has the wrong type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldOf(t, "dotcom", nil)
			ids := w.create(3, githubsim.RunnerSpec{Labels: []string{"keep"}})
			w.sync()
			w.sync()
			w.offlineFor(ids[0], "1")
			mend := w.editRunner(ids[0], tt.edit)
			w.ok(w.sim.Connect(acme, ids[1]))
			for range 2 {
				if s := w.sync(); s.Outcome != fleet.SyncComplete || s.Unreadable != 1 || strings.Join(s.UnreadableItems, "; ") != tt.why {
					t.Errorf("%s (%s) with %d unreadable: %v", outcome(s), s.Error, s.Unreadable, s.UnreadableItems)
				}
			}
			w.want("1 {\""+tt.why+"\"}", `SELECT concat_ws(' ', unreadable, unreadable_items) FROM api.syncs ORDER BY started_at DESC LIMIT 1`)
			w.want("online", `SELECT status FROM api.runners WHERE runner_id = $1`, ids[1])
			w.want("r1 linux offline keep,linux,self-hosted,x64 f",
				`SELECT concat_ws(' ', name, os, status, array_to_string(labels, ','), ephemeral) FROM api.runners WHERE runner_id = $1`, ids[0])
			w.offlineFor(ids[0], "1") // no witness of it since
			w.offlineFor(ids[2], "3")
			mend()
			if s := w.sync(); s.Unreadable != 0 {
				t.Errorf("mended, still %d unreadable", s.Unreadable)
			}
			w.offlineFor(ids[0], "1") // the time up to here was not observed
			w.sync()
			w.offlineFor(ids[0], "2")
			w.want("0", `SELECT count(*) FROM api.runner_history WHERE change IN ('relabelled', 'renamed')`)
			w.removed("")
		})
	}
}

// An item without an id may be any of the runners that the listing lacks: two
// such listings do not prove that one is gone.
func TestItemWithoutAnIDProvesNobodyGone(t *testing.T) {
	t.Parallel()
	for name, null := range map[string]func(wireRunner) wireRunner{
		"null":      func(wireRunner) wireRunner { return nil },
		"no id":     func(r wireRunner) wireRunner { delete(r, "id"); return r },
		"id a word": func(r wireRunner) wireRunner { r["id"] = "one"; return r },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.create(3, githubsim.RunnerSpec{Online: true})
			w.sync()
			w.editListings(func(runners []wireRunner, total int) ([]wireRunner, int) {
				runners[1] = null(runners[1])
				return runners, total
			})
			s := w.wantSync("complete +0 ~0 -0") // found by id
			if s.Unreadable != 1 || len(s.UnreadableItems) != 1 || !strings.HasPrefix(s.UnreadableItems[0], "item 2 of page 1: ") {
				t.Errorf("%d unreadable: %v", s.Unreadable, s.UnreadableItems)
			}
			edit := w.listingEditor(func(runners []wireRunner, total int) ([]wireRunner, int) {
				runners[1] = null(runners[1])
				return runners, total
			})
			w.sim.Intercept(func(r *http.Request) http.Handler {
				if broken := brokenLookup(r); broken != nil {
					return broken
				}
				return edit(r)
			})
			for range 3 {
				w.sync()
			}
			w.removed("")
		})
	}
}

func TestTextThatCannotBeStoredIsCleaned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(3, githubsim.RunnerSpec{Online: true})[0]
	w.sync()
	w.editRunner(id, func(r wireRunner) {
		r["name"], r["os"], r["version"], r["status"] = "r\x001", "pl\x00an9", "2.\x00", "on\x00line"
		r["labels"] = []any{map[string]any{"name": "ke\x00ep"}, map[string]any{"name": strings.Repeat("l", 3000)}}
	})
	w.wantSync("complete +0 ~1 -0")
	w.want("r\uFFFD1 pl\uFFFDan9 2.\uFFFD on\uFFFDline ke\uFFFDep 1100",
		`SELECT concat_ws(' ', name, os, version, status, labels[1], length(labels[2])) FROM api.runners WHERE runner_id = $1`, id)
	w.editRunner(id, func(r wireRunner) { r["name"] = strings.Repeat("n", 100_000) })
	w.wantSync("complete +0 ~1 -0")
}

// A sync that GitHub answered and that could not be recorded leaves a failed
// row, an error and an event, and nothing acts on the inventory until the next.
func TestSyncThatCannotBeRecordedLeavesAFailedRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(3, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.exec(`ALTER TABLE muster.runner ADD CHECK (name <> 'late1')`)
	id := w.create(1, githubsim.RunnerSpec{Name: "late"})[0]
	w.pass(time.Minute)
	if err := w.try(); err == nil || !strings.Contains(err.Error(), "record the sync of acme") {
		t.Errorf("sync = %v, want that it could not be recorded", err)
	}
	w.want("failed 0 t", `SELECT concat_ws(' ', outcome, added, error LIKE 'record the sync of acme: %') FROM api.syncs ORDER BY started_at DESC LIMIT 1`)
	w.want("failed", `SELECT last_outcome FROM muster.target`)
	w.want("1", `SELECT count(*) FROM muster.outbox WHERE subject = 'muster.v1.event.sync.failed'`)
	w.ok(w.sim.Remove(acme, id))
	w.wantSync("complete +0 ~0 -0")
}

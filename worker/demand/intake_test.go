package demand_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/demand"
)

func TestReceive(t *testing.T) {
	t.Parallel()
	const acme, octo = "hook-canary-acme", "hook-canary-octo"
	queued := body(41, fleet.WorkflowJobQueued)
	unsigned := delivery("d", "workflow_job", queued, acme)
	unsigned.Signature = ""
	old := delivery("d", "workflow_job", queued, acme)
	old.Signature = "sha1=" + strings.TrimPrefix(old.Signature, "sha256=")
	elsewhere := strings.NewReplacer("acme", "else").Replace(queued)
	both := []string{"acme 41 queued ", "widgets 41 queued "}
	tests := []struct {
		name     string
		delivery fleet.Delivery
		err      error
		heard    []string
		jobs     []string
	}{
		{"for each target that the secret is of, and that it concerns", delivery("d", "workflow_job", queued, acme), nil,
			[]string{"webhook folded acme", "webhook folded widgets"}, both},
		{"another target's secret", delivery("d", "workflow_job", strings.Replace(queued, "organization", "enterprise\":{\"slug\":\"octo\"},\"organization", 1), octo), nil,
			[]string{"webhook folded octo"}, []string{"octo 41 queued "}},
		{"a good secret, out of scope", delivery("d", "workflow_job", elsewhere, acme), nil, []string{"webhook elsewhere"}, []string{}},
		{"a repository of the organisation", delivery("d", "workflow_job", strings.Replace(queued, "widgets", "gadgets", 1), acme), nil,
			[]string{"webhook folded acme"}, []string{"acme 41 queued "}},
		{"a ping", delivery("d", "ping", `{"zen":"Keep it logically awesome."}`, acme), nil, []string{"webhook ignored"}, []string{}},
		{"an event that nobody knows", delivery("d", "sub_issues", `[1`, acme), nil, []string{"webhook ignored"}, []string{}},
		{"a step that nobody knows", delivery("d", "workflow_job", body(41, "pending"), acme), nil, []string{"webhook ignored"}, []string{}},
		{"nobody's secret", delivery("d", "workflow_job", queued, "geheim"), fleet.ErrUnauthorized, []string{"webhook refused"}, []string{}},
		{"an empty secret", delivery("d", "workflow_job", queued, ""), fleet.ErrUnauthorized, []string{"webhook refused"}, []string{}},
		{"no signature", unsigned, fleet.ErrUnauthorized, []string{"webhook refused"}, []string{}},
		{"another kind of signature", old, fleet.ErrUnauthorized, []string{"webhook refused"}, []string{}},
		{"a ping of nobody's", delivery("d", "ping", `{}`, "geheim"), fleet.ErrUnauthorized, []string{"webhook refused"}, []string{}},
		{"signed nonsense", delivery("d", "workflow_job", `{"geheim`, acme), fleet.ErrMalformed, []string{"webhook malformed"}, []string{}},
		{"unsigned nonsense", delivery("d", "workflow_job", `{"geheim`, "geheim"), fleet.ErrUnauthorized, []string{"webhook refused"}, []string{}},
		{"no delivery id", delivery("", "workflow_job", queued, acme), fleet.ErrMalformed, []string{"webhook malformed"}, []string{}},
		{"a delivery id of two lines", delivery("a\nb", "workflow_job", queued, acme), fleet.ErrMalformed, []string{"webhook malformed"}, []string{}},
		{"an endless delivery id", delivery(strings.Repeat("x", 129), "workflow_job", queued, acme), fleet.ErrMalformed, []string{"webhook malformed"}, []string{}},
	}
	w := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer w.forget()
			err := w.intake.Receive(t.Context(), tt.delivery)
			if !errors.Is(err, tt.err) || (tt.err == nil) != (err == nil) {
				t.Errorf("Receive = %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.heard, w.heard()); diff != "" {
				t.Errorf("heard (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.jobs, w.rows(jobs)); diff != "" {
				t.Errorf("jobs (-want +got):\n%s", diff)
			}
			if said := w.log.String() + fmt.Sprint(err); strings.Contains(said, "canary") || strings.Contains(said, "geheim") {
				t.Errorf("a secret or the body is told: %s", said)
			}
		})
	}
}

// Whoever waits for a job is decided on at once, and once however many events
// come meanwhile.
func TestAnEventWakesThePoolsThatItsJobMayWaitFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.intake.Pools = func(target string, labels []string, most int) []string {
		if target != "acme" || len(labels) == 0 || most < 2 {
			return nil
		}
		return []string{"gpu", "linux"}
	}
	send := func(n int, state fleet.WorkflowJobState) {
		t.Helper()
		d := delivery(fmt.Sprint(n, state), "workflow_job", body(int64(n), state), "hook-canary-acme")
		for range 2 {
			if err := w.intake.Receive(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	queued := func(want string) {
		t.Helper()
		var got string
		conn, err := pgx.Connect(t.Context(), w.url)
		if err == nil {
			err = conn.QueryRow(t.Context(), `SELECT coalesce(string_agg(r.name || ' ' || r.source, ', ' ORDER BY r.name), 'none')
				FROM muster.run r JOIN muster.outbox o ON o.id = r.trigger_id AND o.subject = 'muster.v1.trigger.scale.' || r.name WHERE r.state = 'queued'`).Scan(&got)
			err = errors.Join(err, conn.Close(t.Context()))
		}
		if err != nil || got != want {
			t.Errorf("triggers: %s, %v, want %s", got, err, want)
		}
	}
	queued("none")
	send(41, fleet.WorkflowJobQueued)
	send(42, fleet.WorkflowJobQueued)
	queued("gpu sync, linux sync")
	w.exec(`UPDATE muster.run SET state = 'done'`)
	send(41, fleet.WorkflowJobQueued) // which tells nothing new
	queued("none")
	send(41, fleet.WorkflowJobCompleted)
	queued("gpu sync, linux sync")
}

// A runner would seem to have worked for years to come, or to have been idle for
// years, were the date of an end believed whatever it is.
func TestAnEndThatCannotBeCountsFromWhenItWasTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, told, want string }{
		{"in the future", "2099-01-01T00:00:00Z", "2026-03-01 12:00:00+00"},
		{"years ago", "2019-01-01T00:00:00Z", "2026-03-01 12:00:00+00"},
		{"by a clock that is a little ahead", "2026-03-01T12:30:00Z", "2026-03-01 12:30:00+00"},
		{"a week ago", "2026-02-22T12:00:00Z", "2026-02-22 12:00:00+00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			text := strings.Replace(body(41, fleet.WorkflowJobCompleted), `"labels"`, `"completed_at":"`+tt.told+`","labels"`, 1)
			if err := w.intake.Receive(t.Context(), delivery("d1", "workflow_job", text, "hook-canary-acme")); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{tt.want}, w.rows(`SELECT completed_at::text FROM api.workflow_jobs WHERE target = 'acme'`)); diff != "" {
				t.Errorf("ended (-want +got):\n%s", diff)
			}
		})
	}
}

// The reviewer's case of issue 10: in progress on runner 2, then on runner 1.
func TestAJobThatMovesIsTheWorkOfBothRunners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`INSERT INTO muster.target (name, scope, api_url, first_used_at, max_observation_gap)
		VALUES ('acme', 'org/acme', 'https://api.github.com', $1, '1h')`, t0)
	w.exec(`INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, runner_group, ephemeral, version, first_seen_at, seen_at, status_since, fingerprint)
		SELECT 'acme', id, 'build-0' || id, 'linux', 'online', false, '{}', '', false, '', $1, $1, $1, 0 FROM generate_series(1, 2) AS id`, t0)
	send := func(n, runner int, state fleet.WorkflowJobState, name string) {
		t.Helper()
		text := strings.Replace(body(41, state), `"runner_id":3,"runner_name":"build-03"`, fmt.Sprintf(`"runner_id":%d,"runner_name":%q`, runner, name), 1)
		if err := w.intake.Receive(t.Context(), delivery(fmt.Sprint(n), "workflow_job", text, "hook-canary-acme")); err != nil {
			t.Fatal(err)
		}
	}
	open := func() []bool {
		t.Helper()
		runners, err := w.db.LiveRunners(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		var all []bool
		for _, r := range runners {
			all = append(all, r.Work.Open(t0))
		}
		return all
	}
	send(1, 2, fleet.WorkflowJobInProgress, "build-02")
	if diff := cmp.Diff([]bool{false, true}, open()); diff != "" {
		t.Errorf("on runner 2 (-want +got):\n%s", diff)
	}
	send(2, 1, fleet.WorkflowJobInProgress, "Build-01")
	if diff := cmp.Diff([]bool{true, true}, open()); diff != "" {
		t.Errorf("moved to runner 1 (-want +got):\n%s", diff)
	}
	send(3, 1, fleet.WorkflowJobCompleted, "build-01")
	if diff := cmp.Diff([]bool{false, false}, open()); diff != "" {
		t.Errorf("at its end (-want +got):\n%s", diff)
	}
}

func TestADeliveryIsFoldedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := delivery("d1", "workflow_job", body(41, fleet.WorkflowJobInProgress), "hook-canary-acme")
	for range 2 {
		if err := w.intake.Receive(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"webhook folded acme", "webhook folded widgets", "webhook repeated acme", "webhook repeated widgets"}
	if diff := cmp.Diff(want, w.heard()); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"acme 41 in_progress build-03", "widgets 41 in_progress build-03"}, w.rows(jobs)); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

func TestTwoSecretsWhileOneGivesWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	send := func(secret string) error {
		return w.intake.Receive(t.Context(), delivery(secret, "workflow_job", body(41, fleet.WorkflowJobQueued), secret))
	}
	w.secrets["octo"] = nil
	w.secrets["acme"] = these("new", "old")
	for _, secret := range []string{"old", "new"} {
		if err := send(secret); err != nil {
			t.Errorf("Receive with the %s secret = %v", secret, err)
		}
	}
	w.secrets["acme"] = these("new")
	if err := send("old"); !errors.Is(err, fleet.ErrUnauthorized) {
		t.Errorf("Receive with the secret that is gone = %v, want fleet.ErrUnauthorized", err)
	}
	if err := send("new"); err != nil {
		t.Errorf("Receive with the secret that stayed = %v", err)
	}
}

// A delivery that cannot be judged is not refused: it may be anybody's.
func TestASecretThatCannotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.secrets["octo"] = func(context.Context) ([]fleet.Secret, error) { return nil, errors.New("no such file") }
	err := w.intake.Receive(t.Context(), delivery("d", "workflow_job", body(41, fleet.WorkflowJobQueued), "hook-canary-octo"))
	if !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Receive = %v, want fleet.ErrUnavailable", err)
	}
	if err := w.intake.Receive(t.Context(), delivery("d", "workflow_job", body(41, fleet.WorkflowJobQueued), "hook-canary-acme")); err != nil {
		t.Errorf("Receive for another target = %v", err)
	}
}

func TestReceiveWithoutPostgres(t *testing.T) {
	t.Parallel()
	closed, err := db.Open(t.Context(), "postgres://muster@127.0.0.1:1/muster?connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	w := newWorldOn(t, closed)
	err = w.intake.Receive(t.Context(), delivery("d", "workflow_job", body(41, fleet.WorkflowJobQueued), "hook-canary-acme"))
	if !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Receive = %v, want fleet.ErrUnavailable", err)
	}
	if diff := cmp.Diff([]string{"webhook failed acme", "webhook failed widgets"}, w.heard()); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
}

// Replicas are told the same things at the same time, in any order.
func TestManyReplicasFoldTheSameJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all []fleet.Delivery
	for id := range int64(10) {
		for _, state := range []fleet.WorkflowJobState{fleet.WorkflowJobWaiting, fleet.WorkflowJobQueued, fleet.WorkflowJobInProgress, fleet.WorkflowJobCompleted} {
			d := delivery(fmt.Sprint(id, state), "workflow_job", body(id+1, state), "hook-canary-acme")
			all = append(all, d, d)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	other := *w.intake
	var g errgroup.Group
	g.SetLimit(8)
	for n, d := range all {
		intake := []*demand.Intake{w.intake, &other}[n%2]
		g.Go(func() error { return intake.Receive(t.Context(), d) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, target := range []string{"acme", "widgets"} {
		for id := range 10 {
			want = append(want, fmt.Sprintf("%s %d completed build-03", target, id+1))
		}
	}
	if diff := cmp.Diff(want, w.rows(jobs)); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
	outcomes := map[string]int{}
	for _, s := range w.heard() {
		outcomes[s]++
	}
	for _, s := range []string{"webhook folded acme", "webhook folded widgets", "webhook repeated acme", "webhook repeated widgets"} {
		if outcomes[s] != 40 {
			t.Errorf("%s: %d times, want 40", s, outcomes[s])
		}
	}
}

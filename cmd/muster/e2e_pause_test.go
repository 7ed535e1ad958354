package main

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What GitHub asks of one process holds for those that start later: muster
// serve, and the commands that speak to GitHub themselves.
func TestAPauseOutlivesTheProcessThatWasTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(head+often, "")
	first, other := w.serve(), w.serve()
	first.up()
	other.up()
	w.syncs(1)
	w.becomes("2", `SELECT count(*) FROM muster.replica`)
	w.sim.Penalise(credential, 20*time.Minute)
	w.becomes("1", `SELECT count(*) FROM muster.github_pause
		WHERE until > now() + interval '15 minutes' AND reason LIKE 'HTTP 403: You have exceeded a secondary rate limit%'`)
	if row := w.value(`SELECT string_agg(credential || reason, '') FROM muster.github_pause`); strings.Contains(row, credential) {
		t.Errorf("the record shows the credential: %s", row)
	}
	for _, p := range []*process{first, other} {
		eventually(t, "the replica pauses", func() (string, bool) {
			_, text := p.get("/metrics")
			return text, regexp.MustCompile(`muster_github_pause_seconds\{target="acme"\} [1-9]`).MatchString(text)
		})
	}
	first.kill()

	asked := len(w.sim.Log())
	at := w.value(`SELECT clock_timestamp()`)
	second := w.serve()
	second.up()
	got, err := w.host("build-01").ask(t.Context(), `{"target":"acme","kind":"registration"}`)
	if err != nil || got.Code != http.StatusBadGateway {
		t.Errorf("a token during the pause: %+v, %v, want github_error", got, err)
	}
	w.becomes("true", `SELECT count(*) > 1 FROM api.syncs WHERE started_at > $1::timestamptz
		AND outcome = 'failed' AND error LIKE '%not sent: GitHub asked for a pause%'`, at)
	env := map[string]string{"MUSTER_CONFIG": filepath.Join(w.dir, "muster.yaml")}
	const alone = "GitHub asked to be left alone until 2"
	if r := muster(t, env, "doctor"); !strings.Contains(r.stdout, alone) || !strings.Contains(r.stdout, "(HTTP 403: You have exceeded a secondary rate limit") {
		t.Errorf("doctor = %+v, want %q in it", r, alone)
	}
	if r := muster(t, env, "downloads", "--target", "acme"); r.code == exitDone || !strings.Contains(r.stderr, "GitHub asked for a pause") {
		t.Errorf("downloads = %+v, want a refusal", r)
	}
	second.stop()
	other.stop()
	w.becomes("1", `SELECT count(*) FROM muster.replica`) // the killed one
	for _, e := range w.sim.Log()[asked:] {
		if e.Method != "" {
			t.Errorf("asked during the pause: %s %s", e.Method, e.Path)
		}
	}
}

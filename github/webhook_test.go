package github_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

func sign256(body, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func TestSigned(t *testing.T) {
	t.Parallel()
	const body, secret = `{"action":"queued"}`, "It's a Secret to Everybody"
	good := sign256(body, secret)
	old := hmac.New(sha1.New, []byte(secret))
	_, _ = old.Write([]byte(body))
	oldSum := hex.EncodeToString(old.Sum(nil))
	// GitHub's own example, so that both sides of this test are not ours.
	if !github.Signed([]byte("Hello, World!"), "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", fleet.NewSecret(secret)) {
		t.Error("GitHub's example is not signed")
	}
	for _, tt := range []struct {
		name, body, signature, secret string
		want                          bool
	}{
		{"signed", body, good, secret, true},
		{"upper-case digits", body, "sha256=" + strings.ToUpper(good[7:]), secret, true},
		{"another body", body + " ", good, secret, false},
		{"another secret", body, good, secret + " ", false},
		{"no secret", body, sign256(body, ""), "", false},
		{"no signature", body, "", secret, false},
		{"no prefix", body, good[7:], secret, false},
		{"half a signature", body, good[:39], secret, false},
		{"no digits", body, "sha256=" + strings.Repeat("x", 64), secret, false},
		{"more after it", body, good + "00", secret, false},
		{"SHA-1", body, "sha1=" + oldSum, secret, false},
		{"SHA-1 under the other name", body, "sha256=" + oldSum, secret, false},
		{"another prefix", body, "SHA256=" + good[7:], secret, false},
	} {
		if got := github.Signed([]byte(tt.body), tt.signature, fleet.NewSecret(tt.secret)); got != tt.want {
			t.Errorf("%s: Signed = %v, want %v", tt.name, got, tt.want)
		}
	}
}

const wireRunning = `{"action":"in_progress","workflow_job":{"id":41,"run_id":7,"run_attempt":2,"status":"in_progress","conclusion":null,
	"created_at":"2026-03-01T12:00:00Z","started_at":"2026-03-01T13:01:00.1234567+01:00","completed_at":null,
	"labels":["self-hosted","Linux","linux",""],"runner_id":3,"runner_name":"build-03","steps":[]},
	"repository":{"full_name":"acme/widgets"},"organization":{"login":"acme"},"enterprise":{"slug":"octo"}}`

func TestReadWorkflowJob(t *testing.T) {
	t.Parallel()
	at := func(hour, minute int) time.Time { return time.Date(2026, 3, 1, hour, minute, 0, 0, time.UTC) }
	running := github.WorkflowJobEvent{
		Organization: "acme", Enterprise: "octo",
		Job: fleet.WorkflowJob{
			ID: 41, RunID: 7, RunAttempt: 2, Repository: "acme/widgets", Labels: []string{"linux", "self-hosted"},
			State: fleet.WorkflowJobInProgress, RunnerID: 3, RunnerName: "build-03",
			QueuedAt: at(12, 0), StartedAt: at(12, 1).Add(123456 * time.Microsecond),
		},
	}
	bare := func(state fleet.WorkflowJobState) github.WorkflowJobEvent {
		return github.WorkflowJobEvent{Job: fleet.WorkflowJob{ID: 1, State: state}}
	}
	queued := bare(fleet.WorkflowJobQueued)
	queued.Job.QueuedAt = at(12, 0)
	skipped := bare(fleet.WorkflowJobCompleted)
	skipped.Job.Conclusion, skipped.Job.CompletedAt = "skipped", at(12, 0)
	owned := bare(fleet.WorkflowJobQueued)
	owned.Organization, owned.Job.Repository = "octocat", "octocat/hello"
	odd := bare(fleet.WorkflowJobCompleted)
	odd.Job.RunnerName, odd.Job.Conclusion = "a\uFFFDb", strings.Repeat("x", 256)
	for _, tt := range []struct {
		name, body string
		want       github.WorkflowJobEvent
	}{
		{"everything", wireRunning, running},
		{"hardly anything", `{"action":"waiting","workflow_job":{"id":1}}`, bare(fleet.WorkflowJobWaiting)},
		{"queued, by a server that tells no created_at", `{"action":"queued","workflow_job":{"id":1,"started_at":"2026-03-01T12:00:00Z","runner_id":null,"runner_name":null}}`, queued},
		{"queued names no runner yet", `{"action":"queued","workflow_job":{"id":1,"runner_id":3,"runner_name":"x"}}`, bare(fleet.WorkflowJobQueued)},
		{"skipped", `{"action":"completed","workflow_job":{"id":1,"conclusion":"skipped","labels":[],"runner_id":0,"runner_name":"","started_at":"2026-03-01T12:00:00Z","completed_at":"2026-03-01T12:00:00Z"}}`, skipped},
		{"a person's repository", `{"action":"queued","workflow_job":{"id":1},"repository":{"full_name":"octocat/hello"}}`, owned},
		{"a step that nobody knows", `{"action":"pending","workflow_job":{"id":1}}`, bare("")},
		{"what cannot be recorded", `{"action":"completed","workflow_job":{"id":1,"runner_name":"a\u0000b","conclusion":"` + strings.Repeat("x", 300) + `"}}`, odd},
	} {
		got, err := github.ReadWorkflowJob([]byte(tt.body))
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
	for name, body := range map[string]string{
		"nothing":           ``,
		"no JSON":           `geheim`,
		"no object":         `[]`,
		"no workflow job":   `{"action":"queued"}`,
		"null":              `{"action":"queued","workflow_job":null}`,
		"no id":             `{"action":"queued","workflow_job":{}}`,
		"a negative id":     `{"action":"queued","workflow_job":{"id":-1}}`,
		"a broken id":       `{"action":"queued","workflow_job":{"id":1.5}}`,
		"a name as id":      `{"action":"queued","workflow_job":{"id":"geheim"}}`,
		"a huge attempt":    `{"action":"queued","workflow_job":{"id":1,"run_attempt":3000000000}}`,
		"no time":           `{"action":"queued","workflow_job":{"id":1,"created_at":"geheim"}}`,
		"too many labels":   `{"action":"queued","workflow_job":{"id":1,"labels":[` + strings.Repeat(`"a",`, 200) + `"a"]}}`,
		"a negative runner": `{"action":"in_progress","workflow_job":{"id":1,"runner_id":-3}}`,
	} {
		_, err := github.ReadWorkflowJob([]byte(body))
		if !errors.Is(err, fleet.ErrMalformed) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v, want fleet.ErrMalformed without a word of the body", name, err)
		}
	}
}

func TestConcerns(t *testing.T) {
	t.Parallel()
	e, err := github.ReadWorkflowJob([]byte(wireRunning))
	if err != nil {
		t.Fatal(err)
	}
	nobodys := e
	nobodys.Enterprise = ""
	for _, tt := range []struct {
		scope         string
		want, without bool // without: where the event names no enterprise
	}{
		{"enterprise/octo", true, true},
		{"enterprise/Octo", true, true},
		{"enterprise/other", false, true},
		{"org/acme", true, true},
		{"org/ACME", true, true},
		{"org/acm", false, false},
		{"repo/acme/widgets", true, true},
		{"repo/Acme/Widgets", true, true},
		{"repo/acme/widget", false, false},
		{"repo/other/widgets", false, false},
	} {
		scope, err := fleet.ParseScope(tt.scope)
		if err != nil {
			t.Fatal(err)
		}
		if got, without := e.Concerns(scope), nobodys.Concerns(scope); got != tt.want || without != tt.without {
			t.Errorf("Concerns(%s) = %v, and %v without an enterprise", scope, got, without)
		}
	}
	if e.Concerns(fleet.Scope{}) {
		t.Error("Concerns(no scope) = true")
	}
}

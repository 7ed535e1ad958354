package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/web"
	"github.com/muster-fleet/muster/worker/demand"
)

func TestSecretsOfWebhooksArrive(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{"t": "token", "one": "first\n", "two": "\n  new \r\nold\n\n"})
	c := loaded(t, dir, `targets:
  - {name: none, scope: org/a, auth: {token_file: t}}
  - {name: one, scope: org/b, auth: {token_file: t}, webhook_secret_file: one}
  - {name: two, scope: org/c, auth: {token_file: t}, webhook_secret_file: two}
  - {name: variable, scope: org/d, auth: {token_file: t}, webhook_secret_env: ONE}
`)
	for name, want := range map[string][]string{"one": {"first"}, "two": {"new", "old"}, "variable": {"one"}} {
		target, _ := c.target(name)
		secrets, err := target.webhookSecrets(t.Context())
		var got []string
		for _, s := range secrets {
			got = append(got, s.Reveal())
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	if target, _ := c.target("none"); target.webhookSecrets != nil {
		t.Error("a target without a secret has one")
	}
}

func TestBadSecretsOfWebhooks(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{"t": "token", "three": "hunter1\nhunter2\nhunter3\n", "empty": "\n", "muster.yaml": `targets:
  - {name: both, scope: org/a, auth: {token_file: t}, webhook_secret_file: t, webhook_secret_env: S}
  - {name: gone, scope: org/b, auth: {token_file: t}, webhook_secret_file: gone}
  - {name: empty, scope: org/c, auth: {token_file: t}, webhook_secret_file: empty}
  - {name: three, scope: org/d, auth: {token_file: t}, webhook_secret_file: three}
  - {name: unset, scope: org/e, auth: {token_file: t}, webhook_secret_env: UNSET}
`})
	path := filepath.Join(dir, "muster.yaml")
	env := variables(map[string]string{"S": "s", "HOME": "/h"})
	_, err := loadConfig(path, env)
	want := []string{
		`2:76: targets[0].webhook_secret_file: webhook_secret_env is set too: keep one of them`,
		`3:76: targets[1].webhook_secret_file: read the webhook secret of target gone from DIR/gone: no such file or directory: put the webhook secret of target gone there`,
		`4:77: targets[2].webhook_secret_file: read the webhook secret of target empty from DIR/empty: the file is empty: put the webhook secret of target empty there`,
		`5:77: targets[3].webhook_secret_file: the webhook secret of target three cannot be used: it has 3 lines: want one secret, or two while the new one is being set at GitHub`,
		`6:76: targets[4].webhook_secret_env: the variable UNSET is empty or not set: put the webhook secret of target unset there`,
	}
	var got []string
	for _, line := range lines(errors.Unwrap(err)) {
		got = append(got, strings.ReplaceAll(strings.TrimPrefix(line.Error(), path+":"), dir, "DIR"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if err != nil && strings.Contains(err.Error(), "hunter") {
		t.Errorf("a secret shows in:\n%v", err)
	}
}

// Whatever is sent to the route, it answers with one of a few statuses, tells
// nothing of a secret, and takes nothing in that is not signed. There is no
// Postgres, so what would be recorded is a 503.
func FuzzWebhookRoute(f *testing.F) {
	const secret = "hook-canary1c6bd40e92"
	sign := func(body []byte) string {
		mac := hmac.New(sha256.New, []byte(secret))
		_, _ = mac.Write(body)
		return "sha256=" + hex.EncodeToString(mac.Sum(nil))
	}
	var log strings.Builder
	intake := &demand.Intake{
		Log: slog.New(slog.NewTextHandler(&log, nil)),
		Now: func(context.Context) (time.Time, error) { return time.Time{}, fleet.ErrUnavailable },
		Targets: func() map[string]demand.Target {
			return map[string]demand.Target{"acme": {
				Target:  fleet.Target{Name: "acme", Scope: acme},
				Secrets: func(context.Context) ([]fleet.Secret, error) { return []fleet.Secret{fleet.NewSecret(secret)}, nil },
			}}
		},
	}
	handler := (&web.Server{
		Log: intake.Log, Metrics: http.NotFoundHandler(), Webhooks: intake,
		Ready: func(context.Context) []web.Fault { return nil },
	}).Handler()
	event := []byte(`{"action":"queued","workflow_job":{"id":1},"organization":{"login":"acme"}}`)
	f.Add(event, "application/json", "workflow_job", "0199b1c2", "", true)
	f.Add(event, "application/json", "workflow_job", "0199b1c2", sign(event), false)
	f.Add([]byte("payload={}"), "application/x-www-form-urlencoded", "ping", "0199b1c2", "sha1=00", false)
	f.Add([]byte(`{"workflow_job":`), "application/json; charset=\"", "workflow_job", "\x00", "sha256=", true)
	f.Fuzz(func(t *testing.T, body []byte, contentType, event, id, signature string, signed bool) {
		log.Reset()
		if signed {
			signature = sign(body)
		}
		r := httptest.NewRequest("POST", "/webhooks/github", strings.NewReader(string(body)))
		r.Header = http.Header{
			"Content-Type": {contentType}, "X-Github-Event": {event}, "X-Github-Delivery": {id}, "X-Hub-Signature-256": {signature},
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		good := strings.EqualFold(signature, sign(body)) && strings.HasPrefix(signature, "sha256=")
		allowed := []int{415, 401}
		if good {
			allowed = []int{415, 202, 400, 503}
		}
		if !slices.Contains(allowed, w.Code) {
			t.Errorf("answer %d %q, want one of %d", w.Code, w.Body, allowed)
		}
		if told := w.Body.String() + log.String(); strings.Contains(told, secret) || strings.Contains(told, sign(body)) {
			t.Errorf("told: %s", told)
		}
	})
}

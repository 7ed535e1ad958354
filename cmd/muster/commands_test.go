package main

import (
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
)

func TestAFleetThroughTheCommands(t *testing.T) {
	t.Parallel()
	s := running(t)
	s.create(t, "gpu-1", true)
	off := s.create(t, "gpu-2", false)

	if r := muster(t, s.env, "runners"); r.code != exitDone || r.stdout != "" || r.stderr != "no runners\n" {
		t.Errorf("runners before any sync = %+v", r)
	}
	if got := decode[[]runnerRow](t, muster(t, s.env, "runners", "-o", "json")); got == nil || len(got) != 0 {
		t.Errorf("runners -o json before any sync = %v, want []", got)
	}

	r := muster(t, s.env, "trigger", "sync", "--wait")
	printed := strings.Split(r.stdout, "\n")
	if r.code != exitDone || len(printed) != 3 || !strings.HasPrefix(printed[1], "sync acme done in ") || !strings.Contains(printed[1], "runners=2") {
		t.Fatalf("trigger sync --wait = %+v, want its id and one line for acme", r)
	}

	r = muster(t, s.env, "runners")
	table := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if len(table) != 3 || strings.Join(strings.Fields(table[0]), " ") != "TARGET ID NAME STATUS BUSY OFFLINE SEEN LABELS" {
		t.Fatalf("runners = %+v", r)
	}
	fields := strings.Fields(table[2])
	want := []string{"acme", strconv.FormatInt(off, 10), "gpu-2", "offline", "no", "-", fields[6], "gpu,linux,self-hosted,x64"}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("row of gpu-2 (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"gpu-1", "gpu-2"}},
		{[]string{"--status", "offline"}, []string{"gpu-2"}},
		{[]string{"--target", "acme", "--label", "Gpu", "--label", "linux"}, []string{"gpu-1", "gpu-2"}},
		{[]string{"--label", "tpu"}, nil},
		{[]string{"--offline-for", "1d"}, nil},
		{[]string{"--removed"}, nil},
	} {
		var names []string
		for _, row := range decode[[]runnerRow](t, muster(t, s.env, append([]string{"runners", "-o", "json"}, tt.args...)...)) {
			names = append(names, row.Name)
		}
		if diff := cmp.Diff(tt.want, names); diff != "" {
			t.Errorf("runners %v (-want +got):\n%s", tt.args, diff)
		}
	}
	row := decode[[]runnerRow](t, muster(t, s.env, "runners", "-o", "json", "--status", "offline"))[0]
	if row.OfflineSince == nil || row.OfflineFor == nil || row.RemovedAt != nil || row.LastSeenAt == nil {
		t.Errorf("gpu-2 as JSON = %+v, want offline_since and offline_for, no removed_at", row)
	}

	found := decode[[]downloadRow](t, muster(t, s.env, "downloads", "--target", "acme", "--os", "linux", "--arch", "x64", "-o", "json"))
	if len(found) != 1 || found[0].OS != "linux" || found[0].Architecture != "x64" || found[0].URL == "" {
		t.Errorf("downloads = %+v, want the one for linux and x64", found)
	}
	// As api.runners has it, and as GitHub does.
	for _, system := range []string{"macOS", "osx"} {
		if found := decode[[]downloadRow](t, muster(t, s.env, "downloads", "--target", "acme", "--os", system, "--arch", "x64", "-o", "json")); len(found) != 1 || found[0].OS != "osx" {
			t.Errorf("downloads --os %s = %+v, want the one for osx and x64", system, found)
		}
	}
	r = muster(t, s.env, "downloads", "--target", "acme", "--os", "plan9")
	if want := "no such downloads: the server offers linux arm, linux arm64, linux x64, osx x64, win x64\n"; r.code != exitDone || r.stdout != "" || r.stderr != want {
		t.Errorf("downloads --os plan9 = %+v, want %q", r, want)
	}

	if r := muster(t, s.env, "trigger", "scale", "--wait"); r.code != exitDone || r.stderr != "the configuration of muster serve names no pools: nothing was to be done\n" {
		t.Errorf("trigger scale without pools = %+v", r)
	}

	events := decode[[]auditRow](t, muster(t, s.env, "audit", "--code", "TG302I", "--since", "1h", "-o", "json"))
	if len(events) != 1 || deref(events[0].Target) != "acme" || len(events[0].Payload) == 0 {
		t.Errorf("audit --code TG302I = %+v, want the first use of acme", events)
	}
	if r := muster(t, s.env, "audit", "--host", "nobody"); r.code != exitDone || r.stderr != "no audit events\n" {
		t.Errorf("audit of an unknown host = %+v", r)
	}
	if r := muster(t, s.env, "audit"); !strings.Contains(r.stdout, "TG302I  target.new  noted    system:muster  acme") {
		t.Errorf("audit = %+v, want a row of target.new", r)
	}

	text := fetch(t, "http://"+s.http+"/metrics")
	for _, line := range []string{
		`muster_runners{target="acme"} 2`, `muster_runners_online{target="acme"} 1`, `muster_runners_busy{target="acme"} 0`,
		`muster_sync_age_seconds{target="acme"} `, `muster_dead_letters 0`, `muster_outbox_age_seconds `, `muster_open_intents 0`,
		`muster_database_up 1`, `muster_syncs_total{outcome="complete",reason="",target="acme"} 1`,
		`muster_github_calls_total{code="2xx",kind="list_runners",target="acme"} 1`,
		`muster_triggers_total{job="sync",outcome="done",target="acme"} 1`,
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

func TestATokenForAHost(t *testing.T) {
	t.Parallel()
	s := running(t)
	ask := func(args ...string) result {
		return muster(t, s.env, append([]string{"token", "--target", "acme", "--host", "build-01", "--kind", "registration"}, args...)...)
	}
	type printed struct{ Target, Kind, URL, Token string }
	got := decode[printed](t, ask("-o", "json"))
	web := strings.TrimSuffix(s.sim.APIURL(), "/api/v3") + "/acme"
	if got.Token == "" || got.URL != web || got.Kind != "registration" {
		t.Errorf("token = %+v, want one for %s", got, web)
	}
	if _, _, err := s.sim.RegisterRunner(got.Token, runnerNamed("new")); err != nil {
		t.Errorf("the token does not register a runner: %v", err)
	}

	r := ask("--exec", `printf '%s|' "a b" {url} "--token={token}" \$HOME`)
	if want := "a b|" + web + "|--token=" + got.Token + "|$HOME|"; r.code != exitDone || r.stdout != want {
		t.Errorf("token --exec = %+v, want stdout %q", r, want)
	}
	if strings.Contains(r.stderr, got.Token) {
		t.Errorf("the token shows in %q", r.stderr)
	}

	if r := ask(); r.code != exitRefused || !strings.Contains(r.stderr, "429 quota") {
		t.Errorf("a third token in an hour = %+v, want exit %d and 429 quota", r, exitRefused)
	}
	if r := muster(t, s.env, "token", "--target", "acme", "--host", "build-02", "--kind", "removal"); r.code != exitRefused || !strings.Contains(r.stderr, "403 denied") {
		t.Errorf("a token without a grant = %+v, want exit %d and 403 denied", r, exitRefused)
	}
	events := decode[[]auditRow](t, muster(t, s.env, "audit", "--host", "build-01", "-o", "json"))
	var codes []fleet.AuditCode
	for _, e := range events {
		codes = append(codes, e.Code)
		if strings.Contains(string(e.Payload), got.Token) {
			t.Errorf("the token shows in the trail: %s", e.Payload)
		}
	}
	if diff := cmp.Diff([]fleet.AuditCode{"TK100I", "TK101I", "TK100I", "TK101I", "TK103W"}, codes); diff != "" {
		t.Errorf("trail of build-01 (-want +got):\n%s", diff)
	}
}

// A run that fails is told of while it is tried again, and a trigger that
// cannot ever run ends the wait.
func TestWaitingForWhatFails(t *testing.T) {
	t.Parallel()
	s := running(t)
	s.sim.Down(true)
	var out, errs lockedBuffer
	failed := regexp.MustCompile(`^sync acme: attempt \d+ failed, trying again: `) // an attempt between two looks goes untold
	ended := make(chan int, 1)
	go func() {
		ended <- run(t.Context(), []string{"trigger", "sync", "acme", "--wait"}, variables(s.env), strings.NewReader(""), &out, &errs)
	}()
	<-errs.wrote()
	s.sim.Down(false)
	if code := <-ended; code != exitDone || !failed.MatchString(errs.String()) || !strings.Contains(out.String(), ", attempt ") {
		t.Errorf("trigger sync --wait = %d %q %q, want the failure on stderr, and a further attempt that is done", code, out.String(), errs.String())
	}

	// A configuration that serve does not have.
	elsewhere := map[string]string{}
	for k, v := range s.env {
		elsewhere[k] = v
	}
	elsewhere["MUSTER_CONFIG"] = "testdata/empty.yaml"
	if r := muster(t, elsewhere, "trigger", "sync", "octo", "--wait"); r.code != exitFailed || !strings.Contains(r.stderr, `muster serve refused the trigger: job sync knows no "octo"`) {
		t.Errorf("trigger of an unknown name = %+v, want exit 1 and why", r)
	}
	if r := muster(t, elsewhere, "trigger", "housekeep", "--wait"); r.code != exitDone || !strings.Contains(r.stdout, "\nhousekeep all done in ") {
		t.Errorf("trigger housekeep = %+v", r)
	}
}

func TestExecWithAProgramThatFails(t *testing.T) {
	t.Parallel()
	answer := tokenAnswer{Token: "s3cret", URL: "https://github.com/acme"}
	for _, tt := range []struct{ command, want string }{
		{"false {token}", "run false: exit status 1"},
		{"/no/such/program {token}", "run /no/such/program: there is no such program"},
		{"no-such-program-anywhere {token}", "run no-such-program-anywhere: there is no such program"},
		{"/ {token}", "run /: is a directory"},
	} {
		words, err := execWords(tt.command)
		if err != nil {
			t.Fatal(err)
		}
		a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
		if err := a.execWith(t.Context(), words, answer); err == nil || err.Error() != tt.want || exitCode(err) != exitFailed {
			t.Errorf("%s: %v (exit %d), want %q", tt.command, err, exitCode(err), tt.want)
		}
	}
}

func TestExecWords(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		command string
		want    []string
		err     string
	}{
		{`./config.sh --url {url} --token {token}`, []string{"./config.sh", "--url", "{url}", "--token", "{token}"}, ""},
		{`a  'b c'	"d \"e\" \n" f\ g '' {token}`, []string{"a", "b c", `d "e" \n`, "f g", "", "{token}"}, ""},
		{`a "{token}`, nil, "left open"},
		{`a {token} \`, nil, "left open"},
		{` `, nil, "no command"},
		{`a {url}`, nil, "no {token}"},
		{`{token} b`, nil, "no placeholder"},
	} {
		got, err := execWords(tt.command)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("execWords(%q) = %v, want an error with %q", tt.command, err, tt.err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("execWords(%q) = %v (-want +got):\n%s", tt.command, err, diff)
		}
	}
}

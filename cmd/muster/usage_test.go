package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

func TestBadUsage(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{
		"muster.yaml": "targets: [{name: acme, scope: org/acme, auth: {token_env: TOKEN}}]\n" +
			"pools: [{name: gpu, target: acme, labels: [gpu], max: 4}]\n",
		"bad.yaml": "targets: {}\nlisten: here\n",
	})
	env := map[string]string{"HOME": dir, "TOKEN": "x", "MUSTER_CONFIG": filepath.Join(dir, "muster.yaml")}
	bad := filepath.Join(dir, "bad.yaml")
	long := strings.Repeat("r", 1025)
	const tooLong = ": --reason has 1025 bytes, want at most 1024: say where the rest is to be read"
	for _, tt := range []struct{ args, want string }{
		{"nope", `muster: unknown command "nope" for "muster"`},
		{"runners --nope", `muster: unknown flag: --nope`},
		{"runners extra", `muster: unknown command "extra" for "muster runners"`},
		{"runners -o yaml", `muster: invalid argument "yaml" for "-o, --output" flag: want table or json`},
		{"runners --status idle", `muster: --status "idle" is unknown, want online or offline`},
		{"runners --offline-for 7", `muster: --offline-for: duration "7": want a number with a unit, such as 90s, 15m, 36h, 7d or 2w`},
		{"runners --config " + bad, bad + ":1:10: targets: want a list, got keys with values\n" +
			bad + `:2:9: listen: "here" is not HOST:PORT, such as 127.0.0.1:8425`},
		{"runners --config /nowhere.yaml", "/nowhere.yaml: read the configuration: no such file or directory"},
		{"downloads", "muster: downloads wants --target: the server differs between targets"},
		{"downloads --target octo", `muster: --target: target "octo" is unknown, there is acme`},
		{"audit --since -1h", `muster: --since: duration "-1h": want a number with a unit, such as 90s, 15m, 36h, 7d or 2w`},
		{"audit --code XX1", `muster: --code "XX1" is no code of an audit event, such as RN101I`},
		{"migrate", "muster: muster migrate wants one of its subcommands: see muster migrate --help"},
		{"migrate sideways", `muster: unknown command "sideways" for "muster migrate"`},
		{"trigger", "muster: accepts between 1 and 2 arg(s), received 0"},
		{"trigger scale linux", `muster: trigger scale: pool "linux" is unknown, there is gpu`},
		{"trigger clean", `muster: trigger: job "clean" is unknown, want sync, enforce, scale, housekeep`},
		{"trigger sync octo", `muster: trigger sync: target "octo" is unknown, there is acme`},
		{"trigger housekeep acme", "muster: trigger housekeep is for all of muster and takes no name"},
		{"token", `muster: --host "" cannot be the name of a host: want lower-case letters, digits and -, at most 63, beginning with a letter or digit`},
		{"token --host a --target acme --kind all", `muster: --kind "all" is unknown, want registration, removal or jit`},
		{"token --host a --target acme --kind removal --labels x", `muster: --runner-name and --labels are for --kind jit: config.sh sets them for other runners`},
		{"token --host a --target acme --kind removal --exec ./remove.sh", `muster: --exec: no {token} among the words: the command would not get the token`},
		{"policy check", "muster: requires at least 1 arg(s), only received 0"},
		{"dead-letters retry", "muster: accepts 1 arg(s), received 0"},
		{"hold", "muster: accepts 2 arg(s), received 0"},
		{"hold acme 7", "muster: hold wants --reason: it goes into the audit trail"},
		{"hold acme 7 --reason broken --until tomorrow", `muster: --until "tomorrow" is no moment, want one in RFC 3339 such as 2026-03-02T08:00:00Z, or a time from now such as 8h or 3d`},
		{"unhold acme 7", "muster: unhold wants --reason: it goes into the audit trail"},
		{"explain", "muster: accepts between 1 and 2 arg(s), received 0"},
		{"explain --pool linux", `muster: --pool: pool "linux" is unknown, there is gpu`},
		{"explain --pool gpu acme", `muster: unknown command "acme" for "muster explain"`},
		{"plan --pool linux", `muster: --pool: pool "linux" is unknown, there is gpu`},
		{"doctor acme", `muster: unknown command "acme" for "muster doctor"`},
		{"nats-config", "muster: nats-config is not there yet"},
		{"audit verify", "muster: audit verify is not there yet"},
		{"audit prove 7", "muster: audit prove is not there yet"},
		{"audit sideways", `muster: unknown command "sideways" for "muster audit"`},
		{"policy backtest x.yaml --days 7", "muster: policy backtest is not there yet"},
		{"plan --pool gpu --policy reap", "muster: --pool is of scaling, --policy and --target of enforcement: ask for one of them"},
		{"simulate github --version 3.14", "muster: --version 3.14 is none that can be simulated, want one of 3.1, 3.4, 3.7, 3.10, 3.11, 3.19, dotcom"},
		{"remove acme 7", "muster: remove wants --reason: it goes into the audit trail"},
		{"remove octo 7 --reason x", `muster: remove: target "octo" is unknown, there is acme`},
		{"remove acme 7 --reason " + long, "muster: remove" + tooLong},
		{"policy resume reap --reason " + long, "muster: policy resume" + tooLong},
		{"dead-letters drop 7 --reason " + long, "muster: dead-letters drop" + tooLong},
		{"simulate github --runners -1", "muster: --runners -1 is out of bounds, want 0 to 1000000"},
	} {
		r := muster(t, env, strings.Fields(tt.args)...)
		if r.code != exitUsage || r.stdout != "" || r.stderr != tt.want+"\n" {
			t.Errorf("muster %s: exit %d, stdout %q\n got %q\nwant %q", tt.args, r.code, r.stdout, r.stderr, tt.want)
		}
	}
}

// Commands say in one line that there is nobody to talk to, and end with 4.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mute.Close() }) // its answer is of no use
	silent := inDir(t, map[string]string{
		"muster.yaml": "migrate_url: postgres://m:hunter2@" + mute.Addr().String() + "/m?sslmode=disable\n",
	})
	none := inDir(t, map[string]string{"muster.yaml": "data_dir: data\n"})
	stale := inDir(t, map[string]string{
		"muster.yaml": "data_dir: .\n",
		connectFile:   "MUSTER_DATABASE_URL=postgres://m:hunter2@" + closed(t) + "/m?sslmode=disable\nMUSTER_NATS_URL=nats://m:hunter2@" + closed(t) + "\n",
	})
	either := inDir(t, map[string]string{ // pgx tries with TLS, then without
		"muster.yaml": "database_url: postgres://m:hunter2@" + closed(t) + "/m\n",
	})
	github := inDir(t, map[string]string{
		"muster.yaml": "targets: [{name: acme, scope: org/acme, api_url: \"http://" + closed(t) + "/api/v3\", auth: {token_env: TOKEN}}]\n",
	})
	const start = "start muster serve, or set "
	for _, tt := range []struct{ name, dir, args, want string }{
		{"no Postgres anywhere", none, "runners", start + "database_url or MUSTER_DATABASE_URL"},
		{"no Postgres for the trail", none, "audit", start + "database_url or MUSTER_DATABASE_URL"},
		{"no Postgres for migrations", none, "migrate up", start + "database_url or MUSTER_DATABASE_URL"},
		{"no NATS anywhere", none, "trigger sync", start + "nats.url or MUSTER_NATS_URL"},
		{"no NATS for a token", none, "token --target acme --host h --kind removal", start + "nats.url or MUSTER_NATS_URL"},
		{"a Postgres that is gone", stale, "runners", "is it running, and is its address (database_url or MUSTER_DATABASE_URL) right?"},
		{"a Postgres that is gone, with TLS or without", either, "runners", "connection refused: is it running, and is its address"},
		{"a Postgres that is gone, for migrations", stale, "migrate up", "reach Postgres"},
		{"a Postgres that is gone, for their state", stale, "migrate status", "is it running"},
		{"a Postgres that says nothing, for migrations", silent, "migrate up", "(migrate_url or database_url) right?"},
		{"a Postgres that says nothing, for their state", silent, "migrate status", "(migrate_url or database_url) right?"},
		{"a NATS that is gone", stale, "trigger sync", "not connected: no server answers: unavailable: is it running, and is its address (nats.url or MUSTER_NATS_URL) right?"},
		{"a NATS that is gone, for a token", stale, "token --target acme --host h --kind removal", "is it running, and is its address (nats.url or MUSTER_NATS_URL) right?"},
		{"a GitHub that is gone", github, "downloads --target acme", "ask target acme for its downloads"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"HOME": tt.dir, "TOKEN": "x", "MUSTER_CONFIG": filepath.Join(tt.dir, "muster.yaml")}
			r := muster(t, env, strings.Fields(tt.args)...)
			if r.code != exitUnreachable || !strings.Contains(r.stderr, tt.want) || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
				t.Errorf("muster %s = %+v, want exit 4 and one line with %q", tt.args, r, tt.want)
			}
			if strings.Contains(r.stderr, "hunter2") {
				t.Errorf("a password shows in %q", r.stderr)
			}
		})
	}
}

func TestPolicyCheckWantsNothingElse(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{
		"good.yaml": goodPolicy, "again.yaml": goodPolicy,
		"bad.yaml": strings.Replace(goodPolicy, "enforce\n", "approve\n", 1),
	})
	good, again, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "again.yaml"), filepath.Join(dir, "bad.yaml")
	rows := decode[[]policyRow](t, muster(t, nil, "policy", "check", good, "-o", "json"))
	if len(rows) != 1 || len(rows[0].SHA256) != 64 {
		t.Fatalf("policy check = %+v", rows)
	}
	want := policyRow{good, "reap", fleet.EnforcementEnforce, "delete_runner", []string{"acme"}, rows[0].SHA256}
	if diff := cmp.Diff(want, rows[0]); diff != "" {
		t.Errorf("policy check (-want +got):\n%s", diff)
	}
	rows = decode[[]policyRow](t, muster(t, nil, "policy", "check", "../../policies/samples/drain-outdated-version.yaml", "-o", "json"))
	if len(rows) != 1 || rows[0].Action != "drain_host,delete_runner,release_host" {
		t.Errorf("policy check of one that drains = %+v", rows)
	}

	r := muster(t, nil, "policy", "check", good, bad, again, filepath.Join(dir, "gone.yaml"))
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	if r.code != exitUsage || r.stdout != "" || len(lines) != 3 {
		t.Fatalf("policy check = %+v, want exit 2 and three lines", r)
	}
	for i, want := range []string{bad + ":6:16: ", again + ": policy reap stands in " + good + " too", filepath.Join(dir, "gone.yaml") + ": read the policies: no such file"} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d = %q, want it to begin with %q", i+1, lines[i], want)
		}
	}
}

// The documented exit statuses are those of the command; docs/examples/token.sh
// has a test of its own beside worker/token.
func TestExitStatusesOfRefusalsAreTheDocumentedOnes(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/tokens.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| (\\d{3}) \\| `[a-z_]+` \\| (\\d) \\|").FindAllStringSubmatch(string(page), -1)
	if len(rows) != 7 {
		t.Fatalf("docs/tokens.md has %d rows with a code and an exit status, want 7", len(rows))
	}
	for _, row := range rows {
		code, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		if got := strconv.Itoa(exitCode(refused("h", tokenRequest{}, tokenAnswer{Code: code}, ""))); got != row[2] {
			t.Errorf("%d ends with %s, and docs/tokens.md says %s", code, got, row[2])
		}
	}
}

func TestReadinessSpeaksOnlyOfWhatIsConfigured(t *testing.T) {
	t.Parallel()
	c := &config{
		targets: []targetConfig{{Target: fleet.Target{Name: "acme"}}, {Target: fleet.Target{Name: "octo"}}},
		policies: []*policies.Policy{
			{Name: "reap", Enforcement: fleet.EnforcementEnforce, Targets: []string{"acme"}},
			{Name: "off", Enforcement: fleet.EnforcementDisabled, Targets: []string{"acme"}},
		},
	}
	halted := func(policy, target string) fleet.PolicyState {
		return fleet.PolicyState{Policy: policy, Target: target, Halted: true, Reason: "too many"}
	}
	got := details(c,
		[]fleet.TargetState{
			{Target: fleet.Target{Name: "acme"}, CredentialFault: "401"},
			{Target: fleet.Target{Name: "left"}, CredentialFault: "401"},
			{Target: fleet.Target{Name: "octo"}},
		},
		[]fleet.PolicyState{
			halted("reap", "acme"), halted("reap", "octo"), halted("reap", "left"), halted("off", "acme"), halted("gone", "acme"),
		})
	told := refusedDetails(c, map[string]fleet.Refused{
		"left": {Deliveries: 1},
		"acme": {Deliveries: 1, Since: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Reason: "too many at once"},
	})
	if len(told) != 1 || !strings.HasPrefix(told[0], "target acme: 1 delivery of its webhook was refused since 2026-03-01T12:00:00Z: too many at once; until GitHub") {
		t.Errorf("refused: %q", told)
	}
	want := []string{"target acme: 401", "policy reap on acme is halted: too many; when you have looked: muster policy resume reap --target acme --reason WHY"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("details (-want +got):\n%s", diff)
	}
}

// What is not there yet shows neither in help nor when completing.
func TestWhatIsNotThereYetShowsNowhere(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"--help", "audit --help", "policy --help", "plan --help",
		"__complete ''", "__complete audit ''", "__complete policy ''", "__complete plan --",
	} {
		words := strings.Fields(strings.ReplaceAll(args, "''", "EMPTY"))
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "EMPTY", "")
		}
		r := muster(t, nil, words...)
		for _, l := range later {
			for line := range strings.Lines(r.stdout) {
				if first := strings.Fields(line); len(first) > 0 && first[0] == l.name {
					t.Errorf("muster %s shows %q", args, line)
				}
			}
		}
		if r.code != exitDone || r.stdout == "" {
			t.Errorf("muster %s = %+v", args, r)
		}
	}
}

func TestCommandsWithoutAnySetup(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"simulate github --version 3.1 --help", "Run a simulated GitHub"},
		{"version", "muster "},
		{"completion bash", "# bash completion"},
		{"help", "Exit status: 0 done"},
		{"", "Exit status: 0 done"},
		{"token --help", "--exec './config.sh --unattended --url {url} --token {token}'"},
	} {
		r := muster(t, nil, strings.Fields(tt.args)...)
		if r.code != exitDone || !strings.Contains(r.stdout, tt.want) || r.stderr != "" {
			t.Errorf("muster %s = %+v, want %q on stdout", tt.args, r, tt.want)
		}
	}
}

// firstWrite hands over the first write.
type firstWrite struct{ text chan string }

func (w firstWrite) Write(p []byte) (int, error) {
	select {
	case w.text <- string(p):
	default:
	}
	return len(p), nil
}

func TestSimulateGitHubUntilStopped(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	out := firstWrite{make(chan string, 1)}
	var stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		args := []string{"simulate", "github", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--runners", "7"}
		ended <- run(ctx, args, variables(nil), strings.NewReader(""), out, &stderr)
	}()
	fields := strings.Fields(<-out.text)
	if len(fields) != 4 || fields[0] != "api_url" || fields[2] != "control" {
		t.Fatalf("printed %q, want api_url and control with their addresses", fields)
	}
	total := 0
	for _, scope := range simulated {
		total += strings.Count(fetch(t, fields[3]+"/runners?scope="+scope.String()), `"name"`)
	}
	if total != 7 {
		t.Errorf("the simulator has %d runners, want 7", total)
	}
	stop()
	if code := <-ended; code != exitDone {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("GET %s = %d, %v: %s", url, answer.StatusCode, err, text)
	}
	return string(text)
}

// A runner that the last look spared is told of in words, whoever spoke for it.
func TestRemoveTellsWhoSpared(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"busy":           "it is busy",
		"hold":           "an operator wants it kept: api.holds says who and why, muster unhold lifts it",
		"open_job, hold": "GitHub's events say that a workflow job runs on it; an operator wants it kept: api.holds says who and why, muster unhold lifts it",
		"renamed":        "GitHub shows another name for its id; wait for the next sync",
	} {
		runner := db.Namesake{Target: "acme", ID: 7, Name: "build-07"}
		err := (&app{}).removed(runner, remove.Result{Action: fleet.Action{ID: "a", State: fleet.ActionSpared, Reason: reason}}, nil)
		if got := "runner acme/7 (build-07) was not deleted: " + want; exitCode(err) != exitRefused || err.Error() != got {
			t.Errorf("spared for %s: exit %d, %v, want %q", reason, exitCode(err), err, got)
		}
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := writeTable(&out, []string{"NAME", "STATUS", "NOTE"}, [][]string{
		{"a-long-name", "", "x\ty\nz"},
		{"b", "on\x1b[31mline", ""},
		{"c\u202e", "ok", "\xff"},
	})
	want := "NAME         STATUS       NOTE\n" +
		"a-long-name  -            x y z\n" +
		"b            on [31mline  -\n" +
		"c            ok           \uFFFD\n"
	if diff := cmp.Diff(want, out.String()); err != nil || diff != "" {
		t.Errorf("writeTable = %v (-want +got):\n%s", err, diff)
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "", 999 * time.Millisecond: "", 59 * time.Second: "59s", time.Minute: "1m", 61 * time.Second: "1m1s",
		25*time.Hour + 59*time.Minute: "1d1h", 24*time.Hour + 59*time.Minute: "1d", 90 * 24 * time.Hour: "90d",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestExitCodesOfErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, exitDone},
		{os.ErrPermission, exitFailed},
		{fleet.ErrUnavailable, exitUnreachable},
		{configError{fleet.ErrUnavailable}, exitUsage},
		{exit(exitRefused, "halted: %w", fleet.ErrUnavailable), exitRefused},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("exitCode(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

package queue_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// provision runs docs/examples/provision.sh, which users copy, with nothing in
// its environment but what is given, until it has had count requests.
func provision(t *testing.T, url string, env []string, args ...string) (status int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../docs/examples/provision.sh", args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "MUSTER_NATS_URL=" + url}, env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("provision.sh: %v", err)
	}
	return cmd.ProcessState.ExitCode(), said.String()
}

// want publishes a request for a host.
func want(t *testing.T, c *queue.Conn, deadline time.Time) (id string) {
	t.Helper()
	id = uuid.NewString()
	m, err := queue.Provision(fleet.Lease{RequestID: id, Pool: "linux", Target: "acme", Deadline: deadline}, []string{"linux", "self-hosted"})
	if err == nil {
		err = c.Publish(t.Context(), m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// The permissions of docs/pools.md are enough for it.
func provisioner(o *server.Options) {
	allow := func(subjects ...string) *server.SubjectPermission { return &server.SubjectPermission{Allow: subjects} }
	o.Users = []*server.User{
		{Username: "muster", Password: "m"},
		{Username: "linux", Password: `p\"1 `, Permissions: &server.Permissions{
			Publish: allow("$JS.API.CONSUMER.DURABLE.CREATE.MUSTER_PROVISION.linux", "$JS.API.CONSUMER.MSG.NEXT.MUSTER_PROVISION.linux",
				"$JS.ACK.MUSTER_PROVISION.linux.>"),
			Subscribe: allow("_INBOX_provision.linux.>"),
		}},
	}
}

func TestProvisionScriptRunsACommandForEachHost(t *testing.T) {
	t.Parallel()
	s := startNATS(t, provisioner)
	url := s.ClientURL()
	c, err := queue.Connect(t.Context(), queue.Config{URL: strings.Replace(url, "nats://", "nats://muster:m@", 1), Name: t.Name(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Hour)
	past, first, second := want(t, c, time.Now().Add(-time.Hour)), want(t, c, deadline), want(t, c, deadline)
	out := filepath.Join(t.TempDir(), "hosts")
	login := []string{"NATS_USER=linux", `NATS_PASSWORD=p\"1 `, "OUT=" + out}
	tell := []string{"linux", "bash", "-c", `echo "$DEMAND_ID $MUSTER_POOL $MUSTER_TARGET $MUSTER_LABELS $MUSTER_DEADLINE" >>"$OUT"`}
	// One after another on the same consumer: none is had twice.
	for _, count := range []string{"2", "1"} {
		if status, stderr := provision(t, url, append(login, "PROVISION_COUNT="+count), tell...); status != 0 {
			t.Errorf("provision.sh ends with %d: %s", status, stderr)
		} else if count == "2" && !strings.Contains(stderr, "request "+past+" is past its deadline") {
			t.Errorf("provision.sh says %q, want that one is past its deadline", stderr)
		}
	}
	at := deadline.UTC().Format(time.RFC3339Nano)
	rest := " linux acme linux,self-hosted " + at + "\n"
	got, err := os.ReadFile(out)
	if want := first + rest + second + rest; err != nil || string(got) != want {
		t.Errorf("the command was given, %v:\n%swant\n%s", err, got, want)
	}

	// What fails is somebody's again, and the same request.
	third := want(t, c, deadline)
	status, stderr := provision(t, url, append(login, "PROVISION_COUNT=1"), "linux", "false")
	if status != 0 || !strings.Contains(stderr, "request "+third+": false ended with 1: somebody is given it again") {
		t.Errorf("provision.sh ends with %d and says %q", status, stderr)
	}
}

func TestProvisionScriptSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := startNATS(t, provisioner)
	login := []string{"NATS_USER=linux", `NATS_PASSWORD=p\"1 `}
	for _, tt := range []struct {
		name, url string
		env       []string
		args      []string
		status    int
		says      string
	}{
		{"no command", s.ClientURL(), login, []string{"linux"}, 2, "usage: provision.sh POOL COMMAND"},
		{"no name", s.ClientURL(), login, []string{"Linux", "true"}, 2, `pool "Linux" is not a name`},
		{"a password that wants an escape", "nats://a:geheim%21@localhost", nil, []string{"linux", "true"}, 2, "use NATS_USER and NATS_PASSWORD"},
		{"nobody there", "nats://127.0.0.1:1", nil, []string{"linux", "true"}, 4, "cannot reach nats://127.0.0.1:1"},
		{"no login", s.ClientURL(), nil, []string{"linux", "true"}, 3, "does not accept the login"},
		{"another pool", s.ClientURL(), login, []string{"gpu", "true"}, 3, "does not let this login provision"},
		{"no stream", s.ClientURL(), login, []string{"linux", "true"}, 3, "makes no consumer: stream not found"},
	} {
		status, stderr := provision(t, tt.url, tt.env, tt.args...)
		if status != tt.status || !strings.Contains(stderr, tt.says) || strings.Contains(stderr, "geheim") {
			t.Errorf("%s: provision.sh ends with %d and says %q, want %d and %q", tt.name, status, stderr, tt.status, tt.says)
		}
	}
}

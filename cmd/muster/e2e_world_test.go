package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/internal/standalone"
)

// credential is what the simulator takes for a GitHub token. It is long and
// odd enough to be looked for wherever it must not be.
const credential = "ghp_canary5d1fe9c07b"

var acme = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}

// world is all that a muster serve has around it, except muster itself.
type world struct {
	t           testing.TB
	sim         *githubsim.Sim
	databaseURL string
	record      *pgxpool.Pool // as the owner, who sees everything
	nats        *natsServer
	dir         string // with muster.yaml
}

// newWorld starts a simulator and a NATS on a database of the test's own. The
// organisation acme is there, without runners.
func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, dbtest.URL(t))
}

func newWorldOn(t testing.TB, databaseURL string) *world {
	t.Helper()
	return newWorldAt(t, databaseURL, "")
}

// newWorldAt is newWorldOn with a GitHub of that version.
func newWorldAt(t testing.TB, databaseURL, version string) *world {
	t.Helper()
	w := &world{t: t, databaseURL: databaseURL, nats: newNATS(t), dir: t.TempDir()}
	var stop func()
	var err error
	w.sim, stop, err = githubsim.Start(context.Background(), githubsim.Config{Tokens: []string{credential}, Seed: 1, Version: version})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	if err := w.sim.AddScope(acme); err != nil {
		t.Fatal(err)
	}
	if w.record, err = pgxpool.New(context.Background(), databaseURL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.record.Close)
	w.write("github.token", credential+"\n")
	return w
}

// head is what all configurations begin with. Its brake never halts: half of
// these fleets die at once, and what is tested is what muster does then.
const head = `
database_url: "DATABASE"
nats: {url: "NATS", allow_shared_inbox: true}
listen: 127.0.0.1:0
targets:
  - {name: acme, scope: org/acme, api_url: "API", auth: {token_file: github.token}, tokens: {share_registration: false}, brake: {percent: 100}}
grants:
  - {host_prefix: build-, targets: [acme], kinds: [registration, removal], per_hour: 100000}
`

// often are schedules of every second. Runs do not wait for each other: one
// that a kill left behind holds its lease for half a minute.
const often = `
schedules:
  - {job: sync, targets: [acme], cron: "* * * * * *", overlap: queue}
  - {job: enforce, targets: [acme], cron: "* * * * * *", overlap: queue}
`

// reaper is a policy that deletes after two seconds. Words of it may be
// replaced, in pairs.
func reaper(replace ...string) string {
	return strings.NewReplacer(replace...).Replace(`apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: reaper}
spec:
  enforcement: enforce
  scope: {targets: [acme]}
  match: runner.status == "offline" && !runner.busy && runner.offline_for >= duration("2s")
  exempt: {keep-label: '"keep" in runner.labels'}
  guards:
    grace: 1s
    max: {count: 1000, percent: 100}
    rate: 6000/m
    witnesses: {listings: 2, apart: 1s}
  actions: [{delete_runner: {}}]
`)
}

// configure writes muster.yaml and, where it is not empty, the one policy.
func (w *world) configure(text, policy string) {
	w.t.Helper()
	if policy != "" {
		text += "policies: [policy.yaml]\n"
		w.write("policy.yaml", policy)
	}
	w.write("muster.yaml", strings.NewReplacer(
		"DATABASE", w.databaseURL, "NATS", w.nats.url, "API", w.sim.APIURL()).Replace(text))
}

func (w *world) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// serve starts muster serve on the configuration and does not wait.
func (w *world) serve() *process {
	w.t.Helper()
	return start(w.t, nil, "serve", "--config", filepath.Join(w.dir, "muster.yaml"))
}

// runners makes n runners of acme named PREFIX0 and so on.
func (w *world) runners(prefix string, n int, spec githubsim.RunnerSpec) []int64 {
	w.t.Helper()
	ids, err := w.sim.CreateMany(acme, n, func(i int) githubsim.RunnerSpec {
		spec.Name = fmt.Sprintf("%s%d", prefix, i)
		return spec
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return ids
}

func (w *world) kill(ids ...int64) {
	w.t.Helper()
	for _, id := range ids {
		if err := w.sim.Kill(acme, id); err != nil {
			w.t.Fatal(err)
		}
	}
}

// ask runs a query whose columns are text.
func (w *world) ask(sql string, args ...any) ([][]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	rows, err := w.record.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]string, error) {
		values := make([]*string, len(row.FieldDescriptions()))
		into := make([]any, len(values))
		for i := range values {
			into[i] = &values[i]
		}
		err := row.Scan(into...)
		texts := make([]string, len(values))
		for i, v := range values {
			if v != nil {
				texts[i] = *v
			}
		}
		return texts, err
	})
}

func (w *world) rows(sql string, args ...any) [][]string {
	w.t.Helper()
	rows, err := w.ask(sql, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return rows
}

// value is the one value, as text, of a query for one.
func (w *world) value(expression string, args ...any) string {
	w.t.Helper()
	return w.rows("SELECT ("+expression+")::text", args...)[0][0]
}

// becomes waits until a query for one value gives that.
func (w *world) becomes(want, expression string, args ...any) {
	w.t.Helper()
	eventually(w.t, expression+" = "+want, func() (string, bool) {
		rows, err := w.ask("SELECT ("+expression+")::text", args...)
		if err != nil {
			return err.Error(), false
		}
		return rows[0][0], rows[0][0] == want
	})
}

// syncs waits until so many more complete syncs of acme have been recorded.
func (w *world) syncs(more int) {
	w.t.Helper()
	const complete = `SELECT count(*) FROM api.syncs WHERE target = 'acme' AND outcome = 'complete'`
	now := w.value(complete)
	w.becomes("true", `(`+complete+`) >= $1::bigint + $2::bigint`, now, more)
}

// natsServer may be stopped and started again at the same address.
type natsServer struct {
	t      testing.TB
	url    string
	dir    string
	server *standalone.NATS
}

func newNATS(t testing.TB) *natsServer {
	t.Helper()
	n := &natsServer{t: t, dir: t.TempDir()}
	port, err := dbtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	n.listen(fmt.Sprint("127.0.0.1:", port))
	n.url = n.server.URL()
	t.Cleanup(func() { n.server.Stop() })
	return n
}

func (n *natsServer) listen(address string) {
	n.t.Helper()
	var err error
	n.server, err = standalone.StartNATS(context.Background(), standalone.NATSConfig{
		Listen: address, StoreDir: n.dir, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *natsServer) stop() { n.server.Stop() }

func (n *natsServer) start() {
	n.t.Helper()
	n.listen(n.address())
}

// address is where the server listens.
func (n *natsServer) address() string { return n.parsed().Host }

func (n *natsServer) parsed() *url.URL {
	n.t.Helper()
	u, err := url.Parse(n.url)
	if err != nil {
		n.t.Fatal(err)
	}
	return u
}

// connect is a connection of some program that is not muster.
func (n *natsServer) connect(options ...nats.Option) *nats.Conn {
	n.t.Helper()
	nc, err := nats.Connect(n.url, append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond)}, options...)...)
	if err != nil {
		n.t.Fatalf("connect to NATS: %v", err)
	}
	n.t.Cleanup(nc.Close)
	return nc
}

// publish speaks to NATS as any program can that has a socket.
func (n *natsServer) publish(subject, body string) {
	n.t.Helper()
	conn, err := net.DialTimeout("tcp", n.address(), patience)
	if err != nil {
		n.t.Fatalf("dial NATS: %v", err)
	}
	defer func() { _ = conn.Close() }() // the PONG has told that all arrived
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		n.t.Fatal(err)
	}
	user := n.parsed().User
	password, _ := user.Password()
	login := fmt.Sprintf(`{"verbose":false,"user":%q,"pass":%q}`, user.Username(), password)
	if _, err := fmt.Fprintf(conn, "CONNECT %s\r\nPUB %s %d\r\n%s\r\nPING\r\n", login, subject, len(body), body); err != nil {
		n.t.Fatalf("publish %s: %v", subject, err)
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "PONG") {
			return
		}
		if strings.HasPrefix(lines.Text(), "-ERR") {
			n.t.Fatalf("publish %s: %s", subject, lines.Text())
		}
	}
	n.t.Fatalf("publish %s: the server said nothing", subject)
}

// host is a machine that asks for tokens.
type host struct {
	name string
	nc   *nats.Conn

	mu     sync.Mutex
	tokens []string // all it was ever given
}

func (w *world) host(name string) *host {
	w.t.Helper()
	return &host{name: name, nc: w.nats.connect(nats.CustomInboxPrefix("_INBOX_host." + name))}
}

// reply is the answer to a request for a token, or its refusal.
type reply struct {
	RequestID string `json:"request_id"`
	AuditID   string `json:"audit_id"`
	URL       string `json:"url"`
	Token     string `json:"token"`
	ExpiresAt string `json:"expires_at"`
	Code      int    `json:"code"`
	Error     string `json:"error"`
}

// ask sends a request as it is.
func (h *host) ask(ctx context.Context, body string) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // longer than any answer takes
	defer cancel()
	var r reply
	m, err := h.nc.RequestWithContext(ctx, "muster.v1.token."+h.name+".issue", []byte(body))
	if err == nil {
		err = json.Unmarshal(m.Data, &r)
	}
	if r.Token != "" {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.tokens = append(h.tokens, r.Token)
	}
	return r, err
}

// gets asks until it is given a token.
func (h *host) gets(t testing.TB, kind string) {
	t.Helper()
	eventually(t, h.name+" gets a "+kind+" token", func() (string, bool) {
		r, err := h.ask(t.Context(), fmt.Sprintf(`{"target":"acme","kind":%q}`, kind))
		return fmt.Sprintf("%+v, %v", r, err), err == nil && r.Token != ""
	})
}

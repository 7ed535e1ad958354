package token_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/token"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// patience bounds every wait; none is expected to last.
const patience = 30 * time.Second

const credential = "ghp_credential"

var acme = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}

// world is GitHub and the database, which replicas share.
type world struct {
	url string // of the database
	db  *db.DB
	sim *githubsim.Sim
	gh  *github.Client
	// ahead is how far the clock of all replicas and of GitHub is ahead of
	// Postgres's, in ns.
	ahead atomic.Int64
}

func newWorld(t *testing.T, url string) *world {
	t.Helper()
	w := &world{url: url}
	var err error
	if w.db, err = db.Open(t.Context(), w.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	sim, stop, err := githubsim.Start(context.Background(), githubsim.Config{
		Tokens: []string{credential},
		Now:    func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	w.sim = sim
	if err := sim.AddScope(acme); err != nil {
		t.Fatal(err)
	}
	w.gh, err = github.New(github.Config{
		APIURL: sim.APIURL(), UserAgent: "muster/test",
		Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(credential), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) now(ctx context.Context) (time.Time, error) {
	now, err := w.db.Now(ctx)
	return now.Add(time.Duration(w.ahead.Load())), err
}

// pass moves the clock.
func (w *world) pass(d time.Duration) { w.ahead.Add(int64(d)) }

// minted is what the simulator gave out.
func (w *world) minted() []githubsim.Event {
	var all []githubsim.Event
	for _, e := range w.sim.Log() {
		if e.Acted && e.Token != "" {
			all = append(all, e)
		}
	}
	return all
}

// rows reads columns of api.tokens, a row per line, in the order of asking.
func (w *world) rows(t *testing.T, columns string) []string {
	t.Helper()
	table, err := w.db.ReadAPI(t.Context(), `SELECT `+columns+` FROM api.tokens ORDER BY requested_at, host, attempt`)
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]string, len(table.Rows))
	for i, row := range table.Rows {
		lines[i] = strings.Join(row, " ")
	}
	return lines
}

// trail reads the codes of the trail, leaving out that a target is new.
func (w *world) trail(t *testing.T) []string {
	t.Helper()
	events, err := w.db.Trail(t.Context(), db.TrailFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, e := range events {
		if e.Code != fleet.AuditTargetNew {
			codes = append(codes, string(e.Code))
		}
	}
	return codes
}

// reason of the newest event of that code.
func (w *world) reason(t *testing.T, code fleet.AuditCode) string {
	t.Helper()
	events, err := w.db.Trail(t.Context(), db.TrailFilter{Code: string(code), Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) == 0 {
		t.Fatalf("no %s in the trail", code)
	}
	return events[0].Reason
}

// raw is a connection for what no program of muster's does.
func (w *world) raw(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// replica is one muster with a NATS of its own, so that a test knows which
// replica it asks.
type replica struct {
	*world
	issuer *token.Issuer
	nats   *server.Server
	log    *buffer
	seen   *outcomes
	stop   func()
}

// settings are what tests vary. The zero value grants nothing.
type settings struct {
	grants  []token.Grant
	change  func(*token.Issuer)
	target  func(*token.Target)
	options func(*server.Options)
	connect string // user:password@ of muster itself
}

// anyone may have everything there is to have.
func anyone() settings { return settings{grants: []token.Grant{generous()}} }

func generous() token.Grant {
	return token.Grant{
		HostPrefix: "build-", Targets: []string{"acme"}, Labels: []string{"linux"},
		Kinds: []fleet.TokenKind{fleet.TokenRegistration, fleet.TokenRemoval, fleet.TokenJIT},
	}
}

func start(t *testing.T, s settings) *replica {
	t.Helper()
	return newWorld(t, dbtest.URL(t)).replica(t, s)
}

func (w *world) replica(t *testing.T, s settings) *replica {
	t.Helper()
	r := &replica{world: w, log: &buffer{}, seen: &outcomes{}}
	r.nats = startNATS(t, s.options)
	log := slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	conn, err := queue.Connect(t.Context(), queue.Config{
		URL: "nats://" + s.connect + r.nats.Addr().String(), Name: t.Name(), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	target := token.Target{
		Target:            fleet.Target{Name: "acme", Scope: acme, APIURL: w.sim.APIURL()},
		GitHub:            w.gh,
		ShareRegistration: true,
		MinValidity:       20 * time.Minute,
	}
	if s.target != nil {
		s.target(&target)
	}
	r.issuer = &token.Issuer{
		Log: log, DB: w.db, Conn: conn, Now: w.now,
		Targets: func() map[string]token.Target { return map[string]token.Target{"acme": target} },
		Grants:  func() []token.Grant { return s.grants },
		Observe: r.seen.observe,
	}
	if s.change != nil {
		s.change(r.issuer)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.issuer.Serve(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("Serve: %v", err)
				}
			case <-time.After(patience):
				t.Error("Serve does not end")
			}
			conn.Close()
		})
	}
	t.Cleanup(r.stop)
	eventually(t, "a subscription", r.listens)
	return r
}

// listens reports whether anybody hears a request.
func (r *replica) listens() bool {
	account, err := r.nats.LookupAccount(server.DEFAULT_GLOBAL_ACCOUNT)
	return err == nil && account.Interest(queue.TokenSubject("build-01")) > 0
}

func startNATS(t *testing.T, change func(*server.Options)) *server.Server {
	t.Helper()
	options := &server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir()}
	if change != nil {
		change(options)
	}
	srv, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(patience) {
		t.Fatal("nats server does not come up")
	}
	return srv
}

// client is a program on a host.
func (r *replica) client(t *testing.T, host string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(r.nats.ClientURL(), nats.CustomInboxPrefix("_INBOX_host."+host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// reply is everything that an answer may say.
type reply struct {
	V            int
	RequestID    string `json:"request_id"`
	AuditID      string `json:"audit_id"`
	Kind         string
	Target       string
	URL          string
	Token        string
	ExpiresAt    time.Time `json:"expires_at"`
	Code         int
	Error        string
	RetryAfterMS int64 `json:"retry_after_ms"`

	body        string
	description string
}

// ask sends a request as the host does and takes the answer apart.
func (r *replica) ask(t *testing.T, host, body string) reply {
	t.Helper()
	return ask(t, r.client(t, host), host, body)
}

func ask(t testing.TB, nc *nats.Conn, host, body string) reply {
	t.Helper()
	msg, err := nc.Request(queue.TokenSubject(host), []byte(body), patience)
	if err != nil {
		t.Errorf("host %s asks %s: %v", host, body, err)
		return reply{}
	}
	return parse(t, msg)
}

func parse(t testing.TB, msg *nats.Msg) reply {
	t.Helper()
	got := reply{body: string(msg.Data), description: msg.Header.Get("Nats-Service-Error")}
	d := json.NewDecoder(bytes.NewReader(msg.Data))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		t.Errorf("answer %s: %v", msg.Data, err)
	}
	code := ""
	if got.Code != 0 {
		code = strconv.Itoa(got.Code)
	}
	if header := msg.Header.Get("Nats-Service-Error-Code"); header != code || (got.description == "") != (code == "") {
		t.Errorf("answer %s has the headers %q", msg.Data, msg.Header)
	}
	// Where asking again changes nothing, nothing says when.
	if got.RetryAfterMS != 0 && slices.Contains([]int{0, 400, 403, 409, 501}, got.Code) {
		t.Errorf("answer %s says when to ask again", msg.Data)
	}
	return got
}

const registration = `{"target":"acme","kind":"registration"}`

// request is a request with an id.
func request(kind fleet.TokenKind, id string) string {
	return fmt.Sprintf(`{"target":"acme","kind":%q,"request_id":%q}`, kind, id)
}

func newID() string { return uuid.NewString() }

// eventually waits for what another goroutine or program brings about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// outcomes counts what was observed.
type outcomes struct {
	mu sync.Mutex
	n  map[string]int
}

func (o *outcomes) observe(kind, outcome string, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == nil {
		o.n = make(map[string]int)
	}
	o.n[strings.TrimSpace(kind+" "+outcome)]++
}

func (o *outcomes) count(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n[name]
}

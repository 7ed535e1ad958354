package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/github/githubsim"
)

// Tokens that were handed out and the credential of the target are in no log
// line, no table, no stream and no metric, whatever happened.
func TestSecretsRestNowhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(strings.Replace(head, "share_registration: false", "share_registration: true", 1)+often, reaper())
	w.runners("alive-", 20, githubsim.RunnerSpec{Online: true})
	w.runners("doomed-", 2, githubsim.RunnerSpec{})
	heard := &traffic{}
	if _, err := w.nats.connect().Subscribe(">", heard.hear); err != nil {
		t.Fatal(err)
	}
	p := w.serve().up()

	hosts := []*host{w.host("build-01"), w.host("build-02")}
	for _, h := range hosts {
		h.gets(t, "registration")
		h.gets(t, "removal")
	}
	// What fails says more than what works.
	w.sim.Revoke(credential)
	if r, err := hosts[0].ask(t.Context(), `{"target":"acme","kind":"removal"}`); err != nil || r.Code != 502 {
		t.Errorf("a request with a revoked credential = %+v, %v, want 502", r, err)
	}
	w.becomes("true", `SELECT count(*) > 0 FROM api.syncs WHERE outcome = 'failed'`)
	notes := `{"target":"acme","kind":"registration","note":"` + hosts[0].tokens[0] + `"}`
	if r, err := hosts[0].ask(t.Context(), notes); err != nil || r.Code != 400 {
		t.Errorf("a request with an unknown field = %+v, %v, want 400", r, err)
	}
	w.sim.Accept(credential)
	stranger := w.host("stranger")
	if r, err := stranger.ask(t.Context(), `{"target":"acme","kind":"registration"}`); err != nil || r.Code != 403 {
		t.Errorf("the request of a stranger = %+v, %v, want 403", r, err)
	}
	w.becomes("2", `SELECT count(*) FROM api.runners WHERE removal_cause = 'policy'`)
	_, metrics := p.get("/metrics")
	_, readiness := p.get("/readyz")
	p.stop()

	places := map[string]func(string) []string{
		"the log":     func(s string) []string { return linesWith(p.log.String(), s) },
		"stdout":      func(s string) []string { return linesWith(p.out.String(), s) },
		"/metrics":    func(s string) []string { return linesWith(metrics, s) },
		"/readyz":     func(s string) []string { return linesWith(readiness, s) },
		"the record":  func(s string) []string { return tablesWith(t, w, s) },
		"the streams": func(s string) []string { return messagesWith(t, w, s) },
		"core NATS": func(s string) []string {
			// Where a host listens for its own answers it has to be.
			return slices.DeleteFunc(heard.with(s), func(subject string) bool {
				return strings.HasPrefix(subject, "_INBOX_host.") || subject == "muster.v1.token.build-01.issue"
			})
		},
	}
	secrets := map[string]string{"the credential": credential}
	for _, h := range hosts {
		for i, token := range h.tokens {
			secrets[fmt.Sprintf("token %d of %s", i+1, h.name)] = token
		}
	}
	if u, err := url.Parse(w.databaseURL); err == nil && u.User != nil {
		if password, set := u.User.Password(); set && len(password) > 8 {
			secrets["the password of the database"] = password
		}
	}
	for where, find := range places {
		for what, secret := range secrets {
			if found := find(secret); len(found) > 0 {
				t.Errorf("%s is in %s: %q", what, where, found)
			}
		}
	}
	// The search finds what is there.
	for where, known := range map[string]string{
		"the log": "build-01", "/metrics": "muster_tokens_total", "/readyz": "ready",
		"the record": "stranger", "the streams": "build-02", "core NATS": "registration",
	} {
		if len(places[where](known)) == 0 {
			t.Errorf("%s lacks %q: the search is blind there", where, known)
		}
	}
	if !slices.ContainsFunc(heard.with(hosts[0].tokens[0]), func(subject string) bool { return strings.HasPrefix(subject, "_INBOX_host.build-01.") }) {
		t.Error("the answer to a host was not heard: the search is blind there")
	}
}

func linesWith(text, part string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return !strings.Contains(line, part) })
}

// tablesWith are the tables, of all schemas, with a row that holds the text.
func tablesWith(t testing.TB, w *world, text string) []string {
	t.Helper()
	var found []string
	for _, table := range w.rows(`
		SELECT c.table_schema, c.table_name, coalesce(string_agg(c.column_name, ',') FILTER (WHERE c.data_type = 'bytea'), '')
		FROM information_schema.columns c
		JOIN information_schema.tables USING (table_schema, table_name)
		WHERE c.table_schema NOT IN ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'
		GROUP BY 1, 2`) {
		// A bytea is written in hex, so it is searched apart.
		condition := "strpos(x::text, $1) > 0"
		for _, column := range strings.FieldsFunc(table[2], func(r rune) bool { return r == ',' }) {
			condition += " OR position(convert_to($1, 'UTF8') IN x." + pgx.Identifier{column}.Sanitize() + ") > 0"
		}
		name := pgx.Identifier{table[0], table[1]}.Sanitize()
		if n := w.value(`SELECT count(*) FROM `+name+` x WHERE `+condition, text); n != "0" {
			found = append(found, name)
		}
	}
	return found
}

// messagesWith are the messages, of all streams, that hold the text in
// subject, header or body.
func messagesWith(t testing.TB, w *world, text string) []string {
	t.Helper()
	js, err := w.nats.connect().JetStream(nats.MaxWait(patience))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for stream := range js.StreamsInfo() {
		for seq := max(stream.State.FirstSeq, 1); seq <= stream.State.LastSeq; seq++ { // an empty stream says 0 for both
			m, err := js.GetMsg(stream.Config.Name, seq)
			if err != nil {
				t.Fatalf("message %d of %s: %v", seq, stream.Config.Name, err)
			}
			if strings.Contains(fmt.Sprint(m.Subject, m.Header, string(m.Data)), text) {
				found = append(found, fmt.Sprintf("%s %d %s", stream.Config.Name, seq, m.Subject))
			}
		}
	}
	return found
}

// traffic is all that went over core NATS.
type traffic struct {
	mu       sync.Mutex
	messages []*nats.Msg
}

func (h *traffic) hear(m *nats.Msg) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages = append(h.messages, m)
}

// with are the subjects of the messages that hold the text.
func (h *traffic) with(text string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var subjects []string
	for _, m := range h.messages {
		if strings.Contains(fmt.Sprint(m.Subject, m.Header, string(m.Data)), text) {
			subjects = append(subjects, m.Subject)
		}
	}
	return subjects
}

package db_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func (w *world) audit(events ...fleet.AuditEvent) {
	w.Helper()
	w.tx(func(tx *db.Tx) error { return tx.Audit(w.ctx, events...) })
}

func TestAuditColumnsAreThoseOfThePayload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// Nanoseconds are cut to what a column holds, in the payload as well.
	at := time.Date(2026, 3, 1, 13, 0, 0, 123456789, time.FixedZone("", 3600))
	first, second := event(), event()
	first.At, first.ID, first.Host = at, uuid.NewString(), "build-01"
	second.At = at.Add(time.Second)
	w.audit(first)          // one goes as an INSERT,
	w.audit(second, second) // several as a COPY

	rows, err := w.sql.Query(w.ctx, `
		SELECT event_id::text, occurred_at, payload, leaf_hash, code, action, outcome, actor_type, actor, target, runner_id,
			runner_name, coalesce(host, ''), policy, trigger_id, reason
		FROM audit.event
		ORDER BY occurred_at`)
	if err != nil {
		t.Fatal(err)
	}
	type columns struct {
		ID                                              string
		At                                              time.Time
		Payload                                         string
		Leaf                                            []byte
		Code, Action, Outcome, ActorType, Actor, Target string
		RunnerID                                        int64
		RunnerName, Host, Policy, TriggerID, Reason     string
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[columns])
	if err != nil || len(all) != 3 {
		t.Fatalf("%d rows, %v, want 3", len(all), err)
	}
	for _, c := range all {
		if sum := sha256.Sum256([]byte("\x00" + c.Payload)); string(c.Leaf) != string(sum[:]) {
			t.Errorf("leaf_hash %x, want %x", c.Leaf, sum)
		}
		var p struct {
			V       int       `json:"v"`
			EventID string    `json:"event_id"`
			Time    time.Time `json:"time"`
			Code    string    `json:"code"`
			Action  string    `json:"action"`
			Outcome string    `json:"outcome"`
			Actor   struct{ Type, Name string }
			Target  string `json:"target"`
			Runner  struct {
				ID   int64
				Name string
			}
			Host      string         `json:"host"`
			Policy    string         `json:"policy"`
			TriggerID string         `json:"trigger_id"`
			Reason    string         `json:"reason"`
			Details   map[string]any `json:"details"`
		}
		if err := json.Unmarshal([]byte(c.Payload), &p); err != nil {
			t.Fatal(err)
		}
		if p.V != 1 || !p.Time.Equal(c.At) || !strings.Contains(c.Payload, `"<&>"`) {
			t.Errorf("payload %s at %s", c.Payload, c.At)
		}
		want := columns{
			p.EventID, c.At, c.Payload, c.Leaf, p.Code, p.Action, p.Outcome, p.Actor.Type, p.Actor.Name, p.Target, p.Runner.ID,
			p.Runner.Name, p.Host, p.Policy, p.TriggerID, p.Reason,
		}
		if diff := cmp.Diff(want, c); diff != "" {
			t.Errorf("columns (-payload +column):\n%s", diff)
		}
	}
	if got := all[0]; got.ID != first.ID || !got.At.Equal(at.Truncate(time.Microsecond)) || got.Host != "build-01" {
		t.Errorf("first event reads %+v", got)
	}

	trail, err := w.db.Trail(w.ctx, db.TrailFilter{RunnerID: 7, Limit: 2})
	if err != nil || len(trail) != 2 || trail[0].TriggerID != second.TriggerID || trail[1].At.Before(trail[0].At) {
		t.Errorf("Trail = %+v, %v", trail, err)
	}
}

func TestTrailFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	host := fleet.AuditEvent{
		At: t0, Code: fleet.AuditTokenBadRequest, Actor: fleet.System, Host: "build-01", Reason: "no JSON",
	}
	runner := event()
	runner.At = t0.Add(time.Hour)
	w.audit(host, runner)
	for _, tt := range []struct {
		filter db.TrailFilter
		want   string
	}{
		{db.TrailFilter{}, "TK108W RN100I"},
		{db.TrailFilter{Limit: 1}, "RN100I"},
		{db.TrailFilter{Since: t0.Add(time.Minute)}, "RN100I"},
		{db.TrailFilter{RunnerID: 7}, "RN100I"},
		{db.TrailFilter{RunnerID: 70}, ""},
		{db.TrailFilter{Target: "acme"}, "RN100I"},
		{db.TrailFilter{Target: "octo"}, ""},
		{db.TrailFilter{Target: "octo", RunnerID: 7}, ""},
		{db.TrailFilter{Host: "build-01"}, "TK108W"},
		{db.TrailFilter{Code: "TK108W"}, "TK108W"},
		{db.TrailFilter{Code: "TK108W", RunnerID: 7}, ""},
	} {
		trail, err := w.db.Trail(w.ctx, tt.filter)
		if err != nil {
			t.Fatal(err)
		}
		var codes []string
		for _, e := range trail {
			codes = append(codes, string(e.Code))
		}
		if got := strings.Join(codes, " "); got != tt.want {
			t.Errorf("Trail(%+v) = %s, want %s", tt.filter, got, tt.want)
		}
	}
}

func TestAuditRefusesWhatTheRegistryDoesNotKnow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, change := range map[string]func(*fleet.AuditEvent){
		"unknown code":   func(e *fleet.AuditEvent) { e.Code = "XX000I" },
		"no actor":       func(e *fleet.AuditEvent) { e.Actor = fleet.Actor{} },
		"required field": func(e *fleet.AuditEvent) { e.Policy = "" },
		"id":             func(e *fleet.AuditEvent) { e.ID = "seven" },
		"no JSON":        func(e *fleet.AuditEvent) { e.Details["f"] = func() {} },
		"too long":       func(e *fleet.AuditEvent) { e.Details["list"] = []string{strings.Repeat("x", 17<<10)} },
	} {
		e := event()
		change(&e)
		err := w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.Audit(w.ctx, event(), e) })
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	w.want("0", `SELECT count(*) FROM audit.event`)
}

// raw inserts an event past Tx.Audit, its payload changed by edit.
func raw(t *testing.T, conn *pgx.Conn, edit func(p map[string]any)) error {
	t.Helper()
	id := uuid.NewString()
	p := map[string]any{
		"v": 1, "event_id": id, "time": t0.Format(time.RFC3339), "code": "RN100I", "action": "runner.delete",
		"outcome": "intended", "actor": map[string]any{"type": "system", "name": "muster"},
	}
	edit(p)
	body, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	leaf := sha256.Sum256(append([]byte{0}, body...))
	_, err = conn.Exec(t.Context(), `
		INSERT INTO audit.event (event_id, occurred_at, payload, leaf_hash) VALUES ($1, $2, $3, $4)`, id, t0, string(body), leaf[:])
	return err
}

func TestTrailRefusesWhatDoesNotFitItsPayload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.as("muster_app")
	if err := raw(t, app, func(map[string]any) {}); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(p map[string]any){
		"foreign event_id": func(p map[string]any) { p["event_id"] = uuid.NewString() },
		"no event_id":      func(p map[string]any) { delete(p, "event_id") },
		"another time":     func(p map[string]any) { p["time"] = "2026-03-01T12:00:01Z" },
		"no time":          func(p map[string]any) { delete(p, "time") },
		"odd code":         func(p map[string]any) { p["code"] = "RN100X" },
		"no code":          func(p map[string]any) { delete(p, "code") },
		"odd outcome":      func(p map[string]any) { p["outcome"] = "well" },
		"no outcome":       func(p map[string]any) { delete(p, "outcome") },
		"odd actor":        func(p map[string]any) { p["actor"] = map[string]any{"type": "root", "name": "me"} },
		"no actor":         func(p map[string]any) { delete(p, "actor") },
		"too long":         func(p map[string]any) { p["reason"] = strings.Repeat("x", 16<<10) },
	} {
		if err := raw(t, app, edit); code(err) != "23514" { // check_violation
			t.Errorf("%s: %v, want a violated check", name, err)
		}
	}
	w.want("1", `SELECT count(*) FROM audit.event`)
}

// Everything else about these events is as it must be: only the check of the leaf
// hash can refuse them.
func TestTrailRefusesALeafHashOfAnotherText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.as("muster_app")
	for name, leaf := range map[string]string{
		"without its prefix":   `sha256(convert_to(payload, 'UTF8'))`,
		"with the node prefix": `sha256('\x01'::bytea || convert_to(payload, 'UTF8'))`,
		"of another text":      `sha256('\x00'::bytea || convert_to(payload || ' ', 'UTF8'))`,
		"cut short":            `substring(sha256('\x00'::bytea || convert_to(payload, 'UTF8')) FROM 1 FOR 31)`,
		"empty":                `''::bytea`,
		"as it must be":        `sha256('\x00'::bytea || convert_to(payload, 'UTF8'))`,
	} {
		_, err := app.Exec(w.ctx, `
			INSERT INTO audit.event (event_id, occurred_at, payload, leaf_hash)
			SELECT id, at, payload, `+leaf+`
			FROM (SELECT gen_random_uuid() AS id, $1::timestamptz AS at) made
			CROSS JOIN LATERAL (
				SELECT jsonb_build_object('v', 1, 'event_id', id, 'time', at, 'code', 'RN100I', 'action', 'runner.delete',
					'outcome', 'intended', 'actor', jsonb_build_object('type', 'system', 'name', 'muster'))::text AS payload
			) told`, t0)
		want := "23514" // check_violation
		if name == "as it must be" {
			want = ""
		}
		if code(err) != want {
			t.Errorf("a leaf hash %s: %v, want the code %q", name, err, want)
		}
	}
	w.want("1", `SELECT count(*) FROM audit.event`)
}

// An event is in the trail once: a copy of a row that is there differs from it in
// nothing, and only the uniqueness of event_id can refuse it.
func TestTrailRefusesASecondEventOfOneID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.audit(event())
	_, err := w.sql.Exec(w.ctx, `
		INSERT INTO audit.event (event_id, occurred_at, payload, leaf_hash)
		SELECT event_id, occurred_at, payload, leaf_hash FROM audit.event`)
	if code(err) != "23505" { // unique_violation
		t.Errorf("a copy of an event: %v, want a violated uniqueness", err)
	}
	w.want("1", `SELECT count(*) FROM audit.event`)
}

// The triggers of the trail refuse changes with the same code as missing rights
// do, so the rights themselves are asked for: those on each table and view, and on
// each of their columns.
func TestRightsOfTheRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const held = `
		SELECT coalesce(string_agg(DISTINCT privilege, ' ' ORDER BY privilege), '')
		FROM pg_class c
		CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p (privilege)
		WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relnamespace = $2::regnamespace AND ($3 = '' OR c.relname = $3) AND (
			has_table_privilege($1, c.oid, privilege)
			OR privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege($1, c.oid, privilege))`
	for _, tt := range []struct{ role, schema, relation, want string }{
		{"muster_app", "audit", "event", "INSERT"},
		{"muster_app", "audit", "", "INSERT"},
		{"muster_app", "api", "", "SELECT"},
		{"muster_app", "muster", "", "DELETE INSERT SELECT UPDATE"},
		{"muster_auditor", "audit", "", ""},
		{"muster_auditor", "muster", "", ""},
		{"muster_auditor", "api", "", "SELECT"},
	} {
		w.want(tt.want, held, tt.role, tt.schema, tt.relation)
	}
	w.want("event_id leaf_hash occurred_at payload", `
		SELECT string_agg(attname::text, ' ' ORDER BY attname) FROM pg_attribute
		WHERE attrelid = 'audit.event'::regclass AND attnum > 0 AND NOT attisdropped AND has_column_privilege('muster_app', attrelid, attnum, 'INSERT')`)
	w.want("0", `
		SELECT count(*) FROM pg_class c
		WHERE relnamespace = 'api'::regnamespace AND relkind = 'v' AND NOT has_table_privilege('muster_auditor', c.oid, 'SELECT')`)
	w.want("false false false", `
		SELECT concat_ws(' ', has_schema_privilege('muster_app', 'audit', 'CREATE')::text, has_schema_privilege('muster_auditor', 'api', 'CREATE')::text,
			has_schema_privilege('muster_auditor', 'audit', 'USAGE')::text)`)
}

func TestServiceCanOnlyAddToTheTrail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.audit(event())
	app := w.as("muster_app")
	for _, sql := range []string{
		`UPDATE audit.event SET payload = payload`,
		`DELETE FROM audit.event`,
		`TRUNCATE audit.event`,
		`SELECT event_id FROM audit.event`,
		`INSERT INTO audit.event (event_id, occurred_at, payload, leaf_hash, xid) VALUES (gen_random_uuid(), now(), '{}', '', '3')`,
		`ALTER TABLE audit.event DISABLE TRIGGER ALL`,
		`DROP TABLE audit.event`,
		`CREATE TABLE audit.other ()`,
		`SET session_replication_role = replica`,
	} {
		if _, err := app.Exec(w.ctx, sql); code(err) != insufficientPrivilege {
			t.Errorf("%s: %v, want a refusal", sql, err)
		}
	}
	w.want("1", `SELECT count(*) FROM audit.event`)
}

func TestNobodyChangesTheTrail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.audit(event())
	w.want("muster_audit_owner", `SELECT tableowner FROM pg_tables WHERE schemaname = 'audit' AND tablename = 'event'`)
	for _, replication := range []string{"origin", "replica"} {
		for _, role := range []string{"NONE", "muster_audit_owner"} {
			w.exec(`SET session_replication_role = ` + replication)
			w.exec(`SET ROLE ` + role)
			for _, sql := range []string{
				`UPDATE audit.event SET occurred_at = now()`, `DELETE FROM audit.event`, `TRUNCATE audit.event`,
			} {
				_, err := w.sql.Exec(w.ctx, sql)
				if code(err) != insufficientPrivilege || !strings.Contains(err.Error(), "append-only") {
					t.Errorf("%s as %s under %s: %v, want a refusal", sql, role, replication, err)
				}
			}
			w.exec(`RESET ROLE`)
		}
	}
	w.want("1", `SELECT count(*) FROM audit.event`)
}

func TestEventTakesAnyText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := event()
	e.RunnerName = "a\x00b\xffc\u2028\\u0000"
	e.Details["evidence"] = map[string]any{"k\x00": []string{"\x00", `\u0000`, `\`, "\n"}}
	w.audit(e)
	w.want("a\uFFFDb\uFFFDc\u2028\\u0000", `SELECT runner_name FROM api.audit`)
	w.want(`{"k`+"\uFFFD"+`": ["`+"\uFFFD"+`", "\\u0000", "\\", "\n"]}`, `SELECT payload->'details'->'evidence' FROM api.audit`)
}

func TestNoTextKeepsItsEventOutOfTheTrail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, unit := range []string{"x", "ü", `"`, "\x00", "\x01", "\xff", "\u2028"} {
		long := strings.Repeat(unit, 20<<10)
		e := event()
		e.Actor.Name, e.RunnerName, e.Host, e.Reason = long, long, long, long
		for i := range 5 {
			e.Details[fmt.Sprint("words", i)] = long
		}
		w.audit(e)
	}
	w.want("7", `SELECT count(*) FROM api.audit WHERE octet_length(payload::text) < 16384`)
	w.want("256 256 1024 1024", `
		SELECT concat_ws(' ', length(actor), length(runner_name), length(reason), length(payload->'details'->>'words4'))
		FROM api.audit WHERE reason LIKE 'x%'`)
}

func TestEventWithoutATimeHasThatOfPostgres(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dated := event()
	dated.At = t0
	events := []fleet.AuditEvent{dated}
	for range 100 {
		events = append(events, event())
	}
	before := w.value(`SELECT clock_timestamp()::text`)
	w.audit(events...)
	// One look at the clock dates all: what this process believes is not asked.
	w.want("1 1 100", `
		SELECT concat_ws(' ', count(*) FILTER (WHERE occurred_at = $1),
			count(DISTINCT occurred_at) FILTER (WHERE occurred_at BETWEEN $2 AND clock_timestamp()),
			count(*) FILTER (WHERE occurred_at BETWEEN $2 AND clock_timestamp()))
		FROM audit.event`, t0, before)
}

func TestXidIsThatOfTheTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 3 {
		w.audit(event(), event())
	}
	w.want("2 2 2", `SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM audit.event GROUP BY xid) x`)
}

func TestEveryKindOfEventIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	full := event()
	full.Host = "build-01"
	for _, kind := range fleet.AuditKinds {
		e := full
		e.Code, e.Details = kind.Code, map[string]any{}
		for _, field := range kind.Requires {
			if key, ok := strings.CutPrefix(field, "details."); ok {
				e.Details[key] = "x"
			}
		}
		w.audit(e)
	}
	w.want(fmt.Sprint(len(fleet.AuditKinds)), `SELECT count(DISTINCT code) FROM api.audit`)
	w.want(fmt.Sprint(len(fleet.AuditKinds)), `SELECT count(DISTINCT (action, outcome)) FROM api.audit`)
}

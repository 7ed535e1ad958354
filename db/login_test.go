package db_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
)

// attempts are ways to weaken the trail, for somebody who holds a connection of
// the service.
var attempts = []string{
	`ALTER TABLE audit.event DISABLE TRIGGER ALL`,
	`ALTER TABLE audit.event DISABLE TRIGGER event_append_only`,
	`DELETE FROM audit.event`,
	`UPDATE audit.event SET payload = payload`,
	`TRUNCATE audit.event`,
	`DROP TABLE audit.event CASCADE`,
	`DROP SCHEMA audit CASCADE`,
	`CREATE OR REPLACE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
	`CREATE TRIGGER swallow BEFORE INSERT ON audit.event FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()`,
	`CREATE RULE swallow AS ON INSERT TO audit.event DO INSTEAD NOTHING`,
	`CREATE OR REPLACE VIEW api.audit AS SELECT 1`,
	`DROP VIEW api.audit`,
	`SET session_replication_role = replica`,
	`GRANT DELETE ON audit.event TO muster_app`,
	`GRANT muster_audit_owner TO muster_app`,
	`ALTER ROLE muster_app SUPERUSER`,
	`COPY (SELECT 1) TO PROGRAM 'true'`,
}

// leads are what may lead back to the rights of another login.
func leads(owner string) []string {
	return []string{
		``, `RESET ROLE; `, `SET ROLE NONE; `, `SET ROLE muster_audit_owner; `, `SET ROLE ` + owner + `; `,
		`SET SESSION AUTHORIZATION ` + owner + `; `, `RESET SESSION AUTHORIZATION; `, `SET SESSION AUTHORIZATION DEFAULT; `,
		`RESET ALL; `,
	}
}

// dropRole makes a role of the cluster go with the test.
func (w *world) dropRole(name string) {
	w.Helper()
	w.Cleanup(func() {
		conn := connectLate(w)
		if _, err := conn.Exec(w.late(), `DROP OWNED BY `+name+`; DROP ROLE `+name); err != nil {
			w.Errorf("drop role %s: %v", name, err)
		}
		_ = conn.Close(w.late())
	})
}

// cannotWeaken tries everything over the connections that a record works with.
func (w *world) cannotWeaken(record *db.DB, owner string) {
	w.Helper()
	w.want("0", `SELECT count(*) FROM audit.event`)
	err := record.InTx(w.ctx, func(tx *db.Tx) error { return tx.Audit(w.ctx, event()) })
	if err != nil {
		w.Fatalf("the service adds to the trail: %v", err)
	}
	for _, lead := range leads(owner) {
		for _, attempt := range attempts {
			if err := record.Do(w.ctx, lead+attempt); code(err) != insufficientPrivilege {
				w.Errorf("the service tries %s%s: %v, want a refusal for lack of rights", lead, attempt, err)
			}
		}
	}
	var login string
	if err := record.Ask(w.ctx, `SELECT session_user::text`, &login); err != nil {
		w.Fatal(err)
	}
	if login == owner {
		w.Errorf("the service logs in as %s", owner)
	}
	for _, role := range []string{login, "muster_app"} {
		w.want("INSERT:f UPDATE:f DELETE:f TRUNCATE:f TRIGGER:f REFERENCES:f", `
			SELECT string_agg(p || ':' || left(has_table_privilege($1, 'audit.event', p)::text, 1), ' ' ORDER BY n)
			FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES']) WITH ORDINALITY AS x (p, n)`, role)
		w.want("event_id, leaf_hash, occurred_at, payload", `
			SELECT string_agg(attname, ', ' ORDER BY attname)
			FROM pg_attribute
			WHERE attrelid = 'audit.event'::regclass AND attnum > 0 AND has_column_privilege($1, 'audit.event', attname, 'INSERT')`, role)
	}
	w.want("false", `SELECT pg_has_role($1, 'muster_audit_owner', 'MEMBER')`, login)
	w.want("1", `SELECT count(*) FROM audit.event`)
	w.want("0", `SELECT count(*) FROM pg_trigger WHERE tgrelid = 'audit.event'::regclass AND tgenabled <> 'A'`)
}

// One database URL, that of a superuser or of the schema's owner, must not let
// the service weaken the trail (issue 10).
func TestTheServiceCannotWeakenTheTrail(t *testing.T) {
	t.Parallel()
	t.Run("with the URL of a superuser", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		super := w.value(`current_user`)
		w.dropRole("muster_serve_" + w.value(`current_database()`))
		s, err := w.db.Secure(w.ctx, true)
		if err != nil || !s.Safe() || s.Why != "" {
			t.Fatalf("Secure = %+v, %v, want a login without powers", s, err)
		}
		w.cannotWeaken(w.db, super)
	})
	t.Run("with the URL of the owner, after migrate up", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		role, in := w.login()
		w.exec(`ALTER ROLE ` + role + ` CREATEROLE`)
		w.exec(`GRANT muster_app, muster_audit_owner TO ` + role + ` WITH ADMIN OPTION`)
		address := in(w.other("own", role))
		if _, err := db.Migrate(w.ctx, address); err != nil {
			t.Fatal(err)
		}
		own := openWorld(t, address)
		name := "muster_serve_" + own.value(`current_database()`)
		w.dropRole(name)
		login, err := db.MakeLogin(w.ctx, address, address)
		if err != nil || login != name {
			t.Fatalf("MakeLogin = %q, %v, want %s", login, err, name)
		}
		s, err := own.db.Secure(w.ctx, false)
		if diff := cmp.Diff(db.Standing{Login: name}, s); err != nil || diff != "" {
			t.Fatalf("Secure: %v (-want +got):\n%s", err, diff)
		}
		own.cannotWeaken(own.db, role)
	})
}

// A login without powers stays what it is.
func TestALoginOfTheAppAloneIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role, in := w.login()
	w.exec(`GRANT muster_app TO ` + role)
	app := openWorld(t, in(w.url))
	s, err := app.db.Secure(w.ctx, true)
	if diff := cmp.Diff(db.Standing{Login: role}, s); err != nil || diff != "" {
		t.Errorf("Secure: %v (-want +got):\n%s", err, diff)
	}
	if login, err := db.MakeLogin(w.ctx, w.url, in(w.url)); err != nil || login != "" {
		t.Errorf("MakeLogin = %q, %v, want none", login, err)
	}
	w.want("0", `SELECT count(*) FROM pg_roles WHERE rolname = 'muster_serve_' || current_database()`)
	w.cannotWeaken(app.db, w.value(`current_user`))
}

// Where no login can be made, what the service could do is told, and nothing is
// lost.
func TestAnOwnerThatMayMakeNoRoleIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role, in := w.login()
	address := in(w.other("own", role))
	if _, err := db.Migrate(w.ctx, address); err != nil {
		t.Fatal(err)
	}
	own := openWorld(t, address)
	s, err := own.db.Secure(w.ctx, true)
	if err != nil || s.Safe() || s.Login != role {
		t.Fatalf("Secure = %+v, %v, want the powers of %s", s, err, role)
	}
	if !slices.ContainsFunc(s.Powers, func(p string) bool {
		return strings.Contains(p, "owner of") && strings.Contains(p, "audit.event") && strings.Contains(p, "schema audit") && strings.Contains(p, "the database")
	}) {
		t.Errorf("powers = %q, want the owner's", s.Powers)
	}
	if !strings.Contains(s.Why, "permission denied to create role") {
		t.Errorf("why = %q, want that no role may be made", s.Why)
	}
	own.target()
}

// After the password of the URL has changed, the login's is mended; doctor, who
// mends nothing, tells.
func TestTheLoginFollowsThePasswordOfTheURL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role, in := w.login()
	w.exec(`ALTER ROLE ` + role + ` SUPERUSER`)
	name := "muster_serve_" + w.value(`current_database()`)
	w.dropRole(name)
	secured := func(address string, mend bool) db.Standing {
		t.Helper()
		record := openWorld(t, address).db
		s, err := record.Secure(w.ctx, mend)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := secured(in(w.url), true); !s.Safe() || s.Login != name {
		t.Fatalf("Secure = %+v, want %s", s, name)
	}
	w.exec(`ALTER ROLE ` + role + ` PASSWORD 'changed'`)
	u, err := url.Parse(in(w.url))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "changed")
	if s := secured(u.String(), false); s.Safe() || !strings.Contains(s.Why, name+" cannot be used") {
		t.Errorf("Secure without a mend = %+v, want that %s cannot be used", s, name)
	}
	if s := secured(u.String(), true); !s.Safe() || s.Login != name {
		t.Errorf("Secure = %+v, want %s", s, name)
	}

	// Another login's replicas must not lock these out.
	if s := secured(w.url, true); s.Safe() || !strings.Contains(s.Why, "was not made for") {
		t.Errorf("Secure with the URL of another login = %+v, want its powers", s)
	}
	if s := secured(u.String(), false); !s.Safe() {
		t.Errorf("Secure afterwards = %+v, want %s", s, name)
	}
}

package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/github/githubsim"
)

// story is the work of muster in short: a runner that dies is deleted, another
// is kept, a host gets a token, an operator's commands are obeyed, and the trail
// tells of all of it.
func (w *world) story(p *process) {
	w.t.Helper()
	ids := w.runners("r", 3, githubsim.RunnerSpec{Online: true})
	w.syncs(2)
	if r := muster(w.t, w.environment(), "hold", "acme", "r1", "--reason", "stays"); r.code != exitDone {
		w.t.Errorf("hold = %+v", r)
	}
	w.kill(ids[0], ids[1])
	w.becomes("policy", `SELECT removal_cause FROM api.runners WHERE name = 'r0'`)
	w.host("build-01").gets(w.t, "registration")
	w.becomes("2", `SELECT count(*) FROM api.runners WHERE removed_at IS NULL`)
	w.becomes("intended done", `SELECT string_agg(outcome, ' ' ORDER BY occurred_at) FROM api.audit WHERE action = 'runner.delete'`)
	if r := muster(w.t, w.environment(), "trigger", "sync", "acme", "--wait"); r.code != exitDone {
		w.t.Errorf("trigger = %+v", r)
	}
	for _, args := range []string{"runners", "plan", "explain acme r1", "audit --since 1h", "pools", "dead-letters"} {
		if r := muster(w.t, w.environment(), strings.Fields(args)...); r.code != exitDone {
			w.t.Errorf("%s = %+v", args, r)
		}
	}
	if status, body := p.get("/readyz"); status != 200 || strings.Contains(body, "postgres") {
		w.t.Errorf("/readyz = %d %s, want 200 and nothing about postgres", status, body)
	}
}

// environment is that of a command beside serve.
func (w *world) environment() map[string]string {
	return map[string]string{"MUSTER_CONFIG": w.dir + "/muster.yaml", "HOME": w.dir}
}

// with is a URL with one more parameter.
func with(t testing.TB, address, name, value string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// mostConnections counts, until the test ends, how many connections of a name
// there are at once.
func (w *world) mostConnections(name string) func() int {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	most := 0
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			rows, err := w.ask(`SELECT count(*)::text FROM pg_stat_activity WHERE application_name = $1`, name)
			if err == nil {
				n, _ := strconv.Atoi(rows[0][0]) // count gives a number
				most = max(most, n)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return func() int {
		stop()
		watching.Wait()
		return most
	}
}

// All that serve opens counts: its pool, the look at its login, the login of its
// own. It opened 16 connections where 3 were allowed (issue 10). With one
// connection nothing may hold it while it waits for another.
func TestServeHeedsPoolMaxConns(t *testing.T) {
	t.Parallel()
	for _, allowed := range []int{1, 3} {
		t.Run(fmt.Sprint(allowed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			name := "counted-" + uuid.NewString()[:8]
			w.databaseURL = with(t, with(t, w.databaseURL, "application_name", name), "pool_max_conns", fmt.Sprint(allowed))
			w.configure(head+often, reaper())
			counted := w.mostConnections(name)
			serve := start(t, nil, "serve", "--config", w.dir+"/muster.yaml").up()
			// Commands have pools of their own.
			w.databaseURL = with(t, w.databaseURL, "application_name", "command")
			w.configure(head+often, reaper())
			w.story(serve)
			if most := counted(); most < 1 || most > allowed {
				t.Errorf("serve had %d connections at once, want at most %d", most, allowed)
			}
			serve.stop()
		})
	}
}

// Under the connection limit of a role requests queue instead of failing.
func TestServeLivesUnderTheLimitOfARole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role := "muster_test_" + uuid.NewString()[:8]
	if _, err := w.record.Exec(t.Context(), `CREATE ROLE `+role+` LOGIN PASSWORD 'muster' IN ROLE muster_app CONNECTION LIMIT 3`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := w.record.Exec(context.Background(), `DROP ROLE `+role); err != nil {
			t.Errorf("drop role: %v", err)
		}
	})
	u, err := url.Parse(w.databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "muster")
	direct := w.databaseURL
	w.databaseURL = u.String()
	w.configure(head+often, reaper())
	serve := w.serve().up()
	w.databaseURL = direct // of the commands, which would take connections away
	w.configure(head+often, reaper())
	w.story(serve)
	serve.stop()
	if strings.Contains(serve.log.String(), "too many connections") {
		t.Errorf("a request failed for want of a connection:\n%s", tail(serve.log.String(), 20))
	}
}

// PgBouncer refuses most parameters of a connection, and in transaction mode
// gives each transaction another session. Muster waited for it for ever (issue
// 10).
func TestServeThroughPgBouncer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.databaseURL = dbtest.PgBouncer(t, w.databaseURL, mode)
			w.configure(head+often, reaper())
			if r := muster(t, w.environment(), "migrate", "up"); r.code != exitDone || !strings.Contains(r.stderr, "works as muster_serve_") {
				t.Errorf("migrate up = %+v", r)
			}
			serve := w.serve().up()
			w.story(serve)
			serve.stop()
		})
	}
}

// A setting that muster cannot work with is refused at once, with one line that names it.
func TestServeRefusesAPostgresThatCannotBe(t *testing.T) {
	t.Parallel()
	t.Run("PgBouncer in statement mode", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.databaseURL = dbtest.PgBouncer(t, w.databaseURL, "statement")
		w.configure(head, "")
		lines := serveRefuses(t, w.dir)
		if len(lines) != 1 || !strings.Contains(lines[0], "PgBouncer is in statement mode") || !strings.Contains(lines[0], "set pool_mode to transaction or session") {
			t.Errorf("stderr = %q, want one line that names the mode", lines)
		}
	})
	t.Run("a parameter that PgBouncer does not take", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.databaseURL = with(t, dbtest.PgBouncer(t, w.databaseURL, "transaction"), "lock_timeout", "1000")
		w.configure(head, "")
		lines := serveRefuses(t, w.dir)
		if len(lines) != 1 || !strings.Contains(lines[0], "PgBouncer takes no such parameter in database_url") || !strings.Contains(lines[0], "lock_timeout") {
			t.Errorf("stderr = %q, want one line that names the parameter", lines)
		}
	})
	t.Run("a database in LATIN1", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		u, err := url.Parse(w.databaseURL)
		if err != nil {
			t.Fatal(err)
		}
		u.Path += "_latin1"
		name := u.Path[1:]
		if _, err := w.record.Exec(t.Context(), `CREATE DATABASE `+name+` TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'`); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := w.record.Exec(context.Background(), `DROP DATABASE `+name+` WITH (FORCE)`); err != nil {
				t.Errorf("drop database: %v", err)
			}
		})
		w.databaseURL = u.String()
		w.configure(head, "")
		lines := serveRefuses(t, w.dir)
		if len(lines) != 1 || !strings.Contains(lines[0], "the encoding of database "+name+" is LATIN1") || !strings.Contains(lines[0], "ENCODING 'UTF8'") {
			t.Errorf("stderr = %q, want one line that names the encoding", lines)
		}
		if r := muster(t, w.environment(), "migrate", "up"); r.code != exitUsage || !strings.Contains(r.stderr, "is LATIN1") {
			t.Errorf("migrate up = %+v, want the same refusal", r)
		}
	})
}

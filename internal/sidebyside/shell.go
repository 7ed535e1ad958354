package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// shellTables are what the pipelines write to: what they know of a runner, and
// nothing else.
const shellTables = `
	CREATE TABLE shell_plain (
		id     bigint PRIMARY KEY,
		name   text NOT NULL,
		os     text NOT NULL,
		status text NOT NULL,
		busy   boolean NOT NULL,
		labels text[] NOT NULL
	);
	CREATE TABLE shell_tuned (LIKE shell_plain INCLUDING ALL)`

// upsert is what people write, and tuned what they write who have looked at
// their write-ahead log: only rows that differ are written.
const (
	upsert = `
		INSERT INTO shell_plain SELECT * FROM stage
		ON CONFLICT (id) DO UPDATE SET
			name = excluded.name, os = excluded.os, status = excluded.status,
			busy = excluded.busy, labels = excluded.labels`
	tuned = `
		MERGE INTO shell_tuned r USING stage s ON r.id = s.id
		WHEN MATCHED AND (r.name, r.os, r.status, r.busy, r.labels) IS DISTINCT FROM (s.name, s.os, s.status, s.busy, s.labels)
		THEN UPDATE SET name = s.name, os = s.os, status = s.status, busy = s.busy, labels = s.labels
		WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.name, s.os, s.status, s.busy, s.labels)`
)

// pipeline has the rows go through as they come; psql runs its commands in one
// session.
const pipeline = `
	gh api --paginate "orgs/$ORG/actions/runners?per_page=100" |
	jq -r '.runners[] | [.id, .name, .os, .status, .busy, "{" + ([.labels[].name | ascii_downcase] | sort | join(",")) + "}"] | @tsv' |
	psql -X -q -v ON_ERROR_STOP=1 \
		-c 'CREATE TEMPORARY TABLE stage (LIKE shell_plain)' \
		-c '\copy stage FROM pstdin' \
		-c "$WRITE"`

// tools are what the pipeline is of.
var tools = []string{"gh", "jq", "psql"}

// shell runs pipelines.
type shell struct {
	missing []string // of the tools; where there are some, nothing can be run
	trust   string   // file of the certificate
	home    string   // of gh, which would read the user's configuration
}

func newShell(trust, home string) *shell {
	s := &shell{trust: trust, home: home}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			s.missing = append(s.missing, tool)
		}
	}
	return s
}

// run fills a table from the listing of a fleet. Wall and CPU are those of all
// programs together, peak memory that of the largest one.
func (s *shell) run(ctx context.Context, apiURL, database, write string, runners int) (figures, error) {
	api, err := url.Parse(apiURL)
	if err != nil {
		return figures{}, err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", pipeline)
	cmd.WaitDelay = stopLimit
	env, err := postgresEnv(database)
	if err != nil {
		return figures{}, err
	}
	cmd.Env = append(os.Environ(), append(env,
		"ORG="+org(runners).Owner, "WRITE="+write,
		"GH_HOST="+api.Host, "GH_ENTERPRISE_TOKEN="+credential, "SSL_CERT_FILE="+s.trust,
		"GH_CONFIG_DIR="+s.home, "GH_NO_UPDATE_NOTIFIER=1", "NO_COLOR=1")...)
	var said strings.Builder
	cmd.Stderr = &said
	began := time.Now()
	err = cmd.Run()
	f := figures{Wall: time.Since(began)}
	if err == nil && said.Len() > 0 {
		err = errors.New("it complains") // the status is that of the last program
	}
	if err != nil {
		return f, fmt.Errorf("%s: %w: %s", strings.Join(tools, " | "), err, strings.TrimSpace(said.String()))
	}
	f.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		f.PeakBytes = u.Maxrss << 10 // kB, on Linux
	}
	return f, nil
}

// postgresEnv says where the database is, without showing the password to
// everybody who lists processes.
func postgresEnv(database string) ([]string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return nil, errors.New("the database's URL cannot be read")
	}
	password, _ := u.User.Password()
	return []string{
		"PGHOST=" + u.Hostname(), "PGPORT=" + u.Port(), "PGDATABASE=" + strings.TrimPrefix(u.Path, "/"),
		"PGUSER=" + u.User.Username(), "PGPASSWORD=" + password, "PGSSLMODE=" + u.Query().Get("sslmode"),
	}, nil
}

// describe names the tools and their versions.
func (s *shell) describe(ctx context.Context) string {
	if len(s.missing) > 0 {
		return strings.Join(s.missing, ", ") + " not found, so nothing stands beside muster but floors (Debian: apt-get install gh jq postgresql-client)"
	}
	var all []string
	for _, tool := range tools {
		out, err := exec.CommandContext(ctx, tool, "--version").Output()
		if err != nil {
			all = append(all, tool)
			continue
		}
		first, _, _ := strings.Cut(string(out), "\n")
		all = append(all, first)
	}
	return strings.Join(all, ", ")
}

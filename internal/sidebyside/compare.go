package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// latency is that of the fleet which is listed over some.
const latency = 50 * time.Millisecond

// plan is one fleet to list.
type plan struct {
	runners int
	latency time.Duration // before each answer
}

func (p plan) String() string {
	text := thousands(p.runners) + " runners"
	if p.latency > 0 {
		return fmt.Sprintf("%s, %s before each answer", text, p.latency)
	}
	return text + ", no latency"
}

// plans are all sizes without latency, and one with.
func plans(sizes []int) []plan {
	var all []plan
	slow := 0
	for _, n := range sizes {
		all = append(all, plan{runners: n})
		if n <= 10_000 {
			slow = max(slow, n)
		}
	}
	if slow > 0 {
		all = append(all, plan{slow, latency})
	}
	return all
}

// bench is a comparison under way.
type bench struct {
	sim     *child
	at      addresses
	server  *server
	shell   *shell
	trust   string         // file of the certificate
	rows    map[int]string // files to COPY, by size of fleet
	results results
}

// compare runs all repetitions, telling what came of each plan, and judges.
func compare(ctx context.Context, o options, postgresURL string, out io.Writer) error {
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return fmt.Errorf("make a place for the certificate: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is in the temporary directory
	b, err := set(ctx, o, postgresURL, dir)
	if err != nil {
		return err
	}
	return errors.Join(b.measure(ctx, o, out), b.server.close(ctx), b.sim.end())
}

func (b *bench) measure(ctx context.Context, o options, out io.Writer) error {
	server, err := b.server.describe(ctx)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(out, conditions(o, server, b.shell.describe(ctx))); err != nil {
		return err
	}
	for _, n := range o.runners {
		if err := b.ready(ctx, n); err != nil {
			return err
		}
	}
	for _, p := range plans(o.runners) {
		for rep := range o.reps {
			if err := b.repeat(ctx, p, rep); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
		if _, err := io.WriteString(out, b.results.table(p)); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, judgement(b.results))
	return err
}

// set starts the simulator and prepares the server.
func set(ctx context.Context, o options, postgresURL, dir string) (*bench, error) {
	b := &bench{
		trust: filepath.Join(dir, "certificate.pem"), rows: map[int]string{},
		results: results{all: map[key][]figures{}},
	}
	b.shell = newShell(b.trust, dir)
	cert, err := selfSigned(time.Now())
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(b.trust, cert.CertPEM, 0o600); err != nil {
		return nil, err
	}
	for _, n := range o.runners {
		b.rows[n] = filepath.Join(dir, fmt.Sprintf("rows-%d", n))
	}
	if b.sim, err = start(ctx, roleSimulator); err != nil {
		return nil, err
	}
	if err := b.sim.ask(setup{Runners: o.runners, Certificate: cert}, &b.at); err != nil {
		return nil, err
	}
	if b.server, err = openServer(ctx, postgresURL); err != nil {
		return nil, errors.Join(err, b.sim.end())
	}
	return b, nil
}

// ready gets the rows to COPY from a sync, and has everybody ask once, so that
// the simulator knows for whom to prepare validators.
func (b *bench) ready(ctx context.Context, runners int) error {
	d, err := b.server.fresh(ctx)
	if err != nil {
		return err
	}
	err = b.rehearse(ctx, d, runners)
	if err == nil {
		_, err = b.order(order{Change: runners})
	}
	return errors.Join(err, d.drop(ctx))
}

func (b *bench) rehearse(ctx context.Context, d *database, runners int) error {
	if _, err := b.contend(ctx, d, job{Kind: kindSync, Runners: runners, APIURL: b.at.Plain, Database: d.url, Cold: true}, order{}); err != nil {
		return err
	}
	if err := d.export(ctx, runners, b.rows[runners]); err != nil {
		return err
	}
	if len(b.shell.missing) > 0 {
		return nil
	}
	_, err := b.shell.run(ctx, b.at.TLS, d.url, upsert, 1)
	return err
}

func (b *bench) order(o order) (report, error) {
	var r report
	if err := b.sim.ask(o, &r); err != nil {
		return r, err
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}

// repeat measures all contenders once, in all cases. They take turns in being
// the first.
func (b *bench) repeat(ctx context.Context, p plan, rep int) error {
	// muster as a service has a database of its own, and so have muster as a
	// command and the pipelines, so that each finds what it left itself.
	service, err := b.server.fresh(ctx)
	if err != nil {
		return err
	}
	command, err := b.server.fresh(ctx)
	if err != nil {
		return errors.Join(err, service.drop(ctx))
	}
	return errors.Join(b.round(ctx, p, rep, service, command), service.drop(ctx), command.drop(ctx))
}

func (b *bench) round(ctx context.Context, p plan, rep int, service, command *database) error {
	for _, c := range cases(p) {
		if _, err := b.order(c.order); err != nil {
			return err
		}
		entries := b.entries(p, c, service, command)
		if rep%2 == 1 {
			slices.Reverse(entries)
		}
		for _, e := range entries {
			f, err := b.enter(ctx, c, e)
			if err == nil {
				err = e.check(f, p, c)
			}
			if err != nil {
				return fmt.Errorf("%s: %s: %w", c.name, e.name, err)
			}
			b.results.add(key{p, c.name, e.name}, f)
		}
		for _, e := range entries { // all of them have done their work
			if err := e.compare(ctx); err != nil {
				return fmt.Errorf("%s: %s: %w", c.name, e.name, err)
			}
		}
		if c.name != caseFirst {
			continue
		}
		if err := b.fill(ctx, p, command); err != nil {
			return err
		}
		if err := errors.Join(service.settle(ctx), command.settle(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// fill gives the pipelines their first load where it was not measured.
func (b *bench) fill(ctx context.Context, p plan, d *database) error {
	if p.latency == 0 || len(b.shell.missing) > 0 {
		return nil
	}
	if _, err := b.order(order{}); err != nil {
		return err
	}
	for _, write := range []string{upsert, tuned} {
		if _, err := b.shell.run(ctx, b.at.TLS, d.url, write, p.runners); err != nil {
			return err
		}
	}
	return nil
}

// enter measures one contender.
func (b *bench) enter(ctx context.Context, c benchCase, e entry) (figures, error) {
	// The same as the case's, but for the change, which has been made.
	stays := order{Latency: c.order.Latency, Withhold: c.order.Withhold}
	if e.job.Kind != "" {
		return b.contend(ctx, e.database, e.job, stays)
	}
	m, err := b.begin(ctx, e.database, stays)
	if err != nil {
		return figures{}, err
	}
	f, err := b.shell.run(ctx, b.at.TLS, e.database.url, e.write, e.runners)
	if err != nil {
		return f, err
	}
	return f, b.account(ctx, e.database, m, e.table, stays, &f)
}

// begin is the moment from which on things are counted.
func (b *bench) begin(ctx context.Context, d *database, stays order) (mark, error) {
	if _, err := b.order(stays); err != nil {
		return mark{}, err
	}
	return d.mark(ctx)
}

// account adds what Postgres and the simulator have seen since.
func (b *bench) account(ctx context.Context, d *database, m mark, table string, stays order, f *figures) error {
	if err := d.since(ctx, m, table, f); err != nil {
		return err
	}
	r, err := b.order(stays)
	f.Calls, f.Protocols = r.Requests, r.Protocols
	return err
}

// contend has a process do the job.
func (b *bench) contend(ctx context.Context, d *database, j job, stays order) (figures, error) {
	var f figures
	var env []string
	if strings.HasPrefix(j.APIURL, "https:") {
		env = append(env, "SSL_CERT_FILE="+b.trust)
	}
	m, err := b.begin(ctx, d, stays)
	if err != nil {
		return f, err
	}
	c, err := start(ctx, roleContender, env...)
	if err != nil {
		return f, err
	}
	if err := c.ask(j, &f); err != nil {
		return f, err
	}
	if !j.Cold && f.Err == "" { // it is ready
		if m, err = b.begin(ctx, d, stays); err != nil {
			return f, errors.Join(err, c.end())
		}
		if err := c.ask(struct{}{}, &f); err != nil {
			return f, err
		}
	}
	if err := c.end(); err != nil {
		return f, err
	}
	if f.Err != "" {
		return f, errors.New(f.Err)
	}
	if j.Cold {
		f.Wall = time.Since(c.started)
		f.CPU = c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
	}
	return f, b.account(ctx, d, m, "muster.runner", stays, &f)
}

package main

import (
	"context"
	"fmt"
)

// The cases, as the table names them.
const (
	caseFirst     = "first load"
	caseUnchanged = "nothing changed, every page sent in full"
	caseChanged   = "2 % changed, on every page"
	caseSame      = "nothing changed, every page a 304"
)

// benchCase is what GitHub does, and what muster has to make of it.
type benchCase struct {
	name        string
	order       order
	calls       int // that muster makes
	notModified int // of them answered 304
	rows        int // that muster writes
}

func cases(p plan) []benchCase {
	pages := p.runners / perPage
	return []benchCase{
		// One call more asks what the server can do, which is asked once a day.
		{name: caseFirst, order: order{Latency: p.latency}, calls: pages + 1, rows: p.runners},
		{name: caseUnchanged, order: order{Latency: p.latency, Withhold: true}, calls: pages},
		{name: caseChanged, order: order{Latency: p.latency, Change: p.runners}, calls: pages, rows: p.runners / changesEvery},
		{name: caseSame, order: order{Latency: p.latency}, calls: pages, notModified: pages},
	}
}

// The contenders, as the table names them.
const (
	nameMuster     = "muster"
	nameOneByOne   = "muster, a page at a time"
	nameDiscard    = "fetch, throw away"
	nameDecode     = "fetch, decode"
	nameCopy       = "COPY of the rows"
	nameRevalidate = "bare walk of 304s"
	nameCommand    = "muster, as a command"
	namePlain      = "gh | jq | psql"
	nameTuned      = "gh | jq | psql, tuned"
)

// entry is a contender of one case: a job for a process of ours or, without
// one, a pipeline.
type entry struct {
	name     string
	job      job
	database *database
	runners  int

	write, table string // of a pipeline
}

// check sees that the contender did what is to be measured.
func (e entry) check(f figures, p plan, c benchCase) error {
	switch e.name {
	case nameMuster, nameOneByOne, nameCommand:
		if f.Runners != p.runners || f.Calls != c.calls || f.NotModified != c.notModified || f.Rows != int64(c.rows) {
			return fmt.Errorf("%d runners, %d calls, %d of them 304, %d rows written, want %d, %d, %d and %d",
				f.Runners, f.Calls, f.NotModified, f.Rows, p.runners, c.calls, c.notModified, c.rows)
		}
	case nameRevalidate:
		if f.NotModified != c.notModified {
			return fmt.Errorf("%d pages of %d are 304", f.NotModified, c.notModified)
		}
	case nameDiscard, nameDecode, nameCopy:
		if f.Runners != p.runners {
			return fmt.Errorf("%d runners, want %d", f.Runners, p.runners)
		}
	}
	return nil
}

// compare sees that a pipeline's table shows the runners as muster's does.
func (e entry) compare(ctx context.Context) error {
	if e.table == "" {
		return nil
	}
	wrong, err := e.database.wrong(ctx, e.table, e.runners)
	if err == nil && wrong > 0 {
		err = fmt.Errorf("%d runners are not as muster has them", wrong)
	}
	return err
}

// entries are who takes part in a case.
func (b *bench) entries(p plan, c benchCase, service, command *database) []entry {
	ours := func(name string, k kind) entry {
		return entry{name: name, database: service, job: job{
			Kind: k, Runners: p.runners, APIURL: b.at.Plain, Database: service.url, Rows: b.rows[p.runners],
		}}
	}
	all := []entry{ours(nameMuster, kindSync)}
	switch c.name {
	case caseFirst:
		all = append(all, ours(nameDecode, kindDecode), ours(nameCopy, kindCopy))
	case caseUnchanged:
		all = append(all, ours(nameDiscard, kindDiscard))
		if p.latency > 0 {
			slow := ours(nameOneByOne, kindSync)
			slow.job.Parallel = 1
			all = append(all, slow)
		}
	case caseChanged:
		all = append(all, ours(nameDecode, kindDecode))
	case caseSame:
		return append(all, ours(nameRevalidate, kindRevalidate)) // gh has no conditional requests
	}
	if len(b.shell.missing) > 0 {
		return all
	}
	cold := ours(nameCommand, kindSync)
	cold.database, cold.job.Database, cold.job.APIURL, cold.job.Cold = command, command.url, b.at.TLS, true
	all = append(all, cold)
	if c.name != caseUnchanged && p.latency > 0 {
		return all // pipelines take as long as the pages do, whatever has changed
	}
	return append(all,
		entry{name: namePlain, database: command, runners: p.runners, write: upsert, table: "shell_plain"},
		entry{name: nameTuned, database: command, runners: p.runners, write: tuned, table: "shell_tuned"})
}

package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
)

// From when on a lag or a difference is worth a line.
const (
	skewWarn    = 5 * time.Second
	skewFail    = time.Minute // GitHub refuses an App whose clock is that far off
	waitWarn    = time.Minute
	waitFail    = 10 * time.Minute
	intentWarn  = 5 * time.Minute // they are looked for every 15 s
	tickWarn    = time.Minute
	stepWarn    = 24 * time.Hour // since the shared clock stepped
	expiryWarn  = 14 * 24 * time.Hour
	rateWarnPct = 10
)

// judge turns what was found into lines: of muster as a whole first, then of
// each target. It is pure.
func (e *examined) judge(c *config) []check {
	s := &sheet{}
	e.record.judge(s, c)
	e.nats.judge(s)
	all := s.checks
	for i := range e.targets {
		all = append(all, e.targets[i].judge(c, &e.record)...)
	}
	return all
}

func (n *natsExam) judge(s *sheet) {
	if n.err != nil {
		s.add(levelFail, "nats", natsMend(n.err), "%s", oneLine(n.err))
		return
	}
	for _, fault := range n.faults {
		s.add(levelFail, "nats", "", "%s", oneLine(fault))
	}
	switch {
	case len(n.faults) > 0: // they are told
	case n.deaf != nil:
		s.add(levelWarn, "nats", "let muster subscribe there", "%s", oneLine(n.deaf))
	default:
		s.ok("nats", "%s", n.found)
	}
}

func natsMend(err error) string {
	if away(err) {
		return reachMend(natsKeys, err)
	}
	return "muster serve makes the streams, and mends their settings, when it starts"
}

// reachMend is what mends that a server cannot be reached.
func reachMend(keys string, err error) string {
	var said *exitError
	if errors.As(err, &said) {
		return "" // there is none, and it says itself what to do
	}
	return addressMend(keys)
}

func (r *recordExam) judge(s *sheet, c *config) {
	const postgres = "postgres"
	switch {
	case r.reach != nil:
		s.add(levelFail, postgres, reachMend(postgresKeys, r.reach), "%s", oneLine(r.reach))
		return
	case r.schemaErr != nil:
		s.unknown(postgres, r.schemaErr)
		return
	}
	if len(r.schema.Missing) > 0 {
		s.add(levelFail, "schema", "run muster migrate up", "the database lacks migration %s (it has %d of %d)", r.schema.Missing[0], r.schema.Have, r.schema.Want)
		return
	}
	if err := r.schema.Newer(); err != nil {
		s.add(levelFail, "schema", "", "%s", oneLine(err))
	}
	if r.writeErr != nil {
		s.add(levelFail, postgres, "let it write: is it a standby, is default_transaction_read_only on, or is its disk full?", "%s", oneLine(r.writeErr))
	}
	if r.contentsErr != nil {
		s.unknown(postgres, r.contentsErr)
		return
	}
	switch {
	case r.writeErr != nil: // a line tells of it already
	case r.standing.Safe():
		s.ok(postgres, "PostgreSQL %s as %s, schema %d of %d", r.health.Server, r.role, r.schema.Have, r.schema.Want)
	default:
		s.add(levelWarn, postgres, weaknessMend, "PostgreSQL %s, %s", r.health.Server, weakness(r.standing))
	}
	r.judgeClock(s)
	if n := r.health.Replicas; n > 0 {
		s.ok("replicas", "%s", counted(n, "muster serve is alive", "muster serve processes are alive"))
	} else {
		s.add(levelWarn, "replicas", "start one: without it nothing is synced, deleted, sized or handed out", "no muster serve is alive")
	}
	switch n := r.health.DeadLetters; {
	case n > 0:
		s.add(levelWarn, "dead-letters", "see muster dead-letters, then retry or drop them", "%d failed for good", n)
	default:
		s.ok("dead-letters", "none")
	}
	lag(s, "outbox", r.health.Waiting, r.health.OldestWait, waitWarn, waitFail, "is NATS up, and does a muster serve run?", "message waits for NATS", "messages wait for NATS")
	lag(s, "intents", r.health.OpenIntents, r.health.OldestOpen, intentWarn, time.Hour, "a muster serve settles them: does one run, and does GitHub answer?", "deletion has no outcome yet", "deletions have no outcome yet")
	r.judgeTicks(s, c)
}

// judgeClock is the line about Postgres's clock: whether it has stepped within a
// day, and else whether it agrees with this host's.
func (r *recordExam) judgeClock(s *sheet) {
	age := r.now.Sub(r.step.At)
	if r.step.At.IsZero() || age > stepWarn {
		skew(s, r.now.Sub(r.at), r.within, "Postgres", "this host")
		return
	}
	way := "leapt ahead"
	if r.step.By < 0 {
		way = "went back"
	}
	s.add(levelWarn, "clock", "let NTP slew Postgres's clock instead of setting it; see CK900W in muster audit",
		"Postgres's clock %s by %s, %s ago; it is %s off this host's now", way, orNone(span(r.step.By.Abs())), orNone(span(max(age, 0))),
		r.now.Sub(r.at).Abs().Round(time.Millisecond))
}

// skew is the line about two clocks, of which the difference is known within
// some error.
func skew(s *sheet, ahead, within time.Duration, whose, than string) {
	l, mend := levelOK, ""
	switch sure := ahead.Abs() - within; {
	case sure > skewFail:
		l = levelFail
	case sure > skewWarn:
		l = levelWarn
	}
	if l != levelOK {
		mend = "set the clocks by NTP"
	}
	way := "ahead of"
	if ahead < 0 {
		way = "behind"
	}
	text := fmt.Sprintf("%s and %s agree within %s", whose, than, max(ahead.Abs(), within, time.Millisecond).Round(time.Millisecond))
	if l != levelOK {
		text = fmt.Sprintf("%s is %s %s %s", whose, ahead.Abs().Round(time.Second), way, than)
	}
	s.add(l, "clock", mend, "%s", text)
}

// lag is the line about things that wait for somebody.
func lag(s *sheet, name string, n int, oldest, warn, fail time.Duration, mend, one, others string) {
	l := levelOK
	switch {
	case n == 0:
		s.ok(name, "none")
		return
	case oldest > fail:
		l = levelFail
	case oldest > warn:
		l = levelWarn
	default:
		mend = ""
	}
	s.add(l, name, mend, "%s, the oldest for %s", counted(n, one, others), orNone(span(oldest)))
}

func orNone(text string) string {
	if text == "" {
		return "less than a second"
	}
	return text
}

// judgeTicks looks whether schedules are served, and in time.
func (r *recordExam) judgeTicks(s *sheet, c *config) {
	states := map[string]db.ScheduleState{}
	for _, state := range r.schedules {
		states[state.Schedule] = state
	}
	var unserved, overdue, missed []string
	var latest time.Duration
	for _, schedule := range c.schedules {
		state, known := states[schedule.ID()]
		if !known {
			unserved = append(unserved, schedule.ID())
			continue
		}
		next := schedule.Next(state.After)
		if late := r.now.Sub(next) - schedule.Spec().Jitter; !next.IsZero() && late > tickWarn {
			overdue = append(overdue, fmt.Sprintf("%s for %s", schedule.ID(), span(late)))
		}
		if state.Missed > 0 {
			missed = append(missed, fmt.Sprintf("%s %s", schedule.ID(), counted(state.Missed, "time", "times")))
		}
		latest = max(latest, state.Lateness)
	}
	const serve = "does a muster serve run, with this configuration?"
	switch {
	case len(overdue) > 0:
		s.add(levelFail, "ticks", serve, "overdue: %s", strings.Join(overdue, ", "))
	case len(unserved) > 0:
		s.add(levelWarn, "ticks", serve, "no muster serve has ever served %s", strings.Join(unserved, ", "))
	case len(missed) > 0:
		s.add(levelWarn, "ticks", "see api.ticks for when nobody was there", "missed within a day: %s", strings.Join(missed, ", "))
	case latest > tickWarn:
		s.add(levelWarn, "ticks", "is Postgres slow, or the machine?", "the newest of a schedule came %s late", span(latest))
	default:
		s.ok("ticks", "schedules served: %d; none overdue, the newest ticks at most %s late", len(c.schedules), latest.Round(time.Millisecond))
	}
}

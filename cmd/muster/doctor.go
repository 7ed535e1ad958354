package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/fleet"
)

// level is how bad it is.
type level string

const (
	levelOK   level = "ok"
	levelWarn level = "warn"
	levelFail level = "fail"
)

// check is one line of muster doctor.
type check struct {
	Level  level   `json:"level"`
	Target *string `json:"target"` // null: it is about all of muster
	Check  string  `json:"check"`
	Found  string  `json:"found"`
	Mend   *string `json:"mend"` // null: nothing has to be done
}

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check credentials, servers, limits and lags, and say what mends them",
		Long: `Check what muster needs to work: Postgres, NATS, and for each target its
credential, what that may do, its server and its syncs. One line each: ok, warn
or fail, what was found, and what mends it.

GitHub is asked for one runner of each target and for nothing that could change
anything. Exit status: 0 nothing fails, 1 something does, 2 bad configuration,
4 nothing at all can be reached. The credentials and webhook secrets of targets
are not part of the configuration here: one that cannot be read, which muster
serve would not start with, is a line, and the others are checked.`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), *output) }
	return cmd
}

func (a *app) doctor(ctx context.Context, output format) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	pauses, done := openPauses(ctx, c)
	defer done()
	clients, err := clients(c.targets, nil, hearers{pauses: pauses})
	if err != nil {
		return err
	}
	e := examine(ctx, c, clients, pauses)
	if ctx.Err() != nil {
		return exit(exitFailed, "doctor: %w", ctx.Err())
	}
	checks := e.judge(c)
	head := []string{"LEVEL", "TARGET", "CHECK", "FOUND"}
	err = show(a, output, checks, "nothing to check", head, func(c check) []string {
		found := c.Found
		if c.Mend != nil {
			found += "; " + *c.Mend
		}
		return []string{string(c.Level), deref(c.Target), c.Check, found}
	})
	if err != nil {
		return err
	}
	return e.verdict(checks)
}

// verdict is the error that the exit status is of.
func (e *examined) verdict(checks []check) error {
	fails, warns := 0, 0
	for _, c := range checks {
		switch c.Level {
		case levelFail:
			fails++
		case levelWarn:
			warns++
		}
	}
	summary := fmt.Sprintf("doctor: of %d checks %s and %s", len(checks), counted(fails, "fails", "fail"), counted(warns, "warns", "warn"))
	switch {
	case fails == 0:
		return nil
	case e.nothingReached():
		return exit(exitUnreachable, "%s: nothing could be reached", summary)
	}
	return exit(exitFailed, "%s", summary)
}

// nothingReached reports whether neither Postgres nor NATS nor any GitHub gave
// an answer.
func (e *examined) nothingReached() bool {
	if e.record.reach == nil || !away(e.nats.err) {
		return false
	}
	for i := range e.targets {
		t := &e.targets[i]
		if t.answered() {
			return false
		}
	}
	return true
}

// away reports whether an error is that nobody answered.
func away(err error) bool { return exitCode(err) == exitUnreachable }

// sheet collects the checks of one target, or of muster as a whole.
type sheet struct {
	target string // empty: all of muster
	checks []check
}

func (s *sheet) ok(name, format string, args ...any) { s.add(levelOK, name, "", format, args...) }

// add is a check whose mend is empty where nothing is to be done.
func (s *sheet) add(l level, name, mend, format string, args ...any) {
	s.checks = append(s.checks, check{
		Level: l, Target: orNull(s.target), Check: name, Found: fmt.Sprintf(format, args...), Mend: orNull(mend),
	})
}

// unknown is a part of the record that could not be read.
func (s *sheet) unknown(name string, err error) {
	s.add(levelFail, name, "", "%s", oneLine(err))
}

// oneLine is an error on one line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// refusedBy reports whether GitHub answered, and against the credential.
func refusedBy(err error) bool {
	return errors.Is(err, fleet.ErrUnauthorized) || errors.Is(err, fleet.ErrForbidden) || errors.Is(err, fleet.ErrNotFound)
}

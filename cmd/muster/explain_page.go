package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/enforce"
)

// page collects the lines of a runner's story.
type page struct{ text strings.Builder }

// line writes one line, which nothing in it can break or steer a terminal with.
func (p *page) line(indent int, format string, args ...any) {
	p.text.WriteString(strings.Repeat(" ", indent) + printable(fmt.Sprintf(format, args...)) + "\n")
}

// head begins a part of the page.
func (p *page) head(format string, args ...any) {
	p.text.WriteString("\n")
	p.line(0, format, args...)
}

// columns writes rows with their cells aligned; the last may be of any length.
func (p *page) columns(indent int, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(printable(cell))))
		}
	}
	for _, row := range rows {
		line := strings.Repeat(" ", indent)
		for i, cell := range row {
			if cell = printable(cell); cell == "-" {
				cell = ""
			}
			line += cell + strings.Repeat(" ", widths[i]-len([]rune(cell))+2)
		}
		p.text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// writePage tells a runner's story; pool is of the pool that it counts for.
func writePage(w io.Writer, x enforce.Explanation, pool string) error {
	var p page
	p.who(x, pool)
	p.head("IN SHORT")
	for line := range strings.Lines(x.InShort()) {
		p.line(2, "%s", line)
	}
	p.story(x)
	if x.Runner.RemovedAt.IsZero() {
		p.witnesses(x)
		p.policies(x)
	}
	_, err := io.WriteString(w, p.text.String())
	return err
}

func (p *page) who(x enforce.Explanation, pool string) {
	r := &x.Runner
	p.line(0, "%s  (%s, id %d)", r.Name, r.Target, r.ID)
	doing := string(r.Status)
	switch {
	case !r.RemovedAt.IsZero():
		doing = fmt.Sprintf("no longer registered since %s, cause: %s", moment(r.RemovedAt), r.RemovalCause)
	case r.Status == fleet.StatusOffline:
		doing = fmt.Sprintf("offline since %s, observed for %s", moment(r.OfflineSince), orElse(span(r.OfflineFor), "less than a second"))
	case r.Busy:
		doing += ", busy"
	case r.Status == "":
		doing = "not known"
	default:
		doing += ", idle"
	}
	rows := [][]string{
		{"state", doing},
		{"seen", fmt.Sprintf("first %s (%s ago), last %s (%s ago)", moment(r.FirstSeenAt), age(x.Now, r.FirstSeenAt), moment(r.LastSeenAt), age(x.Now, r.LastSeenAt))},
		{"labels", orElse(strings.Join(r.Labels, ", "), "not known")},
		{"is", what(r)},
	}
	if pool != "" {
		rows = append(rows, []string{"pool", pool})
	}
	if r.Host != "" {
		rows = append(rows, []string{"host", r.Host})
	}
	if r.Unreadable != "" {
		rows = append(rows, []string{"unread", "GitHub's newest answer about it could not be read: " + r.Unreadable + "; what was known stays"})
	}
	p.columns(2, rows)
}

// what a runner is, in a few words.
func what(r *fleet.Observed) string {
	kind := "not known to be ephemeral"
	switch r.Ephemeral {
	case fleet.Yes:
		kind = "ephemeral"
	case fleet.No:
		kind = "persistent"
	}
	parts := []string{kind}
	if r.OS != "" {
		parts = append(parts, r.OS)
	}
	if r.Version != "" {
		parts = append(parts, "version "+r.Version)
	}
	if r.Group != "" {
		parts = append(parts, "group "+r.Group)
	}
	return strings.Join(parts, ", ")
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// age is how long ago something was.
func age(now, at time.Time) string { return orElse(span(now.Sub(at)), "0s") }

func (p *page) story(x enforce.Explanation) {
	p.head("WHAT HAPPENED (newest last)")
	r := &x.Runner
	if x.More {
		p.line(2, "… more before: api.runner_history, api.decisions, api.actions and api.audit have all of it")
	}
	if len(x.Story) == 0 {
		p.line(2, "nothing since it was first seen")
	}
	var rows [][]string
	for _, s := range x.Story {
		run := ""
		if s.TriggerID != "" {
			run = "run " + s.TriggerID
		}
		rows = append(rows, []string{moment(s.At), told(s, r.RemovalCause), run})
	}
	p.columns(2, rows)
}

// told is a row of the story in words.
func told(s db.StoryRow, cause fleet.RemovalCause) string {
	detail := ""
	if s.Detail != "" {
		detail = ": " + s.Detail
	}
	switch s.Kind {
	case db.StoryHistory:
		switch fleet.Change(s.What) {
		case fleet.ChangeOnline:
			return "came online"
		case fleet.ChangeOffline:
			return "went offline"
		case fleet.ChangeBusy:
			return "shown busy"
		case fleet.ChangeIdle:
			return "shown idle"
		case fleet.ChangeRemoved:
			if cause != "" {
				return fmt.Sprintf("no longer registered, cause: %s", cause)
			}
		}
		return s.What + detail
	case db.StoryDecision:
		return fmt.Sprintf("policy %s decided: %s%s", s.Who, s.What, detail)
	case db.StoryAction:
		return fmt.Sprintf("deletion by %s: %s%s", s.Who, s.What, detail)
	case db.StoryWorkflowJob:
		if s.What == "began" {
			return fmt.Sprintf("workflow job %s began%s", s.ID, of(s.Who))
		}
		return fmt.Sprintf("workflow job %s ended: %s%s", s.ID, s.What, of(s.Who))
	case db.StoryToken:
		return fmt.Sprintf("%s token for host %s", s.What, s.Who)
	case db.StoryAudit:
	}
	return fmt.Sprintf("%s by %s%s", s.What, s.Who, detail)
}

func of(repository string) string {
	if repository == "" {
		return ""
	}
	return " (" + repository + ")"
}

func (p *page) witnesses(x enforce.Explanation) {
	p.head("WITNESSES (! keeps it from being deleted)")
	var rows [][]string
	for _, t := range x.Witnesses() {
		mark, when := "", ""
		if t.Objects {
			mark = "!"
		}
		if !t.At.IsZero() {
			when = age(x.Now, t.At) + " ago"
		}
		rows = append(rows, []string{mark, t.Witness, when, t.Says})
	}
	p.columns(2, rows)
}

func (p *page) policies(x enforce.Explanation) {
	if len(x.Opinions) == 0 {
		p.head("POLICIES")
		p.line(2, "none covers %s", x.Runner.Target)
		return
	}
	for _, o := range x.Opinions {
		state := string(o.Policy.Enforcement)
		if o.State.Halted {
			state += ", halted"
		}
		p.head("POLICY %s (%s): %s", o.Policy.Name, state, o.Decision.Verdict)
		for _, reason := range o.Decision.Reasons {
			w := policies.InWords(reason, o.Decision.Evidence)
			p.line(2, "%s: %s", reason, w.Says)
			if w.Needs != "" {
				p.line(4, "needs: %s", w.Needs)
			}
		}
		if o.State.Halted {
			p.line(2, "halted: %s", o.State.Reason)
		}
		if o.Halt != "" {
			p.line(2, "it would halt now: %s", o.Halt)
		}
		for _, r := range o.Readings {
			p.reading(r)
		}
	}
}

// reading shows an expression by its clauses, those that decide marked.
func (p *page) reading(r policies.Reading) {
	name := "match"
	if r.Name != "" {
		name = "exempt " + r.Name
	}
	p.line(2, "%s: %s", name, r.Answer)
	var rows [][]string
	for _, c := range r.Clauses {
		mark := ""
		if c.Decides {
			mark = ">"
		}
		rows = append(rows, []string{mark, string(c.Answer), c.Text, strings.Join(c.Known, ", ")})
	}
	p.columns(4, rows)
}

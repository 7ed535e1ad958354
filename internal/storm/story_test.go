package storm_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/muster-fleet/muster/github/githubsim"
)

// story is what happened in a life, for whoever has to find out why it failed.
type story struct {
	lines []string
	upTo  int64 // the Seq of the last event that is told
}

// tell puts something down after all that GitHub has seen so far.
func (w *world) tell(format string, args ...any) {
	for _, e := range w.sim.LogSince(w.story.upTo) {
		w.story.upTo = e.Seq
		w.story.lines = append(w.story.lines, "    "+text(e))
	}
	w.story.lines = append(w.story.lines, fmt.Sprintf("%s %s", w.clock.now().Format(time.TimeOnly), fmt.Sprintf(format, args...)))
}

// tellStory prints it.
func (w *world) tellStory() {
	w.tell("the end")
	w.Logf("the story of life %d:\n%s", w.life, strings.Join(w.story.lines, "\n"))
}

// text is an event in short.
func text(e githubsim.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#%d %s %s%s %s", e.Seq, e.At.Format(time.TimeOnly), e.Method, e.Change, e.Scope)
	if e.RunnerID != 0 {
		fmt.Fprintf(&b, " runner %d", e.RunnerID)
	}
	if e.Job != 0 && (e.Change == githubsim.ChangeJob || e.Change == githubsim.ChangeDelivered) {
		fmt.Fprintf(&b, " workflow job %d", e.Job)
	}
	if e.Change == githubsim.ChangeDelivered && e.Status != 0 {
		fmt.Fprintf(&b, ": %d", e.Status)
	}
	if e.Method != "" {
		fmt.Fprintf(&b, " %s by %s: %d", e.Query, e.Credential[len(e.Credential)-4:], e.Status)
	}
	if e.Listing != nil {
		fmt.Fprintf(&b, " total %d %v", e.Listing.Total, e.Listing.IDs)
	}
	for _, of := range []struct {
		there bool
		what  string
	}{{e.Cause != "", e.Cause}, {e.Fault != "", "fault " + e.Fault}, {e.Acted, "acted"}, {e.Online, "online"}, {e.Busy, "busy"}, {e.Penalty, "penalty"}} {
		if of.there {
			b.WriteString(", " + of.what)
		}
	}
	return b.String()
}

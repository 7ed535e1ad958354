package queue

import (
	"testing"
	"time"
)

// The ids of messages must outlive upgrades: a run is known by them.
func TestTriggerIDsNeverChange(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 23, 59, 59, 0, time.UTC)
	const subject = "muster.v1.trigger.sync.acme"
	base := idFromMsgID(subject, "nightly", at)
	if base != "25cfaa9d-4aea-552d-8ff0-a2fdd6b7147b" {
		t.Errorf("id from a message id: %s", base)
	}
	if got := idFromSequence(at, 7); got != "495fce0d-c886-508e-9afb-04c1a221bab5" {
		t.Errorf("id from a sequence: %s", got)
	}
	if idFromMsgID(subject, "nightly", at.Add(-23*time.Hour).In(time.FixedZone("elsewhere", 5*3600))) != base {
		t.Error("another hour of the same UTC day is another trigger")
	}
	seen := map[string]bool{base: true}
	for _, id := range []string{
		idFromMsgID(subject, "nightly", at.Add(time.Second)),
		idFromMsgID(subject, "weekly", at),
		idFromMsgID("muster.v1.trigger.sync.octo", "nightly", at),
		idFromSequence(at, 7), idFromSequence(at, 8), idFromSequence(at.Add(1), 7),
	} {
		if seen[id] {
			t.Errorf("%s stands for two things", id)
		}
		seen[id] = true
	}
}

func TestOneLineIsShortAndWhole(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\nb\r\n\tc": "a b c",
		"":            "",
		"é":           "é",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", in, got, want)
		}
	}
	long := ""
	for range 150 {
		long += "é"
	}
	if got := oneLine("x" + long); len(got) != 199 {
		t.Errorf("a long reason has %d bytes", len(got))
	}
}

package queue

import (
	"testing"
	"time"
)

// A look is good until a stream changes, the connection is a new one, or time
// passes: seconds where the server does not tell of changes.
func TestWatch(t *testing.T) {
	t.Parallel()
	w := newWatch()
	known := func() bool {
		known, _ := w.verdict(0)
		return known
	}
	look := func() {
		l := w.begin(0)
		defer l.end()
		if err := l.done(nil); err != nil {
			t.Fatal(err)
		}
	}
	if known() {
		t.Error("known before anybody has looked")
	}
	look()
	if !known() {
		t.Error("not known after a look")
	}
	if known, _ := w.verdict(1); known {
		t.Error("known on another connection")
	}
	for subject, changes := range map[string]bool{
		"$JS.EVENT.ADVISORY.STREAM.CREATED.X": true, "$JS.EVENT.ADVISORY.STREAM.UPDATED.X": true,
		"$JS.EVENT.ADVISORY.STREAM.RESTORE_COMPLETE.X": true, "$JS.EVENT.ADVISORY.STREAM.DELETED.X": true,
		"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.X": false, "$JS.EVENT.ADVISORY.STREAM.SNAPSHOT_CREATE.X": false,
	} {
		look()
		w.heard(subject, nil)
		if known() == changes {
			t.Errorf("%s: known = %v", subject, known())
		}
	}
	// A change while somebody looks makes that look worthless.
	l := w.begin(0)
	w.heard("$JS.EVENT.ADVISORY.STREAM.CREATED.X", nil)
	_ = l.done(nil)
	l.end()
	if known() {
		t.Error("a look from before a change counts")
	}
	look()
	w.began = w.began.Add(-2 * time.Second)
	if !known() {
		t.Error("a look of 2 s ago does not count")
	}
	w.refused()
	if known() {
		t.Error("a look of 2 s ago counts where the server does not tell of changes")
	}
}

func TestHowLongAStreamMayHaveCaptured(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) // by the server's clock
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const hour = time.Hour
	tests := []struct {
		name    string
		safe    time.Duration // since the last look without a finding; 0: there was none
		changed time.Duration // since the first advisory; 0: there was none
		age     streamAge
		want    time.Duration
	}{
		{"made a moment ago", hour, 30 * time.Millisecond, streamAge{"X", now, ago(30 * time.Millisecond)}, 30 * time.Millisecond},
		{"changed a moment ago", hour, 30 * time.Millisecond, streamAge{"X", now, ago(100 * hour)}, 30 * time.Millisecond},
		{"made, deleted and made again", hour, time.Minute, streamAge{"X", now, ago(time.Second)}, time.Minute},
		{"made while nobody told", hour, 0, streamAge{"X", now, ago(time.Minute)}, time.Minute},
		{"changed while nobody told", hour, 0, streamAge{"X", now, ago(100 * hour)}, hour},
		{"there at the start", 0, 0, streamAge{"X", now, ago(100 * hour)}, 100 * hour},
		{"cannot be looked at", hour, 0, streamAge{name: "X"}, hour},
		{"nothing is known", 0, 0, streamAge{name: "X"}, 0},
	}
	for _, tt := range tests {
		w := newWatch()
		if tt.safe > 0 {
			w.safe = time.Now().Add(-tt.safe)
		}
		if tt.changed > 0 {
			w.firstChange["X"] = ago(tt.changed)
		}
		l := w.begin(0)
		if got := l.exposure(tt.age); got.Round(time.Second) != tt.want.Round(time.Second) || tt.want < time.Second && got > time.Second {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		l.end()
	}
}

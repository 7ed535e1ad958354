package github

import (
	"net/http"
	"strconv"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// says is an answer that shows the primary limit; date is the server's clock.
func says(limit, remaining int, reset, date time.Time) reply {
	return reply{status: http.StatusOK, header: http.Header{
		"X-Ratelimit-Limit":     {strconv.Itoa(limit)},
		"X-Ratelimit-Remaining": {strconv.Itoa(remaining)},
		"X-Ratelimit-Reset":     {strconv.FormatInt(reset.Unix(), 10)},
		"Date":                  {date.Format(http.TimeFormat)},
	}}
}

func TestTheBudgetNeverShowsMoreThanThereIs(t *testing.T) {
	t.Parallel()
	reset := noon.Add(30 * time.Minute)
	silent := reply{status: http.StatusBadGateway}
	unchanged := reply{status: http.StatusNotModified}
	type answer struct {
		after time.Duration // noon
		got   reply
	}
	tests := []struct {
		name    string
		answers []answer
		at      time.Duration // after noon
		known   bool
		left    int
	}{
		{"nothing was said", []answer{{0, silent}}, 0, false, 0},
		{"one answer", []answer{{0, says(5000, 4000, reset, noon)}}, 0, true, 4000},
		{"the lower one is the newer one", []answer{{0, says(5000, 3998, reset, noon)}, {0, says(5000, 3999, reset, noon)}}, 0, true, 3998},
		{"a reset that wavers", []answer{{0, says(5000, 3998, reset, noon)}, {0, says(5000, 3999, reset.Add(time.Second), noon)}}, 0, true, 3998},
		{"a later reset opens a window", []answer{{0, says(5000, 7, reset, noon)}, {0, says(5000, 4999, reset.Add(time.Hour), noon)}}, 0, true, 4999},
		{"a late answer of the window before", []answer{{0, says(5000, 4999, reset.Add(time.Hour), noon)}, {0, says(5000, 7, reset, noon)}}, 0, true, 4999},
		{"another limit in the same window", []answer{{0, says(5000, 7, reset, noon)}, {0, says(15000, 10007, reset, noon)}}, 0, true, 10007},
		{"answers that do not say may have been charged", []answer{{0, says(5000, 100, reset, noon)}, {0, silent}, {0, reply{}}}, 0, true, 98},
		{"until one says so", []answer{{0, says(5000, 100, reset, noon)}, {0, silent}, {0, says(5000, 99, reset, noon)}}, 0, true, 99},
		{"a 304 is free", []answer{{0, says(5000, 100, reset, noon)}, {0, unchanged}}, 0, true, 100},
		{"just before the end", []answer{{0, says(5000, 7, reset, noon)}}, 30*time.Minute - 1, true, 7},
		{"at the end", []answer{{0, says(5000, 7, reset, noon)}}, 30 * time.Minute, false, 0},
		{"the server's clock is two hours slow", []answer{{0, says(5000, 7, reset.Add(-2*time.Hour), noon.Add(-2*time.Hour))}}, 29 * time.Minute, true, 7},
		{"and ours is not what counts", []answer{{0, says(5000, 7, reset.Add(-2*time.Hour), noon.Add(-2*time.Hour))}}, 30 * time.Minute, false, 0},
		{"a reset that is over", []answer{{0, says(5000, 0, noon.Add(-time.Second), noon)}}, 0, false, 0},
		{"a reset in the year 3000", []answer{{0, says(5000, 0, time.Unix(32503680000, 0), noon)}}, 0, false, 0},
		{"no limit at all", []answer{{0, says(0, 0, reset, noon)}}, 0, false, 0},
		{"nonsense", []answer{{0, says(-1, -1, reset, noon)}}, 0, false, 0},
	}
	for _, tt := range tests {
		var b budget
		for _, a := range tt.answers {
			b.send()
			b.answered(a.got, b.silences, noon.Add(a.after))
		}
		b.pass(noon.Add(tt.at))
		if b.known != tt.known || b.known && b.left() != tt.left {
			t.Errorf("%s: known %v, %d left, want %v, %d", tt.name, b.known, b.left(), tt.known, tt.left)
		}
	}
}

func TestWhatIsInFlightCountsAsSpent(t *testing.T) {
	t.Parallel()
	var b budget
	b.send()
	b.answered(says(100, 12, noon.Add(time.Hour), noon), 0, noon)
	b.send()
	if !b.allows(PrioritySync) || b.left() != 11 {
		t.Errorf("%d left, sync allowed %v, want 11 and one more", b.left(), b.allows(PrioritySync))
	}
	b.send()
	if b.allows(PrioritySync) || !b.allows(PriorityConfirm) {
		t.Errorf("with 10 of 100 left, sync allowed %v and confirmations %v", b.allows(PrioritySync), b.allows(PriorityConfirm))
	}
	// The silence is heard of while another request, sent before it, is under
	// way: its figure says nothing about the charge.
	silences := b.silences
	b.answered(reply{}, silences, noon)
	b.answered(says(100, 11, noon.Add(time.Hour), noon), silences, noon)
	if b.left() != 10 {
		t.Errorf("%d left, want 10: the answer that never came may have been charged", b.left())
	}
}

func TestFloorsRiseAsPriorityFalls(t *testing.T) {
	t.Parallel()
	for p := PrioritySync; p <= PriorityToken; p++ {
		above, below := ranks[p], ranks[p-1]
		if above.floor > below.floor || above.share < below.share || above.inFlight < below.inFlight {
			t.Errorf("%s may use less than %s", p, p-1)
		}
	}
	if b := (budget{known: true, limit: 5000}); b.floor(PriorityToken) != 0 || b.floor(PrioritySweep) != 1000 {
		t.Errorf("floors of 5000 are %d and %d", b.floor(PriorityToken), b.floor(PrioritySweep))
	}
}

func TestAMeterIsFullForAWindowFromTheAnswer(t *testing.T) {
	t.Parallel()
	m := meter{window: time.Minute, limit: 10}
	at := func(d time.Duration) time.Time { return noon.Add(d) }
	m.send(5)
	m.send(5)
	if _, ok := m.free(at(0), 1, 10); ok {
		t.Error("points that are in flight are free")
	}
	m.unsend(5)
	m.spend(5, at(20*time.Second))
	m.unsend(5)
	m.spend(5, at(30*time.Second))
	for _, tt := range []struct {
		points int
		want   time.Duration
	}{{1, 80 * time.Second}, {5, 80 * time.Second}, {6, 90 * time.Second}, {10, 90 * time.Second}} {
		if free, ok := m.free(at(40*time.Second), tt.points, 10); !ok || !free.Equal(at(tt.want)) {
			t.Errorf("%d points are free at %s, %v, want %s", tt.points, free, ok, at(tt.want))
		}
	}
	if free, ok := m.free(at(80*time.Second), 5, 10); !ok || !free.Equal(at(80*time.Second)) {
		t.Errorf("after a window 5 points are free at %s, %v", free, ok)
	}
	if m.pass(at(90 * time.Second)); m.used != 0 || m.spent != nil {
		t.Errorf("%d used, %v kept when all is over", m.used, m.spent)
	}
}

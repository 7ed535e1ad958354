package token

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

func TestRefusalsBeyondTheFirstTenOfAMinuteAreCounted(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var r refusals
	key, other := refusalKey{"stranger", "denied"}, refusalKey{"stranger", "quota"}
	refuse := func(key refusalKey, n, written int) (kept int) {
		for range n {
			if r.keep(key, written, now) {
				kept++
			} else {
				r.count(refusalSum{key: key, why: "no grant"}, now)
			}
		}
		return kept
	}
	if kept := refuse(key, 25, 0); kept != 10 {
		t.Errorf("%d of 25 are kept, want 10", kept)
	}
	if !r.full(key) || r.full(other) {
		t.Errorf("full = %v, of another reason %v", r.full(key), r.full(other))
	}
	refuse(refusalKey{"another", "denied"}, 1, 0) // has no sum
	if kept := refuse(other, 10, 4); kept != 6 {
		t.Errorf("%d are kept where another replica has written 4, want 6", kept)
	}

	now = now.Add(refusalWindow - time.Nanosecond)
	if sums := r.take(now, false); len(sums) != 0 {
		t.Errorf("before the minute is over there are the sums %+v", sums)
	}
	now = now.Add(time.Nanosecond)
	counts := map[refusalKey]int{}
	sums := r.take(now, false)
	for _, s := range sums {
		counts[s.key] = s.count
	}
	if len(counts) != 2 || counts[key] != 15 || counts[other] != 4 || sums[0].why != "no grant" {
		t.Errorf("sums are %+v, want 15 and 4", sums)
	}
	if r.full(key) {
		t.Error("the next minute begins full")
	}
	if kept := refuse(key, 3, 0); kept != 3 {
		t.Errorf("%d of the next minute's first 3 are kept", kept)
	}

	// What could not be written is counted on.
	refuse(key, 9, 0)
	r.giveBack(sums)
	total := 0
	for _, s := range r.take(now, true) {
		total += s.count
	}
	if total != 15+4+2 {
		t.Errorf("%d refusals are summed up, want 21", total)
	}
	if left := r.take(now, true); len(left) != 0 || len(r.windows) != 0 {
		t.Errorf("%+v is left", left)
	}
}

func TestARefusalIsOnlyCountedWhilePostgresAnswers(t *testing.T) {
	t.Parallel()
	var r refusals
	now := time.Now()
	if r.fresh(now) {
		t.Error("fresh before Postgres has ever answered")
	}
	r.alive(now)
	if !r.fresh(now.Add(recordFresh-1)) || r.fresh(now.Add(recordFresh)) {
		t.Error("the answer counts for a time that is not 2 s")
	}
}

func TestHostsThatAreNoNamesShareOneCount(t *testing.T) {
	t.Parallel()
	if keyOf("Ä", "denied") != keyOf("b/c", "denied") || keyOf("build-01", "denied") != (refusalKey{"build-01", "denied"}) {
		t.Error("hosts are told apart by what is no name")
	}
	if s := (request{host: "build-01"}).refused(denied, "why").sum(); s.code != fleet.AuditTokenDenied || s.key != keyOf("build-01", "denied") || s.row.Code != 403 {
		t.Errorf("sum = %+v", s)
	}
}

func TestOnlyWhatIsBeyondTheTenIsCountedWithoutARow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var i Issuer
		s := refusalSum{key: refusalKey{"stranger", "denied"}}
		i.refusals.alive(time.Now())
		if i.countOnly(s) {
			t.Error("the first refusal is only counted")
		}
		for range refusalsKept {
			i.refusals.keep(s.key, 0, time.Now())
		}
		time.Sleep(recordFresh - 1)
		if !i.countOnly(s) {
			t.Error("the eleventh refusal is not counted")
		}
		time.Sleep(time.Nanosecond)
		if i.countOnly(s) {
			t.Error("a refusal is only counted while Postgres does not answer")
		}
	})
}

// A sum is written when its minute is over, and tried again each second where
// Postgres does not take it. What nobody had time for has a line of log alone.
func TestASumIsWrittenWhenItsMinuteIsOver(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code                      fleet.AuditCode
		atOneMinute, twoLater     int // how often the line of the sum is there
		failedThen, failedTwoSecs int // and that it was not written
	}{
		{"", 1, 1, 0, 0},
		{fleet.AuditTokenDenied, 1, 3, 1, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log sharedLog
			i := &Issuer{Log: slog.New(slog.NewTextHandler(&log, nil)), Now: func(context.Context) (time.Time, error) {
				return time.Time{}, errors.New("no clock")
			}}
			check := func(when string, lines, failed int) {
				t.Helper()
				synctest.Wait()
				gotLines, gotFailed := strings.Count(log.String(), "token requests refused"), strings.Count(log.String(), "trying again")
				if gotLines != lines || gotFailed != failed {
					t.Errorf("%q, %s: %d lines of log, %d that it was not written, want %d and %d", tt.code, when, gotLines, gotFailed, lines, failed)
				}
			}
			i.refusals.count(refusalSum{key: refusalKey{"stranger", "denied"}, code: tt.code}, time.Now())
			stop := make(chan struct{})
			var summing sync.WaitGroup
			summing.Go(func() { i.sumUp(t.Context(), stop) })
			time.Sleep(refusalWindow - 1)
			check("before its minute is over", 0, 0)
			time.Sleep(time.Nanosecond)
			check("when it is", tt.atOneMinute, tt.failedThen)
			time.Sleep(2 * sumEvery)
			check("2 s later", tt.twoLater, tt.failedTwoSecs)
			close(stop)
			summing.Wait()
		})
	}
}

// sharedLog is a log that is read while others may write to it.
type sharedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *sharedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *sharedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

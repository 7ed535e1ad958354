package token_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/token"
)

// captures is a connection that tells of the captures of a test.
type captures struct {
	*queue.Conn
	found chan queue.Capture
}

func (c captures) Captures() <-chan queue.Capture { return c.found }

// exposedHosts are the hosts whose tokens the trail names for a stream.
func (w *world) exposedHosts(t *testing.T, stream string) []string {
	t.Helper()
	events, err := w.db.Trail(t.Context(), db.TrailFilter{Code: string(fleet.AuditTokenExposed)})
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, e := range events {
		if e.Actor != fleet.System {
			t.Errorf("host %s: the actor is %+v", e.Host, e.Actor)
		}
		if strings.Contains(e.Reason, "stream "+stream+" captures _INBOX.>") {
			hosts = append(hosts, e.Host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// The clock stands still, so that each token has the age that its host is named
// for. Of the tokens that went out elsewhere only the rows are known, and not
// whether they went out again.
func TestTheTokensOfTheTimeOfACaptureAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.URL(t))
	began := time.Now()
	found := make(chan queue.Capture)
	s := anyone()
	s.target = func(target *token.Target) { target.ShareRegistration = false }
	s.change = func(i *token.Issuer) {
		i.Now = func(context.Context) (time.Time, error) { return began.Add(time.Duration(w.ahead.Load())), nil }
	}
	told := s
	told.change = func(i *token.Issuer) {
		s.change(i)
		i.Conn = captures{i.Conn.(*queue.Conn), found}
	}
	here, there := w.replica(t, told), w.replica(t, s)
	ages := []struct {
		host string
		of   *replica
		age  time.Duration
	}{
		{"build-95m", there, 95 * time.Minute},
		{"build-50m", there, 50 * time.Minute},
		{"build-40m-sent-now", here, 40 * time.Minute},
		{"build-28m", there, 28 * time.Minute},
		{"build-10m4s", there, 10*time.Minute + 4*time.Second},
	}
	for n, tt := range ages {
		if got := tt.of.ask(t, tt.host, registration); got.Token == "" {
			t.Fatalf("%s: answer is %s", tt.host, got.body)
		}
		next := time.Duration(0)
		if n+1 < len(ages) {
			next = ages[n+1].age
		}
		w.pass(tt.age - next)
	}

	tests := []struct {
		stream        string
		foundAgo, For time.Duration
		want          []string
	}{
		{"SENT", 0, 5 * time.Minute, []string{"build-40m-sent-now"}},
		{"OUTCOME", 0, 10 * time.Minute, []string{"build-10m4s", "build-40m-sent-now"}},
		{"FOUND", 20 * time.Minute, 10 * time.Minute, []string{"build-10m4s", "build-28m", "build-40m-sent-now"}},
		{"UNKNOWN", 0, 0, []string{"build-10m4s", "build-28m", "build-40m-sent-now", "build-50m"}},
		{"LONG", 0, 2 * time.Hour, []string{"build-10m4s", "build-28m", "build-40m-sent-now", "build-50m"}},
	}
	tell := func(c queue.Capture) {
		t.Helper()
		select {
		case found <- c:
		case <-time.After(patience):
			t.Fatalf("nobody takes in that %s was found", c.Stream)
		}
	}
	for _, tt := range tests {
		capture := queue.Capture{Stream: tt.stream, Subject: "_INBOX.>", Found: time.Now().Add(-tt.foundAgo), For: tt.For}
		for range 2 { // each token is named once
			tell(capture)
		}
	}
	tell(queue.Capture{Stream: "LAST", Found: time.Now(), For: 1}) // taken in when those before are told
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, w.exposedHosts(t, tt.stream)); diff != "" {
			t.Errorf("%s: the trail names: %s", tt.stream, diff)
		}
		line := fmt.Sprintf(`"msg":"tokens were captured by a stream","reason":%q,"counts":%d}`, tt.stream, len(tt.want))
		if n := strings.Count(here.log.String(), line); n != 1 {
			t.Errorf("%s: %d lines of log say that tokens were captured, want one", tt.stream, n)
		}
	}
	if log := here.log.String(); strings.Contains(log, "not written down") {
		t.Errorf("the log says that something was not written down: %s", log)
	}
}

package token_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
)

// lease asks for a host that is due in ten minutes.
func (w *world) lease(t *testing.T, target string) string {
	t.Helper()
	now, err := w.now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := uuid.NewString()
	err = w.db.InTx(t.Context(), func(tx *db.Tx) error {
		return tx.AddLeases(t.Context(), []fleet.Lease{{
			RequestID: id, Pool: "linux", Target: target, Attempt: 1, RequestedAt: now, Deadline: now.Add(10 * time.Minute),
		}})
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// state is what has become of a lease.
func (w *world) state(t *testing.T, id string) string {
	t.Helper()
	table, err := w.db.ReadAPI(t.Context(), `SELECT state, coalesce(host, '-') FROM api.leases WHERE request_id = '`+id+`'`)
	if err != nil || len(table.Rows) != 1 {
		t.Fatalf("lease %s: %v, %v", id, table, err)
	}
	return strings.Join(table.Rows[0], " ")
}

func demanding(kind fleet.TokenKind, demand string) string {
	return fmt.Sprintf(`{"target":"acme","kind":%q,"demand_id":%q}`, kind, demand)
}

func TestATokenClaimsTheLeaseThatItIsFor(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	id := r.lease(t, "acme")
	if got := r.ask(t, "build-01", demanding(fleet.TokenRemoval, id)); got.Token == "" || r.state(t, id) != "requested -" {
		t.Errorf("a removal token: %s, the lease is %s", got.body, r.state(t, id))
	}
	if got := r.ask(t, "build-01", demanding(fleet.TokenJIT, id)); got.Code != 501 || r.state(t, id) != "requested -" {
		t.Errorf("what was refused: %s, the lease is %s", got.body, r.state(t, id))
	}
	for range 2 { // its first answer may be lost
		if got := r.ask(t, "build-01", demanding(fleet.TokenRegistration, strings.ToUpper(id))); got.Token == "" || r.state(t, id) != "claimed build-01" {
			t.Errorf("answer %s, the lease is %s", got.body, r.state(t, id))
		}
	}
	// What is no lease is a word of the script's own.
	other := r.lease(t, "acme")
	for _, word := range []string{newID(), "{" + other + "}", "urn:uuid:" + other} {
		if got := r.ask(t, "build-01", demanding(fleet.TokenRegistration, word)); got.Token == "" {
			t.Errorf("the demand %s: %s", word, got.body)
		}
	}
	if got := r.state(t, other); got != "requested -" {
		t.Errorf("a lease that no demand names is %s", got)
	}
}

func TestALeaseThatIsOverGivesNoToken(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	taken, elsewhere, late, online := r.lease(t, "acme"), r.lease(t, "widgets"), r.lease(t, "acme"), r.lease(t, "acme")
	r.ask(t, "build-02", demanding(fleet.TokenRegistration, taken))
	r.ask(t, "build-01", demanding(fleet.TokenRegistration, online))
	if _, err := r.raw(t).Exec(t.Context(), `UPDATE muster.lease SET state = 'online' WHERE request_id = $1`, online); err != nil {
		t.Fatal(err)
	}
	minted := len(r.minted())
	for _, tt := range []struct {
		name, id string
		code     int
		reason   string
	}{
		{"another host's", taken, 409, "was claimed by host build-02"},
		{"another target's", elsewhere, 403, "is of another target, widgets"},
		{"of a runner that is there", online, 409, "is online already"},
		{"past its deadline", late, 409, "is over since "},
	} {
		if tt.id == late {
			r.pass(10 * time.Minute)
		}
		got := r.ask(t, "build-01", demanding(fleet.TokenRegistration, tt.id))
		if got.Code != tt.code || !strings.Contains(r.reason(t, fleet.AuditTokenDenied), tt.reason) {
			t.Errorf("%s: %s, because %s", tt.name, got.body, r.reason(t, fleet.AuditTokenDenied))
		}
		if strings.Contains(got.body+got.description, "build-02") || strings.Contains(got.body+got.description, "widgets") {
			t.Errorf("%s: the answer tells of others: %s %s", tt.name, got.body, got.description)
		}
	}
	if n := len(r.minted()); n != minted {
		t.Errorf("GitHub minted %d times for leases that are over", n-minted)
	}
	if got := r.state(t, late); got != "requested -" {
		t.Errorf("the late one is %s", got)
	}
}

// One message may reach several provisioners: one host comes of it.
func TestOfManyHostsOneClaimsALease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.URL(t))
	replicas := []*replica{w.replica(t, anyone()), w.replica(t, anyone())}
	id := w.lease(t, "acme")
	var mu sync.Mutex
	codes := map[int]int{}
	var g sync.WaitGroup
	for n := range 12 {
		g.Go(func() {
			host := fmt.Sprintf("build-%02d", n)
			got := replicas[n%2].ask(t, host, demanding(fleet.TokenRegistration, id))
			mu.Lock()
			defer mu.Unlock()
			codes[got.Code]++
		})
	}
	g.Wait()
	if codes[0] != 1 || codes[409] != 11 {
		t.Errorf("answers by code: %v, want one token and 11 conflicts", codes)
	}
}

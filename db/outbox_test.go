package db_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func (w *world) enqueue(messages ...fleet.OutboxMessage) {
	w.Helper()
	w.tx(func(tx *db.Tx) error { return tx.Enqueue(w.ctx, messages...) })
}

func TestOutboxKeepsMessagesAsTheyAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	outbox := db.Outbox{DB: w.db}
	full := fleet.OutboxMessage{
		ID: uuid.NewString(), Subject: "muster.v1.event.x", Headers: map[string]string{"A": "b", "Ü": `"`}, Body: []byte{0, 0xff, '{'},
	}
	w.enqueue(full)
	w.enqueue(fleet.OutboxMessage{Subject: "bare"})
	first, err := outbox.Claim(w.ctx, "event", 1, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]fleet.OutboxMessage{full}, first); diff != "" {
		t.Errorf("oldest message (-want +got):\n%s", diff)
	}
	second, err := outbox.Claim(w.ctx, "other", 10, time.Minute)
	if err != nil || len(second) != 1 || second[0].Subject != "bare" || uuid.Validate(second[0].ID) != nil {
		t.Errorf("the rest = %+v, %v", second, err)
	}
	if err := outbox.Delete(w.ctx, []string{full.ID, second[0].ID}); err != nil {
		t.Fatal(err)
	}
	w.want("0", `SELECT count(*) FROM muster.outbox`)
	if err := outbox.Delete(w.ctx, []string{full.ID}); err != nil {
		t.Errorf("Delete of what is gone: %v", err)
	}
	err = w.db.InTx(w.ctx, func(tx *db.Tx) error {
		return tx.Enqueue(w.ctx, fleet.OutboxMessage{ID: "seven", Subject: "x"})
	})
	if err == nil || !strings.Contains(err.Error(), `"seven"`) {
		t.Errorf("Enqueue with a bad id = %v", err)
	}
}

func TestOutboxLeases(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	outbox := db.Outbox{DB: w.db}
	claim := func(lease time.Duration) int {
		t.Helper()
		messages, err := outbox.Claim(w.ctx, "other", 10, lease)
		if err != nil {
			t.Fatal(err)
		}
		return len(messages)
	}
	w.enqueue(fleet.OutboxMessage{Subject: "a"}, fleet.OutboxMessage{Subject: "b"})
	if n := claim(0); n != 2 {
		t.Errorf("first claim got %d, want 2", n)
	}
	if n := claim(time.Hour); n != 2 {
		t.Errorf("claim after a lease that is over got %d, want 2", n)
	}
	if n := claim(time.Hour); n != 0 {
		t.Errorf("claim under a lease got %d, want 0", n)
	}
	w.exec(`UPDATE muster.outbox SET claimed_until = clock_timestamp() - interval '1 s' WHERE subject = 'a'`)
	if n := claim(time.Hour); n != 1 {
		t.Errorf("claim with one lease over got %d, want 1", n)
	}
}

func TestOutboxClaimersShare(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	outbox := db.Outbox{DB: w.db}
	const total = 200
	var messages []fleet.OutboxMessage
	for i := range total {
		messages = append(messages, fleet.OutboxMessage{Subject: fmt.Sprint(i)})
	}
	w.enqueue(messages...)

	// A row that another claimer's transaction has locked is passed over.
	lock := connect(t, w.url)
	mustExec(t, lock, `BEGIN`)
	mustExec(t, lock, `SELECT FROM muster.outbox WHERE subject = '0' FOR UPDATE`)

	claimed := make([][]string, 4)
	var g errgroup.Group
	for i := range claimed {
		g.Go(func() error {
			for {
				batch, err := outbox.Claim(w.ctx, "other", 7, time.Hour)
				if err != nil || len(batch) == 0 {
					return err
				}
				for _, m := range batch {
					claimed[i] = append(claimed[i], m.Subject)
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(claimed...)
	slices.Sort(all)
	if len(all) != total-1 || len(slices.Compact(slices.Clone(all))) != total-1 || slices.Contains(all, "0") {
		t.Errorf("%d claimed, %d distinct, want each once but the locked one", len(all), len(slices.Compact(all)))
	}
}

func TestOutboxWakesAfterTheCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	outbox := db.Outbox{DB: w.db}
	awake := func() bool {
		select {
		case <-outbox.Wake():
			return true
		default:
			return false
		}
	}
	w.tx(func(tx *db.Tx) error {
		if err := tx.Enqueue(w.ctx, fleet.OutboxMessage{Subject: "a"}); err != nil {
			return err
		}
		if awake() {
			t.Error("woken before the commit")
		}
		return nil
	})
	if !awake() {
		t.Error("not woken by a commit")
	}
	_ = w.db.InTx(w.ctx, func(tx *db.Tx) error { // its error is what is asked for
		if err := tx.Enqueue(w.ctx, fleet.OutboxMessage{Subject: "b"}); err != nil {
			t.Error(err)
		}
		return fmt.Errorf("rolled back")
	})
	w.target() // no message in it
	if awake() {
		t.Error("woken without a message")
	}
}

func TestOutboxHasALaneForEachStreamAndForHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	outbox := db.Outbox{DB: w.db}
	lanes := map[string]string{
		"trigger": "muster.v1.trigger.sync.acme", "provision": "muster.v1.provision.gpu", "event": "muster.v1.event.runner.online",
		"host": "muster.v1.host.build-01.release", "other": "muster.v1.triggers",
	}
	for _, subject := range lanes {
		w.enqueue(fleet.OutboxMessage{Subject: subject})
	}
	for lane, subject := range lanes {
		messages, err := outbox.Claim(w.ctx, lane, 10, time.Minute)
		if err != nil || len(messages) != 1 || messages[0].Subject != subject {
			t.Errorf("lane %s = %+v, %v, want the message on %s", lane, messages, err, subject)
		}
	}
}

package db_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func TestDeadLetterTakesAnyBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct{ name, body, want string }{
		{"plain", `{"reason":"x"}`, `{"reason":"x"}`},
		{"empty", "", ""},
		{"no UTF-8", "a\xff\xfeb", "a\uFFFDb"},
		{"NUL", "a\x00b", "a\uFFFDb"},
		{"16 KiB", strings.Repeat("x", 16<<10), strings.Repeat("x", 16<<10)},
		{"20 KiB", strings.Repeat("x", 20<<10), strings.Repeat("x", 16<<10)},
		{"20 KiB of two bytes each, off by one", "x" + strings.Repeat("ü", 10<<10), "x" + strings.Repeat("ü", 8<<10-1)},
		{"NUL grows", strings.Repeat("\x00", 16<<10), strings.Repeat("\uFFFD", 16<<10/3)},
	} {
		letter := fleet.DeadLetter{ID: uuid.NewString(), Subject: "s\x00\xff", Body: tt.body, Error: tt.body + "!", Attempts: 1}
		if err := (db.Runs{DB: w.db}).Reject(w.ctx, letter); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		w.tx(func(tx *db.Tx) error {
			got, err := tx.TakeDeadLetter(w.ctx, letter.ID)
			if err != nil {
				return err
			}
			if got.Body != tt.want || !utf8.ValidString(got.Body) || got.Subject != "s\uFFFD\uFFFD" {
				t.Errorf("%s: got %d bytes %.20q of %q, want %d bytes %.20q", tt.name, len(got.Body), got.Body, got.Subject, len(tt.want), tt.want)
			}
			return nil
		})
	}
	w.want("8", `SELECT count(*) FROM api.audit WHERE code = 'TR500E'`)
}

// The trail names the target or the pool that the message was about, as it was
// asked.
func TestDeadTriggerNamesWhatItWasAbout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for subject, want := range map[string]string{
		"muster.v1.trigger.sync.acme":         "acme",
		"muster.v1.trigger.enforce.acme":      "acme",
		"muster.v1.trigger.scale.linux":       "pool linux",
		"muster.v1.trigger.sync.all":          "",
		"muster.v1.trigger.sync.Acme":         "",
		"muster.v1.trigger.sync.acme.more":    "",
		"muster.v1.trigger.dance.acme":        "",
		"muster.v1.github.workflow_job":       "",
		"muster.v1.trigger.housekeep.anybody": "",
	} {
		letter := fleet.DeadLetter{ID: uuid.NewString(), Subject: subject, Error: "e", Attempts: 1}
		if err := (db.Runs{DB: w.db}).Reject(w.ctx, letter); err != nil {
			t.Fatal(err)
		}
		w.want(want, `SELECT concat_ws(' ', target, 'pool ' || (payload->'details'->>'pool')) FROM api.audit
			WHERE payload->'details'->>'dead_letter_id' = $1`, letter.ID)
	}
}

func TestTakeDeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	letter := fleet.DeadLetter{ID: uuid.NewString(), Subject: "s", TriggerID: uuid.NewString(), Error: "e", Attempts: 3}
	if err := (db.Runs{DB: w.db}).Reject(w.ctx, letter); err != nil {
		t.Fatal(err)
	}
	take := func(id string) (fleet.DeadLetter, error) {
		var got fleet.DeadLetter
		err := w.db.InTx(w.ctx, func(tx *db.Tx) error {
			var err error
			got, err = tx.TakeDeadLetter(w.ctx, id)
			return err
		})
		return got, err
	}
	for _, id := range []string{"", "seven", "'; DROP TABLE", uuid.NewString()} {
		if _, err := take(id); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("TakeDeadLetter(%q) = %v, want fleet.ErrNotFound", id, err)
		}
	}
	got, err := take(letter.ID)
	if err != nil || got.TriggerID != letter.TriggerID || got.Attempts != 3 || got.DiedAt.IsZero() {
		t.Errorf("TakeDeadLetter = %+v, %v", got, err)
	}
	if _, err := take(letter.ID); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("TakeDeadLetter again = %v, want fleet.ErrNotFound", err)
	}
}

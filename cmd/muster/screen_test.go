package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// steering has one hidden character of each kind.
const steering = "evil\u202Eyz\x1b]0;x\x07\u2028\u200F\u009b"

func TestNothingHiddenReachesATerminal(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	a := &app{stdout: &screen{to: &out}, stderr: &screen{to: &errs}}
	a.report(errors.New("remove " + steering))
	a.say("about %s", steering)
	a.logger().Info(steering, "name", steering)
	if err := writeTable(a.stdout, []string{"NAME"}, [][]string{{steering}}); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(a.stdout, map[string]string{"name": steering}); err != nil {
		t.Fatal(err)
	}
	list := newJSONList(a.stdout)
	if err := errors.Join(list.add(map[string]string{"name": steering}), list.end()); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{out.String(), errs.String()} {
		if at := strings.IndexAny(text, "\u202E\x1b\x07\u2028\u200F\u009b"); at >= 0 {
			t.Errorf("a hidden character at byte %d of %q", at, text)
		}
	}
	const table = "NAME\nevil yz ]0;x\n"
	if got := out.String(); !strings.HasPrefix(got, table) {
		t.Errorf("table %q, want %q", got, table)
	}
	// JSON is the same document all the same.
	var document map[string]string
	err := json.NewDecoder(strings.NewReader(strings.TrimPrefix(out.String(), table))).Decode(&document)
	if err != nil || document["name"] != steering {
		t.Errorf("json: %q, %v, want %q", document["name"], err, steering)
	}
}

func TestScreenWaitsForTheRestOfACharacter(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &screen{to: &out}
	for _, b := range []byte("ż\tó\n\u202E🐢\xff.") {
		n, err := s.Write([]byte{b})
		if n != 1 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if got := out.String(); got != "ż\tó\n 🐢\uFFFD." {
		t.Errorf("%q", got)
	}
}

package token

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/muster-fleet/muster/fleet"
)

func TestReadTakesWhatTheContractHas(t *testing.T) {
	t.Parallel()
	const id = "0199b1c2-0000-7000-8000-000000000001"
	tests := []struct {
		name, body string
		want       request
	}{
		{
			"the least", `{"target":"acme","kind":"registration"}`,
			request{target: "acme", kind: fleet.TokenRegistration},
		},
		{
			"all of it", ` {"request_id":"` + id + `","v":1,"target":"acme","kind":"removal","demand_id":"d 1/é"}` + "\n",
			request{target: "acme", kind: fleet.TokenRemoval, id: id, echo: id, demandID: "d 1/é"},
		},
		{
			"jit", `{"target":"acme","kind":"jit","runner_name":"r","runner_group":"g","labels":["a","B"],"work_folder":"w"}`,
			request{target: "acme", kind: fleet.TokenJIT, labels: []string{"a", "B"}},
		},
	}
	for _, tt := range tests {
		got, err := read("build-01", []byte(tt.body))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		tt.want.host, tt.want.bodySHA256 = "build-01", hexSum([]byte(tt.body))
		if tt.want.id == "" {
			if uuid.Validate(got.id) != nil || got.echo != got.id {
				t.Errorf("%s: made the ids %q and %q", tt.name, got.id, got.echo)
			}
			got.id, got.echo = "", ""
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(request{})); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestReadRefusesEverythingElse(t *testing.T) {
	t.Parallel()
	with := func(more string) string { return `{"target":"acme","kind":"registration",` + more + `}` }
	tests := []struct {
		name, host, body string
		want             badRequest
	}{
		{"nothing", "h", "", badRequest{badJSON, ""}},
		{"an array", "h", `[]`, badRequest{badJSON, ""}},
		{"null", "h", `null`, badRequest{badJSON, ""}},
		{"half an object", "h", `{"target":"acme"`, badRequest{badJSON, ""}},
		{"no value", "h", `{"target":}`, badRequest{badJSON, ""}},
		{"a value that is none", "h", `{"target":x}`, badRequest{badJSON, ""}},
		{"a number for the name of a field", "h", `{1:"acme"}`, badRequest{badJSON, ""}},
		{"two objects", "h", `{"target":"acme","kind":"registration"}{}`, badRequest{badJSON, ""}},
		{"half a character", "h", with("\"demand_id\":\"\xc3\""), badRequest{badJSON, ""}},
		{"an empty object", "h", `{}`, badRequest{badTarget, ""}},
		{"an unknown field", "h", with(`"host":"other"`), badRequest{badField, "host"}},
		{"a field in other letters", "h", with(`"Target":"other"`), badRequest{badField, "Target"}},
		{"a field twice", "h", with(`"target":"other"`), badRequest{badTwice, "target"}},
		{"null for a field", "h", with(`"demand_id":null`), badRequest{badType, "demand_id"}},
		{"a number for a name", "h", `{"target":7,"kind":"registration"}`, badRequest{badType, "target"}},
		{"text for a version", "h", with(`"v":"1"`), badRequest{badType, "v"}},
		{"another version", "h", with(`"v":2`), badRequest{badVersion, ""}},
		{"an id that is none", "h", with(`"request_id":"7"`), badRequest{badID, "7"}},
		{"an id in braces", "h", with(`"request_id":"{0199b1c2-0000-7000-8000-000000000001}"`), badRequest{badID, "{0199b1c2-0000-7000-8000-000000000001}"}},
		{"a number for an id", "h", with(`"request_id":7`), badRequest{badID, ""}},
		{"a target that is no name", "h", `{"target":"Acme","kind":"registration"}`, badRequest{badTarget, "Acme"}},
		{"an unknown kind", "h", `{"target":"acme","kind":"Registration"}`, badRequest{badKind, "Registration"}},
		{"no kind", "h", `{"target":"acme"}`, badRequest{badKind, ""}},
		{"a line break in demand_id", "h", with(`"demand_id":"a\nb"`), badRequest{badDemand, "a\nb"}},
		{"a long demand_id", "h", with(`"demand_id":"` + strings.Repeat("é", 129) + `"`), badRequest{badDemand, strings.Repeat("é", 129)}},
		{"labels for a registration", "h", with(`"labels":["a"]`), badRequest{badJITField, "labels"}},
		{"no labels, but said so", "h", with(`"labels":[]`), badRequest{badJITField, "labels"}},
		{"sealing", "h", with(`"xkey":"X"`), badRequest{badSealing, ""}},
		{"too much", "h", with(`"demand_id":"` + strings.Repeat(" ", 16<<10) + `"`), badRequest{badSize, ""}},
		{"a host in capitals", "H", with(`"v":1`), badRequest{badHost, "H"}},
		{"a host that is a wildcard", "*", with(`"v":1`), badRequest{badHost, "*"}},
	}
	for _, tt := range tests {
		got, err := read(tt.host, []byte(tt.body))
		var bad *badRequest
		if !errors.As(err, &bad) || *bad != tt.want {
			t.Errorf("%s: read(%.80q) = %v, want %v", tt.name, tt.body, err, &tt.want)
		}
		if uuid.Validate(got.id) != nil || got.echo == "" || got.host != tt.host {
			t.Errorf("%s: cannot be found again: %+v", tt.name, got)
		}
	}
}

func FuzzReadNeverTakesWhatCannotBeRecorded(f *testing.F) {
	f.Add("build-01", []byte(`{"target":"acme","kind":"registration","demand_id":"\u0000"}`))
	f.Add("build-01", []byte(`{"target":"acme","kind":"jit","labels":["\ud800"]}`))
	f.Add("*", []byte(`{`))
	f.Fuzz(func(t *testing.T, host string, body []byte) {
		got, err := read(host, body)
		if err == nil && (!fleet.ValidName(got.host) || !fleet.ValidName(got.target) || strings.ContainsRune(got.demandID, 0)) {
			t.Errorf("read(%q, %q) = %+v", host, body, got)
		}
		if err != nil {
			if s := err.Error(); !utf8.ValidString(s) || strings.ContainsRune(s, 0) || len(s) > 1000 {
				t.Errorf("read(%q, %q): %q does not fit into a record", host, body, s)
			}
		}
		if uuid.Validate(got.id) != nil {
			t.Errorf("read(%q, %q) has the id %q", host, body, got.id)
		}
	})
}

func TestCheckReply(t *testing.T) {
	t.Parallel()
	tests := []struct {
		reply          string
		alone, sharing bool // whether it may go there
	}{
		{"_INBOX_host.build-01.x", true, true},
		{"_INBOX_host.build-01.x.y", true, true},
		{"_INBOX.x", false, true},
		{"_INBOX.x.1", false, true},
		{"", false, false},
		{"_INBOX_host.build-01", false, false},
		{"_INBOX_host.build-01.", false, false},
		{"_INBOX_host.build-01..x", false, false},
		{"_INBOX_host.build-01.*", false, false},
		{"_INBOX_host.build-01.>", false, false},
		{"_INBOX_host.build-01.a b", false, false},
		{"_INBOX_host.build-01.a\r\nPUB x", false, false},
		{"_INBOX_host.build-012.x", false, false},
		{"_INBOX_host.build-02.x", false, false},
		{"_INBOX_hosts.build-01.x", false, false},
		{"_INBOXES.x", false, false},
		{"_INBOX.", false, false},
		{"$JS.API.STREAM.PURGE.X", false, false},
	}
	for _, tt := range tests {
		alone, sharing := checkReply("build-01", tt.reply, false), checkReply("build-01", tt.reply, true)
		if (alone == nil) != tt.alone || (sharing == nil) != tt.sharing {
			t.Errorf("checkReply(%q) = %v, and with a shared inbox %v", tt.reply, alone, sharing)
		}
	}
}

func TestHostOf(t *testing.T) {
	t.Parallel()
	if got := hostOf("muster.v1.token.build-01.issue"); got != "build-01" {
		t.Errorf("hostOf = %q", got)
	}
}

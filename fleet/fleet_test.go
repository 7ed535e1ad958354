package fleet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
)

func TestParseScope(t *testing.T) {
	tests := []struct {
		in   string
		want fleet.Scope // zero: refused
	}{
		{"enterprise/octo", fleet.Scope{Kind: fleet.ScopeEnterprise, Owner: "octo"}},
		{"org/acme", fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}},
		{"org/acme_octo", fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme_octo"}},
		{"repo/acme/widgets.js", fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "widgets.js"}},
		{"repo/acme/.github", fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: ".github"}},
		{"", fleet.Scope{}},
		{"acme", fleet.Scope{}},
		{"org/", fleet.Scope{}},
		{"org/..", fleet.Scope{}},
		{"org/a..b", fleet.Scope{}},
		{"repo/acme/..", fleet.Scope{}},
		{"repo/acme/.", fleet.Scope{}},
		{"repo/acme", fleet.Scope{}},
		{"org/acme/widgets", fleet.Scope{}},
		{"org/ac me", fleet.Scope{}},
		{"org/acme?x=1", fleet.Scope{}},
		{"org/acme#x", fleet.Scope{}},
		{"org/acme%2f", fleet.Scope{}},
		{"user/acme", fleet.Scope{}},
	}
	for _, tt := range tests {
		got, err := fleet.ParseScope(tt.in)
		if got != tt.want || (err == nil) == (tt.want == fleet.Scope{}) {
			t.Errorf("ParseScope(%q) = %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
		if err == nil && got.String() != tt.in {
			t.Errorf("ParseScope(%q).String() = %q", tt.in, got.String())
		}
	}
}

func TestWebURL(t *testing.T) {
	org := fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}
	tests := []struct {
		api   string
		scope fleet.Scope
		want  string
	}{
		{fleet.DefaultAPIURL, org, "https://github.com/acme"},
		{"https://ghes.example.com/api/v3", fleet.Scope{Kind: fleet.ScopeEnterprise, Owner: "octo"}, "https://ghes.example.com/enterprises/octo"},
		{"https://ghes.example.com:8443/api/v3", fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "widgets"}, "https://ghes.example.com:8443/acme/widgets"},
		{"https://api.octo.ghe.com", org, "https://octo.ghe.com/acme"},
		{"https://API.github.com", org, "https://github.com/acme"},
		{"https://api.github.com:443/", org, "https://github.com/acme"},
		{"https://api.ghes.example.com", org, "https://ghes.example.com/acme"},
		{"https://api.ghes.example.com:8443", org, "https://ghes.example.com:8443/acme"},
		{"https://api.ghes.example.com/api/v3", org, "https://api.ghes.example.com/acme"},
		{"https://gateway/ghe/api/v3", org, "https://gateway/ghe/acme"},
		{"https://gateway/GHE/API/v3/", org, "https://gateway/GHE/acme"},
		{"http://ghes.internal", org, "http://ghes.internal/acme"},
		{"https://gateway/ghe", org, ""},
		{"https://eu.api.example.com", org, ""},
		{"http://127.0.0.1:9000/api/v3", org, "http://127.0.0.1:9000/acme"},
		{"ghes.example.com", org, ""},
	}
	for _, tt := range tests {
		got, err := fleet.Target{Name: "t", Scope: tt.scope, APIURL: tt.api}.WebURL()
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("WebURL(%s, %s) = %q, %v, want %q", tt.api, tt.scope, got, err, tt.want)
		}
	}
}

func TestWebURLOverridesWhatIsDerived(t *testing.T) {
	target := fleet.Target{Name: "t", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}, APIURL: "https://gateway/ghe", Web: "https://ghes.example.com/"}
	if got, err := target.WebURL(); err != nil || got != "https://ghes.example.com/acme" {
		t.Errorf("WebURL = %q, %v", got, err)
	}
}

func TestAddressesAreComparedAsAddresses(t *testing.T) {
	const plain = "https://ghes.example.com/api/v3"
	for address, same := range map[string]bool{
		plain: true, "HTTPS://GHES.example.com/api/v3": true, "https://ghes.example.com:443/api/v3": true, "https://ghes.example.com/api/v3/": true,
		"https://ghes.example.com:8443/api/v3": false, "http://ghes.example.com/api/v3": false, "https://ghes.example.com:80/api/v3": false,
		"https://example.com/api/v3": false, "https://ghes.example.com/": false,
	} {
		if got := fleet.SameAddress(plain, address); got != same {
			t.Errorf("SameAddress(%s, %s) = %t, want %t", plain, address, got, same)
		}
	}
	if !fleet.SameAddress("http://[::1]:80/", "http://[::1]") || fleet.SameAddress("http://[::1]:81", "http://[::1]") {
		t.Error("the port of an IPv6 address is not read as one")
	}
}

func TestSecretNeverPrintsItself(t *testing.T) {
	const value = "AABBCCsecret"
	s := fleet.NewSecret(value)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", struct{ S fleet.Secret }{s})
		fmt.Fprintf(&out, verb+"\n", &s)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "secret", s, "in", struct{ S fleet.Secret }{s})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "secret", s, "in", struct{ S fleet.Secret }{s})
	if err := json.NewEncoder(&out).Encode(map[string]any{"s": s, "in": struct{ S fleet.Secret }{s}}); err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{value, fmt.Sprintf("%x", value)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the value escaped:\n%s", out.String())
		}
	}
	if s.Reveal() != value {
		t.Errorf("Reveal() = %q, want %q", s.Reveal(), value)
	}
}

func TestAuditRegistryIsOneToOne(t *testing.T) {
	form := regexp.MustCompile(`^[A-Z]{2}[0-9]{3}[IWE]$`)
	numbers, events := map[string]string{}, map[string]string{}
	for _, k := range fleet.AuditKinds {
		if !form.MatchString(string(k.Code)) {
			t.Errorf("code %q: want two letters, three digits and I, W or E", k.Code)
			continue
		}
		event := k.Action + "/" + string(k.Outcome)
		number := string(k.Code[:5])
		if other, taken := numbers[number]; taken {
			t.Errorf("number %s stands for %s and for %s", number, other, event)
		}
		if other, taken := events[event]; taken {
			t.Errorf("%s has the numbers %s and %s", event, other, number)
		}
		numbers[number], events[event] = event, number
		if k.Meaning == "" {
			t.Errorf("code %s has no meaning", k.Code)
		}
	}
}

func TestAuditEventValid(t *testing.T) {
	whole := fleet.AuditEvent{
		Code: fleet.AuditDeleteDone, Actor: fleet.System, Target: "acme", RunnerID: 1, Policy: "reap", Reason: "matched",
		Details: map[string]any{"action_id": "x"},
	}
	tests := []struct {
		name   string
		change func(*fleet.AuditEvent)
		want   string // part of the error; empty: valid
	}{
		{"whole", func(*fleet.AuditEvent) {}, ""},
		{"unknown code", func(e *fleet.AuditEvent) { e.Code = "XX999I" }, "registry"},
		{"no actor", func(e *fleet.AuditEvent) { e.Actor = fleet.Actor{} }, "actor"},
		{"no runner", func(e *fleet.AuditEvent) { e.RunnerID = 0 }, "runner_id"},
		{"no detail", func(e *fleet.AuditEvent) { e.Details = nil }, "details.action_id"},
	}
	for _, tt := range tests {
		e := whole
		tt.change(&e)
		err := e.Valid()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: Valid() = %v, want %q", tt.name, err, tt.want)
		}
	}
}

package token

import (
	"testing"

	"github.com/muster-fleet/muster/fleet"
)

func TestAuthorise(t *testing.T) {
	t.Parallel()
	registration, jit := []fleet.TokenKind{fleet.TokenRegistration}, []fleet.TokenKind{fleet.TokenJIT}
	grants := []Grant{
		{Hosts: []string{"build-01"}, Targets: []string{"acme"}, Kinds: registration, PerHour: 1},
		{Hosts: []string{"build-01", "build-02"}, Targets: []string{"acme", "octo"}, Kinds: registration, PerHour: 2},
		{HostPrefix: "gpu-", Targets: []string{"acme"}, Kinds: jit, Labels: []string{"gpu", "linux"}, PerHour: 3},
		{Targets: []string{"acme"}, Kinds: registration, PerHour: 4}, // of nobody
		{Hosts: []string{"a.*|.*"}, HostPrefix: "^", Targets: []string{"acme"}, Kinds: registration, PerHour: 5},
	}
	tests := []struct {
		name string
		r    request
		want int // PerHour of the grant; 0: none
	}{
		{"the first grant decides", request{host: "build-01", target: "acme", kind: fleet.TokenRegistration}, 1},
		{"the next where the first does not cover it", request{host: "build-01", target: "octo", kind: fleet.TokenRegistration}, 2},
		{"another host", request{host: "build-02", target: "acme", kind: fleet.TokenRegistration}, 2},
		{"an exact name is no prefix", request{host: "build-011", target: "acme", kind: fleet.TokenRegistration}, 0},
		{"a prefix", request{host: "gpu-7", target: "acme", kind: fleet.TokenJIT, labels: []string{"GPU"}}, 3},
		{"the prefix itself", request{host: "gpu-", target: "acme", kind: fleet.TokenJIT}, 3},
		{"a prefix in the middle", request{host: "x-gpu-7", target: "acme", kind: fleet.TokenJIT}, 0},
		{"a kind that is not named", request{host: "gpu-7", target: "acme", kind: fleet.TokenRegistration}, 0},
		{"a label that is not named", request{host: "gpu-7", target: "acme", kind: fleet.TokenJIT, labels: []string{"gpu", "root"}}, 0},
		{"a target that is not named", request{host: "gpu-7", target: "octo", kind: fleet.TokenJIT}, 0},
		{"a grant without hosts", request{host: "other", target: "acme", kind: fleet.TokenRegistration}, 0},
		{"no host", request{target: "acme", kind: fleet.TokenRegistration}, 0},
	}
	for _, tt := range tests {
		got, ok := authorise(grants, tt.r)
		if got.PerHour != tt.want || ok != (tt.want != 0) {
			t.Errorf("%s: authorise = %+v, %v, want the grant with PerHour %d", tt.name, got, ok, tt.want)
		}
	}
}

func TestGrantsOfDifferentReachHaveDifferentLocks(t *testing.T) {
	t.Parallel()
	one := Grant{Hosts: []string{"a", "b"}, Targets: []string{"t"}}
	other := Grant{Hosts: []string{"a"}, HostPrefix: "b", Targets: []string{"t"}}
	if one.lock() == other.lock() {
		t.Error("both have the same lock")
	}
	edited := one
	edited.MaxLive = 7
	if one.lock() != edited.lock() {
		t.Error("another limit makes another lock")
	}
}

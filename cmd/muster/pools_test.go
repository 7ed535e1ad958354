package main

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

func TestAFindingIsToldAsItIs(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	unserved := func(more fleet.Evidence) fleet.Finding {
		detail := fleet.Evidence{"jobs": 3, "repository": "acme/site"}
		for key, value := range more {
			detail[key] = value
		}
		return fleet.Finding{Kind: fleet.FindingUnservedJob, Subject: "linux,x64", Since: since, Detail: detail}
	}
	one := fleet.Evidence{"jobs": 1, "hosts": 1, "they_lack": "x64"}
	for _, tt := range []struct {
		finding   fleet.Finding
		has, lack string
	}{
		{unserved(nil), "which no pool and no other runner has, the first of acme/site", "lacks"},
		{unserved(fleet.Evidence{"nearest_pool": "linux", "it_lacks": "x64"}), "no pool and no other runner has, the first of acme/site; pool linux lacks only x64", "closed"},
		{unserved(fleet.Evidence{"closed_pool": "linux"}), "which pool linux has; its runner groups are closed to acme/site", "no pool"},
		{unserved(fleet.Evidence{"jobs": 1}), "1 workflow job wants linux,x64 since ", "jobs"},
		{fleet.Finding{Kind: fleet.FindingMislabelledHost, Subject: "linux", Detail: one}, "1 host of pool linux was registered without x64", "1 hosts"},
		{fleet.Finding{Kind: fleet.FindingClaimedRunner, Subject: "r1", Since: since, Detail: fleet.Evidence{"claimed_by": "h9", "host": "r1"}},
			"runner r1 of host r1 is listed by h9 too since ", "neither"},
		{fleet.Finding{Kind: fleet.FindingClaimedRunner, Subject: "r1", Since: since, Detail: fleet.Evidence{"claimed_by": "h9"}},
			"runner r1 is listed by h9 since ", "too"},
		{fleet.Finding{Kind: fleet.FindingUnlabelledJob, Subject: "acme/site", Since: since, Detail: one}, "1 workflow job of acme/site asks for no label since ", "jobs"},
	} {
		found, mend := tellFinding(tt.finding)
		if mend == "" {
			t.Errorf("%q has no mend", found)
		}
		if got := found + "; " + mend; !strings.Contains(got, tt.has) || strings.Contains(got, tt.lack) {
			t.Errorf("%q, want %q in it and not %q", got, tt.has, tt.lack)
		}
	}
}

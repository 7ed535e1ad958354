package main

import (
	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// roundsWarn is how often in a row hosts may be asked for and not come before
// it is worth a line: once is a host that failed, and is asked for again.
const roundsWarn = 2

// mostFindings is how many findings of a target doctor tells of.
const mostFindings = 10

// judgeLeases says which pools ask for hosts again and again and get none.
func judgeLeases(s *sheet, pools []string, leases map[string]db.LeaseCounts) {
	well := true
	for _, pool := range pools {
		c := leases[pool]
		if c.Rounds < roundsWarn {
			continue
		}
		well = false
		s.add(levelWarn, "leases", "see what muster.v1.provision."+pool+" sets off, and api.leases for how far its hosts came; boot_deadline may be too short",
			"hosts of pool %s were asked for %d times in a row, and none came online: %s ran out, the last at %s",
			pool, c.Rounds, counted(c.Expired, "lease", "leases"), moment(c.LastDeadline))
	}
	if well {
		s.ok("leases", "no pool waits in vain for hosts")
	}
}

// judgeFindings tells what is wrong with a target's workflow jobs and hosts.
func judgeFindings(s *sheet, target string, all []fleet.Finding) {
	n := 0
	for _, f := range all {
		if f.Target != target {
			continue
		}
		if n++; n <= mostFindings {
			found, mend := tellFinding(f)
			s.add(levelWarn, "findings", mend, "%s", found)
		}
	}
	switch {
	case n == 0:
		s.ok("findings", "none")
	case n > mostFindings:
		s.add(levelWarn, "findings", "see api.findings", "%d more", n-mostFindings)
	}
}

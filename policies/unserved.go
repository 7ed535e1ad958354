package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// unservedJobs are queued jobs that want the same.
type unservedJobs struct {
	labels []string
	jobs   int
	oldest fleet.WorkflowJob
	closed string // the pool that has the labels and does not take jobs of the oldest's repository
}

func (u *unservedJobs) add(job AlikeJobs, closed string) {
	if u.jobs == 0 || waitsLonger(job.WorkflowJob, u.oldest) {
		u.oldest, u.closed = job.WorkflowJob, closed
	}
	u.jobs += job.Count
}

// waitsLonger is an order in which no two jobs of a target are alike; one of
// which it is not told when it was queued comes last.
func waitsLonger(a, b fleet.WorkflowJob) bool {
	if a.QueuedAt.Equal(b.QueuedAt) {
		return a.ID < b.ID
	}
	return b.QueuedAt.IsZero() || !a.QueuedAt.IsZero() && a.QueuedAt.Before(b.QueuedAt)
}

func (u *unservedJobs) finding(m *Matcher, target string) fleet.Finding {
	f := fleet.Finding{
		Kind: fleet.FindingUnservedJob, Target: target, Subject: named(u.labels), Since: u.oldest.QueuedAt,
		Detail: fleet.Evidence{"jobs": u.jobs, "repository": u.oldest.Repository},
	}
	if len(u.labels) == 0 {
		f.Kind, f.Subject = fleet.FindingUnlabelledJob, u.oldest.Repository
		return f
	}
	if u.closed != "" {
		f.Detail["closed_pool"] = u.closed
		return f
	}
	if pool, lacks := m.nearest(target, u.labels); pool != "" {
		f.Detail["nearest_pool"], f.Detail["it_lacks"] = pool, named(lacks)
	}
	return f
}

// maxNamed is how much of labels is named, in bytes: a subject stands in an index,
// which holds some 2,700.
const maxNamed = 512

// named names labels. Whoever writes workflows says how many a job asks for, and
// how long they are: of too many it names the first, and tells them from others
// by a hash.
func named(labels []string) string {
	text := strings.Join(labels, ",")
	if len(text) <= maxNamed {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return fleet.CleanText(text, maxNamed) + "… " + hex.EncodeToString(sum[:8])
}

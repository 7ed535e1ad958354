package github

import (
	"net/http"
	"time"
)

// Priority is what a request is worth when a credential's limits do not leave
// room for all. The zero Priority is the lowest.
type Priority int

// The priorities, from the first to wait to the last.
const (
	PrioritySweep   Priority = iota // what can be asked another day
	PrioritySync                    // the pages of a listing
	PriorityConfirm                 // whether a runner that a listing lacks is gone
	PrioritySafety                  // the look before a deletion, and the deletion
	PriorityToken                   // a host waits to register
)

// ranks says what each priority may use of a credential. Each column rises with
// the priority: what stops a request stops all that are worth less.
var ranks = [...]struct {
	name string
	// floor is the part of the hour's requests that is left to higher
	// priorities, in percent.
	floor int
	// share is the part of each secondary limit that may be used, in percent.
	share int
	// inFlight is how many requests there may be under way at once, of all
	// priorities, for one more to be sent. GitHub allows a credential 100, which
	// is enough for two processes; more of them divide it.
	inFlight int
	// queue is how long a request waits for others: for a minute to pass where
	// it is a part of something long, less where somebody else's time runs.
	queue time.Duration
}{
	PrioritySweep:   {"sweep", 20, 70, 24, longQueue},
	PrioritySync:    {"sync", 10, 80, 32, longQueue},
	PriorityConfirm: {"confirm", 5, 85, 32, longQueue},
	PrioritySafety:  {"safety", 2, 95, 40, shortQueue},
	PriorityToken:   {"token", 0, 100, mostInFlight, shortQueue},
}

const (
	mostInFlight = 48
	longQueue    = 70 * time.Second // more than it takes the points of a minute to come back
	shortQueue   = 10 * time.Second
	// deleteQueue is short: a DELETE follows a look at the runner, which grows
	// old meanwhile.
	deleteQueue = 2 * time.Second
	// pauseQueue is how long a request of any priority waits for the end of a
	// pause or of the hour. What takes longer is for the caller to come back to.
	pauseQueue = 10 * time.Second
)

// String is the name as metrics have it.
func (p Priority) String() string { return ranks[p].name }

func (o operation) priority() Priority {
	switch o.op {
	case OpRegistrationToken, OpRemovalToken, OpInstallationToken:
		return PriorityToken
	case OpRunner, OpRemoveRunner, OpCanList:
		return PrioritySafety
	case OpConfirm, OpRunnerNamed:
		return PriorityConfirm
	case OpRunners:
		return PrioritySync
	}
	return PrioritySweep
}

// patience is how long the operation waits for others, and for a pause to end.
func (o operation) patience() (queue, pause time.Duration) {
	if o.method == http.MethodDelete {
		return deleteQueue, deleteQueue
	}
	queue = ranks[o.priority()].queue
	return queue, min(queue, pauseQueue)
}

// route names the endpoint as GitHub counts requests: by template, whatever the
// scope's name and the method.
func (o operation) route() string {
	switch o.op {
	case OpRunners, OpCanList, OpRunnerNamed, OpProbe:
		return "runners"
	case OpRunner, OpConfirm, OpRemoveRunner:
		return "runner"
	}
	return o.op
}

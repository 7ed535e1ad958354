package fleet

import "time"

// Known is a fact about somebody else's server. The zero Known is one that
// nobody has found out yet.
type Known int8

const (
	NotKnown Known = iota
	Yes
	No
)

// KnownAs is what has been found out.
func KnownAs(yes bool) Known {
	if yes {
		return Yes
	}
	return No
}

// Answer is the fact as JSON and SQL have it: nil while it is not known.
func (k Known) Answer() *bool {
	if k == NotKnown {
		return nil
	}
	yes := k == Yes
	return &yes
}

// String is yes, no or "not known yet".
func (k Known) String() string {
	switch k {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "not known yet"
}

// Capabilities is what a target's server was found to be able to do. The zero
// Capabilities is that nobody has looked.
type Capabilities struct {
	// ServerVersion is that of a GitHub Enterprise Server; empty on github.com,
	// and where ProbedAt is zero.
	ServerVersion string
	JIT           Known // runners can be configured just in time
	NameFilter    Known // a listing can be asked for one name
	RunnerGroups  Known // runners show their group
	Ephemeral     Known // runners show whether they are ephemeral
	Version       Known // runners show the version of their program
	DeleteBusy    int   // status that the DELETE of a busy runner gets, 422 or 500; 0: not known yet
	ProbedAt      time.Time
}

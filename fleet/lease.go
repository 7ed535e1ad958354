package fleet

import "time"

// LeaseState is how far a host that was asked for has come.
type LeaseState string

const (
	LeaseRequested  LeaseState = "requested"
	LeaseClaimed    LeaseState = "claimed"    // a host has asked for a token with it
	LeaseRegistered LeaseState = "registered" // there is a runner, not online yet
	LeaseOnline     LeaseState = "online"
	LeaseExpired    LeaseState = "expired" // not online by its deadline
)

// Lease is a request for one host of a pool.
type Lease struct {
	RequestID   string // UUID: of the message too, and the demand_id of the host's request for a token
	Pool        string
	Target      string
	Host        string // who claimed it; empty: nobody has
	RunnerID    int64  // 0: none yet
	State       LeaseState
	Attempt     int // from 1, counted up while no host of the pool comes online
	RequestedAt time.Time
	Deadline    time.Time // by which its runner has to be online
}

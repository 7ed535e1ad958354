// Package storm is a test of everything at once. Replicas of muster live on one
// simulated GitHub and one Postgres through hours of virtual time in which
// runners come and go, GitHub fails in every way that the simulator knows, and
// processes are killed between any two requests. What must hold all the same is
// judged from the simulator's log and truth, and from the record: never from
// what muster says of itself.
//
// TestStorm is about everything; TestTruth is about runners at work that GitHub
// takes for dead or for idle, and says within what nobody loses a workflow job,
// whether policies, pools or operators want them gone.
//
// A life is drawn from a seed. One that fails is made smaller and printed with
// the seed:
//
//	go test ./internal/storm -rapid.seed=SEED
//	go test ./internal/storm -rapid.checks=1000
//
// The world has a clock, a simulator, targets, replicas, a stream store that fills
// and is freed again, and doors by which work gets to the replicas. Further doors and witnesses are further files.
package storm

// Package demand takes in what others say of the fleet: GitHub's webhooks, over
// HTTP or over NATS, of workflow jobs, and the heartbeats of hosts.
//
// None of it is trusted to be complete, in order or told once. Reconciler
// compares the workflow jobs with what GitHub says when it is asked.
package demand

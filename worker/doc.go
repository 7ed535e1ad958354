// Package worker is the engine that turns triggers into runs: it routes a
// trigger to its job, bounds the time, catches panics, keeps the record of the
// run, and makes of the outcome an acknowledgement, a retry or a dead letter.
// It knows no job.
package worker

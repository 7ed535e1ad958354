// Package queue is everything that speaks NATS: the connection, the streams,
// publishing, consuming with acknowledgement, answering requests, and the
// Relay that empties the outbox.
//
// Postgres is the record; NATS is the transport and the way in. So nothing
// here promises that a message arrives exactly once: it arrives at least once,
// with an id that is the same each time, and the run's row under that id is
// what makes the second time harmless.
package queue

package storm_test

import (
	"io"
	"net"
)

// slowBodies is more than there are places for signed deliveries.
const slowBodies = 40

// slowHead begins a delivery whose body never comes. Its sender has no secret.
const slowHead = "POST /webhooks/github?via=http HTTP/1.1\r\nHost: muster\r\nContent-Type: application/json\r\n" +
	"X-GitHub-Event: workflow_job\r\nX-Hub-Signature-256: sha256=00\r\nContent-Length: 1000\r\n\r\n{"

// slow is somebody who occupies the endpoint of webhooks: each connection has sent
// the head and one byte of a body (issue 10).
type slow struct {
	address string
	conns   []net.Conn
}

// drawSlowBodies draws whether a life has somebody who occupies its endpoint.
func (w *world) drawSlowBodies(address string) {
	if !w.oneIn(2, "slow bodies") {
		return
	}
	w.jobs.slow = &slow{address: address}
	w.Cleanup(w.jobs.slow.hangUp)
	w.tally.count("lives with slow bodies of nobody's")
}

// occupy sends slow bodies anew: those of the round before may have been given up,
// by a clock that is not the life's.
func (w *world) occupy() {
	s := w.jobs.slow
	if s == nil {
		return
	}
	s.hangUp()
	for range slowBodies {
		conn, err := net.Dial("tcp", s.address)
		w.ok(err)
		s.conns = append(s.conns, conn)
		_, err = io.WriteString(conn, slowHead)
		w.ok(err)
	}
	w.tally.count("rounds under slow bodies of nobody's")
}

// hangUp ends the connections.
func (s *slow) hangUp() {
	for _, conn := range s.conns {
		_ = conn.Close() // the server may have been faster
	}
	s.conns = nil
}

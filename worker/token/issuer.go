// Package token hands registration and removal tokens to provisioning hosts
// that ask for them over NATS.
//
// No audit row, no token: the intent is committed before GitHub is asked, and
// the outcome before the answer is sent. A token is in no row, no message but
// the answer, no log line and no error; a part of its hash stands for it.
package token

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

const (
	// group is the queue group: of all replicas, one gets a request.
	group = "muster"
	// workers is how many requests are handled at once. With the pages that a
	// sync has in flight it stays below the 100 requests at once that GitHub
	// allows.
	workers = 64
	// workLimit is how long a request may take until its outcome is known: one
	// look at the clock, the intent, GitHub. A stop waits that long for what
	// runs, and outcomeLimit for writing it down.
	workLimit    = clockLimit + intentLimit + mintLimit
	clockLimit   = 2 * time.Second
	intentLimit  = 3 * time.Second
	mintLimit    = 15 * time.Second
	outcomeLimit = 5 * time.Second
	// perHost is how many requests of one host are handled at once: a host that
	// asks without end leaves the other workers, and connections to Postgres, to
	// others.
	perHost = 4
	// overloadPause is when to ask again where too many ask at once.
	overloadPause = time.Second
	// unsafePause is when to ask again where NATS is not to be trusted: a person
	// has to see to it.
	unsafePause = 30 * time.Second
	// lateNotes is how many events may wait that are written when there is time,
	// and lateLimit how long a stop waits for them.
	lateNotes = 64
	lateLimit = 2 * time.Second
)

// server is the side of queue.Conn that answers requests.
type server interface {
	Serve(ctx context.Context, s queue.Service, handle func(context.Context, queue.Request)) error
	// Safe says why no token may go out now: somebody could read along, or it is
	// not known. It looks where something may have changed.
	Safe(ctx context.Context) error
	// Captures tells of streams that kept tokens, each once.
	Captures() <-chan queue.Capture
}

// minter is what an Issuer may do at GitHub.
type minter interface {
	RegistrationToken(ctx context.Context, scope fleet.Scope) (fleet.Token, error)
	RemovalToken(ctx context.Context, scope fleet.Scope) (fleet.Token, error)
}

// Target is a target with what it takes to mint tokens for it.
type Target struct {
	fleet.Target
	GitHub minter
	// ShareRegistration hands one registration token to many hosts, until it
	// is good for less than MinValidity, which a host needs to boot.
	ShareRegistration bool
	MinValidity       time.Duration
}

// Issuer answers requests for tokens. It is used by pointer and safe for
// concurrent use. All exported fields but Observe are required.
type Issuer struct {
	Log  *slog.Logger
	DB   *db.DB
	Conn server
	// Now is the clock that all replicas share: Postgres's. Where it cannot be
	// read, nothing is handed out.
	Now func(context.Context) (time.Time, error)
	// Targets and Grants are the configuration as it is now; Targets by name.
	Targets func() map[string]Target
	Grants  func() []Grant
	// AllowSharedInbox lets answers go to _INBOX.> as well, which every client
	// of a NATS without permissions can read.
	AllowSharedInbox bool
	// Observe hears of every request: its kind where it was read, and "issued",
	// "repeated", the name of the refusal, "bad_reply" or "turned_away". It is
	// called from many goroutines at once. Nil: nobody listens.
	Observe func(kind, outcome string, took time.Duration)
	// Ready is called once requests are answered. Nil: nobody waits for that.
	Ready func()

	turns    turns
	shared   shared
	refusals refusals
}

// Serve answers requests until ctx ends and those that run then have their
// outcome, 27 s later at most. An error means that it could not go on.
func (i *Issuer) Serve(ctx context.Context) error {
	late := make(chan fleet.AuditEvent, lateNotes)
	writing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { i.writeLate(writing, late, stop) })
	writer.Go(func() { i.tellExposed(writing, stop) })
	writer.Go(func() { i.sumUp(writing, stop) })
	defer writer.Wait()
	defer func() {
		close(stop)
		time.AfterFunc(lateLimit, cancel)
	}()
	service := queue.Service{
		Subject: queue.TokenSubject("*"), Group: group, Workers: workers, Ready: i.Ready,
		PerKey: perHost, Key: func(r queue.Request) string { return keyOf(hostOf(r.Subject), "").host },
		Overflow: func(r queue.Request) { i.turnAway(ctx, r, "too many requests wait", late) },
	}
	return i.Conn.Serve(ctx, service, func(work context.Context, r queue.Request) {
		if ctx.Err() != nil {
			i.turnAway(work, r, "stopping", late) // it was waiting for a worker
			return
		}
		i.handle(work, r)
	})
}

func (i *Issuer) handle(ctx context.Context, r queue.Request) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, workLimit)
	defer cancel()
	host := hostOf(r.Subject)
	if err := checkReply(host, r.Reply, i.AllowSharedInbox); err != nil {
		i.badReply(ctx, host, err, began)
		return
	}
	q, err := read(host, r.Body)
	var bad *badRequest
	if errors.As(err, &bad) {
		i.send(ctx, r, i.badRequest(ctx, q, bad), began)
		return
	}
	if no := i.unsafe(ctx, q); no != nil {
		i.send(ctx, r, *no, began)
		return
	}
	if no := i.notGranted(q); no != nil && i.countOnly(no.sum()) {
		no.counted = true
		i.send(ctx, r, *no, began)
		return
	}
	i.send(ctx, r, i.decide(ctx, q), began)
}

// decide gives the answer to the same request before, or decides the request.
func (i *Issuer) decide(ctx context.Context, q request) answer {
	for {
		now, err := i.clock(ctx)
		if err != nil {
			return q.refused(auditUnavailable, err.Error())
		}
		given, other, repeated := i.turns.take(q, now)
		switch {
		case repeated:
			return given.again()
		case other == nil:
			return i.inTurn(ctx, q, now)
		}
		<-other.done // within workLimit and outcomeLimit
		if other.bodySHA256 == q.bodySHA256 {
			return other.answer.again()
		}
		// Another body under the same id: the record now has the first one.
	}
}

func (i *Issuer) inTurn(ctx context.Context, q request, now time.Time) answer {
	a := q.refused(auditUnavailable, "broken off")
	defer func() { i.turns.end(q, a) }()
	a = i.issue(ctx, q, now)
	return a
}

func (i *Issuer) clock(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, clockLimit)
	defer cancel()
	now, err := i.Now(ctx)
	if err == nil {
		i.refusals.alive(time.Now())
	}
	return now, err
}

// send answers and says so in the log: once per request that was decided. A refusal
// that is only counted has no line.
func (i *Issuer) send(ctx context.Context, r queue.Request, a answer, began time.Time) {
	i.observe(a.request.kind, a.outcome(), began)
	if a.counted || a.repeated {
		i.respond(ctx, r, a)
		return
	}
	log := i.Log.With("host", printable(a.request.host), "target", printable(a.request.target), "kind", printable(string(a.request.kind)),
		"request", a.request.id, "took", time.Since(began))
	if a.issued() {
		log.InfoContext(ctx, "token issued", "verdict", a.outcome())
	} else {
		log.WarnContext(ctx, "token refused", "verdict", a.outcome(), "reason", a.reason)
	}
	i.respond(ctx, r, a)
}

// respond sends an answer. A token goes out only where NATS is safe at that very
// moment: a stream may have been made while GitHub was asked. The repeat of the
// request gets the token once NATS is safe again.
func (i *Issuer) respond(ctx context.Context, r queue.Request, a answer) {
	if a.issued() {
		if no := i.unsafe(ctx, a.request); no != nil {
			i.Log.WarnContext(ctx, "token held back", "host", printable(a.request.host), "request", a.request.id, "reason", no.reason)
			a = *no
		} else {
			i.turns.sent(a.request)
		}
	}
	body, headers, err := a.encode()
	if err == nil {
		err = r.Respond(body, headers)
	}
	if err != nil {
		// The host asks again and gets the same answer.
		i.Log.WarnContext(ctx, "answer not sent", "host", printable(a.request.host), "err", err)
	}
}

// badRequest is an event of the trail and nothing else.
func (i *Issuer) badRequest(ctx context.Context, q request, bad *badRequest) answer {
	a := q.refused(badRequestRefusal, bad.Error())
	a.refusal.description = bad.refusal
	a.counted = !i.noteRefusal(ctx, q.host, a.refusal.name, fleet.AuditEvent{
		Code: fleet.AuditTokenBadRequest, Host: printable(q.host), Reason: bad.Error(),
		Details: map[string]any{"request_id": q.id},
	})
	return a
}

// badReply records a request that gets no answer.
func (i *Issuer) badReply(ctx context.Context, host string, why error, began time.Time) {
	i.observe("", badReplyName, began)
	if i.noteRefusal(ctx, host, badReplyName, badReplyEvent(host, why)) {
		i.Log.WarnContext(ctx, "token request not answered", "host", printable(host), "reason", why.Error())
	}
}

// badReplyName is what metrics and sums call a request that gets no answer.
const badReplyName = "bad_reply"

func badReplyEvent(host string, why error) fleet.AuditEvent {
	return fleet.AuditEvent{Code: fleet.AuditTokenBadReply, Host: printable(host), Reason: why.Error()}
}

// noteRefusal writes the event of a refusal, or only counts it where the host has
// had its ten of the minute; it reports whether it has written.
func (i *Issuer) noteRefusal(ctx context.Context, host, name string, e fleet.AuditEvent) bool {
	s := sumOf(host, name, e)
	if !i.refusals.keep(s.key, 0, time.Now()) {
		i.refusals.count(s, time.Now())
		return false
	}
	i.note(ctx, e)
	return true
}

// sumOf begins the sum of refusals that are events of the trail and nothing else.
func sumOf(host, name string, e fleet.AuditEvent) refusalSum {
	return refusalSum{key: keyOf(host, name), code: e.Code, why: e.Reason, row: fleet.TokenRequest{Host: e.Host}}
}

// writeLate writes the events that had no time, one after another, until stop
// and until none is left.
func (i *Issuer) writeLate(ctx context.Context, late <-chan fleet.AuditEvent, stop <-chan struct{}) {
	for {
		select {
		case e := <-late:
			i.note(ctx, e)
		case <-stop:
			for range len(late) {
				i.note(ctx, <-late)
			}
			return
		}
	}
}

// note writes an event on which nothing depends: nobody was given anything.
func (i *Issuer) note(ctx context.Context, e fleet.AuditEvent) {
	e.Actor = fleet.Actor{Type: fleet.ActorHost, Name: e.Host}
	at, err := i.clock(ctx)
	if err == nil {
		e.At = at
		err = i.inTx(ctx, func(ctx context.Context, tx *db.Tx) error { return tx.Audit(ctx, e) })
	}
	if err != nil {
		i.Log.WarnContext(ctx, "audit event not written", "host", e.Host, "reason", e.Reason, "err", err)
	}
}

// turnAway answers what comes while all workers are busy and enough is
// waiting, and what was waiting when the stop began. It is a 503 and not a 429,
// since no row tells of it: the writing of rows is what cannot keep up.
func (i *Issuer) turnAway(ctx context.Context, r queue.Request, reason string, late chan<- fleet.AuditEvent) {
	began := time.Now()
	host := hostOf(r.Subject)
	if err := checkReply(host, r.Reply, i.AllowSharedInbox); err != nil {
		// A flood must not hide whoever wants the answers of others.
		i.observe("", badReplyName, began)
		e := badReplyEvent(host, err)
		s := sumOf(host, badReplyName, e)
		if !i.refusals.keep(s.key, 0, began) {
			i.refusals.count(s, began)
			return
		}
		select {
		case late <- e:
		default:
			i.Log.WarnContext(ctx, "audit event not written", "host", printable(host), "reason", err.Error())
		}
		return
	}
	q, _ := read(host, r.Body) // what is wrong with it, it will hear when there is time
	a := q.refused(auditUnavailable, reason)
	a.retryAfter = overloadPause
	i.observe(q.kind, turnedAway, began)
	s := refusalSum{key: keyOf(host, turnedAway), why: reason, row: fleet.TokenRequest{Host: printable(host)}}
	if i.refusals.keep(s.key, 0, began) {
		i.Log.WarnContext(ctx, "token refused", "host", printable(host), "verdict", a.refusal.name, "reason", a.reason)
	} else {
		i.refusals.count(s, began)
	}
	i.respond(ctx, r, a)
}

// turnedAway is what metrics and sums call a request for which nobody had time.
const turnedAway = "turned_away"

func (i *Issuer) observe(kind fleet.TokenKind, outcome string, began time.Time) {
	if i.Observe == nil {
		return
	}
	switch kind {
	case fleet.TokenRegistration, fleet.TokenRemoval, fleet.TokenJIT:
	default:
		kind = "" // whatever was asked for: a metric must not have a series for each
	}
	i.Observe(string(kind), outcome, time.Since(began))
}

// inTx is DB.InTx within intentLimit.
func (i *Issuer) inTx(ctx context.Context, do func(context.Context, *db.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, intentLimit)
	defer cancel()
	return i.DB.InTx(ctx, func(tx *db.Tx) error { return do(ctx, tx) })
}

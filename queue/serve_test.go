package queue_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// serve is Serve with one worker and a handler that wants no context; what is
// too much gets the answer "busy".
func serve(c *queue.Conn, subject string, handle func(queue.Request)) func(context.Context) error {
	return func(ctx context.Context) error {
		return c.Serve(ctx, queue.Service{
			Subject: subject, Group: "muster", Workers: 1,
			Overflow: func(r queue.Request) { _ = r.Respond([]byte("busy"), nil) },
		}, func(_ context.Context, r queue.Request) { handle(r) })
	}
}

// ask asks until somebody is there to answer. A question that goes down with a
// server is asked again.
func ask(t testing.TB, c *queue.Conn, subject string) (string, map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		once, done := context.WithTimeout(ctx, time.Second)
		body, headers, err := c.Request(once, subject, []byte("hello"))
		done()
		if err == nil {
			return string(body), headers
		}
		if ctx.Err() != nil || !errors.Is(err, fleet.ErrUnavailable) {
			t.Fatalf("Request: %v", err)
		}
	}
}

func respond(t testing.TB, r queue.Request, body string) {
	if err := r.Respond([]byte(body), nil); err != nil {
		t.Errorf("Respond: %v", err)
	}
}

func TestServeAnswersAndSurvivesAPanicAndARestart(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := connect(t, s)
	panicked := make(chan struct{}, 1)
	background(t, serve(c, "muster.v1.token.*.issue", func(r queue.Request) {
		if strings.Contains(r.Subject, "bad") {
			panicked <- struct{}{}
			panic("no such thing")
		}
		respond(t, r, r.Subject+" "+string(r.Body))
	}))
	asker := connect(t, s)
	const want = "muster.v1.token.build-01.issue hello"
	if got, _ := ask(t, asker, "muster.v1.token.build-01.issue"); got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
	if err := client(t, s).PublishRequest("muster.v1.token.bad.issue", "_INBOX.x", nil); err != nil {
		t.Fatal(err)
	}
	receive(t, panicked)
	if got, _ := ask(t, asker, "muster.v1.token.build-01.issue"); got != want {
		t.Errorf("after a panic: answer %q", got)
	}
	s.restart(t)
	if got, _ := ask(t, asker, "muster.v1.token.build-01.issue"); got != want {
		t.Errorf("after a restart: answer %q", got)
	}
}

// slow is a service whose requests wait for release, but for those that ask
// says hello with.
func slow(t *testing.T) (service func(queue.Request), began <-chan struct{}, release chan<- struct{}) {
	t.Helper()
	started, free := make(chan struct{}, 100), make(chan struct{})
	return func(r queue.Request) {
		if string(r.Body) != "hello" {
			started <- struct{}{}
			<-free
		}
		respond(t, r, "done")
	}, started, free
}

// inbox collects the answers to requests that are published by hand, so that
// their order is certain.
func inbox(t *testing.T, s *natsServer) (publish func(reply string), next func() string) {
	t.Helper()
	nc := client(t, s)
	answers, err := nc.SubscribeSync("answers.*")
	if err != nil {
		t.Fatal(err)
	}
	publish = func(reply string) {
		t.Helper()
		if err := nc.PublishRequest("work", "answers."+reply, nil); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil { // the server has passed it on
			t.Fatal(err)
		}
	}
	next = func() string {
		t.Helper()
		m, err := answers.NextMsg(patience)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		return strings.TrimPrefix(m.Subject, "answers.") + " " + string(m.Data)
	}
	return publish, next
}

func TestWhatIsTooMuchIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	service, began, release := slow(t)
	background(t, serve(connect(t, s), "work", service))
	asker := connect(t, s)
	ask(t, asker, "work")
	publish, next := inbox(t, s)
	publish("worked-on")
	receive(t, began)
	for range 4 { // as many as may wait for one worker
		publish("waiting")
	}
	publish("too-much")
	if got := next(); got != "too-much busy" {
		t.Errorf("got %q", got)
	}
	close(release)
	for _, want := range []string{"worked-on done", "waiting done", "waiting done", "waiting done", "waiting done"} {
		if got := next(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got, _ := ask(t, asker, "work"); got != "done" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestStoppingServeAnswersWhatHasArrived(t *testing.T) {
	t.Parallel()
	s := startNATS(t, inProcess)
	service, began, release := slow(t)
	c := connect(t, s)
	stopped := make(chan struct{})
	stop := background(t, func(ctx context.Context) error {
		defer close(stopped)
		return c.Serve(ctx, queue.Service{Subject: "work", Group: "muster", Overflow: func(queue.Request) { t.Error("overflow") }},
			func(ctx context.Context, r queue.Request) {
				service(r)
				if ctx.Err() != nil {
					t.Error("the handler's context ended with the service's")
				}
			})
	})
	ask(t, connect(t, s), "work")
	publish, next := inbox(t, s)
	publish("worked-on")
	receive(t, began)
	publish("waiting")
	publish("waiting")
	before := s.inside.NumSubscriptions()
	go func() { _ = stop() }() // its error is the cleanup's to report
	for s.inside.NumSubscriptions() == before {
		runtime.Gosched()
	}
	select {
	case <-stopped:
		t.Error("stopped with requests unanswered")
	default:
	}
	close(release)
	for _, want := range []string{"worked-on done", "waiting done", "waiting done"} {
		if got := next(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	receive(t, stopped)
}

func TestServeWithoutAnOverflowIsRefused(t *testing.T) {
	t.Parallel()
	err := connect(t, startNATS(t, nil)).Serve(t.Context(), queue.Service{Subject: "work"}, nil)
	if err == nil || !strings.Contains(err.Error(), "serve work: ") {
		t.Errorf("Serve() = %v", err)
	}
}

func TestServeEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c, err := queue.Connect(t.Context(), queue.Config{URL: s.ClientURL(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- serve(c, "work", func(r queue.Request) { respond(t, r, "done") })(context.Background())
	}()
	ask(t, connect(t, s), "work")
	c.Close()
	if err := receive(t, done); err == nil {
		t.Error("Serve() = nil on a closed connection")
	}
}

func TestARequestWithoutAPlaceForTheAnswerGetsNone(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	got := make(chan error, 1)
	background(t, serve(connect(t, s), "work", func(r queue.Request) {
		if r.Reply != "" {
			respond(t, r, "there")
			return
		}
		got <- r.Respond(nil, nil)
	}))
	ask(t, connect(t, s), "work")
	if err := client(t, s).Publish("work", nil); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, got); err == nil || !strings.Contains(err.Error(), "names no place for the answer") {
		t.Errorf("Respond() = %v", err)
	}
}

func TestASubscriptionThatIsNotAllowedShowsInReady(t *testing.T) {
	t.Parallel()
	s := startNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "muster", Password: "muster", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Deny: []string{"muster.v1.token.>"}},
		}}}
	})
	c, err := queue.Connect(t.Context(), queue.Config{URL: "nats://muster:muster@" + s.inside.Addr().String(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	background(t, serve(c, "muster.v1.token.*.issue", func(queue.Request) {}))
	deadline := time.Now().Add(patience)
	for {
		err := c.Ready()
		if err != nil && strings.Contains(err.Error(), `Subscription to "muster.v1.token.*.issue"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("Ready() = %v", err)
		}
	}
}

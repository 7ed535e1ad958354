package githubsim

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

const (
	eventPing        = "ping"
	eventWorkflowJob = "workflow_job"
	eventCheckRun    = "check_run"
)

// Hook is a webhook of an enterprise, an organisation or a repository.
type Hook struct {
	Scope  fleet.Scope
	URL    string
	Secret string // empty: deliveries are not signed
	// Events are those it is told of: workflow_job, check_run, or * for all.
	// None: workflow_job. Every hook is told of its own making by a ping.
	Events       []string
	Installation int64 // of the App whose hook it is; zero: it is no App's
}

// Delivery is what a Hook was sent.
type Delivery struct {
	ID          int64         `json:"id"` // one for each attempt
	GUID        string        `json:"guid"`
	Hook        int64         `json:"hook"`
	Event       string        `json:"event"`
	Action      string        `json:"action,omitempty"`
	Job         int64         `json:"job,omitempty"` // workflow job; zero: it is about none
	Redelivery  bool          `json:"redelivery,omitempty"`
	Fault       string        `json:"fault,omitempty"` // as in Event
	QueuedAt    time.Time     `json:"queued_at"`
	DeliveredAt time.Time     `json:"delivered_at,omitzero"` // zero: not yet
	Duration    time.Duration `json:"duration,omitempty"`    // in nanoseconds
	StatusCode  int           `json:"status_code,omitempty"` // zero: no answer
	Status      string        `json:"status,omitempty"`      // in words, such as OK
}

// webhook is a Hook under the Sim's lock.
type webhook struct {
	Hook
	id int64
	in *scopeState
}

// delivery is a Delivery under the Sim's lock; its request does not change once
// it is queued.
type delivery struct {
	Delivery
	hook       *webhook
	body       []byte
	due        time.Time
	held       bool // until the next one to the same hook
	dropped    bool
	request    http.Header // as sent
	answer     http.Header
	answerBody string
}

type webhooks struct {
	lastHook     int64
	lastDelivery int64
	guids        uint64
	hooks        []*webhook
	waiting      []*delivery // by the order in which they are to go out
	sent         []*delivery // by id
	wake         chan struct{}
	origin       string // of the addresses in events and jobs
}

// AddHook makes a webhook and has it pinged. The deliveries go out while Run
// runs, where the Sim has the real clock, and with Deliver.
func (s *Sim) AddHook(h Hook) (int64, error) {
	at, err := url.Parse(h.URL)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" {
		return 0, fmt.Errorf("github simulator: hook of %s: url %q: want http or https", h.Scope, h.URL)
	}
	for _, event := range h.Events {
		if !slices.Contains([]string{eventWorkflowJob, eventCheckRun, "*"}, event) {
			return 0, fmt.Errorf("github simulator: hook of %s: event %q: want workflow_job, check_run or *", h.Scope, event)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(h.Scope)
	if err != nil {
		return 0, err
	}
	s.web.lastHook++
	h.Events = slices.Clone(h.Events)
	hook := &webhook{Hook: h, id: s.web.lastHook, in: st}
	s.web.hooks = append(s.web.hooks, hook)
	s.queueDelivery(&delivery{hook: hook, Delivery: Delivery{Event: eventPing}, body: fmt.Appendf(nil,
		`{"zen":"Half measures are as bad as nothing at all.","hook_id":%d,"hook":{"type":%s,"id":%d,"name":"web","active":true,"events":%s,"config":{"content_type":"json","insecure_ssl":"0","url":%s}}}`,
		hook.id, quote(hook.targetName()), hook.id, quote(hook.events()), quote(h.URL))})
	return hook.id, nil
}

// RemoveHook takes a webhook away, with what it has not been sent yet.
func (s *Sim) RemoveHook(id int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.web.hooks)
	s.web.hooks = slices.DeleteFunc(s.web.hooks, func(h *webhook) bool { return h.id == id })
	if len(s.web.hooks) == before {
		return fmt.Errorf("github simulator: hook %d: %w", id, fleet.ErrNotFound)
	}
	s.web.waiting = slices.DeleteFunc(s.web.waiting, func(d *delivery) bool { return d.hook.id == id })
	return nil
}

func (h *webhook) events() []string {
	if len(h.Events) == 0 {
		return []string{eventWorkflowJob}
	}
	return h.Events
}

func (h *webhook) hears(event string) bool {
	return slices.Contains(h.events(), event) || slices.Contains(h.events(), "*")
}

// targetName is what kind of thing has the hook, in the words of the ping.
func (h *webhook) targetName() string {
	return map[fleet.ScopeKind]string{
		fleet.ScopeEnterprise: "Enterprise", fleet.ScopeOrg: "Organization", fleet.ScopeRepo: "Repository",
	}[h.in.scope.Kind]
}

// concerns reports whether a job is the hook's business.
func (h *webhook) concerns(j *workflowJob) bool { return h.in == j.in || covers(h.in.scope, j.repo()) }

// announce queues what the hooks are told of a change of a job.
func (s *Sim) announce(j *workflowJob, action JobState) {
	for _, h := range s.web.hooks {
		if !h.concerns(j) {
			continue
		}
		if h.hears(eventWorkflowJob) && s.profile.workflowJob && (action != JobWaiting || s.profile.waiting) {
			s.queueEvent(h, j, eventWorkflowJob, string(action))
		}
		switch {
		case !h.hears(eventCheckRun):
		case action == JobQueued:
			s.queueEvent(h, j, eventCheckRun, "created")
		case action == JobCompleted:
			s.queueEvent(h, j, eventCheckRun, "completed")
		}
	}
}

func (s *Sim) queueEvent(h *webhook, j *workflowJob, event, action string) {
	s.queueDelivery(&delivery{
		hook: h, body: s.eventOf(j, event, action, h),
		Delivery: Delivery{Event: event, Action: action, Job: j.ID},
	})
}

// queueDelivery has a delivery go out, by way of the faults.
func (s *Sim) queueDelivery(d *delivery) {
	now := s.config.Now()
	d.Hook, d.QueuedAt, d.due = d.hook.id, now, now
	if d.GUID == "" {
		d.GUID = s.guid()
	}
	twice := s.befall(d)
	s.enqueue(d)
	if twice {
		again := *d
		s.enqueue(&again)
	}
	for _, held := range slices.Clone(s.web.waiting) {
		if held.held && held.hook == d.hook && held != d {
			held.held, held.due = false, now
			s.web.waiting = slices.DeleteFunc(s.web.waiting, func(other *delivery) bool { return other == held })
			s.web.waiting = append(s.web.waiting, held)
		}
	}
	select {
	case s.web.wake <- struct{}{}:
	default: // it has not looked since the last time
	}
}

func (s *Sim) enqueue(d *delivery) {
	s.web.lastDelivery++
	d.ID = s.web.lastDelivery
	s.web.waiting = append(s.web.waiting, d)
}

// guid follows from the seed and from how many there were.
func (s *Sim) guid() string {
	s.web.guids++
	random := s.chanceOf("guid", s.web.guids)
	a, b := random.Uint64(), random.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
}

// Deliveries are what a hook was sent, what is yet to be sent at the end. It is
// nil for an unknown hook.
func (s *Sim) Deliveries(hook int64) []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.web.hooks, func(h *webhook) bool { return h.id == hook }) {
		return nil
	}
	all := []Delivery{}
	for _, d := range slices.Concat(s.web.sent, s.web.waiting) {
		if d.Hook == hook {
			all = append(all, d.Delivery)
		}
	}
	return all
}

// Deliver sends what is due by the Sim's clock, one after the other, until
// nothing is, and returns how many requests it made. It ends early with ctx.
func (s *Sim) Deliver(ctx context.Context) int {
	n := 0
	for ctx.Err() == nil {
		due, _ := s.takeDue(1)
		if len(due) == 0 {
			break
		}
		if s.deliver(ctx, due[0]) {
			n++
		}
	}
	return n
}

// scopeTarget is the header that says what kind of thing has the hook.
func (h *webhook) scopeTarget() string { return strings.ToLower(h.targetName()) }

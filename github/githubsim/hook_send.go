package githubsim

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// atOnce is how many deliveries are under way side by side.
	atOnce = 16
	// maxSent bounds the memory: so many deliveries are remembered.
	maxSent = 10_000
	// maxAnswer is how much of an answer is remembered.
	maxAnswer = 64 << 10
	// tooBig is more than GitHub ever sends.
	tooBig = 25<<20 + 1
)

// runHooks sends what is due, as time goes by on the real clock.
func (s *Sim) runHooks(ctx context.Context) error {
	for {
		due, next := s.takeDue(atOnce)
		var g errgroup.Group
		for _, d := range due {
			g.Go(func() error {
				s.deliver(ctx, d)
				return nil
			})
		}
		_ = g.Wait() // none fails
		if len(due) > 0 {
			continue
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.web.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// takeDue takes some of what is due off the queue, and says for how long there
// is nothing, if nobody queues anything.
func (s *Sim) takeDue(most int) ([]*delivery, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleAll() // what runners do not get on with is given up, and told
	now, next := s.config.Now(), time.Hour
	for _, st := range s.byID {
		if len(st.due) > 0 {
			next = min(next, st.due[0].at.Sub(now))
		}
	}
	var due []*delivery
	s.web.waiting = slices.DeleteFunc(s.web.waiting, func(d *delivery) bool {
		wait := d.due.Sub(now)
		if wait > 0 || len(due) == most {
			next = min(next, max(wait, 0))
			return false
		}
		due = append(due, d)
		return true
	})
	return due, next
}

// deliver makes the request and remembers what came of it. It reports whether
// there was a request.
func (s *Sim) deliver(ctx context.Context, d *delivery) bool {
	began := s.config.Now()
	status, answer, body, words := 0, http.Header(nil), "", ""
	req := s.deliveryRequest(ctx, d)
	if !d.dropped {
		started := time.Now() // the receiver's time is real
		status, answer, body, words = s.post(req)
		d.Duration = time.Since(started)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.DeliveredAt, d.StatusCode, d.Status = began, status, words
	d.request, d.answer, d.answerBody = req.Header, answer, body
	s.record(Event{
		Change: ChangeDelivered, Cause: d.Event, Scope: d.hook.in.name, Job: d.Job,
		Status: status, Fault: d.Fault, Delivery: d.GUID,
	})
	if d.dropped {
		return false
	}
	i, _ := slices.BinarySearchFunc(s.web.sent, d.ID, func(d *delivery, id int64) int { return int(d.ID - id) })
	s.web.sent = slices.Insert(s.web.sent, i, d)
	if len(s.web.sent) > maxSent {
		s.web.sent = slices.Delete(s.web.sent, 0, maxSent/2)
	}
	return true
}

// post is one attempt. A redirect is an answer like any other.
func (s *Sim) post(req *http.Request) (status int, header http.Header, body, words string) {
	hc := http.Client{
		Timeout:       s.config.HookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := hc.Do(req)
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return 0, nil, "", "timed out"
	case err != nil:
		return 0, nil, "", "failed to connect to host"
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		text = nil // the status has arrived, and that counts
	}
	return resp.StatusCode, resp.Header, string(text), http.StatusText(resp.StatusCode)
}

// deliveryRequest is the request of a delivery, signed over the very bytes.
func (s *Sim) deliveryRequest(ctx context.Context, d *delivery) *http.Request {
	body, contentType, event, secret := d.body, "application/json", d.Event, d.hook.Secret
	for _, kind := range d.suffers() {
		switch kind {
		case FaultHookType:
			contentType = "application/x-www-form-urlencoded"
			body = []byte(url.Values{"payload": {string(body)}}.Encode())
		case FaultHookBig:
			body = slices.Concat(body[:len(body)-1], []byte(`,"padding":"`), bytes.Repeat([]byte("x"), max(tooBig-len(body), 0)), []byte(`"}`))
		case FaultHookUnknown:
			event = "muster_simulated"
		case FaultHookSignature:
			secret += "-not"
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.hook.URL, bytes.NewReader(body))
	if err != nil {
		panic(err) // AddHook has parsed the address
	}
	s.mu.Lock()
	target, id, at := d.hook.scopeTarget(), d.hook.in.id, s.web.origin
	s.mu.Unlock()
	if target == "enterprise" {
		target = "business" // GitHub's name for them inside
	}
	for name, value := range map[string]string{
		"Accept":                                 "*/*",
		"Content-Type":                           contentType,
		"User-Agent":                             "GitHub-Hookshot/" + commit(strconv.FormatUint(s.seed, 10))[:7],
		"X-GitHub-Event":                         event,
		"X-GitHub-Delivery":                      d.GUID,
		"X-GitHub-Hook-ID":                       strconv.FormatInt(d.hook.id, 10),
		"X-GitHub-Hook-Installation-Target-ID":   strconv.FormatInt(id, 10),
		"X-GitHub-Hook-Installation-Target-Type": target,
	} {
		req.Header.Set(name, value)
	}
	if s.profile.version != "" {
		req.Header.Set("X-GitHub-Enterprise-Version", s.profile.version)
		req.Header.Set("X-GitHub-Enterprise-Host", at[strings.LastIndex(at, "/")+1:])
	}
	if d.hook.Secret != "" {
		new256, old := hmac.New(sha256.New, []byte(secret)), hmac.New(sha1.New, []byte(secret))
		_, _ = new256.Write(body) // hashes take everything
		_, _ = old.Write(body)
		req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(new256.Sum(nil)))
		req.Header.Set("X-Hub-Signature", "sha1="+hex.EncodeToString(old.Sum(nil)))
	}
	return req
}

package web

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

const (
	// maxWebhook is GitHub's own limit of a body, in bytes.
	maxWebhook = 25 << 20
	// webhooksAtOnce is how many signed deliveries are taken in at once, and
	// webhookPatience how long one waits for its place.
	webhooksAtOnce  = 32
	webhookPatience = 2 * time.Second
	// maxLogged is how many bytes of a header go into the log.
	maxLogged = 128
)

// receiver takes in what GitHub delivers.
type receiver interface {
	// Check begins to check the signature of a delivery whose body still
	// arrives.
	Check(ctx context.Context, signature string) fleet.SignatureCheck
	// Take takes in a delivery that the secrets of these targets signed. It
	// returns nil once that is recorded. Its errors are fleet.ErrMalformed, or say
	// that the delivery could not be recorded now.
	Take(ctx context.Context, d fleet.Delivery, targets []string) error
	// Refuse notes that a delivery was turned away, which these targets' secrets
	// signed; none: it is not known whose it was. The body may be missing.
	Refuse(ctx context.Context, d fleet.Delivery, targets []string, why string)
}

// webhook answers POST /webhooks/github. What it answers tells nobody what
// would have been right. A body is read outside of any place, and only a signed
// delivery gets one: so nobody without a secret keeps GitHub's deliveries out.
func (s *Server) webhook() http.HandlerFunc {
	places := make(chan struct{}, webhooksAtOnce)
	bodies := &arrivals{}
	return func(w http.ResponseWriter, r *http.Request) {
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || kind != "application/json" {
			turnAway(w, http.StatusUnsupportedMediaType, "set the webhook's content type to application/json")
			return
		}
		if r.ContentLength > maxWebhook {
			turnAway(w, http.StatusRequestEntityTooLarge, "too large: GitHub sends 25 MiB at most")
			return
		}
		ctx := r.Context()
		d := deliveryOf(r)
		check := s.Webhooks.Check(ctx, d.Signature)
		got, err := bodies.read(w, r, d.TellsOfJobs(), check)
		defer got.release()
		if err != nil {
			if errors.Is(err, errCrowded) && got.young() {
				s.Webhooks.Refuse(ctx, d, nil, err.Error())
			}
			s.answerUnread(ctx, w, d, err)
			return
		}

		targets, err := check.Signers()
		if err != nil {
			if !errors.Is(err, fleet.ErrUnauthorized) {
				s.Webhooks.Refuse(ctx, d, targets, err.Error())
			}
			s.answerWebhook(ctx, w, d, err)
			return
		}
		leave, err := place(ctx, places)
		if err != nil {
			s.Webhooks.Refuse(ctx, d, targets, err.Error())
			s.answerWebhook(ctx, w, d, err)
			return
		}
		defer leave()
		if d.TellsOfJobs() {
			body, whole := got.whole()
			if !whole {
				err := errors.New("no room for its body among others that arrived")
				s.Webhooks.Refuse(ctx, d, targets, err.Error())
				s.answerWebhook(ctx, w, d, err)
				return
			}
			d.Body = body
		}
		s.answerWebhook(ctx, w, d, s.Webhooks.Take(ctx, d, targets))
	}
}

// deliveryOf is what the headers say of a delivery.
func deliveryOf(r *http.Request) fleet.Delivery {
	d := fleet.Delivery{
		ID: r.Header.Get("X-GitHub-Delivery"), Event: r.Header.Get("X-GitHub-Event"),
		Signature: r.Header.Get("X-Hub-Signature-256"), HookOf: r.Header.Get("X-GitHub-Hook-Installation-Target-Type"),
	}
	if id, err := strconv.ParseInt(r.Header.Get("X-GitHub-Hook-ID"), 10, 64); err == nil {
		d.Hook = id // else it stays unknown, which does no harm
	}
	return d
}

// answerUnread answers a request whose body was not read to its end.
func (s *Server) answerUnread(ctx context.Context, w http.ResponseWriter, d fleet.Delivery, err error) {
	s.Log.DebugContext(ctx, "body of a webhook not read", "github_delivery", fleet.CleanText(d.ID, maxLogged), "err", err)
	switch {
	case errors.Is(err, errTooLong):
		turnAway(w, http.StatusRequestEntityTooLarge, "too large: GitHub sends 25 MiB at most")
	case errors.Is(err, errTooSlow):
		turnAway(w, http.StatusRequestTimeout, "the body arrived too slowly")
	case errors.Is(err, errCrowded):
		turnAway(w, http.StatusServiceUnavailable, "too many at once: deliver it again later")
	default:
		turnAway(w, http.StatusBadRequest, "the body did not arrive")
	}
}

func (s *Server) answerWebhook(ctx context.Context, w http.ResponseWriter, d fleet.Delivery, err error) {
	if err == nil {
		plain(w, http.StatusAccepted, "accepted")
		return
	}
	s.Log.WarnContext(ctx, "webhook not taken in", "github_delivery", fleet.CleanText(d.ID, maxLogged),
		"event", fleet.CleanText(d.Event, maxLogged), "err", err)
	switch {
	case errors.Is(err, fleet.ErrUnauthorized):
		plain(w, http.StatusUnauthorized, "signature not accepted")
	case errors.Is(err, fleet.ErrMalformed):
		plain(w, http.StatusBadRequest, "not an event as GitHub sends them")
	default:
		plain(w, http.StatusServiceUnavailable, "not recorded: deliver it again later")
	}
}

// turnAway answers without reading what may still come.
func turnAway(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Connection", "close")
	plain(w, status, line)
}

package web

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

const (
	// maxWebhook is GitHub's own limit of a body, in bytes.
	maxWebhook = 25 << 20
	// webhooksAtOnce bounds the memory that bodies take before anybody knows
	// whose they are, and webhookPatience how long one waits for its turn:
	// github.com waits 10 s for the answer.
	webhooksAtOnce  = 32
	webhookPatience = 2 * time.Second
	// maxLogged is how many bytes of a header go into the log.
	maxLogged = 128
)

// receiver takes in what GitHub delivers. It returns nil once that is recorded.
// Its errors are fleet.ErrUnauthorized, fleet.ErrMalformed, or say that it
// could not be recorded now.
type receiver interface {
	Receive(ctx context.Context, d fleet.Delivery) error
}

// webhook answers POST /webhooks/github. What it answers tells nobody what
// would have been right.
func (s *Server) webhook(turns chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); {
		case err != nil || kind != "application/json":
			plain(w, http.StatusUnsupportedMediaType, "set the webhook's content type to application/json")
			return
		case r.ContentLength > maxWebhook:
			plain(w, http.StatusRequestEntityTooLarge, "too large: GitHub sends 25 MiB at most")
			return
		}
		patience := time.NewTimer(webhookPatience)
		defer patience.Stop()
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
		case <-patience.C:
			plain(w, http.StatusServiceUnavailable, "too many at once: deliver it again later")
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWebhook))
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			plain(w, http.StatusRequestEntityTooLarge, "too large: GitHub sends 25 MiB at most")
			return
		case err != nil:
			plain(w, http.StatusBadRequest, "the body did not arrive")
			return
		}
		d := fleet.Delivery{
			ID: r.Header.Get("X-GitHub-Delivery"), Event: r.Header.Get("X-GitHub-Event"),
			Signature: r.Header.Get("X-Hub-Signature-256"), Body: body, HookOf: r.Header.Get("X-GitHub-Hook-Installation-Target-Type"),
		}
		if id, err := strconv.ParseInt(r.Header.Get("X-GitHub-Hook-ID"), 10, 64); err == nil {
			d.Hook = id // else it stays unknown, which does no harm
		}
		s.answerWebhook(r.Context(), w, d, s.Webhooks.Receive(r.Context(), d))
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

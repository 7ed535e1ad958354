package githubsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// deliveryJSON is a delivery as the API lists it.
type deliveryJSON struct {
	ID           int64   `json:"id"`
	GUID         string  `json:"guid"`
	DeliveredAt  string  `json:"delivered_at"`
	Redelivery   bool    `json:"redelivery"`
	Duration     float64 `json:"duration"` // in seconds
	Status       string  `json:"status"`
	StatusCode   int     `json:"status_code"`
	Event        string  `json:"event"`
	Action       *string `json:"action"`
	Installation *int64  `json:"installation_id"`
	Repository   *int64  `json:"repository_id"`
}

func (s *Sim) deliveryJSON(d *delivery) deliveryJSON {
	out := deliveryJSON{
		ID: d.ID, GUID: d.GUID, DeliveredAt: instant(d.DeliveredAt), Redelivery: d.Redelivery,
		Duration: d.Duration.Seconds(), Status: d.Status, StatusCode: d.StatusCode, Event: d.Event,
	}
	if d.Action != "" {
		out.Action = &d.Action
	}
	if d.hook.Installation != 0 {
		out.Installation = &d.hook.Installation
	}
	if d.hook.in.scope.Kind == fleet.ScopeRepo {
		out.Repository = &d.hook.in.id
	}
	return out
}

// deliveriesOf are what a hook of the scope was sent and is still kept, the
// newest first. It is nil for a hook that is not the scope's.
func (s *Sim) deliveriesOf(hook int64, st *scopeState) []*delivery {
	i := slices.IndexFunc(s.web.hooks, func(h *webhook) bool { return h.id == hook && h.in == st })
	if i < 0 {
		return nil
	}
	keep := 7 * day
	if s.profile.name == DotCom {
		keep = 3 * day
	}
	all := []*delivery{}
	for _, d := range slices.Backward(s.web.sent) {
		if d.hook == s.web.hooks[i] && s.config.Now().Sub(d.DeliveredAt) < keep {
			all = append(all, d)
		}
	}
	return all
}

// listDeliveries pages by a cursor that clients have to take from Link.
func (s *Sim) listDeliveries(r *http.Request, q query, st *scopeState) *answer {
	all := s.deliveriesOf(q.ids[0], st)
	if all == nil {
		return s.notFound(q)
	}
	params := r.URL.Query()
	if cursor := params.Get("cursor"); cursor != "" {
		before, err := strconv.ParseInt(strings.TrimPrefix(cursor, "v1_"), 10, 64)
		if err != nil || !strings.HasPrefix(cursor, "v1_") {
			return s.invalid("cursor")
		}
		all = slices.DeleteFunc(all, func(d *delivery) bool { return d.ID >= before })
	}
	_, perPage := paging(params)
	link := ""
	if len(all) > perPage {
		all = all[:perPage]
		params.Set("cursor", fmt.Sprintf("v1_%d", all[perPage-1].ID))
		link = "<" + origin(r) + s.idPath(st) + "/" + q.rest + "?" + params.Encode() + `>; rel="next"`
	}
	shown := make([]deliveryJSON, len(all))
	for i, d := range all {
		shown[i] = s.deliveryJSON(d)
	}
	return &answer{status: http.StatusOK, body: quote(shown), link: link}
}

func (s *Sim) findDelivery(q query, st *scopeState) *delivery {
	all := s.deliveriesOf(q.ids[0], st)
	i := slices.IndexFunc(all, func(d *delivery) bool { return d.ID == q.ids[1] })
	if i < 0 {
		return nil
	}
	return all[i]
}

func (s *Sim) getDelivery(q query, st *scopeState) *answer {
	d := s.findDelivery(q, st)
	if d == nil {
		return s.notFound(q)
	}
	var out struct {
		deliveryJSON
		URL     string `json:"url"`
		Request struct {
			Headers map[string]string `json:"headers"`
			Payload json.RawMessage   `json:"payload"`
		} `json:"request"`
		Response struct {
			Headers map[string]string `json:"headers"`
			Payload *string           `json:"payload"`
		} `json:"response"`
	}
	out.deliveryJSON, out.URL = s.deliveryJSON(d), d.hook.URL
	out.Request.Headers, out.Request.Payload = flat(d.request), d.body
	out.Response.Headers = flat(d.answer)
	if d.StatusCode != 0 {
		out.Response.Payload = &d.answerBody
	}
	return &answer{status: http.StatusOK, body: quote(out)}
}

func flat(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		out[name] = strings.Join(values, ", ")
	}
	return out
}

// redeliver queues a delivery once more, as it was: under the same GUID.
func (s *Sim) redeliver(q query, st *scopeState, e *Event) *answer {
	d := s.findDelivery(q, st)
	if d == nil {
		return s.notFound(q)
	}
	e.Acted, e.Delivery, e.Job = true, d.GUID, d.Job
	s.queueDelivery(&delivery{hook: d.hook, body: d.body, Delivery: Delivery{
		GUID: d.GUID, Event: d.Event, Action: d.Action, Job: d.Job, Redelivery: true,
	}})
	return &answer{status: http.StatusAccepted, body: []byte("{}")}
}

// hookTimeout is how long a receiver may take.
func (p *profile) hookTimeout() time.Duration {
	if p.name == DotCom {
		return 10 * time.Second
	}
	return 30 * time.Second
}

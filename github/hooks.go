package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// HookDelivery is one attempt to deliver an event to a webhook.
type HookDelivery struct {
	ID         int64  // of the attempt
	GUID       string // of the delivery: the same at each attempt
	Event      string
	At         time.Time
	StatusCode int  // of the receiver's answer; 0: there was none
	Again      bool // somebody asked for it once more
}

// Taken reports whether the receiver took the delivery.
func (d HookDelivery) Taken() bool { return d.StatusCode >= 200 && d.StatusCode < 300 }

type wireDelivery struct {
	ID         int64     `json:"id"`
	GUID       string    `json:"guid"`
	Event      string    `json:"event"`
	At         time.Time `json:"delivered_at"`
	StatusCode int       `json:"status_code"`
	Redelivery bool      `json:"redelivery"`
}

// delivery converts, or says what is wrong.
func (w *wireDelivery) delivery() (HookDelivery, error) {
	d := HookDelivery{ID: w.ID, GUID: w.GUID, Event: w.Event, At: w.At.UTC(), StatusCode: w.StatusCode, Again: w.Redelivery}
	if w.ID <= 0 || w.GUID == "" || w.At.IsZero() {
		return d, errors.New("it lacks its id, guid or delivered_at")
	}
	return d, nil
}

// HookLog is what a webhook was sent, as far as it was read.
type HookLog struct {
	Deliveries []HookDelivery // the newest first
	Whole      bool           // false: there were too many to read them all
	Unread     []string       // those that cannot be read, each with the reason
}

// Lacks says why there may be other deliveries; empty: these are all.
func (l HookLog) Lacks() string {
	switch {
	case !l.Whole:
		return "more deliveries than are read at once: the oldest were passed over"
	case len(l.Unread) > 0:
		return "deliveries were passed over: " + cannotRead(l.Unread)
	}
	return ""
}

// maxDeliveryPages bounds how far back a log of deliveries is read, in pages
// of a hundred.
const maxDeliveryPages = 20

// HookDeliveries lists what a webhook of an organisation or a repository was
// sent at or after a moment. A delivery that cannot be read costs itself alone.
// GitHub keeps them for 3 days, and Enterprise Server for 7.
func (c *Client) HookDeliveries(ctx context.Context, scope fleet.Scope, hook int64, since time.Time) (HookLog, error) {
	var log HookLog
	cursor := ""
	for range maxDeliveryPages {
		o := operation{
			op: OpHookDeliveries, scope: scope, method: http.MethodGet, want: http.StatusOK,
			path: fmt.Sprintf("hooks/%d/deliveries?per_page=%d", hook, perPage),
		}
		if cursor != "" {
			o.path += "&cursor=" + url.QueryEscape(cursor)
		}
		var page []json.RawMessage
		header, err := c.do(ctx, o, decoded{&page})
		if err != nil {
			return HookLog{}, err
		}
		for i, raw := range page {
			d, err := element(raw, (*wireDelivery).delivery)
			if err != nil {
				log.Unread = append(log.Unread, clean(fmt.Sprintf("element %d: %v", i+1, err)))
				continue
			}
			if d.At.Before(since) {
				log.Whole = true
				return log, nil
			}
			log.Deliveries = append(log.Deliveries, d)
		}
		cursor = nextPage(header).Get("cursor")
		if cursor == "" || len(page) == 0 {
			log.Whole = true
			return log, nil
		}
	}
	return log, nil
}

// Redeliver asks GitHub to deliver once more what an attempt was to deliver.
// The event keeps its GUID.
func (c *Client) Redeliver(ctx context.Context, scope fleet.Scope, hook, attempt int64) error {
	if hook <= 0 || attempt <= 0 {
		err := errors.New("the ids of hook and attempt must be positive")
		return operation{op: OpRedeliver, scope: scope}.fail(nil, err.Error(), err)
	}
	_, err := c.do(ctx, operation{
		op: OpRedeliver, scope: scope, method: http.MethodPost, want: http.StatusAccepted,
		path: "hooks/" + strconv.FormatInt(hook, 10) + "/deliveries/" + strconv.FormatInt(attempt, 10) + "/attempts",
	}, nil)
	return err
}

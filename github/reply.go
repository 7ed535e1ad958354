package github

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// reply is an answer that has been read. The zero reply is no answer.
type reply struct {
	status     int
	header     http.Header
	body       []byte // used again once do returns
	credential fleet.Secret
	wait       time.Duration // for which GitHub wants to be left alone; 0: it does not say
}

// decode accepts exactly one JSON value that is not null.
func (o operation) decode(got reply, v any) error {
	if !got.isJSON() {
		return o.malformed(got.status, "answer is "+got.describe()+", not JSON")
	}
	body := bytes.TrimSpace(got.body)
	if len(body) == 0 || bytes.Equal(body, []byte("null")) {
		return o.malformed(got.status, "answer is empty")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return o.malformed(got.status, explainJSON(err))
	}
	return nil
}

// explainJSON says where an answer is wrong without repeating any of it: it may
// hold a token.
func explainJSON(err error) string {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("answer is not valid JSON at byte %d", syntax.Offset)
	case errors.As(err, &mismatch) && mismatch.Field != "":
		return fmt.Sprintf("field %q of the answer has the wrong type", mismatch.Field)
	}
	return "answer has the wrong shape"
}

func (r reply) isJSON() bool {
	media, _, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}

// describe names the kind of an answer that should have been JSON.
func (r reply) describe() string {
	if len(bytes.TrimSpace(r.body)) == 0 {
		return "empty"
	}
	media, _, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	if err != nil {
		return "of unknown type"
	}
	return clean(media)
}

// rateRemaining is -1 where the server does not say.
func rateRemaining(h http.Header) int {
	n, err := strconv.Atoi(h.Get("X-RateLimit-Remaining"))
	if err != nil {
		return -1
	}
	return n
}

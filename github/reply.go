package github

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	gh "github.com/google/go-github/v45/github"

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
		e := o.malformed(got.status, "answer is "+got.describe()+", not JSON")
		e.Page = got.isPage()
		return e
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
	if got := r.title(); media == mediaHTML && got != "" {
		return fmt.Sprintf("an HTML page with the title %q", got)
	}
	if media == mediaHTML {
		return "an HTML page"
	}
	return clean(media)
}

const mediaHTML = "text/html"

func (r reply) isPage() bool {
	media, _, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	return err == nil && media == mediaHTML && len(bytes.TrimSpace(r.body)) > 0
}

var htmlTitle = regexp.MustCompile(`(?i)<title[^>]*>([^<]*)`)

// maxTitle is how much of a page's title is shown, in characters.
const maxTitle = 60

// title is what an HTML page says that it is; empty: nothing.
func (r reply) title() string {
	found := htmlTitle.FindSubmatch(r.body[:min(len(r.body), 16<<10)])
	if found == nil {
		return ""
	}
	title := []rune(clean(html.UnescapeString(string(found[1]))))
	return strings.TrimSpace(string(title[:min(len(title), maxTitle)]))
}

// isGitHubs reports whether a refusal is GitHub's own and not a proxy's: GitHub
// explains itself in JSON, names the documentation, and numbers every answer.
// API gateways have a message too, and neither of the others.
func (r reply) isGitHubs(answer gh.ErrorResponse) bool {
	numbered := r.header.Get("X-GitHub-Request-Id") != "" || r.header.Get("X-GitHub-Media-Type") != ""
	return answer.Message != "" && (numbered || answer.DocumentationURL != "")
}

// maxSSO is the longest address of X-GitHub-SSO that is shown, in bytes.
const maxSSO = 512

// singleSignOn is the address in a header such as "X-GitHub-SSO: required;
// url=https://github.com/orgs/acme/sso?authorization_request=…", by GitHub's
// documentation of SAML single sign-on; empty where there is none.
func (r reply) singleSignOn() string {
	_, address, found := strings.Cut(r.header.Get("X-GitHub-SSO"), "url=")
	address = strings.TrimSpace(address)
	u, err := url.Parse(address)
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if !found || err != nil || u.Scheme != "https" || u.Host == "" || len(address) > maxSSO || strings.ContainsFunc(address, odd) {
		return ""
	}
	return address
}

// rateRemaining is -1 where the server does not say.
func rateRemaining(h http.Header) int {
	n, err := strconv.Atoi(h.Get("X-RateLimit-Remaining"))
	if err != nil {
		return -1
	}
	return n
}

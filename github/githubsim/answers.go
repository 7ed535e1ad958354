package githubsim

import (
	"fmt"
	"html"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// answer is a response before it goes out.
type answer struct {
	status     int
	html       bool   // instead of JSON
	body       []byte // nil: none; shared with other answers, so never written to
	page       *page  // that the body is of; nil: of none
	etag       string // without the W/ of weak ones; empty: none
	link       string
	to         string // Location
	retryAfter string // the header
	rate       *rate  // nil: nothing is limited

	scopes, accepted string // OAuth, of a personal token
	expires          string // when it does
	permission       string // that was wanted of an App

	wait    time.Duration // that a fault's Retry-After asks for
	metered metered
	wire    wire
}

// jsonError is a refusal, with the address of the operation's documentation.
func (s *Sim) jsonError(status int, message string, q query) *answer {
	return &answer{status: status, body: fmt.Appendf(nil, `{"message":%s,"documentation_url":%s%s}`,
		quote(message), quote(s.profile.docsOf(q)), s.statusField(status))}
}

// statusField is what newer servers add to their refusals.
func (s *Sim) statusField(status int) string {
	if !s.profile.errorStatus {
		return ""
	}
	return fmt.Sprintf(`,"status":"%d"`, status)
}

func (s *Sim) notFound(q query) *answer { return s.jsonError(http.StatusNotFound, "Not Found", q) }

// unprocessable refuses what makes no sense.
func (s *Sim) unprocessable(reason string, q query) *answer {
	const status = http.StatusUnprocessableEntity
	return &answer{status: status, body: fmt.Appendf(nil, `{"message":"Validation Failed","errors":[%s],"documentation_url":%s%s}`,
		quote(reason), quote(s.profile.docsOf(q)), s.statusField(status))}
}

func (s *Sim) invalid(field string) *answer {
	const status = http.StatusUnprocessableEntity
	return &answer{status: status, body: fmt.Appendf(nil,
		`{"message":"Validation Failed","errors":[{"resource":"Runner","field":%s,"code":"invalid"}],"documentation_url":%s%s}`,
		quote(field), quote(s.profile.docs), s.statusField(status))}
}

func htmlPage(status int, text string) *answer {
	return &answer{status: status, html: true, body: fmt.Appendf(nil,
		"<!DOCTYPE html>\n<html><head><title>%s</title></head><body><p>%s</p></body></html>\n",
		html.EscapeString(http.StatusText(status)), html.EscapeString(text))}
}

// moved points from an old name to the id that never changes.
func (s *Sim) moved(method, to string) *answer {
	status := http.StatusMovedPermanently
	if method != http.MethodGet {
		status = http.StatusTemporaryRedirect
	}
	return &answer{status: status, to: to, body: fmt.Appendf(nil,
		`{"message":"Moved Permanently","url":%s,"documentation_url":%s%s}`, quote(to), quote(s.profile.docs), s.statusField(status))}
}

// prepared is whether the page is still what is to be sent.
func (a *answer) prepared() bool {
	return a.page != nil && len(a.body) == len(a.page.body) && &a.body[0] == &a.page.body[0]
}

// What headers always say. Nobody writes to these.
var (
	fromGitHub = []string{"GitHub.com"}
	typeJSON   = []string{"application/json; charset=utf-8"}
	typeHTML   = []string{"text/html; charset=utf-8"}
	mediaType  = []string{"github.v3; format=json"}
	cacheFor   = []string{"private, max-age=60, s-maxage=60"}
	varies     = []string{"Accept, Authorization, Cookie, X-GitHub-OTP, Accept-Encoding"}
	zipped     = []string{"gzip"}
	chunked    = []string{"chunked"}
)

// send writes the answer with the headers that GitHub gives. Write errors mean
// that the client has gone, and nobody is left to tell.
func (s *Sim) send(w http.ResponseWriter, r *http.Request, a *answer, requestID string) {
	h := w.Header()
	h["Server"] = fromGitHub
	h["Date"] = s.date()
	h["X-Github-Request-Id"] = []string{requestID}
	if s.profile.version != "" {
		h["X-Github-Enterprise-Version"] = s.versionHeader
	}
	if a.link != "" {
		h["Link"] = []string{a.link}
	}
	if a.to != "" {
		h["Location"] = []string{a.to}
	}
	if a.retryAfter != "" {
		h["Retry-After"] = []string{a.retryAfter}
	}
	if a.rate != nil {
		a.rate.header(h)
	}
	if a.permission != "" {
		h["X-Accepted-Github-Permissions"] = []string{a.permission}
	}
	if a.scopes != "" {
		h["X-Oauth-Scopes"], h["X-Accepted-Oauth-Scopes"] = []string{a.scopes}, []string{a.accepted}
	}
	if a.expires != "" {
		h["Github-Authentication-Token-Expiration"] = []string{a.expires}
	}
	if len(a.body) == 0 {
		w.WriteHeader(a.status)
		return
	}
	zip := strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
	if a.status == http.StatusOK || a.status == http.StatusNotModified {
		h["Cache-Control"] = cacheFor
	}
	if a.etag != "" && zip {
		h["Etag"] = []string{"W/" + a.etag}
	} else if a.etag != "" {
		h["Etag"] = []string{a.etag}
	}
	h["Vary"] = varies
	if a.status == http.StatusNotModified {
		w.WriteHeader(a.status)
		return
	}
	h["Content-Type"] = typeHTML
	if !a.html {
		h["Content-Type"] = typeJSON
		h["X-Github-Media-Type"] = mediaType
	}
	body := a.body
	switch {
	case !zip:
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	case a.prepared():
		body = a.page.zip()
	default:
		body = compress(body)
	}
	if zip {
		h["Content-Encoding"] = zipped
		h["Transfer-Encoding"] = chunked // as what compresses on the fly has to
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

// dated is the Date header of one second.
type dated struct {
	second int64
	value  []string
}

func (s *Sim) date() []string {
	now := s.clock()
	if d := s.dated.Load(); d != nil && d.second == now.Unix() {
		return d.value
	}
	d := &dated{now.Unix(), []string{now.UTC().Format(http.TimeFormat)}}
	s.dated.Store(d)
	return d.value
}

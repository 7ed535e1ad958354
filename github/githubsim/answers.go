package githubsim

import (
	"compress/gzip"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
	"sync"
)

// answer is a response before it goes out.
type answer struct {
	status int
	page   bool   // HTML instead of JSON
	body   []byte // nil: none
	link   string
	to     string // Location
}

func jsonError(status int, message, docs string) *answer {
	return &answer{status: status, body: fmt.Appendf(nil, `{"message":%s,"documentation_url":%s}`, quote(message), quote(docs))}
}

func notFound(docs string) *answer { return jsonError(http.StatusNotFound, "Not Found", docs) }

func invalid(field string) *answer {
	return &answer{status: http.StatusUnprocessableEntity, body: fmt.Appendf(nil,
		`{"message":"Validation Failed","errors":[{"resource":"Runner","field":%s,"code":"invalid"}],"documentation_url":%s}`,
		quote(field), quote(docsRoot))}
}

func htmlPage(status int, text string) *answer {
	return &answer{status: status, page: true, body: fmt.Appendf(nil,
		"<!DOCTYPE html>\n<html><head><title>%s</title></head><body><p>%s</p></body></html>\n",
		html.EscapeString(http.StatusText(status)), html.EscapeString(text))}
}

// moved points from an old name to the id that never changes.
func moved(method, to string) *answer {
	a := jsonError(http.StatusMovedPermanently, "Moved Permanently", docsRoot)
	if method != http.MethodGet {
		a.status = http.StatusTemporaryRedirect
	}
	a.body = fmt.Appendf(nil, `{"message":"Moved Permanently","url":%s,"documentation_url":%s}`, quote(to), quote(docsRoot))
	a.to = to
	return a
}

var compressors = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a valid one
	}
	return w
}}

// send writes the answer with the headers that 3.1 gives. Write errors mean
// that the client has gone, and nobody is left to tell.
func (a *answer) send(w http.ResponseWriter, r *http.Request, requestID string) {
	h := w.Header()
	h.Set("Server", "GitHub.com")
	h.Set("X-GitHub-Request-Id", requestID)
	h.Set("X-GitHub-Enterprise-Version", Version)
	if a.link != "" {
		h.Set("Link", a.link)
	}
	if a.to != "" {
		h.Set("Location", a.to)
	}
	if len(a.body) == 0 {
		w.WriteHeader(a.status)
		return
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	if a.page {
		h.Set("Content-Type", "text/html; charset=utf-8")
	} else {
		h.Set("X-GitHub-Media-Type", "github.v3; format=json")
	}
	if a.status == http.StatusOK {
		h.Set("Cache-Control", "private, max-age=60, s-maxage=60")
	}
	h.Set("Vary", "Accept, Authorization, Cookie, X-GitHub-OTP, Accept-Encoding")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body)
		return
	}
	h.Set("Content-Encoding", "gzip")
	w.WriteHeader(a.status)
	z := compressors.Get().(*gzip.Writer)
	defer compressors.Put(z)
	z.Reset(w)
	_, _ = z.Write(a.body)
	_ = z.Close()
}

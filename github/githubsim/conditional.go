package githubsim

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"sync"
)

func newPage(body []byte) *page {
	return &page{
		body:  body,
		zip:   sync.OnceValue(func() []byte { return compress(body) }),
		etags: make(map[string]string, 1),
	}
}

var compressors = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a valid one
	}
	return w
}}

func compress(body []byte) []byte {
	var b bytes.Buffer
	z := compressors.Get().(*gzip.Writer)
	defer compressors.Put(z)
	z.Reset(&b)
	if _, err := z.Write(body); err != nil {
		panic(err) // a buffer takes everything
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return bytes.Clone(b.Bytes()) // without the room to grow
}

// etag is the validator of a page for whoever asks so. The caller holds the
// Sim's lock.
func (p *page) etag(asker string) string {
	tag, ok := p.etags[asker]
	if !ok {
		if len(p.etags) >= maxEtags {
			clear(p.etags)
		}
		tag = validator(asker, p.body)
		p.etags[asker] = tag
	}
	return tag
}

// validator is the strong form of an ETag.
func validator(asker string, body []byte) string {
	h := sha256.New()
	_, _ = io.WriteString(h, asker) // hashes take everything
	_, _ = h.Write(body)
	return `"` + hex.EncodeToString(h.Sum(nil)) + `"`
}

// asker is what of a request goes into the validators of its answer, beside the
// body: another credential never hits, not even another token of the same App.
func asker(r *http.Request) string {
	var b strings.Builder
	for _, name := range [...]string{"Accept", "Authorization", "Cookie"} {
		if v := r.Header[name]; len(v) > 0 && v[0] != "" {
			b.WriteString(v[0])
			b.WriteByte(':')
		}
	}
	return b.String()
}

// validate gives an answer its ETag, and makes it a 304 where the client has it
// already. The caller holds the lock.
func (s *Sim) validate(r *http.Request, a *answer) {
	if a.html || len(a.body) == 0 || a.status != http.StatusOK && a.status != http.StatusCreated {
		return
	}
	who := asker(r)
	if a.prepared() {
		s.asker = who
		a.etag = a.page.etag(who)
	} else {
		a.etag = validator(who, a.body)
	}
	if a.status == http.StatusOK && r.Method == http.MethodGet && holds(r.Header["If-None-Match"], a.etag) {
		a.status = http.StatusNotModified
	}
}

// holds compares as for If-None-Match: weakly, in lists, and with * for any.
func holds(given []string, etag string) bool {
	for _, header := range given {
		for one := range strings.SplitSeq(header, ",") {
			one = strings.TrimSpace(one)
			if one == "*" || strings.TrimPrefix(one, "W/") == etag {
				return true
			}
		}
	}
	return false
}

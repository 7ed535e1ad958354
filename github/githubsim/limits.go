package githubsim

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Limits is what GitHub allows one credential, the tokens of an App
// installation together being one. What is zero is not limited, as nothing is on
// an Enterprise Server unless its administrator wants it.
type Limits struct {
	// Primary is how many requests an hour. With it, answers have the headers
	// X-RateLimit-*, and /rate_limit, which is free, is there. A 304 is free, a
	// refusal is not.
	Primary       int
	PrimaryStatus int // once they are spent; zero: 403

	// Secondary limits. One that is broken begins a penalty, in which every
	// request is refused; what is refused counts towards none of them.
	Concurrent       int // requests under way
	Points           int // in any minute, for each template that Event.Path may have; see Event.Points
	Mutations        int // requests other than GET, in any minute
	MutationsPerHour int // in any hour

	SecondaryStatus int           // zero: 403
	Penalty         time.Duration // zero: a minute
	// Extend makes a request within the penalty begin it anew.
	Extend     bool
	RetryAfter RetryAfter
	// OldDocs names the documentation as in 2022, by which some clients tell
	// secondary limits.
	OldDocs bool
}

// Usual are the limits of github.com for a personal token.
var Usual = Limits{Primary: 5000, Concurrent: 100, Points: 900, Mutations: 80, MutationsPerHour: 500}

// RetryAfter is how the refusals of secondary limits say when to come back.
type RetryAfter string

const (
	RetrySeconds RetryAfter = ""
	RetryDate    RetryAfter = "date"
	RetryAbsent  RetryAfter = "absent" // not at all: the documentation wants a minute
)

// SetLimits changes Config.Limits. What was spent stays spent, and a penalty
// goes on.
func (s *Sim) SetLimits(l Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Limits = l
}

// Penalise begins a penalty of a credential, as if it had broken a secondary
// limit. It does not know of it before its next request is refused.
func (s *Sim) Penalise(token string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.budgetOf(token)
	b.penalty.begin(s.clock().Add(d))
}

// Spend takes requests from what is left to a credential in this hour.
func (s *Sim) Spend(token string, requests int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budgetOf(token).hour(s.clock()).used += requests
}

// budget is what one credential has spent. The Sim's lock guards it.
type budget struct {
	user     int64  // its number, for PATs
	what     string // of refusals
	began    time.Time
	used     int
	points   map[string]*window // by route
	minute   window             // of mutations
	sixty    window             // minutes of mutations
	underWay int
	penalty  stay // of secondary limits
	spent    stay // for want of primary requests
	asked    stay // by a fault, without anything being limited
}

// stay is a time in which nothing is to be asked. The client knows of it once a
// refusal has been sent.
type stay struct {
	number int // of how many
	until  time.Time
	told   time.Time // zero: it has not been
	after  uint64    // that arrival
}

func (p *stay) begin(until time.Time) { *p = stay{number: p.number + 1, until: until} }

// budgetOf is the budget that a token spends from.
func (s *Sim) budgetOf(token string) *budget {
	who, what := s.payer(token)
	b := s.budgets[who]
	if b == nil {
		b = &budget{points: make(map[string]*window), user: int64(len(s.budgets) + 1)}
		b.what = what
		if what == "" {
			b.what = fmt.Sprintf("user ID %d", b.user)
		}
		s.budgets[who] = b
	}
	return b
}

// hour begins a new one once the old one is over.
func (b *budget) hour(now time.Time) *budget {
	if b.began.IsZero() || now.Sub(b.began) >= time.Hour {
		b.began, b.used = now, 0
	}
	return b
}

func (b *budget) reset() time.Time { return b.began.Add(time.Hour) }

// window adds up what was spent in a stretch of time that ends now.
type window struct {
	spent []spent
	sum   int
}

type spent struct {
	at     time.Time
	points int
}

// fits spends points, unless they are more than what is left of limit.
func (w *window) fits(now time.Time, span time.Duration, points, limit int) bool {
	old := 0
	for old < len(w.spent) && now.Sub(w.spent[old].at) >= span {
		w.sum -= w.spent[old].points
		old++
	}
	w.spent = w.spent[old:]
	if limit > 0 && w.sum+points > limit {
		return false
	}
	w.spent = append(w.spent, spent{now, points})
	w.sum += points
	return true
}

// metered is what limits have to do with one request.
type metered struct {
	number uint64    // of its arrival
	at     time.Time // of its arrival
	cost   int       // in points
	budget *budget   // nil: nobody's
	free   bool      // of the primary limit
	good   bool      // its credential
	// The stay that it came in spite of, and for how long that had been told.
	penalty bool
	toldFor time.Duration
	// The stay that it is refused for; nil: none.
	stay *stay
	nth  int // of those of its kind
}

// arrival is the begin of a request. Those that a fault delays arrive before.
func (s *Sim) arrival(method string) metered {
	s.arrivals++
	return metered{number: s.arrivals, at: s.clock(), cost: points(method)}
}

// points are what a request costs with secondary limits.
func points(method string) int {
	if method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions {
		return 1
	}
	return 5
}

// meter counts a request of a good credential in, and refuses it where a limit
// says so. The caller holds the lock.
func (s *Sim) meter(q query, token string, m *metered) *answer {
	m.good = true
	l := &s.config.Limits
	if *l == (Limits{}) && len(s.budgets) == 0 {
		return nil
	}
	now := s.clock()
	b := s.budgetOf(token).hour(now)
	b.underWay++
	m.budget, m.free = b, q.op == opRateLimit
	m.ignores(&b.penalty)
	m.ignores(&b.spent)
	m.ignores(&b.asked)
	if now.Before(b.penalty.until) {
		if l.Extend {
			b.penalty.until = now.Add(l.penalty())
		}
		m.refuse(&b.penalty)
		return s.penaltyAnswer(b, now)
	}
	if l.Primary > 0 && b.used >= l.Primary && !m.free {
		if !now.Before(b.spent.until) {
			b.spent.begin(b.reset())
		}
		m.refuse(&b.spent)
		return s.spentAnswer(b)
	}
	route := q.template
	if q.op == opNone {
		route = "" // paths that are none are many
	}
	if b.admits(l, now, route, m.cost) {
		return nil
	}
	b.penalty.begin(now.Add(l.penalty()))
	m.refuse(&b.penalty)
	return s.penaltyAnswer(b, now)
}

// ignores notes that a request came in spite of a stay.
func (m *metered) ignores(p *stay) {
	if m.free && p == &m.budget.spent {
		return
	}
	if m.at.Before(p.until) && !p.told.IsZero() && p.after < m.number {
		m.penalty, m.toldFor = true, max(m.toldFor, m.at.Sub(p.told))
	}
}

func (m *metered) refuse(p *stay) { m.stay, m.nth = p, p.number }

func (l *Limits) penalty() time.Duration {
	if l.Penalty == 0 {
		return time.Minute
	}
	return l.Penalty
}

// admits spends what a request costs, unless that breaks a secondary limit.
func (b *budget) admits(l *Limits, now time.Time, route string, points int) bool {
	if l.Concurrent > 0 && b.underWay > l.Concurrent {
		return false
	}
	w := b.points[route]
	if w == nil {
		w = new(window)
		b.points[route] = w
	}
	if l.Points > 0 && !w.fits(now, time.Minute, points, l.Points) {
		return false
	}
	if points == 1 {
		return true
	}
	return (l.Mutations == 0 || b.minute.fits(now, time.Minute, 1, l.Mutations)) &&
		(l.MutationsPerHour == 0 || b.sixty.fits(now, time.Hour, 1, l.MutationsPerHour))
}

// charge writes into the log what a request cost, and into the answer what is
// left. The caller holds the lock.
func (s *Sim) charge(m *metered, a *answer, token string, e *Event) {
	if !m.good {
		return
	}
	e.Points, e.Penalty, e.ToldFor = m.cost, m.penalty, m.toldFor
	if a.wait > 0 {
		asked := &s.budgetOf(token).asked
		asked.begin(s.clock().Add(a.wait))
		m.refuse(asked)
	}
	b, limit := m.budget, s.config.Limits.Primary
	if b == nil || limit == 0 {
		return
	}
	limited := m.stay == &b.penalty || m.stay == &b.spent
	if !m.free && !limited && a.status != http.StatusNotModified {
		b.used++
	}
	left := max(limit-b.used, 0)
	e.RateLimit, e.RateRemaining = limit, left
	a.rate = &rate{limit: limit, remaining: left, used: min(b.used, limit), reset: b.reset().Unix()}
}

// sent counts a request out, once its answer has been written.
func (s *Sim) sent(w http.ResponseWriter, m metered) {
	if m.budget == nil && m.stay == nil {
		return
	}
	if m.stay != nil {
		// What is only buffered has been told to nobody. An error means that the
		// client has gone.
		_ = http.NewResponseController(w).Flush()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.budget != nil {
		m.budget.underWay--
	}
	if m.stay != nil && m.stay.number == m.nth && m.stay.told.IsZero() {
		m.stay.told, m.stay.after = s.clock(), s.arrivals
	}
}

// rate is what the headers say of the primary limit.
type rate struct {
	limit, remaining, used int
	reset                  int64 // seconds since 1970
}

func (r *rate) header(h http.Header) {
	h["X-Ratelimit-Limit"] = []string{strconv.Itoa(r.limit)}
	h["X-Ratelimit-Remaining"] = []string{strconv.Itoa(r.remaining)}
	h["X-Ratelimit-Used"] = []string{strconv.Itoa(r.used)}
	h["X-Ratelimit-Reset"] = []string{strconv.FormatInt(r.reset, 10)}
	h["X-Ratelimit-Resource"] = []string{"core"}
}

// rateLimit answers the question for what is left.
func (s *Sim) rateLimit(m metered) *answer {
	limit := s.config.Limits.Primary
	if limit == 0 || m.budget == nil {
		return s.jsonError(http.StatusNotFound, "Rate limiting is not enabled.", query{})
	}
	core := fmt.Sprintf(`{"limit":%d,"used":%d,"remaining":%d,"reset":%d}`,
		limit, min(m.budget.used, limit), max(limit-m.budget.used, 0), m.budget.reset().Unix())
	return &answer{status: http.StatusOK, body: fmt.Appendf(nil, `{"resources":{"core":%s},"rate":%s}`, core, core)}
}

// spentAnswer refuses for want of primary requests.
func (s *Sim) spentAnswer(b *budget) *answer {
	status := s.config.Limits.PrimaryStatus
	if status == 0 {
		status = http.StatusForbidden
	}
	return s.refusal(status, "API rate limit exceeded for "+b.what+".",
		"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api")
}

// penaltyAnswer refuses for a secondary limit.
func (s *Sim) penaltyAnswer(b *budget, now time.Time) *answer {
	l := &s.config.Limits
	status, docs := l.SecondaryStatus, "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"
	if status == 0 {
		status = http.StatusForbidden
	}
	if l.OldDocs {
		docs = "https://docs.github.com/en/free-pro-team@latest/rest/overview/resources-in-the-rest-api#secondary-rate-limits"
	}
	a := s.refusal(status, "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.", docs)
	switch l.RetryAfter {
	case RetrySeconds:
		seconds := (b.penalty.until.Sub(now) + time.Second - 1) / time.Second
		a.retryAfter = strconv.Itoa(int(seconds))
	case RetryDate:
		a.retryAfter = b.penalty.until.Add(time.Second - 1).UTC().Format(http.TimeFormat)
	}
	return a
}

func (s *Sim) refusal(status int, message, docs string) *answer {
	return &answer{status: status, body: fmt.Appendf(nil, `{"message":%s,"documentation_url":%s%s}`, quote(message), quote(docs), s.statusField(status))}
}

// payer is whose budget a token spends from, and what refusals call it; empty:
// a user. The tokens of an installation spend from one.
func (s *Sim) payer(token string) (who, what string) {
	if t := s.issued[token]; t != nil {
		who = fmt.Sprintf("installation ID %d", t.of.ID)
		return who, who
	}
	if a, ok := parseAssertion(token); ok {
		who = fmt.Sprintf("app ID %d", a.issuer())
		return who, who
	}
	return token, ""
}

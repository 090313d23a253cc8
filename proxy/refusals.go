package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Refused is a connection that was turned away, by the gate or by PostgreSQL, or a
// session that the gate has ended for what a new connection would be refused for.
type Refused struct {
	At       time.Time
	Outcome  Outcome
	Session  bool // it had been admitted
	Listener string

	// What follows is the client's, printable and cut.
	Client         netip.AddrPort
	User, Database string
	Subject        string // of its certificate
	Reason         string // more than it was told
}

// refusalsKept bounds what a flood can make the gate remember, textKept each text
// of it.
const (
	refusalsKept = 100
	textKept     = 200
)

// refusals remembers the last of them, and bounds how many lines strangers can
// cause in the log: a second in all, and a share of that for one source. What is
// left out is counted and logged in summary.
type refusals struct {
	log *slog.Logger

	mu      sync.Mutex
	kept    [refusalsKept]Refused
	n       int // since the start
	all     *rate.Limiter
	sources *simplelru.LRU[netip.Prefix, *rate.Limiter]
	leftOut map[Outcome]int
}

func (r *refusals) add(one Refused) {
	for _, text := range []*string{&one.User, &one.Database, &one.Subject, &one.Reason} {
		*text = kept(*text)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[r.n%refusalsKept] = one
	r.n++
}

// kept is a copy, or a few bytes would keep the packet alive that they are from.
func kept(s string) string {
	if s = printable(s); len(s) > textKept {
		return strings.ToValidUTF8(s[:textKept], "") + "…"
	}
	return strings.Clone(s)
}

// last returns them, the newest first.
func (r *refusals) last() []Refused {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Refused, 0, min(r.n, refusalsKept))
	for i := r.n - 1; i >= 0 && len(all) < refusalsKept; i-- {
		all = append(all, r.kept[i%refusalsKept])
	}
	return all
}

// rememberRefusal keeps a connection among the refusals, if it is one. Port scans
// and health checks would soon be all of them.
func (s *Server) rememberRefusal(e end) {
	if e.outcome == Probe || e.outcome >= ClientClosed {
		return
	}
	p := e.peer
	one := Refused{
		At: time.Now(), Outcome: e.outcome, Session: e.admitted, Listener: p.request.Listener,
		Client: p.source, User: p.request.User, Database: p.request.Database,
	}
	if e.refusal != nil {
		one.Reason = e.refusal.Detail
	} else if sqlstate := e.relayed.Login.SQLSTATE; sqlstate != "" {
		one.Reason = "PostgreSQL says " + sqlstate
	}
	if id := p.request.Certificate; id != nil {
		one.Subject = id.DN
	}
	s.refusals.add(one)
}

// Refusals returns the last hundred, the newest first.
func (s *Server) Refusals() []Refused { return s.refusals.last() }

// Usage counts it.
func (s *Server) Usage() Usage {
	u := s.limiter.usage()
	u.CancelRequests = s.cancelKeys.inFlight()
	return u
}

const (
	// sourceShare is how large a part of Policy.RefusalLogRate one source may have:
	// one in so many.
	sourceShare = 5
	// refusalBurst is how many seconds' worth of lines may come at once.
	refusalBurst = 2
	// loggedSources bounds the memory.
	loggedSources = 1 << 12
	// summaryInterval is how often what was left out is logged.
	summaryInterval = 10 * time.Second
)

func newRefusals(log *slog.Logger) *refusals {
	r := &refusals{log: log, leftOut: make(map[Outcome]int)}
	// The error is for a size that is not positive.
	r.sources, _ = simplelru.NewLRU[netip.Prefix, *rate.Limiter](loggedSources, nil)
	return r
}

// allow reports whether a line about a refusal may be written. A rate of 0 is no
// limit.
func (r *refusals) allow(perSecond float64, o Outcome, source netip.Prefix, now time.Time) bool {
	if perSecond <= 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	own, _ := r.sources.Get(source)
	own = adjusted(own, perSecond/sourceShare, now)
	r.sources.Add(source, own)
	r.all = adjusted(r.all, perSecond, now)
	if own.AllowN(now, 1) && r.all.AllowN(now, 1) {
		return true
	}
	r.leftOut[o]++
	return false
}

// adjusted returns l with a rate that a reload may have changed, or a new limiter
// if l is nil.
func adjusted(l *rate.Limiter, perSecond float64, now time.Time) *rate.Limiter {
	limit, burst := rate.Limit(perSecond), max(1, int(refusalBurst*perSecond))
	if l == nil {
		return rate.NewLimiter(limit, burst)
	}
	if l.Limit() != limit {
		l.SetLimitAt(now, limit)
		l.SetBurstAt(now, burst)
	}
	return l
}

// summary returns how many lines were left out since the last time, by outcome.
func (r *refusals) summary() (total int, attrs []slog.Attr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o := range outcomeCount {
		if n := r.leftOut[o]; n > 0 {
			total += n
			attrs = append(attrs, slog.Int(o.String(), n))
		}
	}
	clear(r.leftOut)
	return total, attrs
}

// logLeftOut logs how many refusals were not logged one by one.
func (r *refusals) logLeftOut(log *slog.Logger) {
	if total, attrs := r.summary(); total > 0 {
		log.LogAttrs(context.Background(), slog.LevelWarn, "refusals not logged",
			slog.Int("count", total), slog.Attr{Key: "outcomes", Value: slog.GroupValue(attrs...)})
	}
}

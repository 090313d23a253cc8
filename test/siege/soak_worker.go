//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/test/gate"
)

// clientCert is a client certificate, until it is revoked.
type clientCert struct {
	credentials
	revoked  atomic.Bool   // it is about to be on a list, or is
	refused  atomic.Int64  // when new clients were seen to be refused for it, in Unix nanoseconds; 0: not yet
	replaced chan struct{} // closed when the group has another
}

// group is clients with one role and, at any time, one certificate.
type group struct {
	role string

	mu         sync.Mutex
	clientCert *clientCert
	issued     int
	sessions   map[*worker]*clientCert // that are open, by what has let them in
}

// grace is how long sessions may live on after new clients are refused: a second is
// promised, and the machine may be slow.
const grace = 20 * time.Second

// mustEnd says whether the gate must end the sessions of p, and whether it
// should have done so by now.
func (p *clientCert) mustEnd() (yes, overdue bool) {
	since := p.refused.Load()
	return p.revoked.Load(), since > 0 && time.Since(time.Unix(0, since)) > grace
}

func (g *group) current() *clientCert {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.clientCert
}

// enter and leave count the sessions.
func (g *group) enter(w *worker, p *clientCert) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sessions[w] = p
}

func (g *group) leave(w *worker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sessions, w)
}

// sessionsOf counts the sessions that a certificate has opened.
func (g *group) sessionsOf(p *clientCert) (n int) {
	return g.sessionsThat(func(_ *worker, by *clientCert) bool { return by == p })
}

// sessionsThat counts the sessions with that property. Of the worker only what any goroutine
// may read counts.
func (g *group) sessionsThat(are func(*worker, *clientCert) bool) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for w, by := range g.sessions {
		if are(w, by) {
			n++
		}
	}
	return n
}

// manner is how a client spends its time.
type manner struct {
	name    string
	life    int           // requests in a session, at most
	pause   time.Duration // between two requests, at most
	actions []request     // what it asks for; often is more than once
}

// worker is one client. Its rnd decides everything that it asks
// for. It belongs to its goroutine, except for pid.
type worker struct {
	s      *soak
	number int
	manner manner
	group  *group
	rnd    *rand.Rand
	source string // the address that it comes from; empty: the usual one

	second bool // the first waits for it: it must not wait for a certificate

	conn       *pgx.Conn
	clientCert *clientCert // that has let it in
	began      time.Time   // to connect
	opened     time.Time
	local      string // its own address, as the gate's log has it
	kept       int    // rows in the session's temporary table
	entries    int    // of the ledger, so far
	asked      string // the last thing
	idle       bool   // it waits for nothing in particular
	midway     bool   // it is in a transaction, or in the middle of an answer
	pid        atomic.Uint32
}

// work connects and asks until the load is to end.
func (w *worker) work() {
	for w.s.running() && w.connect() {
		left := 1 + w.rnd.IntN(w.manner.life)
		for ; w.stays(left); left-- {
			r := w.manner.actions[w.rnd.IntN(len(w.manner.actions))]
			pause := time.Duration(w.rnd.Int64N(int64(w.manner.pause) + 1))
			if !w.does(r.name, r.do) || !w.does("idle", func(w *worker, _ context.Context) error { return w.rest(pause) }) {
				break
			}
		}
		w.close()
	}
}

// subject is what locks and rules know of the client.
func (w *worker) subject(p *clientCert) subject {
	who := w.group.subject(p)
	who.pid = w.pid.Load()
	return who
}

// subject is what they know of a client of the group without a session.
func (g *group) subject(p *clientCert) subject {
	who := subject{role: g.role, cn: g.role}
	if p.pair != nil {
		who.serial = serialOf(p.pair.Leaf())
	}
	return who
}

// mustEnd says whether the gate must end the session, and whether it should have done so
// by now.
func (w *worker) mustEnd() (yes, overdue bool) {
	revoked, late := w.clientCert.mustEnd()
	restricted, overdue := w.s.restrictionOn(w.subject(w.clientCert), time.Now())
	return revoked || restricted, late || overdue
}

// stays says whether a session with so many requests to go is to go on. One
// whose certificate is revoked, or which is locked, does not leave: it waits for its end.
func (w *worker) stays(left int) bool {
	mustEnd, overdue := w.mustEnd()
	if overdue {
		w.s.recordLoss(w.String(), "the end of its session", fmt.Sprintf("it is still open %v after new clients were refused for the same reason", grace))
		return false
	}
	return mustEnd || left > 0 && w.s.running()
}

// does runs one request and judges its error. It returns whether the session
// goes on.
func (w *worker) does(name string, do func(*worker, context.Context) error) bool {
	w.asked, w.idle, w.midway = name, false, false
	ctx, cancel := context.WithTimeout(context.Background(), gate.Timeout)
	defer cancel()
	err := do(w, ctx)
	if err == nil {
		if name != "idle" {
			w.s.queries.add(name, 1)
		}
		return true
	}
	w.judge(err)
	return false
}

// judge records a loss unless an action explains the error.
func (w *worker) judge(err error) {
	e := ending{who: w.subject(w.clientCert), err: err, pid: w.pid.Load(), began: w.began, opened: w.opened, clientCert: w.clientCert, idle: w.idle, midway: w.midway}
	why, ok := w.s.excuse(e, time.Now())
	if !ok {
		w.s.recordLoss(w.String(), w.asked, err.Error())
		return
	}
	how, words := "without a message", ""
	if told := new(pgconn.PgError); errors.As(err, &told) {
		how, words = "with a message", told.Message
	}
	w.s.sessionsEnded.add(string(why)+", "+how, 1)
	w.s.excused(excusal{w.local, why, words, e.began, time.Now()})
}

func (w *worker) String() string {
	return fmt.Sprintf("client %d (%s, %s, %s, backend %d)", w.number, w.manner.name, w.group.role, w.local, w.pid.Load())
}

// connect opens a session, and waits while the gate is down on purpose. It
// returns false if the load ended before, or after a loss.
func (w *worker) connect() bool {
	w.asked = "to connect"
	for w.s.running() {
		p, began := w.group.current(), time.Now()
		conn, err := w.dial(p)
		who, now := w.subject(p), time.Now()
		if err == nil {
			w.hold(conn, p, began)
			if r := w.s.forbids(who, began, now); r != nil {
				w.s.recordLoss(w.String(), w.asked, fmt.Sprintf("it is admitted under %v", r))
			}
			return true
		}
		why, restricted := w.s.restrictsConnect(who, err, began, now)
		switch {
		case restricted && w.second:
			return false
		case restricted:
			w.s.faults.add("new client refused or cut off: "+string(why), 1)
			select {
			case <-time.After(500 * time.Millisecond):
			case <-w.s.over:
			}
		case state(err) == "28000" && p.revoked.Load() && strings.Contains(err.Error(), "revoked"):
			if w.second {
				return false
			}
			w.s.faults.add("new client with a revoked certificate refused", 1)
			select {
			case <-p.replaced:
			case <-w.s.over:
			}
		// During its startup a client may get the message of a session, or none.
		case p.revoked.Load() && cut(err) && (state(err) == "" || strings.Contains(err.Error(), "revoked")), w.s.excusesRefusal(err, began, time.Now()):
			select {
			case <-time.After(50 * time.Millisecond):
			case <-w.s.over:
			}
		default:
			w.clientCert, w.local = p, ""
			w.s.recordLoss(w.String(), w.asked, err.Error())
			return false
		}
	}
	return false
}

func (w *worker) dial(p *clientCert) (*pgx.Conn, error) {
	config, err := w.s.config(w.group.role, p, w.source)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["application_name"] = fmt.Sprintf("soak %d", w.number)
	ctx, cancel := context.WithTimeout(context.Background(), gate.Timeout)
	defer cancel()
	return pgx.ConnectConfig(ctx, config)
}

func (w *worker) hold(conn *pgx.Conn, p *clientCert, began time.Time) {
	w.conn, w.clientCert, w.began, w.opened, w.kept = conn, p, began, time.Now(), 0
	w.local = conn.PgConn().Conn().LocalAddr().String()
	w.pid.Store(conn.PgConn().PID())
	w.group.enter(w, p)
	w.s.connects.Add(1)
	w.s.open.add(1)
}

// close ends the session in order, if it has not been ended.
func (w *worker) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = w.conn.Close(ctx)
	w.conn = nil
	w.pid.Store(0)
	w.group.leave(w)
	w.s.open.add(-1)
}

// rest waits and reads, so that a message is noticed at once.
func (w *worker) rest(d time.Duration) error {
	w.idle = true
	const turn = 300 * time.Millisecond
	for end := time.Now().Add(d); ; {
		if mustEnd, _ := w.mustEnd(); !mustEnd && !w.s.running() {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), min(left, turn))
		n, err := w.conn.WaitForNotification(ctx)
		waited := ctx.Err() != nil
		cancel()
		switch {
		case err == nil:
			return &mismatch{fmt.Sprintf("an unexpected notification: %q on %q", n.Payload, n.Channel)}
		case waited && !w.conn.IsClosed():
		default:
			return err
		}
	}
}

// another returns a second client of the same kind, for what takes two.
func (w *worker) another() *worker {
	return &worker{s: w.s, number: w.number, manner: w.manner, group: w.group, rnd: w.rnd, source: w.source, second: true}
}

// matches counts what is compared.
func (w *worker) matches(got, want []byte) error {
	w.s.compared.Add(int64(len(got)))
	return compare(got, want)
}

// ending is what a client knows of the end of its session.
type ending struct {
	who        subject
	err        error
	pid        uint32
	began      time.Time // to connect: the gate may have had the session from here on
	opened     time.Time // when the client knew
	clientCert *clientCert
	idle       bool
	midway     bool
}

// outage is a restart of the gate.
type outage struct {
	action      action
	from, until time.Time // until is zero while it is under way
}

// touches says whether something that began and ended then can have met it.
func (o outage) touches(began, ended time.Time) bool {
	return !ended.Before(o.from) && (o.until.IsZero() || !began.After(o.until))
}

// disturbances are what may excuse the end of a session. Safe for concurrent use.
type disturbances struct {
	mu           sync.Mutex
	outages      []outage
	terminated   map[uint32]time.Time // backends; a number may come again
	restrictions []*restriction
	seen         []excusal
}

// excusal is an end that was excused; the gate's log must have the same reason.
type excusal struct {
	client         string
	action         action
	words          string    // the message that told of it; empty: none
	began, noticed time.Time // the session, and its end
}

func (d *disturbances) begin(what action) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outages = append(d.outages, outage{action: what, from: time.Now()})
}

// finish ends the last one that is under way.
func (d *disturbances) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range slices.Backward(d.outages) {
		if d.outages[i].until.IsZero() {
			d.outages[i].until = time.Now()
			return
		}
	}
}

func (d *disturbances) terminate(pid uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.terminated[pid] = time.Now()
}

func (d *disturbances) excused(e excusal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = append(d.seen, e)
}

// drainTimeout is the gate's limits.drain_timeout. Busy sessions may go on for half of it.
const drainTimeout = 10 * time.Second

// excuse says what of the plan explains the end of a session, if anything does.
// An idle client must have got a message. No restart may cut a transaction or an
// answer before its time is up.
func (d *disturbances) excuse(e ending, now time.Time) (action, bool) {
	var told *pgconn.PgError
	inWords := errors.As(e.err, &told)
	revoked := e.clientCert != nil && e.clientCert.revoked.Load()
	if inWords && told.Code == "57P01" && strings.HasPrefix(told.Message, gate.FatalRevoked) {
		return revocation, revoked
	}
	if inWords && told.Code == "57P01" && told.Message != gate.FatalTerminated {
		return d.restrictionTold(e, told, now)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !inWords && ended(e.err) {
		if what := d.killed(e.began, e.opened, now); what != "" {
			return what, true
		}
	}
	byCommand := inWords && told.Code == "57P01" && told.Message == gate.FatalTerminated
	if !byCommand && (inWords || e.idle || !ended(e.err)) {
		return "", false
	}
	switch {
	case d.terminated[e.pid].After(e.opened):
		return terminating, true
	case revoked && !byCommand:
		return revocation, true
	}
	// A command tells what a drain tells; the others have words of their own, or cut.
	r := d.restricted(e, now, func(a action) bool { return !byCommand || a == commanding })
	if r != nil && (r.action != commanding || !e.opened.After(r.from)) {
		return r.action, true
	}
	for _, o := range slices.Backward(d.outages) {
		if kills := o.action == crashing || o.action == killingUpgrade || o.action == killingOld; kills || !o.touches(e.began, now) {
			continue
		}
		// An upgrade ends no session, but one whose startup took longer than the old process waits for.
		if o.action == upgrading && e.opened.Before(o.from.Add(drainTimeout/2)) {
			continue
		}
		if timely := now.Sub(o.from) >= drainTimeout; e.midway && (byCommand || !timely) {
			continue
		}
		return o.action, true
	}
	if r != nil { // it was opened while the command ran
		return r.action, true
	}
	return "", false
}

// met says whether something that lasted so long can have met such an outage. The
// caller holds mu.
func (d *disturbances) met(what action, began, ended time.Time) bool {
	return slices.ContainsFunc(d.outages, func(o outage) bool { return o.action == what && o.touches(began, ended) })
}

// movesWithin is how long a session may have been open and still be in the old process of an upgrade, which
// hands each over as soon as it is logged in. The machine may be slow.
const movesWithin = 3 * time.Second

// killed returns how a process was killed that may have had a connection; empty: none was. A connection that is
// there long after the kill was another process's, and its end has another cause. The caller holds mu.
func (d *disturbances) killed(began, opened, now time.Time) action {
	for _, o := range slices.Backward(d.outages) {
		switch {
		case !o.touches(began, now), !o.until.IsZero() && now.After(o.until.Add(grace)):
		case o.action == crashing, o.action == killingUpgrade, o.action == killingOld && !opened.Before(o.from.Add(-movesWithin)):
			return o.action
		}
	}
	return ""
}

// slowStartup says whether a startup can have taken longer than the old process of an upgrade waits for it. The
// caller holds mu.
func (d *disturbances) slowStartup(began, now time.Time) bool {
	return slices.ContainsFunc(d.outages, func(o outage) bool {
		return o.action == upgrading && o.touches(began, now) && !now.Before(o.from.Add(drainTimeout/2))
	})
}

// excusesRefusal says whether a connect can have failed because the gate was
// being restarted.
func (d *disturbances) excusesRefusal(err error, began, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, syscall.ECONNREFUSED) || cut(err) && state(err) != "57P01" {
		if d.met(interrupting, began, now) || d.killed(began, now, now) != "" {
			return true
		}
	}
	late := state(err) == "57P01" || state(err) == "57P03"
	slow := d.slowStartup(began, now)
	return late && (slow || d.met(overlapping, began, now) || d.met(interrupting, began, now)) || slow && cut(err)
}

// ended says whether an error is the end of a connection, and neither an answer nor a
// timeout.
func ended(err error) bool {
	var wrong *mismatch
	return !errors.As(err, &wrong) && !errors.Is(err, context.DeadlineExceeded) && state(err) == "" &&
		(cut(err) || errors.Is(err, syscall.ECONNABORTED) || strings.Contains(err.Error(), "conn closed") || strings.Contains(err.Error(), "closed network connection"))
}

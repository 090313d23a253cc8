//go:build linux

package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/test/gate"
)

// subject is what a restriction asks of a client.
type subject struct {
	role    string // that it asks for; empty: it has not asked yet
	cn      string // of its certificate; in a group it is the role
	serial  string
	pid     uint32 // of its backend; 0: it has no session
	session string // its id, as the log has it; empty: not known
}

// restriction is a lock, a rule whose time ends, or a command that ends sessions. The
// sessions that it matches end, and unless it is a command, it refuses their clients.
type restriction struct {
	action  action
	filter  string // as on the command line
	matches func(subject) bool
	from    time.Time // it may end sessions
	inForce time.Time // it must refuse clients that begin to connect from here on; zero: that is not known
	lifted  time.Time // it need not refuse clients from here on; zero: it must
	over    time.Time // it must not refuse clients that begin to connect from here on; zero: it may
}

func (r *restriction) String() string { return fmt.Sprintf("%s (%s)", r.action, r.filter) }

// mayEnd says whether the restriction explains the end of a session that was noticed at
// a time. A slow machine may notice it late.
func (r *restriction) mayEnd(who subject, began, now time.Time) bool {
	return r.matches(who) && !now.Before(r.from) && (r.over.IsZero() || !began.After(r.over) && now.Before(r.over.Add(grace)))
}

// mayRefuse says whether it explains that a client was refused.
func (r *restriction) mayRefuse(who subject, began, now time.Time) bool {
	return r.matches(who) && !now.Before(r.from) && (r.over.IsZero() || !began.After(r.over))
}

// mustRefuse says whether no client that has begun and ended its startup then can be in.
func (r *restriction) mustRefuse(who subject, began, now time.Time) bool {
	return !r.inForce.IsZero() && r.matches(who) && began.After(r.inForce) && (r.lifted.IsZero() || now.Before(r.lifted))
}

// What a client is told of each kind: 28000 when it connects, 57P01 in a session.
var restrictionWords = map[action]string{
	locking:        gate.FatalLocked,
	lockRunningOut: gate.FatalLocked,
	ruleEnding:     gate.FatalNoRule,
}

// restrict puts a restriction into the account. Later changes of it go through amend.
func (d *disturbances) restrict(r *restriction) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.restrictions = append(d.restrictions, r)
}

func (d *disturbances) amend(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// restricted returns the restriction that explains the end of a session; nil: none does.
// The caller holds mu.
func (d *disturbances) restricted(e ending, now time.Time, isKind func(action) bool) *restriction {
	for _, r := range slices.Backward(d.restrictions) {
		if isKind(r.action) && r.mayEnd(e.who, e.began, now) {
			return r
		}
	}
	return nil
}

// restrictionTold returns the restriction that explains a message in a session.
func (d *disturbances) restrictionTold(e ending, told *pgconn.PgError, now time.Time) (action, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.restricted(e, now, func(a action) bool {
		return restrictionWords[a] != "" && strings.HasPrefix(told.Message, "terminating connection: "+restrictionWords[a])
	})
	if r == nil {
		return "", false
	}
	return r.action, true
}

// restrictsConnect returns the restriction that explains why a client could not connect. One
// that connects at that moment may get the message of a session, or none.
func (d *disturbances) restrictsConnect(who subject, err error, began, now time.Time) (action, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range slices.Backward(d.restrictions) {
		words := restrictionWords[r.action]
		told := words != "" && strings.Contains(err.Error(), words) || r.action == commanding && strings.Contains(err.Error(), gate.FatalTerminated)
		switch {
		case !r.mayRefuse(who, began, now):
		case state(err) == "28000" && told && r.action != commanding, cut(err) && (state(err) == "" || state(err) == "57P01" && told):
			return r.action, true
		}
	}
	return "", false
}

// forbids returns the restriction that should have refused a client that is in; nil: none.
func (d *disturbances) forbids(who subject, began, now time.Time) *restriction {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.restrictions {
		if r.mustRefuse(who, began, now) {
			return r
		}
	}
	return nil
}

// restrictionOn says whether a restriction must end the session of a client, and whether it should
// have done so by now.
func (d *disturbances) restrictionOn(who subject, now time.Time) (yes, overdue bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.restrictions {
		if !r.inForce.IsZero() && !now.Before(r.inForce) && r.lifted.IsZero() && r.matches(who) {
			yes, overdue = true, overdue || now.Sub(r.inForce) > grace
		}
	}
	return yes, overdue
}

// mayBeRefused says whether a restriction may refuse such a client now.
func (d *disturbances) mayBeRefused(who subject) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	return slices.ContainsFunc(d.restrictions, func(r *restriction) bool { return r.action != commanding && r.mayRefuse(who, now, now) })
}

// auditRestrictions fails unless each line of a gate's log that tells of a lock, a command or, for a
// session, of the end of a rule, has a restriction that matched at that moment.
func (d *disturbances) auditRestrictions(records []gate.Record) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var wrong []string
	for _, r := range records {
		outcome, _ := r["outcome"].(string)
		ended := r.Is(gate.MessageEnded)
		if !ended && !r.Is(gate.MessageRefused) || outcome != "locked" && outcome != "terminated" && (outcome != "no_rule" || !ended) {
			continue
		}
		who, at, err := subjectOf(r)
		explained := err == nil && slices.ContainsFunc(d.restrictions, func(r *restriction) bool {
			return slices.Contains(outcomesOf[r.action], outcome) && r.matches(who) && !at.Before(r.from) && (r.over.IsZero() || at.Before(r.over.Add(grace)))
		})
		if !explained {
			line, _ := json.Marshal(r)
			wrong = append(wrong, errors.Join(err, fmt.Errorf("nothing explains %s", line)).Error())
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d lines: %s", len(wrong), strings.Join(wrong[:min(5, len(wrong))], "; "))
	}
	return nil
}

// subjectOf reads the client of a line of the log.
func subjectOf(r gate.Record) (who subject, at time.Time, err error) {
	text := func(key string) string { s, _ := r[key].(string); return s }
	at, err = time.Parse(time.RFC3339Nano, text("time"))
	cn := strings.TrimPrefix(text("cert_subject"), "CN=")
	return subject{role: text("user"), cn: cn, serial: shortSerial(text("cert_serial")), session: text("session")}, at, err
}

func shortSerial(text string) string { return strings.TrimLeft(strings.ToUpper(text), "0") }

func serialOf(c *x509.Certificate) string { return shortSerial(c.SerialNumber.Text(16)) }

func spkiOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

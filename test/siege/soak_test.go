//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/pgtest"
	"pgwicket/test/gate"
)

// A soak must be able to fail: each of these must be noticed.
func TestCompareSeesEveryByte(t *testing.T) {
	t.Parallel()
	want := md5s("key", 100)
	if err := compare(slices.Clone(want), want); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{
		"cut":       want[:len(want)-1],
		"nothing":   nil,
		"longer":    append(slices.Clone(want), 'x'),
		"twice":     append(slices.Clone(want), want...),
		"reordered": append(slices.Clone(want[32:64]), want[:32]...),
	} {
		if compare(got, want) == nil {
			t.Errorf("%s: taken for the same", name)
		}
	}
	for i := range want {
		got := slices.Clone(want)
		got[i] ^= 1
		var wrong *mismatch
		if err := compare(got, want); !errors.As(err, &wrong) || !strings.Contains(err.Error(), fmt.Sprintf("from byte %d on", i)) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	a, d, n := entry{1, 1}, entry{1, 2}, entry{2, 1}
	for name, c := range map[string]struct {
		table []written
		wrong string
	}{
		"as it must be":            {[]written{{a, "x"}}, ""},
		"in doubt and there":       {[]written{{d, "y"}, {a, "x"}}, ""},
		"lost":                     {nil, "row 1 of client 1 was acknowledged and is lost"},
		"lost though in doubt is":  {[]written{{d, "y"}}, "is lost"},
		"twice":                    {[]written{{a, "x"}, {a, "x"}}, "more than once"},
		"in doubt and there twice": {[]written{{a, "x"}, {d, "y"}, {d, "y"}}, "more than once"},
		"other contents":           {[]written{{a, "z"}}, "other contents"},
		"never committed":          {[]written{{a, "x"}, {n, ""}}, "never committed"},
		"not in the ledger":        {[]written{{a, "x"}, {entry{9, 9}, ""}}, "not in the ledger"},
	} {
		l := newLedger()
		l.note(a, inDoubt, "x")
		l.note(a, acknowledged, "x")
		l.note(d, inDoubt, "y")
		l.note(n, neverAsked, "")
		wrong := l.audit(c.table)
		if c.wrong == "" && len(wrong) > 0 || c.wrong != "" && (len(wrong) != 1 || !strings.Contains(wrong[0], c.wrong)) {
			t.Errorf("%s: %q, want %q", name, wrong, c.wrong)
		}
	}
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	var books transactions
	if err := books.audit("0 0 0 0 0"); err != nil {
		t.Error("nothing was asked for and nothing is there: ", err)
	}
	books.add(10, 12)
	for sums, good := range map[string]bool{
		"10 5 5 5 5": true, "12 5 5 5 5": true, "9 5 5 5 5": false, "13 5 5 5 5": false, "10 5 4 5 5": false, "10 5 5 4 5": false, "10 5 5 5 4": false, "": false,
	} {
		if err := books.audit(sums); (err == nil) != good {
			t.Errorf("%q: %v", sums, err)
		}
	}
}

func told(code, words string) error {
	return fmt.Errorf("wrapped: %w", &pgconn.PgError{Severity: "FATAL", Code: code, Message: words})
}

func TestOnlyWhatWasDoneExcuses(t *testing.T) {
	t.Parallel()
	const command, revoked = "terminating connection due to administrator command", "terminating connection: client certificate was revoked on Monday"
	began := time.Now()
	after := began.Add
	good, bad := new(clientCert), new(clientCert)
	bad.revoked.Store(true)
	lost := fmt.Errorf("receive message: %w", io.ErrUnexpectedEOF)
	for name, c := range map[string]struct {
		end  ending
		at   time.Time
		want action
	}{
		"drained":                           {ending{err: told("57P01", command), opened: began, idle: true}, after(7 * time.Second), overlapping},
		"drained, noticed late":             {ending{err: told("57P01", command), opened: began, idle: true}, after(time.Minute), overlapping},
		"drained in a transaction":          {ending{err: told("57P01", command), opened: began, midway: true}, after(7 * time.Second), ""},
		"cut in a transaction":              {ending{err: lost, opened: began, midway: true}, after(7 * time.Second), ""},
		"cut in a transaction, time is up":  {ending{err: lost, opened: began, midway: true}, after(drainTimeout + 2*time.Second), overlapping},
		"cut when busy":                     {ending{err: lost, opened: began}, after(7 * time.Second), overlapping},
		"cut when idle":                     {ending{err: lost, opened: began, idle: true}, after(7 * time.Second), ""},
		"lost before the restart":           {ending{err: lost, opened: began}, after(time.Millisecond), ""},
		"a message before the restart":      {ending{err: told("57P01", command), opened: began}, after(time.Millisecond), ""},
		"begun after it":                    {ending{err: told("57P01", command), opened: after(time.Minute)}, after(2 * time.Minute), ""},
		"revoked":                           {ending{err: told("57P01", revoked), clientCert: bad, opened: after(time.Minute), idle: true}, after(time.Hour), revocation},
		"revoked in a transaction":          {ending{err: told("57P01", revoked), clientCert: bad, opened: after(time.Minute), midway: true}, after(time.Hour), revocation},
		"revoked without a message":         {ending{err: lost, clientCert: bad, opened: after(time.Minute)}, after(time.Hour), revocation},
		"revoked without a message, idle":   {ending{err: lost, clientCert: bad, opened: after(time.Minute), idle: true}, after(time.Hour), ""},
		"lost in a crash, in a transaction": {ending{err: lost, opened: after(time.Minute), midway: true, idle: true}, after(2*time.Hour + 3*time.Second), crashing},
		"lost long after a crash":           {ending{err: lost, opened: after(time.Minute)}, after(3 * time.Hour), ""},
		"a message in a crash":              {ending{err: told("57P01", command), opened: after(time.Minute)}, after(3 * time.Hour), ""},
		"moved, and lost with the old one":  {ending{err: lost, opened: after(4 * time.Hour)}, after(5*time.Hour + 7*time.Second), ""},
		"moved, and told":                   {ending{err: told("57P01", command), opened: after(4 * time.Hour), idle: true}, after(5*time.Hour + 7*time.Second), ""},
		"opened as the old one was killed":  {ending{err: lost, opened: after(5*time.Hour + 5*time.Second), idle: true}, after(5*time.Hour + 7*time.Second), killingOld},
		"startup of more than half a drain": {ending{err: told("57P01", command), opened: after(5*time.Hour + 6*time.Second), began: after(5 * time.Hour)}, after(5*time.Hour + 7*time.Second), upgrading},
		"lost in a killed upgrade":          {ending{err: lost, opened: after(5 * time.Hour)}, after(6*time.Hour + time.Second), killingUpgrade},
		"kept by a killed upgrade":          {ending{err: lost, opened: after(5 * time.Hour)}, after(6*time.Hour + time.Minute), ""},
		"begun after a crash":               {ending{err: lost, opened: after(3 * time.Hour)}, after(4 * time.Hour), ""},
		"another's revoked":                 {ending{err: told("57P01", revoked), clientCert: good, opened: after(time.Minute)}, after(time.Hour), ""},
		"terminated":                        {ending{err: told("57P01", command), pid: 7, opened: after(time.Minute), midway: true}, after(time.Hour), terminating},
		"another terminated":                {ending{err: told("57P01", command), pid: 8, opened: after(time.Minute)}, after(time.Hour), ""},
		"another session of its number":     {ending{err: told("57P01", command), pid: 7, opened: after(90 * time.Minute)}, after(100 * time.Minute), ""},
		"cancelled":                         {ending{err: told("57014", "canceling statement due to user request"), pid: 7, clientCert: bad, opened: began}, after(7 * time.Second), ""},
		"a wrong answer":                    {ending{err: &mismatch{"EOF"}, pid: 7, clientCert: bad, opened: began}, after(7 * time.Second), ""},
		"no answer":                         {ending{err: context.DeadlineExceeded, pid: 7, clientCert: bad, opened: began}, after(7 * time.Second), ""},
		"refused by no rule":                {ending{err: told("28000", "no pgwicket rule for this session"), pid: 7, clientCert: bad, opened: began}, after(7 * time.Second), ""},
	} {
		d := disturbances{terminated: map[uint32]time.Time{7: after(time.Hour)}, outages: []outage{
			{overlapping, after(time.Second), after(12 * time.Second)},
			{crashing, after(2 * time.Hour), after(2*time.Hour + time.Second)},
			{upgrading, after(5 * time.Hour), after(5*time.Hour + 8*time.Second)},
			{killingOld, after(5*time.Hour + 6*time.Second), after(5*time.Hour + 7*time.Second)},
			{killingUpgrade, after(6 * time.Hour), after(6*time.Hour + 2*time.Second)},
		}}
		if c.end.began.IsZero() {
			c.end.began = c.end.opened
		}
		why, ok := d.excuse(c.end, c.at)
		if why != c.want && (ok || c.want != "") || ok != (c.want != "") {
			t.Errorf("%s: excused by %q, %v; want %q", name, why, ok, c.want)
		}
	}
}

func TestNobodyOutlivesItsCertificate(t *testing.T) {
	t.Parallel()
	s := &soak{losses: newLosses(), over: make(chan struct{}), out: io.Discard}
	w := s.worker(1, eager, &group{role: "somebody"})
	w.clientCert = new(clientCert)
	if !w.stays(1) || w.stays(0) {
		t.Error("a session goes on for as long as it has something to ask")
	}
	w.clientCert.revoked.Store(true)
	w.clientCert.refused.Store(time.Now().UnixNano())
	if !w.stays(0) || s.losses.count() > 0 {
		t.Error("a session whose certificate is revoked leaves before it is ended")
	}
	w.clientCert.refused.Store(time.Now().Add(-2 * grace).UnixNano())
	if w.stays(1) || s.losses.count() != 1 {
		t.Error("a session whose certificate was revoked long ago goes on")
	}
}

func TestOnlyRestartsExcuseRefusals(t *testing.T) {
	t.Parallel()
	began := time.Now()
	crash := disturbances{outages: []outage{{action: crashing, from: began}}}
	gap := disturbances{outages: []outage{{action: interrupting, from: began}}}
	overlap := disturbances{outages: []outage{{action: overlapping, from: began}}}
	over := disturbances{outages: []outage{{interrupting, began.Add(-time.Minute), began.Add(-time.Second)}}}
	for name, c := range map[string]struct {
		d    *disturbances
		err  error
		want bool
	}{
		"refused in a gap":          {&gap, syscall.ECONNREFUSED, true},
		"reset in a gap":            {&gap, syscall.ECONNRESET, true},
		"no rule in a gap":          {&gap, told("28000", "no pgwicket rule for this session"), false},
		"refused in a crash":        {&crash, syscall.ECONNREFUSED, true},
		"a message in a crash":      {&crash, told("57P03", "the gate is shutting down"), false},
		"no rule in a crash":        {&crash, told("28000", "no pgwicket rule for this session"), false},
		"refused in an overlap":     {&overlap, syscall.ECONNREFUSED, false},
		"half served in an overlap": {&overlap, io.ErrUnexpectedEOF, false},
		"just too late":             {&overlap, told("57P03", "the gate is shutting down"), true},
		"refused after a gap":       {&over, syscall.ECONNREFUSED, false},
	} {
		if got := c.d.excusesRefusal(c.err, began, began); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A lock, a rule that ends and a command explain the end of the sessions that they match, in
// their time and in their words, and no other.
func TestOnlyRestrictionsExcuse(t *testing.T) {
	t.Parallel()
	const locked = "terminating connection: pgwicket rejects host \"::1\", user \"a\""
	const noRule = "terminating connection: no pgwicket rule for host \"::1\", user \"a\""
	began := time.Now()
	after := began.Add
	a, b := subject{role: "a"}, subject{role: "b"}
	ofA := func(who subject) bool { return who.role == "a" }
	lost := fmt.Errorf("receive message: %w", io.ErrUnexpectedEOF)
	lockOfA := &restriction{locking, "", ofA, after(time.Minute), after(61 * time.Second), after(2 * time.Minute), after(121 * time.Second)}
	ruleOfA := &restriction{ruleEnding, "", ofA, after(time.Hour), after(time.Hour), time.Time{}, time.Time{}}
	command := &restriction{commanding, "", ofA, after(10 * time.Minute), time.Time{}, time.Time{}, after(601 * time.Second)}
	restart := outage{overlapping, after(610 * time.Second), after(612 * time.Second)}
	d := disturbances{restrictions: []*restriction{lockOfA, ruleOfA, command}, outages: []outage{restart}}
	in := after(90 * time.Second)
	for name, c := range map[string]struct {
		end  ending
		at   time.Time
		want action
	}{
		"locked":                             {ending{err: told("57P01", locked), who: a, opened: began, idle: true}, in, locking},
		"locked in a transaction":            {ending{err: told("57P01", locked), who: a, opened: began, midway: true}, in, locking},
		"locked, another's lock":             {ending{err: told("57P01", locked), who: b, opened: began}, in, ""},
		"locked before it":                   {ending{err: told("57P01", locked), who: a, opened: began}, after(59 * time.Second), ""},
		"locked after it":                    {ending{err: told("57P01", locked), who: a, opened: after(3 * time.Minute)}, after(4 * time.Minute), ""},
		"locked, long after it":              {ending{err: told("57P01", locked), who: a, opened: began}, after(4 * time.Minute), ""},
		"its statement cancelled":            {ending{err: told("57014", "canceling statement due to user request"), who: a, opened: began, midway: true}, in, ""},
		"another's statement cancelled":      {ending{err: told("57014", "canceling statement due to user request"), who: b, opened: began, midway: true}, in, ""},
		"cut by a lock":                      {ending{err: lost, who: a, opened: began}, in, locking},
		"cut by a lock when idle":            {ending{err: lost, who: a, opened: began, idle: true}, in, ""},
		"cut, another's lock":                {ending{err: lost, who: b, opened: began}, in, ""},
		"a rule's words for a lock":          {ending{err: told("57P01", noRule), who: a, opened: began}, in, ""},
		"rule over":                          {ending{err: told("57P01", noRule), who: a, opened: began}, after(61 * time.Minute), ruleEnding},
		"rule over too early":                {ending{err: told("57P01", noRule), who: a, opened: began}, after(59 * time.Minute), ""},
		"terminated":                         {ending{err: told("57P01", gate.FatalTerminated), who: a, opened: began, midway: true}, after(601 * time.Second), commanding},
		"terminated, another":                {ending{err: told("57P01", gate.FatalTerminated), who: b, opened: began}, after(601 * time.Second), ""},
		"terminated when it began":           {ending{err: told("57P01", gate.FatalTerminated), who: a, began: after(600 * time.Second), opened: after(602 * time.Second)}, after(603 * time.Second), commanding},
		"begun after the command":            {ending{err: told("57P01", gate.FatalTerminated), who: a, opened: after(602 * time.Second)}, after(603 * time.Second), ""},
		"drained, begun during the command":  {ending{err: told("57P01", gate.FatalTerminated), who: a, opened: after(600*time.Second + 1)}, after(611 * time.Second), overlapping},
		"terminated, noticed in a restart":   {ending{err: told("57P01", gate.FatalTerminated), who: a, opened: began}, after(611 * time.Second), commanding},
		"the words of a command, for a lock": {ending{err: told("57P01", gate.FatalTerminated), who: a, opened: began}, in, ""},
	} {
		if c.end.began.IsZero() {
			c.end.began = c.end.opened
		}
		why, ok := d.excuse(c.end, c.at)
		if why != c.want && (ok || c.want != "") || ok != (c.want != "") {
			t.Errorf("%s: excused by %q, %v; want %q", name, why, ok, c.want)
		}
	}
	refused := told("28000", "pgwicket rejects host \"::1\"")
	for name, c := range map[string]struct {
		who       subject
		err       error
		began, at time.Time
		want      bool
	}{
		"refused":                {a, refused, in, in, true},
		"another refused":        {b, refused, in, in, false},
		"refused after the lock": {a, refused, after(122 * time.Second), after(123 * time.Second), false},
		"refused before it":      {a, refused, began, after(time.Second), false},
		"for another reason":     {a, told("28000", "client certificate was revoked"), in, in, false},
		"cut off":                {a, lost, in, in, true},
		"no connection":          {a, syscall.ECONNREFUSED, in, in, false},
	} {
		if _, got := d.restrictsConnect(c.who, c.err, c.began, c.at); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if d.forbids(a, in, in) == nil || d.forbids(b, in, in) != nil || d.forbids(a, after(60*time.Second), in) != nil || d.forbids(a, in, after(2*time.Minute)) != nil {
		t.Error("a client that is admitted under a lock is not noticed, or another is")
	}
	line := func(outcome, user string, at time.Time) []gate.Record {
		return []gate.Record{{"msg": gate.MessageEnded, "outcome": outcome, "user": user, "time": at.Format(time.RFC3339Nano)}}
	}
	if err := errors.Join(d.auditRestrictions(line("locked", "a", in)), d.auditRestrictions(line("no_rule", "a", after(2*time.Hour))), d.auditRestrictions(line("client_closed", "b", in))); err != nil {
		t.Error(err)
	}
	lockOfName := disturbances{restrictions: []*restriction{{action: locking, matches: func(who subject) bool { return who.cn == "a" }, from: began}}}
	early := gate.Record{"msg": gate.MessageRefused, "outcome": "locked", "user": "", "cert_subject": "CN=a", "time": in.Format(time.RFC3339Nano)}
	if err := lockOfName.auditRestrictions([]gate.Record{early}); err != nil {
		t.Errorf("refused before it has asked for a user: %v", err)
	}
	for _, records := range [][]gate.Record{line("locked", "b", in), line("locked", "a", began), line("terminated", "a", in), line("no_rule", "a", in), {{"msg": gate.MessageEnded, "outcome": "locked", "user": "a"}}} {
		if d.auditRestrictions(records) == nil {
			t.Errorf("nothing is wrong with %v", records)
		}
	}
}

// The log of a gate must tell the same of a session's end as its client does, unless the gate was killed.
func TestLogsExplainExcuses(t *testing.T) {
	t.Parallel()
	began := time.Now()
	after := began.Add
	drain := outage{overlapping, after(time.Minute), after(61 * time.Second)}
	crash := outage{crashing, after(time.Hour), after(61 * time.Minute)}
	for name, c := range map[string]struct {
		why            action
		words          string
		began, noticed time.Duration
		outcome        string // in the log; empty: no line
		wrong          bool
	}{
		"terminated":                       {commanding, gate.FatalTerminated, 0, time.Second, "terminated", false},
		"drained for terminated":           {commanding, gate.FatalTerminated, 0, time.Second, "drained", true},
		"drained, noticed after a command": {commanding, gate.FatalTerminated, 0, 2 * time.Minute, "drained", false},
		"locked for terminated":            {commanding, gate.FatalTerminated, 0, time.Second, "locked", true},
		"cut by a restart after a lock":    {locking, "", 0, 2 * time.Minute, "drain_timeout", false},
		"drained, in a lock's words":       {locking, gate.FatalLocked, 0, 2 * time.Minute, "drained", true},
		"cut by one of two":                {locking, "", 0, time.Second, "no_rule", false},
		"no line":                          {locking, gate.FatalLocked, 0, time.Second, "", true},
		"killed before its line":           {locking, gate.FatalLocked, 0, time.Hour - time.Second, "", false},
		"begun after the kill":             {locking, gate.FatalLocked, 2 * time.Hour, 3 * time.Hour, "", true},
	} {
		d := disturbances{outages: []outage{drain, crash}, seen: []excusal{{"client", c.why, c.words, after(c.began), after(c.noticed)}}}
		var records []gate.Record
		if c.outcome != "" {
			records = []gate.Record{{"msg": gate.MessageEnded, "client": "client", "outcome": c.outcome}}
		}
		if err := d.auditExcuses(records); (err != nil) != c.wrong {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPlanIsRepeatable(t *testing.T) {
	t.Parallel()
	long, short := operators.plan(7, operatorStream, 10*time.Minute), operators.plan(7, operatorStream, time.Minute)
	if !reflect.DeepEqual(long[:len(short)], short) {
		t.Error("a short run is not the beginning of a long one")
	}
	if reflect.DeepEqual(short, operators.plan(8, operatorStream, time.Minute)) {
		t.Error("another seed gives the same plan")
	}
	for _, l := range []lane{operators, environment, incidents, upgrades} {
		for seed := range uint64(100) {
			done := map[action]bool{}
			for _, s := range l.plan(seed, 0, time.Minute) {
				done[s.action] = true
			}
			for _, a := range l.actions {
				if !done[a] {
					t.Errorf("seed %d has no %q in a minute", seed, a)
				}
			}
		}
	}
}

// breaker relays in clear, and changes one answer as configured.
type breaker struct {
	harm func(chunk []byte) []byte // nil: a cut
	once sync.Once
	hurt atomic.Bool // the next large answer is to be hurt
}

// serve relays one connection to a socket.
func (b *breaker) serve(client net.Conn, socket string) {
	defer client.Close()
	backend, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer backend.Close()
	go func() { _, _ = io.Copy(backend, client) }()
	chunk := make([]byte, 32<<10)
	for {
		n, err := backend.Read(chunk)
		if err != nil {
			return
		}
		out, cut := chunk[:n], false
		if b.hurt.Load() && n > 500 {
			b.once.Do(func() {
				if cut = b.harm == nil; !cut {
					out = b.harm(out)
				}
			})
		}
		if _, err := client.Write(out); err != nil || cut {
			return
		}
	}
}

// TestWorkerSeesABrokenRelay has a client of the soak work through a relay that
// loses its connection, or a byte, or flips a bit. PostgreSQL is real.
func TestWorkerSeesABrokenRelay(t *testing.T) {
	t.Parallel()
	db, err := pgtest.Start(t.Context(), pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Stop()
	for name, c := range map[string]struct {
		harm func([]byte) []byte
		want string
	}{
		"a flipped bit":  {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "from byte"},
		"swapped bytes":  {func(b []byte) []byte { slices.Reverse(b[len(b)/2:][:40]); return b }, "from byte"},
		"a repeated row": {func(b []byte) []byte { copy(b[len(b)/2:], b[len(b)/2-32:][:32]); return b }, "from byte"},
		"a cut":          {nil, "EOF"},
	} {
		relay := &breaker{harm: c.harm}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if conn, err := ln.Accept(); err == nil {
				relay.serve(conn, filepath.Join(db.SocketDir, ".s.PGSQL.5432"))
			}
		}()
		s := &soak{losses: newLosses(), over: make(chan struct{}), out: io.Discard, seed: 1}
		w := s.worker(1, eager, &group{role: "postgres", sessions: make(map[*worker]*clientCert)})
		conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", ln.Addr().(*net.TCPAddr).Port))
		if err != nil {
			t.Fatal(err)
		}
		w.hold(conn, new(clientCert), time.Now())
		ask := func(w *worker, ctx context.Context) error {
			got, err := one(ctx, w.conn.PgConn(), "select string_agg(md5('k' || g), '' order by g) from generate_series(1, 10000) g")
			return errors.Join(err, w.matches([]byte(got), md5s("k", 10000)))
		}
		if !w.does("before", ask) || s.losses.count() > 0 {
			t.Fatalf("%s: nothing has been done yet, and yet there is a loss: %+v", name, s.losses.all)
		}
		relay.hurt.Store(true)
		if w.does("after", ask) || s.losses.count() != 1 || !strings.Contains(s.losses.all[0].answered, c.want) {
			t.Errorf("%s: not noticed as %q: %+v", name, c.want, s.losses.all)
		}
		w.close()
		_ = ln.Close()
	}
}

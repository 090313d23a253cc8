//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

// intervene does an action of the third lane: what an administrator does in an incident, by
// the commands of the program. No restart and no change of the configuration is under way
// meanwhile.
func (s *soak) intervene(of step) error {
	ctx, rnd := context.Background(), of.rnd()
	switch of.action {
	case locking:
		return s.lockSome(ctx, rnd)
	case lockRunningOut:
		return s.lockForAWhile(ctx, rnd)
	case unlocking:
		return s.unlockAll(ctx)
	case commanding:
		return s.terminateSome(ctx, rnd)
	case ruleEnding:
		return s.endRule(ctx, rnd)
	case rotating:
		s.turn.Lock()
		defer s.turn.Unlock()
		return s.rotateTrail(ctx, rnd)
	}
	return fmt.Errorf("there is no action %q", of.action)
}

// command runs a command of the program against the newest gate.
func (s *soak) command(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, gate.Timeout)
	defer cancel()
	args = append(args, "--config", filepath.Join(s.newest().Dir, "pgwicket.yaml"))
	cmd := exec.CommandContext(ctx, s.lab.plain, args...)
	harness.Bound(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("pgwicket %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// filtered makes a restriction of a group, and the flags of its filter. It returns nil if it is to
// match one session and there is none.
func (s *soak) filtered(ctx context.Context, rnd *rand.Rand, g *group, what action) (*restriction, []string, error) {
	leaf := g.current().pair.Leaf()
	role, serial := g.role, serialOf(leaf)
	ofRole := func(who subject) bool { return who.role == role }
	ofName := func(who subject) bool { return who.cn == role }
	ofCert := func(who subject) bool { return who.serial == serial }
	var flags []string
	matches := ofName
	switch rnd.IntN(8) {
	case 0:
		flags = []string{"--cn", role}
	case 1:
		flags, matches = []string{"--user", role}, ofRole
	case 2:
		flags = []string{"--cn", role, "--user", role, "--database", "postgres"}
		matches = func(who subject) bool { return ofName(who) && ofRole(who) }
	case 3:
		flags = []string{"--source", "127.0.0.1", "--cn", role}
	case 4:
		flags, matches = []string{"--serial", serial, "--issuer", leaf.Issuer.String()}, ofCert
	case 5:
		flags, matches = []string{"--spki", spkiOf(leaf)}, ofCert
	case 6: // of which one condition holds for each client of two groups, and both hold for none
		flags = []string{"--cn", role, "--user", appUser}
		matches = func(who subject) bool { return ofName(who) && who.role == appUser }
	case 7:
		pid, id, err := s.oneSession(ctx, rnd, g)
		if err != nil || pid == 0 {
			return nil, nil, err
		}
		flags = []string{"--session", id}
		matches = func(who subject) bool { return who.pid == pid || who.session == id }
	}
	return &restriction{action: what, filter: strings.Join(flags, " "), matches: matches}, flags, nil
}

// oneSession returns the backend and the id of one session of a group; 0: it has none.
func (s *soak) oneSession(ctx context.Context, rnd *rand.Rand, g *group) (pid uint32, id string, err error) {
	out, err := s.command(ctx, "sessions", "--json", "--user", g.role)
	if err != nil {
		return 0, "", err
	}
	var all []struct {
		ID      string `json:"id"`
		User    string `json:"user"`
		Backend uint32 `json:"backend_pid"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return 0, "", fmt.Errorf("%w: %q", err, shorten(out))
	}
	if len(all) == 0 {
		return 0, "", nil
	}
	one := all[rnd.IntN(len(all))]
	if one.User != g.role {
		return 0, "", fmt.Errorf("sessions --user %s shows one of %s", g.role, one.User)
	}
	return one.Backend, one.ID, nil
}

// lockGroup locks something of a group until a time, or for ever if that is zero, and checks that it is in force:
// matching sessions end, clients are refused. It returns nil if there was nothing to lock, or if the end has
// come before all that.
func (s *soak) lockGroup(ctx context.Context, rnd *rand.Rand, g *group, what action, until time.Time) (*restriction, *listedLock, error) {
	r, flags, err := s.filtered(ctx, rnd, g, what)
	if err != nil || r == nil {
		return nil, nil, err
	}
	const nobody = "a name that no client has"
	if out, err := s.command(ctx, "lock", "--cn", nobody, "--forever"); err == nil || !strings.Contains(out, "nothing is locked yet") {
		return nil, nil, fmt.Errorf("a lock that matches nobody is made without --yes: %s, %w", out, err)
	}
	reason := fmt.Sprintf("soak %x", rnd.Uint64())
	r.from, r.lifted, r.over = time.Now(), until, until
	s.restrict(r)
	end := []string{"--forever"}
	if !until.IsZero() {
		end = []string{"--until", until.UTC().Format(time.RFC3339)}
	}
	tooLate := func() bool { return !until.IsZero() && !time.Now().Before(until) }
	_, err = s.command(ctx, slices.Concat([]string{"lock", "--yes", "--reason", reason}, flags, end)...)
	locked := time.Now()
	var held []listedLock
	if err == nil {
		held, err = s.locks(ctx)
	}
	i := slices.IndexFunc(held, func(l listedLock) bool { return l.Reason == reason })
	switch {
	case i < 0 && tooLate():
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	case i < 0:
		return nil, nil, fmt.Errorf("\"pgwicket locks\" does not show %q", reason)
	}
	s.amend(func() { r.inForce = locked })
	return r, &held[i], s.expectInForce(ctx, g, r)
}

// listedLock is a lock as "pgwicket locks --json" prints it.
type listedLock struct {
	ID     string     `json:"id"`
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until"`
}

// locks are those that the program lists.
func (s *soak) locks(ctx context.Context) (held []listedLock, err error) {
	out, err := s.command(ctx, "locks", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &held)
	}
	return held, err
}

// expectInForce waits until no session is left that a restriction matches, and fails unless a
// client that it matches is refused.
func (s *soak) expectInForce(ctx context.Context, g *group, r *restriction) error {
	count := func() int {
		return g.sessionsThat(func(w *worker, p *clientCert) bool {
			return r.matches(w.subject(p))
		})
	}
	open, began := count(), time.Now()
	err := gate.Eventually(ctx, "the sessions that are restricted have ended", gate.Timeout, func() error {
		if n := count(); n > 0 && (r.over.IsZero() || time.Now().Before(r.over)) {
			return fmt.Errorf("%d of %d are left: %v", n, open, r)
		}
		return nil
	})
	took := time.Since(began)
	s.mu.Lock()
	s.slowestLock = max(s.slowestLock, took)
	s.mu.Unlock()
	s.logf("%v: %d sessions of %s were over after %v", r, open, g.role, took.Round(time.Millisecond))
	if err != nil {
		return err
	}
	p := g.current()
	who := g.subject(p)
	began = time.Now()
	conn, err := s.tryWith(p.credentials, "")
	if err == nil {
		closeSession(conn)
	}
	switch {
	case err == nil && s.forbids(who, began, time.Now()) != nil:
		return fmt.Errorf("a client is admitted under %v", r)
	case err == nil, p.revoked.Load():
		return nil
	}
	if _, ok := s.restrictsConnect(who, err, began, time.Now()); !ok {
		return fmt.Errorf("under %v a client is refused otherwise: %w", r, err)
	}
	s.bad.add("client that is locked out", 1)
	return nil
}

// expectAgain fails unless a group is admitted now that a restriction is over.
func (s *soak) expectAgain(g *group) error {
	p := g.current()
	err := s.expectAdmitted(p.credentials)
	if err != nil && (p.revoked.Load() || s.mayBeRefused(g.subject(p))) {
		return nil
	}
	return err
}

// heldLock is a lock that stays over the next steps.
type heldLock struct {
	*restriction
	id    string
	group *group
}

// mostHeld bounds them, so that most clients go on.
const mostHeld = 2

// lockSome locks something of a group. The lock stays until unlockAll, over restarts and reloads, or, if
// there are enough, for a moment.
func (s *soak) lockSome(ctx context.Context, rnd *rand.Rand) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	g := s.groups[rnd.IntN(len(s.groups))]
	r, l, err := s.lockGroup(ctx, rnd, g, locking, time.Time{})
	if err != nil || r == nil {
		return err
	}
	s.held = append(s.held, heldLock{r, l.ID, g})
	if len(s.held) <= mostHeld {
		return nil
	}
	oldest := s.held[0]
	s.held = s.held[1:]
	return s.unlock(ctx, oldest)
}

func (s *soak) unlock(ctx context.Context, h heldLock) error {
	s.amend(func() { h.lifted = time.Now() })
	if _, err := s.command(ctx, "unlock", h.id); err != nil {
		return err
	}
	s.amend(func() { h.over = time.Now() })
	return s.expectAgain(h.group)
}

// unlockAll ends every lock that is held, after a check that those are all.
func (s *soak) unlockAll(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	listed, err := s.locks(ctx)
	if err != nil {
		return err
	}
	for _, h := range s.held {
		if !slices.ContainsFunc(listed, func(l listedLock) bool { return l.ID == h.id }) {
			return fmt.Errorf("lock %s is not listed any more: %v", h.id, h)
		}
	}
	for _, l := range listed {
		if l.Until == nil && !slices.ContainsFunc(s.held, func(h heldLock) bool { return l.ID == h.id }) {
			return fmt.Errorf("a lock is listed that nobody has made, or that was unlocked: %s", l.ID)
		}
	}
	held := s.held
	s.held = nil
	for _, h := range held {
		err = errors.Join(err, s.unlock(ctx, h))
	}
	if out, err := s.command(ctx, "unlock", "00000000"); err == nil {
		return fmt.Errorf("a lock that is not there is unlocked: %s", out)
	}
	return err
}

// lockForAWhile locks something with an end, which may come while the gate is being restarted.
func (s *soak) lockForAWhile(ctx context.Context, rnd *rand.Rand) error {
	g := s.groups[rnd.IntN(len(s.groups))]
	s.turn.Lock()
	until := time.Now().Add(time.Duration(3+rnd.IntN(4)) * time.Second).Truncate(time.Second)
	_, _, err := s.lockGroup(ctx, rnd, g, lockRunningOut, until)
	s.turn.Unlock()
	if err != nil {
		return err
	}
	time.Sleep(time.Until(until)) // the end itself is what is tested
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.expectAgain(g)
}

// terminateSome ends sessions of a group, whose clients may connect again at once.
func (s *soak) terminateSome(ctx context.Context, rnd *rand.Rand) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	g := s.groups[rnd.IntN(len(s.groups))]
	r, flags, err := s.filtered(ctx, rnd, g, commanding)
	if err != nil || r == nil {
		return err
	}
	r.from = time.Now()
	s.restrict(r)
	_, err = s.command(ctx, append([]string{"terminate", "--yes"}, flags...)...)
	s.amend(func() { r.over = time.Now() })
	if err != nil && !strings.Contains(err.Error(), "no open session matches") {
		return err
	}
	return s.expectAgain(g)
}

// rotateTrail renames the file of the audit trail, as logrotate does, packs the one before at times, and
// waits until a gate goes on with the trail in a new file. The caller holds turn.
func (s *soak) rotateTrail(ctx context.Context, rnd *rand.Rand) error {
	s.rotations++
	rotated := func(n int) string { return fmt.Sprintf("%s.%d", s.auditFile(), n) }
	if err := os.Rename(s.auditFile(), rotated(s.rotations)); err != nil {
		return err
	}
	asked := rnd.IntN(2) == 0
	if asked {
		if err := s.newest().Signal(syscall.SIGHUP); err != nil {
			return err
		}
	}
	if before := rotated(s.rotations - 1); s.rotations > 1 && rnd.IntN(2) == 0 {
		if err := pack(before); err != nil {
			return err
		}
	}
	began := time.Now()
	return gate.Eventually(ctx, "the audit trail goes on in a new file", gate.Timeout, func() error {
		st, err := os.Stat(s.auditFile())
		if err == nil && st.Size() == 0 {
			err = errors.New("it has no line yet")
			if !asked && time.Since(began) > 3*time.Second { // no client comes any more: a reload is a line
				asked = true
				err = errors.Join(err, s.newest().Signal(syscall.SIGHUP))
			}
		}
		return err
	})
}

// pack replaces a file by a compressed one, as gzip does.
func pack(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write(text)
	if err = errors.Join(err, z.Close()); err != nil {
		return err
	}
	if err := os.WriteFile(name+".gz", packed.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Remove(name)
}

// endRule lets the time of a group's rule end. Its sessions end at that moment, its clients are refused
// until the rule has no end again.
func (s *soak) endRule(ctx context.Context, rnd *rand.Rand) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	g, gt := s.groups[rnd.IntN(len(s.groups))], s.newest()
	until := time.Now().Add(4 * time.Second).Truncate(time.Second)
	role := g.role
	r := &restriction{
		action: ruleEnding, filter: fmt.Sprintf("%s until %s", role, until.UTC().Format(time.RFC3339)), from: until,
		matches: func(who subject) bool { return who.role == role },
	}
	s.restrict(r)
	reload := func(keys map[string]string) error {
		if err := gt.Configure(keys); err != nil {
			return err
		}
		_, err := s.command(ctx, "reload") // which also loads what allows more, as a changed file does not
		return err
	}
	err := reload(map[string]string{"acl.rules": soakRules(role, until)})
	if err == nil {
		loaded := time.Now()
		s.amend(func() {
			if r.inForce = until; loaded.After(until) {
				r.inForce = loaded
			}
		})
		time.Sleep(time.Until(until)) // the moment itself is what is tested
		err = s.expectInForce(ctx, g, r)
	}
	s.amend(func() { r.lifted = time.Now() })
	err = errors.Join(err, reload(nil))
	s.amend(func() { r.over = time.Now() })
	return errors.Join(err, s.expectAgain(g))
}

// soakRules are the rules of every gate of the soak: one for each role, of which one may have an end.
func soakRules(ends string, until time.Time) string {
	var rules []string
	for i := range groupCount {
		rules = append(rules, soakRule(fmt.Sprintf("group%d", i), ends, until))
	}
	rules = append(rules, soakRule(appUser, ends, until), soakRule("keyed", ends, until))
	return "[" + strings.Join(rules, ", ") + "]"
}

func soakRule(role, ends string, until time.Time) string {
	end := ""
	if role == ends {
		end = fmt.Sprintf(", until: %q", until.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("{name: %[1]s, action: allow, databases: [postgres], users: [%[1]s], certificate: {cn: %[1]s}%[2]s}", role, end)
}

//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgwicket/internal/handover"
	"pgwicket/test/gate"
)

// replace does an action of the lane of upgrades.
func (s *soak) replace(of step) error {
	ctx, rnd := context.Background(), of.rnd()
	s.turn.Lock()
	defer s.turn.Unlock()
	switch of.action {
	case upgrading:
		return s.upgrade(ctx, rnd)
	case upgradingBroken:
		return s.upgradeToBroken(ctx, rnd)
	case upgradingDying:
		return s.upgradeToDying(ctx, rnd)
	case killingUpgrade:
		return s.killDuringUpgrade(ctx, rnd)
	}
	return fmt.Errorf("there is no action %q", of.action)
}

// upgrade replaces the process of the newest gate by another one, which goes on with its sessions: no client may
// notice. The caller holds turn.
func (s *soak) upgrade(ctx context.Context, rnd *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, gate.Timeout)
	defer cancel()
	old := s.newest()
	before, err := old.Metrics()
	if err != nil {
		return err
	}
	s.begin(upgrading)
	defer s.finish()
	u, err := old.BeginUpgrade(ctx, s.lab.plain, "")
	if err != nil {
		return err
	}
	if rnd.IntN(2) == 0 && u.Await(gate.MessageUpgradeBegins) {
		if out, err := s.command(ctx, "upgrade"); err == nil || !refusesSecond(out) {
			return errors.Join(fmt.Errorf("a second upgrade during the first: %w: %s", err, out), waited(u))
		}
		s.faults.add("second upgrade during the first refused", 1)
	}
	if err := waited(u); err != nil {
		return err
	}
	next, err := s.succeed(old, u)
	if err != nil {
		return err
	}
	if rnd.IntN(3) == 0 {
		// It has handed all sessions over. Only connections in their startup can end with it.
		s.begin(killingOld)
		old.Kill()
		s.lab.kills(old)
		s.finish()
		s.faults.add("old process killed after the upgrade", 1)
	} else if err := old.Expect(gate.Timeout); err != nil {
		return fmt.Errorf("the process before: %w", err)
	}
	return errors.Join(notBack(next, before), s.mayUpgradeAgain(ctx))
}

// waited waits for an upgrade that must succeed.
func waited(u *gate.Upgrade) error {
	out, err := u.Wait()
	if err == nil && !strings.HasPrefix(out, "upgraded in ") {
		err = fmt.Errorf("pgwicket upgrade prints %q", out)
	}
	return err
}

// refusesSecond says whether that is how a second upgrade is refused: the old process says the first, the new
// one the second.
func refusesSecond(out string) bool {
	return strings.Contains(out, "an upgrade is under way") || strings.Contains(out, "the process before this one still has sessions") ||
		strings.Contains(out, "has handed over")
}

// succeed has new clients and commands go to the process that has taken over.
func (s *soak) succeed(old *target, u *gate.Upgrade) (*target, error) {
	g, err := u.Successor()
	if err != nil {
		return nil, err
	}
	next := s.lab.holds(g, old.setting)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = next
	for i, one := range s.gates {
		if one == old { // they have one log
			s.gates[i] = next
		}
	}
	s.upgrades++
	return next, nil
}

// notBack fails if a counter is lower than before.
func notBack(g *target, before gate.Metrics) error {
	now, err := g.Metrics()
	for name, v := range before {
		series, _, _ := strings.Cut(name, "{")
		if err == nil && strings.HasPrefix(name, "pgwicket_") && strings.HasSuffix(series, "_total") && now[name] < v {
			err = fmt.Errorf("the upgrade has set %s back from %v to %v", name, v, now[name])
		}
	}
	return err
}

// mayUpgradeAgain waits until the newest process would hand over: there is none before it any more, and no
// upgrade is under way.
func (s *soak) mayUpgradeAgain(ctx context.Context) error {
	return gate.Eventually(ctx, "another upgrade is possible", gate.Timeout, func() error {
		if s.newest().HasExited() {
			return gate.Never(errors.New("the gate has exited"))
		}
		_, err := s.command(ctx, "upgrade", "--dry-run")
		return err
	})
}

// upgradeToBroken upgrades to a program that does not start. Nothing may change.
func (s *soak) upgradeToBroken(ctx context.Context, rnd *rand.Rand) error {
	programs := []struct{ script, says string }{
		{"exit 1", "exit status 1"},
		{"echo 'no such library' >&2; exit 127", "no such library"},
		{"kill -9 $$", "signal: killed"},
		{"exec " + s.lab.raced + ` "$1" --config /nowhere/pgwicket.yaml`, "/nowhere/pgwicket.yaml"},
		{"", "permission denied"},
	}
	p := programs[rnd.IntN(len(programs))]
	file, mode := s.lab.file("broken"), os.FileMode(0o700)
	if p.script == "" {
		mode = 0o600
	}
	_ = os.Remove(file)
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+p.script+"\n"), mode); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, gate.Timeout)
	defer cancel()
	g := s.newest()
	u, err := g.BeginUpgrade(ctx, s.lab.plain, file)
	if err != nil {
		return err
	}
	out, err := u.Wait()
	if err == nil || !strings.Contains(out, p.says) || !strings.Contains(out, fmt.Sprintf("process %d goes on", g.PID())) {
		return fmt.Errorf("an upgrade to a program that does %q: %w: %s", p.script, err, out)
	}
	return errors.Join(s.expectAdmitted(s.app.current().credentials), s.mayUpgradeAgain(ctx))
}

// stepsOfUpgrade are what a new process sends and receives before it answers for the first sessions.
var stepsOfUpgrade = []handover.Kind{handover.Hello, handover.Welcome, handover.Prepared, handover.Go, handover.Serving, handover.Session, handover.Batch}

// upgradeToDying is a new process that dies in mid-transfer, before it has answered for the first sessions. The old
// one goes on with all of them, and no client may notice. This program is that new process, too: see runSuccessor.
func (s *soak) upgradeToDying(ctx context.Context, rnd *rand.Rand) error {
	steps := rnd.IntN(len(stepsOfUpgrade) + 1)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, gate.Timeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, self, "successor", s.newest().Socket(), strconv.Itoa(steps)).CombinedOutput(); err != nil {
		return fmt.Errorf("an upgrade with the steps %v: %w: %s", stepsOfUpgrade[:steps], err, out)
	}
	s.logf("a new process has died after the steps %v of an upgrade", stepsOfUpgrade[:steps])
	return errors.Join(s.mayUpgradeAgain(ctx), s.expectAdmitted(s.app.current().credentials))
}

// runSuccessor takes the first steps of an upgrade, and ends: the gate must go on as if it had not been asked.
func runSuccessor(_ context.Context, args []string, _, _ io.Writer) error {
	if len(args) != 2 {
		return errors.New("name the admin socket and how many steps to take")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 0 || n > len(stepsOfUpgrade) {
		return fmt.Errorf("%q steps", args[1])
	}
	c, err := openUpgrade(args[0])
	if err != nil {
		return err
	}
	return takeSteps(c, stepsOfUpgrade[:n])
}

// openUpgrade asks a gate for an upgrade to this program.
func openUpgrade(socket string) (*handover.Conn, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(gate.Timeout))
	if _, err := io.WriteString(conn, "POST /upgrade HTTP/1.1\r\nHost: pgwicket\r\nConnection: Upgrade\r\nUpgrade: pgwicket-upgrade\r\nContent-Length: 0\r\n\r\n"); err != nil {
		return nil, err
	}
	var head []byte // and no byte behind it: a descriptor comes with the next one
	for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, one[0]) {
		if _, err := io.ReadFull(conn, one); err != nil {
			return nil, err
		}
	}
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(head))), nil)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusSwitchingProtocols {
		return nil, errors.New(r.Status)
	}
	f, err := handover.OverSocket(conn.(*net.UnixConn)).Receive()
	if err != nil || len(f.Files) != 1 {
		return nil, fmt.Errorf("no channel has come: %w", err)
	}
	c, err := handover.NewConn(f.Files[0])
	if err == nil {
		c.SetDeadline(time.Now().Add(gate.Timeout))
	}
	return c, err
}

// takeSteps does the part of the new process in some steps.
func takeSteps(c *handover.Conn, steps []handover.Kind) error {
	var claim handover.Claim
	for _, step := range steps {
		var err error
		switch step {
		case handover.Hello:
			err = c.Send(step, map[string]any{"format": handover.Version, "version": "soak"}, nil)
		case handover.Serving:
			if !claim.Take() {
				return errors.New("the old process has taken everything back")
			}
			err = c.Send(step, nil, nil)
		case handover.Prepared:
			err = c.Send(step, nil, nil)
		default:
			var files []int
			if files, err = receiveUntil(c, step); step == handover.Go && len(files) > 0 {
				claim = handover.ClaimOf(files[0])
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// receiveUntil takes frames up to one of a kind, and returns its descriptors.
func receiveUntil(c *handover.Conn, k handover.Kind) ([]int, error) {
	for {
		f, err := c.Receive()
		if err != nil {
			return nil, err
		}
		switch f.Kind {
		case k:
			return f.Files, nil
		case handover.Failed:
			return nil, fmt.Errorf("failed: %s", f.Text)
		case handover.Rest: // no session was there to hand over
			return nil, nil
		}
		f.Close()
	}
}

// killDuringUpgrade kills the old process or the new one at a random moment of an upgrade. The sessions that
// it has end; a gate goes on if the other one can.
func (s *soak) killDuringUpgrade(ctx context.Context, rnd *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, gate.Timeout)
	defer cancel()
	old := s.newest()
	s.begin(killingUpgrade)
	defer s.finish()
	u, err := old.BeginUpgrade(ctx, s.lab.plain, "")
	if err != nil {
		return err
	}
	at := []string{gate.MessageUpgradeBegins, gate.MessageUpgraded, gate.MessageHandedOver}[rnd.IntN(3)]
	killOld := rnd.IntN(2) == 0
	if !u.Await(at) {
		out, err := u.Wait()
		return fmt.Errorf("the log has no %q: %s, %w", at, out, err)
	}
	time.Sleep(time.Duration(rnd.IntN(30)) * time.Millisecond) // the moment is what is random
	victim := "new"
	s.lab.kills(old)
	if killOld {
		victim = "old"
		old.Kill()
	} else if err := syscall.Kill(u.PID(), syscall.SIGKILL); err != nil {
		return err
	}
	out, failed := u.Wait()
	s.logf("killed the %s process after %q: %v %s", victim, at, failed, out)
	if killOld && failed == nil {
		_, err := s.succeed(old, u)
		return errors.Join(err, s.mayUpgradeAgain(ctx))
	}
	next, err := u.Successor()
	if err != nil {
		return err
	}
	select {
	case <-next.Exited():
	case <-ctx.Done():
		next.Kill()
		return errors.New("the new process has not ended")
	}
	if !killOld {
		if s.goesOn(ctx, old) {
			return s.mayUpgradeAgain(ctx)
		}
		if err := old.Expect(gate.Timeout); err != nil { // it had handed everything over
			return err
		}
	}
	s.faults.add("gate started again after both processes of an upgrade had ended", 1)
	g, err := s.lab.start(ctx, s.setting(old.Address))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate, s.gates = g, append(s.gates, g)
	return nil
}

// goesOn waits until the old process of an upgrade serves again, and returns true, or has ended, since it had handed
// everything over.
func (s *soak) goesOn(ctx context.Context, old *target) bool {
	err := gate.Eventually(ctx, "the old process serves again", gate.Timeout, func() error {
		if old.HasExited() {
			return gate.Never(errors.New("it has ended"))
		}
		return old.ready()
	})
	return err == nil
}

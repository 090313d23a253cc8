//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

// auditFault is what happens to the file of an audit trail.
type auditFault struct {
	dir      string // of the file
	begin    func() error
	end      func() error
	problems []string          // of which the status page must have one
	keys     map[string]string // of the gate, beside those of the trail
}

// The series of an audit trail.
const (
	auditLost    = "pgwicket_audit_lines_lost_total"
	auditFailing = "pgwicket_audit_failing"
	auditRefused = `pgwicket_connections_refused_total{outcome="audit_unavailable"}`
)

// auditDisk mounts a small file system for a trail.
func (t *trial) auditDisk(name string) (dir string, err error) {
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("%w: only root can mount a file system", errSkipped)
	}
	dir = t.file(name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m,mode=0700"); err != nil {
		return "", fmt.Errorf("%w: no file system can be mounted here: %w", errSkipped, err)
	}
	t.after = append(t.after, func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir, nil
}

// The disk of the audit trail is full.
func auditFull(ctx context.Context, t *trial) (string, error) {
	dir, err := t.auditDisk("audit-full")
	if err != nil {
		return "", err
	}
	ballast := filepath.Join(dir, "ballast")
	return t.breakAudit(ctx, auditFault{
		dir: dir,
		begin: func() error {
			if err := os.WriteFile(ballast, make([]byte, 32<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
				return fmt.Errorf("the disk is not full: %w", err)
			}
			return nil
		},
		end:      func() error { return os.Remove(ballast) },
		problems: []string{unix.ENOSPC.Error()},
	})
}

// The disk of the audit trail is read-only. The kernel refuses that while a file is open for
// writing, unless the disk is broken, so another disk takes its place.
func auditReadOnly(ctx context.Context, t *trial) (string, error) {
	dir, err := t.auditDisk("audit-read-only")
	if err != nil {
		return "", err
	}
	covered := false
	t.after = append(t.after, func() {
		if covered {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return t.breakAudit(ctx, auditFault{
		dir: dir,
		begin: func() error {
			err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=64k,mode=0700")
			covered = err == nil
			return err
		},
		end: func() error {
			covered = false
			return unix.Unmount(dir, 0)
		},
		problems: []string{unix.EROFS.Error()},
		keys:     map[string]string{"landlock": "false"}, // a sandbox has the directory below, and says something else
	})
}

// The audit trail cannot be written fast enough: another process holds the lock of the
// file, as a gate does that is stopped in the middle of a write.
func auditSlow(ctx context.Context, t *trial) (string, error) {
	dir := t.file("audit-slow")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	var file *os.File
	t.after = append(t.after, func() {
		if file != nil {
			_ = file.Close()
		}
	})
	return t.breakAudit(ctx, auditFault{
		dir: dir,
		begin: func() (err error) {
			if file, err = os.Open(filepath.Join(dir, "."+auditName+".lock")); err != nil {
				return err
			}
			return unix.Flock(int(file.Fd()), unix.LOCK_EX)
		},
		end: func() error {
			defer func() { file = nil }()
			return file.Close()
		},
		problems: []string{"another process holds it", "is too slow"}, // at first, and when much waits
	})
}

const auditName = "audit.log"

// breakAudit lets a fault happen to the trail of a gate that must have it, and to that of one that
// should.
func (t *trial) breakAudit(ctx context.Context, f auditFault) (string, error) {
	refused, err := t.breakRequired(ctx, f)
	if err != nil {
		return "", fmt.Errorf("required: %w", err)
	}
	lost, err := t.breakOptional(ctx, f)
	if err != nil {
		return "", fmt.Errorf("not required: %w", err)
	}
	return fmt.Sprintf("audit.required: %d new clients got %s and were counted, sessions went on, new clients are served again at once; not required: new clients were served, "+
		"%d lines were lost, counted, and named in the trail; \"audit verify\" passes over both trails", refused, cannotConnectNow, lost), nil
}

func (t *trial) openAudited(ctx context.Context, f auditFault, required string) (*scene, error) {
	keys := map[string]string{"audit.file": filepath.Join(f.dir, auditName), "audit.required": required, "log.refusal_rate": "0"}
	for k, v := range f.keys {
		keys[k] = v
	}
	return t.open(ctx, setting{keys: keys})
}

func (t *trial) breakRequired(ctx context.Context, f auditFault) (refused int, err error) {
	s, err := t.openAudited(ctx, f, "true")
	if err != nil {
		return 0, err
	}
	if err := f.begin(); err != nil {
		return 0, err
	}
	err = gate.Eventually(ctx, "new clients are refused", gate.Timeout, func() error {
		s.writeAudit(ctx, 1000)
		return s.expectUnavailable(ctx)
	})
	if err != nil {
		return 0, err
	}
	before, err := s.Metrics()
	if err != nil {
		return 0, err
	}
	const clients = 20
	for range clients {
		if err := s.expectUnavailable(ctx); err != nil {
			return 0, err
		}
	}
	var after gate.Metrics
	err = gate.Eventually(ctx, "the refused clients are counted", gate.Timeout, func() error {
		after, err = s.Metrics()
		if err == nil && (after[auditRefused] < before[auditRefused]+clients || after[auditFailing] != 1) {
			err = fmt.Errorf("%d clients were refused, and %s went from %v to %v; %s is %v", clients, auditRefused, before[auditRefused], after[auditRefused], auditFailing, after[auditFailing])
		}
		return err
	})
	if err := errors.Join(err, s.auditProblem(f.problems...), s.observers.awaitAnswers(ctx, 5*observerCount)); err != nil {
		return 0, err
	}
	if err := f.end(); err != nil {
		return 0, err
	}
	return int(after[auditRefused]), errors.Join(s.expectTrail(ctx, f), t.finish(ctx, s))
}

func (t *trial) breakOptional(ctx context.Context, f auditFault) (lost int, err error) {
	if err := os.Remove(filepath.Join(f.dir, auditName)); err != nil {
		return 0, err
	}
	s, err := t.openAudited(ctx, f, "false")
	if err != nil {
		return 0, err
	}
	if err := f.begin(); err != nil {
		return 0, err
	}
	for round := 0; lost == 0; round++ {
		if round == 40 {
			return 0, errors.New("no line is lost after 40,000 of them; is there still a bound?")
		}
		s.writeAudit(ctx, 1000)
		m, err := s.Metrics()
		if err != nil {
			return 0, err
		}
		lost = int(m[auditLost])
	}
	if err := errors.Join(s.auditProblem(f.problems...), s.checkService(ctx)); err != nil {
		return 0, err
	}
	if err := f.end(); err != nil {
		return 0, err
	}
	return lost, s.expectTrail(ctx, f)
}

// writeAudit makes the gate write about so many lines: each is a client that is refused.
func (s *scene) writeAudit(ctx context.Context, lines int) {
	const atOnce = 8
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for range lines / atOnce {
				c, err := s.connect(ctx)
				if err != nil {
					return
				}
				_, _ = io.WriteString(c.TCP, startupPacket()) // in clear
				_, _ = io.Copy(io.Discard, c.TCP)
				c.CloseTCP()
			}
		})
	}
	wg.Wait()
}

// auditProblem fails unless the status page has one of these problems.
func (s *scene) auditProblem(want ...string) error {
	page, err := s.Get("/status.json")
	if err != nil {
		return err
	}
	var status struct {
		Audit struct {
			Problem string `json:"problem"`
		} `json:"audit"`
	}
	if err := json.Unmarshal([]byte(page), &status); err != nil {
		return err
	}
	if !slices.ContainsFunc(want, func(one string) bool { return strings.Contains(status.Audit.Problem, one) }) {
		return fmt.Errorf("the status page has the problem %q, want one of %q", status.Audit.Problem, want)
	}
	return nil
}

// expectTrail waits until a gate whose fault is over serves and writes again, and fails unless its
// trail is whole and names as many lost lines as the gate has counted.
func (s *scene) expectTrail(ctx context.Context, f auditFault) error {
	file := filepath.Join(f.dir, auditName)
	err := gate.Eventually(ctx, "the trail is written again, and names what is lost", gate.Timeout, func() error {
		m, err := s.Metrics()
		if err != nil {
			return err
		}
		named, err := namedLost(file)
		if err == nil && (m[auditFailing] != 0 || named != int(m[auditLost])) {
			err = fmt.Errorf("%s is %v, %v lines are lost, and the trail names %d", auditFailing, m[auditFailing], m[auditLost], named)
		}
		return err
	})
	if err := errors.Join(err, s.expectServed(ctx), s.observers.awaitAnswers(ctx, observerCount)); err != nil {
		return err
	}
	_, err = harness.Output(ctx, s.lab.dir, nil, s.lab.plain, "audit", "verify", file)
	return err
}

// namedLost adds up the lines "lost" of a trail.
func namedLost(file string) (lines int, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		var l struct {
			Event string `json:"event"`
			Lines int    `json:"lines"`
		}
		if bytes.HasSuffix(line, []byte("\n")) && json.Unmarshal(line, &l) == nil && l.Event == "lost" {
			lines += l.Lines
		}
	}
	return lines, nil
}

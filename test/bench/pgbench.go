package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/test/gate"
)

// pgbench runs select-only by prepared statements: the honest real client. It is
// measured from a line of progress on, warmUp after all clients are in, so that the
// handshakes of 128 clients are no part of the transactions, nor what a new backend
// does at first: PgBouncer's clients get backends that have done it before.
type pgbench struct {
	clients int
	rate    int // transactions a second; 0 is as many as possible
}

// warmUp is how many lines of progress, one a second, come before the measurement.
// With 32 new backends a transaction costs PostgreSQL twice the CPU in the first.
const warmUp = 2

func (p pgbench) burst(ctx context.Context, l *lab, g *endpoint, d time.Duration) (sample, error) {
	// Its own end would leave the last line of progress to chance.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	prefix := l.file("pgbench")
	defer removeAll(prefix + ".*")
	seconds := int(math.Ceil(d.Seconds()))
	cmd, err := p.command(ctx, l, g, seconds, prefix)
	if err != nil {
		return sample{}, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return sample{}, err
	}
	if err := cmd.Start(); err != nil {
		return sample{}, err
	}
	timeout := time.AfterFunc(d+gate.Timeout, cancel)
	defer timeout.Stop()
	s, from, err := window(stderr, g, seconds)
	cancel()
	_ = cmd.Wait()
	if err != nil {
		return sample{}, fmt.Errorf("pgbench: %w", err)
	}
	took, err := readLogs(prefix+".*", from)
	s.latencies(took)
	return s, err
}

func (p pgbench) command(ctx context.Context, l *lab, g *endpoint, seconds int, prefix string) (*exec.Cmd, error) {
	path, err := pgtest.Program("pgbench")
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(g.address)
	args := []string{
		"-n", "-S", "-M", "prepared", "-c", strconv.Itoa(p.clients), "-j", strconv.Itoa(min(p.clients, runtime.NumCPU())),
		"-T", strconv.Itoa(seconds + 60), "-P", "1", "-l", "--log-prefix=" + prefix, "-h", host, "-p", port, "-U", benchUser, "postgres",
	}
	if p.rate > 0 {
		args = append([]string{"-R", strconv.Itoa(p.rate)}, args...)
	}
	mode := "PGSSLMODE=require"
	if g.contender.dialect == plainText {
		mode = "PGSSLMODE=disable"
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(l.libpq(), mode)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd, nil
}

// window measures from a line of progress, warmUp, until that many more have come.
func window(stderr io.Reader, g *endpoint, seconds int) (s sample, from time.Time, err error) {
	var m *meter
	var said []string
	var rate float64
	lines := -warmUp
	for sc := bufio.NewScanner(stderr); sc.Scan(); {
		tps, ok := progress(sc.Text())
		if !ok {
			said = append(said, sc.Text())
			continue
		}
		lines++
		if lines == 0 {
			if m, err = startMeter(g); err != nil {
				return s, from, err
			}
		}
		if lines <= 0 {
			continue
		}
		rate += tps / float64(seconds)
		if lines == seconds {
			s, err = m.stop()
			s.Units = rate * s.Seconds
			return s, m.at, err
		}
	}
	return s, from, errors.New("it has ended: " + strings.Join(said, "; "))
}

// progress reads "progress: 1.0 s, 12345.6 tps, lat 0.1 ms stddev 0.0, 0 failed".
func progress(line string) (tps float64, ok bool) {
	f := strings.Fields(line)
	if len(f) < 5 || f[0] != "progress:" || f[4] != "tps," {
		return 0, false
	}
	tps, err := strconv.ParseFloat(f[3], 64)
	return tps, err == nil
}

// readLogs reads the latencies of the transactions that ended after from.
func readLogs(pattern string, from time.Time) (took []time.Duration, err error) {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if d, at, ok := transaction(sc.Text()); ok && at.After(from) {
				took = append(took, d)
			}
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// transaction reads "client transaction µs script epoch µs", and with a rate the
// lag behind the schedule, which the latency includes and the gate has no part in.
func transaction(line string) (took time.Duration, at time.Time, ok bool) {
	f := strings.Fields(line)
	if len(f) != 6 && len(f) != 7 {
		return 0, at, false
	}
	n := make([]int64, len(f))
	for i, s := range f {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, at, false // cut off by our signal
		}
		n[i] = v
	}
	us := n[2]
	if len(n) == 7 {
		us -= n[6]
	}
	return time.Duration(us) * time.Microsecond, time.Unix(n[4], n[5]*1000), true
}

func removeAll(pattern string) {
	names, _ := filepath.Glob(pattern)
	for _, n := range names {
		_ = os.Remove(n)
	}
}

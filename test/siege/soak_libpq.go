//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"pgwicket/test/gate"
)

// libpq is a client that runs PostgreSQL's own programs, one process after the
// other.
type libpq struct {
	s      *soak
	number int
	rnd    *rand.Rand
}

func (s *soak) libpq(number int) *libpq {
	return &libpq{s, number, s.worker(number, brief, s.app).rnd}
}

func (l *libpq) work(do func(*libpq) error) {
	for l.s.running() {
		began := time.Now()
		if err := do(l); err != nil && !l.s.excusesProgram(err, began) {
			l.s.recordLoss(fmt.Sprintf("client %d (libpq)", l.number), "a program of libpq's", err.Error())
		}
		select {
		case <-l.s.over:
		case <-time.After(time.Duration(l.rnd.Int64N(int64(500 * time.Millisecond)))):
		}
	}
}

// What a program prints when a restart has ended its session or refused it.
var restarted = regexp.MustCompile(`terminating connection due to administrator command|server closed the connection|Connection refused|` +
	`Connection reset by peer|SSL SYSCALL error|SSL connection has been closed|gate is shutting down|Broken pipe|connection to server was lost|perhaps the backend died`)

// excusesProgram says whether a restart explains how a program has ended.
func (s *soak) excusesProgram(err error, began time.Time) bool {
	var wrong *mismatch
	if errors.As(err, &wrong) || !restarted.MatchString(err.Error()) {
		return false
	}
	now := time.Now()
	if _, ok := s.excuse(ending{err: io.ErrUnexpectedEOF, began: began, opened: began}, now); ok {
		return true
	}
	s.disturbances.mu.Lock()
	defer s.disturbances.mu.Unlock()
	return s.slowStartup(began, now)
}

// psql runs a script, and checks every byte of its output.
func (l *libpq) psql() error {
	ctx, cancel := context.WithTimeout(context.Background(), gate.Timeout)
	defer cancel()
	key, n := fmt.Sprintf("%x/%d/%x/", l.s.seed, l.number, l.rnd.Uint32()), size(l.rnd, large/64)
	file := l.s.lab.file(fmt.Sprintf("psql-%d", l.number))
	lines := size(l.rnd, 2000)
	var in strings.Builder
	for i := range lines {
		fmt.Fprintf(&in, "%d\t%s\n", i, md5hex(fmt.Sprint(key, i)))
	}
	if err := os.WriteFile(file, []byte(in.String()), 0o600); err != nil {
		return err
	}
	cmd, err := l.s.lab.libpq(ctx, l.s.newest(), "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-")
	if err != nil {
		return err
	}
	if l.rnd.IntN(2) == 0 {
		cmd.Env = append(cmd.Env, "PGSSLMODE=verify-full", "PGHOST=localhost", "PGHOSTADDR=127.0.0.1")
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`select string_agg(md5('%s' || g), '' order by g) from generate_series(1, %d) g;
begin;
create temp table t (k int4, t text);
\copy t from '%s'
\copy (select * from t order by k) to stdout
rollback;
`, key, n, file))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	got, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("psql: %w: %s", err, stderr.String())
	}
	l.s.connects.Add(1)
	l.s.queries.add("psql", 1)
	l.s.compared.Add(int64(len(got)))
	l.s.sent.Add(int64(in.Len()))
	return compare(got, []byte(string(md5s(key, n))+"\n"+in.String()))
}

// transactions are those of pgbench: as many as were answered, and at most as
// many as can have been done.
type transactions struct {
	mu             sync.Mutex
	answered, most int
}

func (t *transactions) add(answered, most int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answered += answered
	t.most += most
}

var processed = regexp.MustCompile(`number of transactions actually processed: (\d+)`)

// pgbench runs its own transaction, which keeps a ledger, too.
func (l *libpq) pgbench() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*gate.Timeout)
	defer cancel()
	const clients = 3
	args := []string{
		"-n", "-c", strconv.Itoa(clients), "-t", strconv.Itoa(20 + l.rnd.IntN(80)),
		"-M", []string{"simple", "extended", "prepared"}[l.rnd.IntN(3)],
	}
	if l.rnd.IntN(4) == 0 {
		args = append(args, "-C") // a connection for each transaction
	}
	cmd, err := l.s.lab.libpq(ctx, l.s.newest(), "pgbench", args...)
	if err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	n := 0
	if m := processed.FindSubmatch(out); m != nil {
		n, _ = strconv.Atoi(string(m[1]))
	}
	l.s.queries.add("pgbench transaction", n)
	if err != nil {
		l.s.pgbench.add(n, n+clients)
		return fmt.Errorf("pgbench: %w: %s", err, out)
	}
	l.s.connects.Add(clients)
	l.s.pgbench.add(n, n)
	return nil
}

//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"pgwicket/internal/pgtest"
	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

// soak is a run: clients that check every answer, four lanes of actions that disturb
// them by a plan, and the counts of all that.
type soak struct {
	lab    *lab
	seed   uint64
	length time.Duration
	// withUpgrades says that upgrades are in the plan.
	withUpgrades bool
	began        time.Time
	out          io.Writer // progress
	over         chan struct{}
	ends         sync.Once

	tally
	disturbances
	population

	mu sync.Mutex // of operation
	operation

	turn sync.Mutex // of actions that restart or configure the gate, and of those of incidents
	held []heldLock // with turn

	rotations int // of the audit trail, with turn
	upgrades  int // that have succeeded, with turn

	losses      *losses
	ledger      *ledger
	outcomes    map[string]bool // that a log may have
	baseline    level           // what a gate holds that has no clients
	interrupted bool
}

// population is the clients.
type population struct {
	groups  []*group // whose certificates are revoked at times
	app     *group   // whose never is, of floods and of libpq
	keyed   *group   // which needs a password, too
	workers []*worker
	pgbench transactions
	lost    atomic.Int64 // rows of clients that were cut off
}

// operation is what the operators know and count.
type operation struct {
	gate          *target // the one for new connections
	gates         []*target
	control       *pgx.Conn     // of the superuser, not through the gate
	revoked       []credentials // that the list names
	outside       []credentials // that the gate is known to refuse
	trail         string        // lines of the audit trail
	list          int64         // the number of the revocation list
	peakMemory    int64         // bytes that a gate had
	slowest       time.Duration // end of the sessions of a revoked certificate
	slowestLock   time.Duration // of the sessions that a lock or the end of a rule ends
	sessionsEnded counts        // by action
}

// How many clients of each kind there are.
const (
	groupCount  = 4
	eagerCount  = 16
	briefCount  = 6
	calmCount   = 40
	keyedCount  = 2
	psqlCount   = 2
	passwordFor = "a password of the soak's"
)

// runSoak is the command.
func runSoak(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	f.SetOutput(stderr)
	length := f.Duration("time", 10*time.Minute, "how long the load is held")
	seed := f.Uint64("seed", 0, "what decides the plan: what happens when, who asks for what (default: a random one, which is printed)")
	into := f.String("into", "", "replace the generated block of this Markdown `file` by the summary")
	keep := f.String("keep", "", "copy the logs of the gates to this `directory` if there are losses")
	withUpgrades := f.Bool("upgrades", true, "also upgrade the gate at random moments, to programs that fail and with processes killed")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected %q", f.Arg(0))
	}
	if *length < time.Second {
		return fmt.Errorf("--time %v: it must be a second at least", *length)
	}
	if *seed == 0 {
		*seed = uint64(rand.Uint32()) //nolint:gosec // it only has to be another one
	}
	s := &soak{
		seed: *seed, length: *length, withUpgrades: *withUpgrades, out: stderr, over: make(chan struct{}), losses: newLosses(), ledger: newLedger(),
		disturbances: disturbances{terminated: make(map[uint32]time.Time)},
	}
	if err := s.prepare(ctx); err != nil {
		s.remove()
		return err
	}
	defer s.remove()
	s.run(ctx)
	return errors.Join(s.report(stdout, *into), s.keepLogs(*keep))
}

// prepare starts everything but the clients.
func (s *soak) prepare(ctx context.Context) (err error) {
	if s.outcomes, err = knownOutcomes(); err != nil {
		return err
	}
	if s.lab, err = newLab(ctx, s.out); err != nil {
		return err
	}
	if err := s.openDatabase(ctx); err != nil {
		return err
	}
	for _, dir := range []string{"state", "audit", "admin"} {
		if err := os.Mkdir(s.lab.file(dir), 0o700); err != nil {
			return err
		}
	}
	s.app = &group{role: appUser, clientCert: &clientCert{credentials: s.lab.client}, sessions: make(map[*worker]*clientCert)}
	for i := range groupCount {
		g, err := s.newGroup(fmt.Sprintf("group%d", i))
		if err != nil {
			return err
		}
		s.groups = append(s.groups, g)
	}
	if s.keyed, err = s.newGroup("keyed"); err != nil {
		return err
	}
	if s.gate, err = s.lab.start(ctx, s.setting("")); err != nil {
		return err
	}
	s.gates, s.list = append(s.gates, s.gate), 1
	return s.measureBaseline(ctx)
}

// setting is that of every gate of the soak. They share the locks and the audit trail.
func (s *soak) setting(listen string) setting {
	return setting{listen: listen, keys: map[string]string{
		"acl.rules":              soakRules("", time.Time{}),
		"admin.socket":           s.lab.file(fmt.Sprintf("admin/%d.sock", len(s.gates))),
		"state_dir":              s.lab.file("state"),
		"audit.file":             s.auditFile(),
		"audit.required":         "true",
		"limits.startup_timeout": gate.Timeout.String(),
		"limits.drain_timeout":   drainTimeout.String(),
		"reuse_port":             "true",
	}}
}

func (s *soak) auditFile() string { return s.lab.file("audit/audit.log") }

// openDatabase makes roles and tables, and the superuser's own session.
func (s *soak) openDatabase(ctx context.Context) (err error) {
	var sql strings.Builder
	for i := range groupCount {
		fmt.Fprintf(&sql, "create role group%d login; ", i)
	}
	fmt.Fprintf(&sql, "create role keyed login password '%s'; ", strings.ReplaceAll(passwordFor, "'", "''"))
	sql.WriteString("create table ledger (client int4, number int4, body text); create index on ledger (client, number); grant all on ledger to public")
	if _, err := s.lab.db.SQL(sql.String()); err != nil {
		return err
	}
	if err := s.askForPasswords(); err != nil {
		return err
	}
	s.control, err = pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable application_name=pgtest",
		s.lab.db.SocketDir, s.lab.db.Port, pgtest.Superuser))
	return err
}

// askForPasswords has PostgreSQL ask one role for one.
func (s *soak) askForPasswords() error {
	file, err := s.lab.db.SQL("show hba_file")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte("local all keyed scram-sha-256\nlocal all all trust\n"), 0o600); err != nil {
		return err
	}
	_, err = s.lab.db.SQL("select pg_reload_conf()")
	return err
}

func (s *soak) newGroup(role string) (*group, error) {
	g := &group{role: role, sessions: make(map[*worker]*clientCert)}
	return g, s.issue(g)
}

// issue gives a group its next certificate, and wakes the clients that wait for it.
func (s *soak) issue(g *group) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	name := s.lab.file(fmt.Sprintf("%s-%d", g.role, g.issued))
	c := credentials{s.lab.ca.Client(g.role), name + ".crt", name + ".key"}
	if err := c.pair.WriteFiles(c.certFile, c.keyFile); err != nil {
		return err
	}
	old := g.clientCert
	g.issued++
	g.clientCert = &clientCert{credentials: c, replaced: make(chan struct{})}
	if old != nil {
		close(old.replaced)
	}
	return nil
}

// measureBaseline notes what a gate holds when its clients have left.
func (s *soak) measureBaseline(ctx context.Context) error {
	var conns []*worker
	for i := range 8 {
		w := s.worker(1<<20+i, brief, s.app)
		if !w.connect() || !w.does("warming up", (*worker).simple) {
			break
		}
		conns = append(conns, w)
	}
	for _, w := range conns {
		w.close()
	}
	if s.losses.count() > 0 {
		s.losses.write(s.out)
		return errors.New("not even the first client is served")
	}
	return gate.Eventually(ctx, "the first clients have left", gate.Timeout, func() (err error) {
		if s.baseline, err = s.gate.level(); err != nil {
			return err
		}
		m, err := s.gate.Metrics()
		if err == nil && m["pgwicket_sessions_open"]+m["pgwicket_connections_starting"]+float64(s.baseline.backends) > 0 {
			err = errors.New("they are still there")
		}
		return err
	})
}

func (s *soak) worker(number int, m manner, g *group) *worker {
	return &worker{s: s, number: number, manner: m, group: g, rnd: rand.New(rand.NewPCG(s.seed, uint64(number)))} //nolint:gosec // it must be repeatable
}

// running says whether the load goes on.
func (s *soak) running() bool {
	select {
	case <-s.over:
		return false
	default:
		return true
	}
}

func (s *soak) end() { s.ends.Do(func() { close(s.over) }) }

// run holds the load for its time and then audits the result.
func (s *soak) run(ctx context.Context) {
	s.began = time.Now()
	fmt.Fprintf(s.out, "soaking for %v, seed %d\n", s.length, s.seed)
	var wg sync.WaitGroup
	s.populate(&wg)
	wg.Go(func() { s.runLane(operators, operatorStream, s.operate) })
	wg.Go(func() { s.runLane(environment, environmentStream, s.disturb) })
	wg.Go(func() { s.runLane(incidents, incidentStream, s.intervene) })
	if s.withUpgrades {
		wg.Go(func() { s.runLane(upgrades, upgradeStream, s.replace) })
	}
	wg.Go(s.watch)
	select {
	case <-time.After(s.length):
	case <-s.losses.enough:
	case <-ctx.Done():
		s.interrupted = true
	}
	s.end()
	s.length = time.Since(s.began)
	s.logf("the load ends")
	wg.Wait()
	s.logf("the clients have left; counting")
	s.audit()
}

// populate starts the clients.
func (s *soak) populate(wg *sync.WaitGroup) {
	add := func(n int, m manner, of func(int) *group) {
		for i := range n {
			s.workers = append(s.workers, s.worker(len(s.workers), m, of(i)))
		}
	}
	mixed := func(i int) *group { return s.groups[i%len(s.groups)] }
	add(eagerCount, eager, mixed)
	add(briefCount, brief, mixed)
	add(calmCount, calm, mixed)
	add(keyedCount, eager, func(int) *group { return s.keyed })
	for _, w := range s.workers {
		wg.Go(func() {
			for s.running() { // after a loss, too: what else is lost?
				w.work()
			}
		})
	}
	for i := range psqlCount {
		l := s.libpq(len(s.workers) + i)
		wg.Go(func() { l.work((*libpq).psql) })
	}
	l := s.libpq(len(s.workers) + psqlCount)
	wg.Go(func() { l.work((*libpq).pgbench) })
}

// runLane does the steps of a lane.
func (s *soak) runLane(l lane, stream uint64, do func(step) error) {
	for _, step := range l.plan(s.seed, stream, s.length) {
		select {
		case <-s.over:
			return
		case <-time.After(time.Until(s.began.Add(step.at))):
		}
		if !s.running() {
			return
		}
		s.losses.did(fmt.Sprintf("%v, begun at %.1fs", step, time.Since(s.began).Seconds()))
		if err := do(step); err != nil {
			s.recordLoss("the plan", step.String(), err.Error())
			continue
		}
		s.faults.add(string(step.action), 1)
	}
}

// recordLoss reports a loss.
func (s *soak) recordLoss(who, asked, answered string) {
	n := loss{at: time.Since(s.began), who: who, asked: asked, answered: answered}
	if s.losses.add(n) {
		s.logf("LOSS: %s asked for %s: %s", who, shorten(asked), answered)
	}
}

func (s *soak) logf(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// newest is the gate that new clients connect to.
func (s *soak) newest() *target {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gate
}

// config is how a client of pgx connects.
func (s *soak) config(role string, p *clientCert, source string) (*pgx.ConnConfig, error) {
	g := s.newest()
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s database=postgres sslmode=require connect_timeout=%d",
		g.Host, g.Port, role, int(gate.Timeout.Seconds())))
	if err != nil {
		return nil, err
	}
	config.Password = passwordFor
	config.TLSConfig, config.Fallbacks = s.lab.tlsConfig(p.credentials), nil
	if source != "" {
		config.DialFunc = from(source).DialContext
	}
	return config, nil
}

// ask has the superuser ask PostgreSQL for one value.
func (s *soak) ask(sql string, args ...any) (value string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), gate.Timeout)
	defer cancel()
	err = s.control.QueryRow(ctx, sql, args...).Scan(&value)
	return value, err
}

func (s *soak) remove() {
	s.end()
	if s.control != nil {
		_ = s.control.Close(context.Background())
	}
	if s.lab != nil {
		s.lab.remove()
	}
}

// knownOutcomes reads the tables of the manual: every outcome is described there.
func knownOutcomes() (map[string]bool, error) {
	root, err := harness.Root()
	if err != nil {
		return nil, err
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool)
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			if name, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` |"); ok && strings.HasPrefix(line, "| `") {
				known[name] = true
			}
		}
	}
	return known, nil
}

//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"pgwicket/internal/tlstest"
	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// compare runs an attack on a gate, and then on the older one of --before, if there
// is one, whose figures are put beside. limits are those that the older gate knows.
func (t *trial) compare(ctx context.Context, limits map[string]string, attack attack) (string, error) {
	return t.compareWith(ctx, nil, limits, attack)
}

// attack attacks a gate and says with what result. The scene of an older gate has no
// observers.
type attack func(ctx context.Context, s *scene) (done string, err error)

func (t *trial) compareWith(ctx context.Context, env []string, limits map[string]string, attack attack) (string, error) {
	keys := map[string]string{"log.level": "info"}
	maps.Copy(keys, limits)
	set := setting{plain: true, keys: keys, env: env}
	s, err := t.open(ctx, set)
	if err != nil {
		return "", err
	}
	done, err := attack(ctx, s)
	if err != nil || t.older == "" {
		return done, err
	}
	if err := t.finish(ctx, s); err != nil {
		return done, err
	}
	set.older = true
	old, err := t.start(ctx, set)
	if err != nil {
		return done, err
	}
	defer old.Kill()
	bounded, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	before, err := attack(bounded, &scene{target: old})
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		before = strings.Trim(before+"; it fails: "+first, "; ")
	}
	return done + ". The gate of --before: " + before, ctx.Err()
}

// answered does what an honest client does, and says how long that took.
func (g *target) answered(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	c, err := g.dial(ctx)
	if err != nil {
		return time.Since(began), err
	}
	defer closeSession(c)
	return time.Since(began), asked(ctx, c, question{1, 8})
}

// honestTimeout is how long an honest client with a certificate may wait beside any
// attack.
const honestTimeout = 2 * time.Second

// honest has n clients served, one after another, and returns the longest wait.
func (g *target) honest(ctx context.Context, n int) (longest time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n)*10*time.Second)
	defer cancel()
	for range n {
		took, e := g.answered(ctx)
		longest = max(longest, took)
		err = errors.Join(err, e)
	}
	if err == nil && longest > honestTimeout {
		err = fmt.Errorf("an honest client waited %v, %v are allowed", longest.Round(time.Millisecond), honestTimeout)
	}
	return longest, err
}

// heldBound is what an unproved connection may hold beyond its sockets, once judged.
const heldBound = 96 << 10

// littleGarbage has the gate collect its garbage early, so that its resident memory is
// close to what it holds.
var littleGarbage = []string{"GOGC=10"}

// Clients send certificates, and then no startup packet (limits.startup_timeout).
func junkCertificates(ctx context.Context, t *trial) (string, error) {
	if _, err := raiseDescriptors(); err != nil {
		return "", err
	}
	n := pick(t, 400, 1000)
	kinds := append([]hostile{showing("250 KiB of unrelated certificates", junk(250<<10, nil))}, growing()...)
	return t.compareWith(ctx, littleGarbage, map[string]string{"limits.startup_timeout": "60s"}, func(ctx context.Context, s *scene) (string, error) {
		var figures []string
		var errs []error
		for _, kind := range kinds {
			if err := s.relaunch(ctx); err != nil { // or it would use the memory of the last kind again
				return "", err
			}
			each, err := s.memoryOf(ctx, kind, n)
			figures = append(figures, fmt.Sprintf("%s %.0f KiB", kind.name, float64(each)/1024))
			if err == nil && each > heldBound {
				err = fmt.Errorf("%s: %d bytes are held by each connection, %d are allowed", kind.name, each, heldBound)
			}
			errs = append(errs, err)
		}
		return fmt.Sprintf("%d connections of each kind at a time, resident memory of each: %s; honest clients were served meanwhile", n, strings.Join(figures, ", ")), errors.Join(errs...)
	})
}

// relaunch stops the gate and starts it again, with other observers.
func (s *scene) relaunch(ctx context.Context) error {
	watched := s.observers != nil
	if watched {
		s.observers.end()
	}
	if err := errors.Join(s.Stop(), s.Launch(ctx)); err != nil || !watched {
		return err
	}
	return s.populate(ctx)
}

// memoryOf returns what each of n connections of a kind has added to the resident
// memory of the gate.
func (s *scene) memoryOf(ctx context.Context, kind hostile, n int) (each int64, err error) {
	m, err := s.Metrics()
	if err != nil {
		return 0, err
	}
	before, err := s.Resident()
	if err != nil {
		return 0, err
	}
	conns, err := s.openMany(ctx, kind, 0, n)
	defer closeAll(conns)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", kind.name, err)
	}
	if err := s.judged(ctx, m, n); err != nil {
		return 0, fmt.Errorf("%s: %w", kind.name, err)
	}
	after, err := s.Resident()
	if err != nil {
		return 0, err
	}
	_, err = s.honest(ctx, 3)
	closeAll(conns)
	return max(after-before, 0) / int64(n), errors.Join(err, s.startupsEnd(ctx))
}

// startupsEnd waits until no connection is in its startup.
func (s *scene) startupsEnd(ctx context.Context) error {
	return s.comesToNone(ctx, "the startups end", "pgwicket_connections_starting")
}

// noSession waits until there is no session, an observer's neither.
func (s *scene) noSession(ctx context.Context) error {
	return s.comesToNone(ctx, "the sessions end", "pgwicket_sessions_open")
}

func (s *scene) comesToNone(ctx context.Context, what, metric string) error {
	return gate.Eventually(ctx, what, time.Minute, func() error {
		m, err := s.Metrics()
		if err == nil && m[metric] > 0 {
			err = fmt.Errorf("%v do not", m[metric])
		}
		return err
	})
}

// handshakeBuffers is what crypto/tls keeps for the life of a connection of a long
// handshake: the buffers of its longest message and record.
const handshakeBuffers = 64 << 10

// A good certificate with junk behind it opens sessions, which last.
func junkBehindCertificate(ctx context.Context, t *trial) (string, error) {
	const n = 150
	return t.compareWith(ctx, littleGarbage, nil, func(ctx context.Context, s *scene) (string, error) {
		plain, err := s.memoryOfSessions(ctx, n, 0)
		if err != nil {
			return "", err
		}
		most, err := s.memoryOfSessions(ctx, n, junkSize)
		if err == nil && most > plain+handshakeBuffers {
			err = fmt.Errorf("a session with junk behind its certificate holds %d bytes, one without %d", most, plain)
		}
		return fmt.Sprintf("%d sessions at a time: %.0f KiB of resident memory each, and %.0f KiB with %d KiB of unrelated certificates behind a good one",
			n, float64(plain)/1024, float64(most)/1024, junkSize>>10), err
	})
}

// memoryOfSessions opens n sessions whose certificate has junk of that size behind it.
func (s *scene) memoryOfSessions(ctx context.Context, n, size int) (each int64, err error) {
	config := s.lab.tlsConfig(s.lab.client)
	config.Certificates[0] = padded(config.Certificates[0], size)
	before, err := s.Resident()
	if err != nil {
		return 0, err
	}
	var conns []*wire.Conn
	defer func() { closeAll(conns) }()
	for i := range n {
		c, err := s.openFrom(ctx, i)
		if err != nil {
			return 0, err
		}
		conns = append(conns, c)
		if err := logIn(ctx, c, config); err != nil {
			return 0, err
		}
	}
	after, err := s.Resident()
	closeAll(conns)
	return max(after-before, 0) / int64(n), errors.Join(err, s.sessionsEnd(ctx))
}

// sessionsEnd waits until only the observers have sessions.
func (s *scene) sessionsEnd(ctx context.Context) error {
	want := 0
	if s.observers != nil {
		want = observerCount
	}
	return s.holds(ctx, want)
}

// Ten sources take all that limits.max_connections and max_connections_per_source
// give them, and prove nothing.
func halfOpenClients(ctx context.Context, t *trial) (string, error) {
	return t.compare(ctx, map[string]string{"limits.max_connections": "200", "limits.max_connections_per_source": "20", "limits.startup_timeout": "60s"}, func(ctx context.Context, s *scene) (string, error) {
		var conns []*wire.Conn
		defer func() { closeAll(conns) }()
		for source := range 10 {
			for range 20 {
				c, err := halfOpen.open(ctx, s.target, source)
				if err != nil {
					return "", err
				}
				conns = append(conns, c)
			}
		}
		longest, err := s.honest(ctx, 20)
		closeAll(conns)
		return fmt.Sprintf("10 sources with 20 connections each, max_connections 200: 20 honest clients were served within %v", longest.Round(time.Millisecond)),
			errors.Join(err, s.startupsEnd(ctx))
	})
}

// Clients that do not read their handshake, which has the names of 300 CAs and does
// not fit into their receive buffer.
func deafClients(ctx context.Context, t *trial) (string, error) {
	hello, err := recordHello(t.tlsConfig(credentials{}))
	if err != nil {
		return "", err
	}
	file, err := t.manyCAs()
	if err != nil {
		return "", err
	}
	keys := map[string]string{"limits.startup_timeout": "10s", "tls.ca_file": file, "tls.crl_missing": "allow"}
	return t.compare(ctx, keys, func(ctx context.Context, s *scene) (string, error) {
		conns, err := s.openMany(ctx, deafHello(hello), 0, 32)
		defer closeAll(conns)
		if err != nil {
			return "", err
		}
		longest, err := s.honest(ctx, 10)
		closeAll(conns)
		return fmt.Sprintf("32 connections that read none of a handshake with the names of 301 CAs: 10 honest clients were served within %v", longest.Round(time.Millisecond)),
			errors.Join(err, s.startupsEnd(ctx))
	})
}

// manyCAs makes a CA file whose names nearly fill a CertificateRequest.
func (l *lab) manyCAs() (file string, err error) {
	bundle := l.ca.CertPEM()
	for i := range 300 {
		bundle = append(bundle, tlstest.NewCA(fmt.Sprintf("CA %d %s", i, strings.Repeat("x", 170))).CertPEM()...)
	}
	file = l.file("many-cas.crt")
	return file, os.WriteFile(file, bundle, 0o600)
}

// cpuFactor is how many times a plain handshake's processor time a hostile connection
// may cost the gate.
const cpuFactor = 2

// What a hostile connection of each kind costs the gate in processor time, compared
// with a plain handshake with a good certificate, or with a plain login if it comes so far, and
// what live sessions notice of 100 a second.
func hostileCPU(ctx context.Context, t *trial) (string, error) {
	chain, err := exploding()
	if err != nil {
		return "", err
	}
	n := pick(t, 100, 400)
	return t.compare(ctx, nil, func(ctx context.Context, s *scene) (string, error) {
		if s.observers != nil {
			s.observers.end() // they cost processor time
		}
		handshakes, err := s.costs(ctx, t, showing("a plain handshake", t.client.pair.TLS()), slices.Concat(growing(), []hostile{chain, updating(), byteByByte()}), n)
		logins, e := s.costs(ctx, t, plainLogin, []hostile{
			updatingLater("15 KeyUpdates before each byte of a password", passwordUser, 'p', 1000),
			updatingLater("15 KeyUpdates before each byte of a query", appUser, 'Q', 1000),
		}, n/2)
		err = errors.Join(err, e)
		if s.observers != nil {
			err = errors.Join(err, s.populate(ctx))
		}
		return "processor time of the gate for each connection: " + handshakes + "; and " + logins, err
	})
}

// costs compares the processor time of the gate for hostile connections with that of a plain one.
func (s *scene) costs(ctx context.Context, t *trial, plain hostile, kinds []hostile, n int) (string, error) {
	base, err := s.cpuOf(ctx, plain, 2*n)
	if err != nil {
		return "", err
	}
	figures, worst, most := []string{fmt.Sprintf("%s %.2f ms", plain.name, base.Seconds()*1000)}, plain, 0.0
	var errs []error
	for _, kind := range kinds {
		bar := cmp.Or(kind.cpu, cpuFactor)
		each, err := s.cpuOf(ctx, kind, n)
		times := each.Seconds() / base.Seconds()
		// What else the machine does only adds: both are measured again, side by side.
		for attempt := 0; err == nil && times > bar && attempt < 2; attempt++ {
			if base, err = s.cpuOf(ctx, plain, n); err == nil {
				each, err = s.cpuOf(ctx, kind, n)
				times = min(times, each.Seconds()/base.Seconds())
			}
		}
		figures = append(figures, fmt.Sprintf("%s %.1f×", kind.name, times))
		if err == nil && times > bar {
			err = fmt.Errorf("%s costs %.1f times %s, %.1f are allowed", kind.name, times, plain.name, bar)
		}
		if errs = append(errs, err); times > most {
			most, worst = times, kind
		}
	}
	beside, err := s.besides(ctx, t, plain, worst)
	return strings.Join(figures, ", ") + "; " + beside, errors.Join(append(errs, err)...)
}

// cpuOf returns the processor time of the gate for one of n connections.
func (s *scene) cpuOf(ctx context.Context, kind hostile, n int) (time.Duration, error) {
	before, err := s.CPU()
	if err != nil {
		return 0, err
	}
	for i := 0; i < n; i += 8 {
		few, err := s.openMany(ctx, kind, i, min(8, n-i))
		for _, c := range few {
			if c != nil {
				_ = c.Close()
			}
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	if err := errors.Join(s.startupsEnd(ctx), s.noSession(ctx)); err != nil {
		return 0, fmt.Errorf("%s: %w", kind.name, err)
	}
	after, err := s.CPU()
	return (after - before) / time.Duration(n), err
}

// besides measures queries of live sessions alone, beside 100 plain connections a
// second, and beside as many connections of the worst kind.
func (s *scene) besides(ctx context.Context, t *trial, plain, worst hostile) (string, error) {
	length := pick(t, 2*time.Second, 10*time.Second)
	alone, err := s.latency(ctx, length)
	if err != nil {
		return "", err
	}
	var took [2]pace
	for i, kind := range []hostile{plain, worst} {
		stop := s.paced(ctx, kind, 100)
		took[i], err = s.latency(ctx, length)
		stop()
		if err := errors.Join(err, s.startupsEnd(ctx)); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("p95 of a query of 4 live sessions: %.2f ms alone, %.2f ms beside %s 100 times a second, %.2f ms beside 100 a second of the worst kind (%s)",
		milliseconds(alone.p99), milliseconds(took[0].p99), plain.name, milliseconds(took[1].p99), worst.name), nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// paced opens so many connections of a kind a second, and closes each, until stop is
// called.
func (g *target) paced(ctx context.Context, kind hostile, rate int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	workers := make(chan struct{}, 200)
	wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case workers <- struct{}{}:
			default:
				continue // the gate is behind by two seconds
			}
			wg.Go(func() {
				defer func() { <-workers }()
				c, _ := kind.open(ctx, g, i)
				closeAll([]*wire.Conn{c})
			})
		}
	})
	return func() { cancel(); wg.Wait() }
}

// latency has four sessions ask small questions one after another, and returns the
// median and, as p99, the 95th percentile.
func (g *target) latency(ctx context.Context, d time.Duration) (p pace, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var all []time.Duration
	for range 4 {
		c, e := g.dial(ctx)
		if e != nil {
			err = errors.Join(err, e)
			break
		}
		wg.Go(func() {
			defer closeSession(c)
			for end := time.Now().Add(d); time.Now().Before(end); {
				began := time.Now()
				e := asked(ctx, c, question{1, 8})
				mu.Lock()
				all, err = append(all, time.Since(began)), errors.Join(err, e)
				mu.Unlock()
				if e != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if len(all) == 0 || err != nil {
		return p, cmp.Or(err, errors.New("no query was answered"))
	}
	slices.Sort(all)
	return pace{median: all[len(all)/2], p99: all[len(all)*95/100], rate: float64(len(all)) / d.Seconds()}, nil
}

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

// fetchMemory is what deploy/systemd/pgwicket-fetch.service gives to pgwicket fetch.
const fetchMemory = 512 << 20

// The numbers of the revocation lists: one that was published before, the one that the gate has,
// and the one that the server should send.
const (
	replayedNumber = 3
	currentNumber  = 5
	revokingNumber = 7
)

// siegeLists is a gate with lists that pgwicket fetch keeps, and their server.
type siegeLists struct {
	*trial
	scene  *scene
	server *listServer
	config string // of the gate, which pgwicket fetch reads, too
	dir    string // of the copies
	enter  []string
	ends   time.Time // the next update of the current list
}

// The server of the lists does at once all that a hostile one can do, while a certificate is
// revoked, and then goes on until the lists end. No session ends, no copy changes, and the memory
// of pgwicket fetch is bounded. Then the server is honest again.
func listServerHostile(ctx context.Context, t *trial) (string, error) {
	l, err := t.openLists(ctx)
	if err != nil {
		return "", err
	}
	who, err := t.issue("revoked-by-list")
	if err != nil {
		return "", err
	}
	victim, err := l.scene.observeWith(ctx, 1, who)
	if err != nil {
		return "", err
	}
	defer victim.end()
	l.publish(revokingNumber, time.Now().Add(time.Hour), who)
	counted, peak, err := l.holdOut(ctx, victim)
	if err != nil {
		return "", err
	}
	if err := l.stale(ctx, victim); err != nil {
		return "", err
	}
	took, err := l.recover(ctx, who, victim)
	done := fmt.Sprintf("%d tricks at once, %s: no session ended and no list changed; pgwicket fetch had at most %d MiB of memory; "+
		"past the lists' next update new clients were refused, sessions went on; a list of the honest server ended the session of the revoked certificate, %v after its download began",
		len(l.server.tricks), counted, peak>>20, took.Round(10*time.Millisecond))
	if err != nil || t.quick {
		return done, err
	}
	peak, err = l.large(ctx)
	return fmt.Sprintf("%s; two lists of 58 MiB over copies as large: at most %d MiB", done, peak>>20), err
}

// openLists starts the server, has its list fetched, and opens a gate that watches the copies.
func (t *trial) openLists(ctx context.Context) (*siegeLists, error) {
	closed, err := pgtest.FreeAddress()
	if err != nil {
		return nil, err
	}
	l := &siegeLists{trial: t, dir: t.file("lists"), config: t.file("fetch.yaml")}
	other := tlstest.NewCA("pgwicket siege CA")
	if l.server, err = newListServer("127.0.0.1:0", closed, t.list(replayedNumber, time.Now().AddDate(0, 0, 30)), other.CRL(nil), t.ca); err != nil {
		return nil, err
	}
	t.after = append(t.after, func() { _ = l.server.server.Close() })
	if group, err := newMemoryGroup(fetchMemory); err == nil {
		l.enter = group.enter()
		t.after = append(t.after, group.remove)
	}
	var urls []string
	for _, trick := range l.server.tricks {
		urls = append(urls, l.server.url(trick))
	}
	keys := map[string]string{"tls.crl_file": `""`, "tls.crl_dir": l.dir, "tls.crl_urls": "[" + strings.Join(urls, ", ") + "]"}
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return nil, err
	}
	l.publish(currentNumber-1, time.Now().Add(time.Hour))
	if err := l.configure(l.config, keys); err != nil {
		return nil, err
	}
	if err := l.fetchOnce(ctx); err != nil {
		return nil, err
	}
	if l.scene, err = t.open(ctx, setting{keys: keys}); err != nil {
		return nil, err
	}
	l.ends = time.Now().Add(pick(t, 14*time.Second, 45*time.Second)).Truncate(time.Second)
	l.publish(currentNumber, l.ends)
	return l, l.fetchOnce(ctx)
}

// configure writes a configuration for pgwicket fetch.
func (l *siegeLists) configure(file string, more map[string]string) error {
	keys := map[string]string{"tls.cert_file": l.file("server.crt"), "tls.key_file": l.file("server.key"), "tls.ca_file": l.file("ca.crt"), "acl.allow": "[127.0.0.0/8]", "backend.host": l.db.SocketDir}
	maps.Copy(keys, more)
	return os.WriteFile(file, gate.Config("127.0.0.1:6432", keys), 0o600)
}

// list makes a list.
func (l *lab) list(number int64, next time.Time, revoked ...credentials) []byte {
	return l.ca.CRL(func(c *tlstest.CRL) {
		c.Number, c.NextUpdate = big.NewInt(number), next
		for _, r := range revoked {
			c.Revoke(r.pair.Leaf())
		}
	})
}

// publish makes the list that the server sends while it is honest.
func (l *siegeLists) publish(number int64, next time.Time, revoked ...credentials) {
	list := l.list(number, next, revoked...)
	l.server.list.Store(&list)
}

// fetchOnce runs pgwicket fetch as cron would.
func (l *siegeLists) fetchOnce(ctx context.Context) error {
	return harness.Complete(ctx, pgtest.Environ("NO_PROXY=*"), l.plain, "fetch", "--once", "--config", l.config)
}

// copies returns the content of all copies.
func (l *siegeLists) copies() (string, error) {
	files, err := filepath.Glob(filepath.Join(l.dir, "*"))
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&all, "%s\n%s\n", file, data)
	}
	return all.String(), nil
}

// holdOut lets the server be hostile to a pgwicket fetch that runs as a service, until it has
// counted each trick. It returns what it has counted, and the most memory that it had.
func (l *siegeLists) holdOut(ctx context.Context, victim *observers) (counted string, peak int64, err error) {
	before, err := l.copies()
	if err != nil {
		return "", 0, err
	}
	if n := strings.Count(before, "BEGIN X509 CRL"); n != len(l.server.tricks) {
		return "", 0, fmt.Errorf("%d copies of %d lists", n, len(l.server.tricks))
	}
	l.server.honest.Store(false)
	fetch, err := l.serve(l.config)
	if err != nil {
		return "", 0, err
	}
	defer fetch.Kill()
	err = gate.Eventually(ctx, "pgwicket fetch has counted every trick", gate.Timeout, func() error {
		if err := fetch.Unexpected(); err != nil {
			return gate.Never(err)
		}
		counted, err = l.counted(fetch)
		return err
	})
	if err != nil {
		return "", 0, fmt.Errorf("%w; the log ends with: %s", err, fetch.Tail())
	}
	if peak, err = fetch.PeakResident(); err != nil {
		return "", 0, err
	}
	after, err := l.copies()
	errs := []error{err, l.goOn(ctx, victim), fetch.Process.Stop(syscall.SIGTERM, 5*time.Second)}
	if after != before {
		errs = append(errs, errors.New("a copy has changed"))
	}
	if peak > fetchMemory {
		errs = append(errs, fmt.Errorf("pgwicket fetch had %d MiB of memory, %d are allowed", peak>>20, fetchMemory>>20))
	}
	return counted, peak, errors.Join(errs...)
}

// serve starts pgwicket fetch as a service, with its metrics where a gate has its admin address.
func (l *siegeLists) serve(config string) (*gate.Gate, error) {
	address, err := pgtest.FreeAddress()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.lab.dir, "fetch-")
	if err != nil {
		return nil, err
	}
	service, err := gate.Run(gate.Command{
		Argv: append(slices.Clone(l.enter), l.plain, "fetch", "--config", config, "--metrics", address),
		Dir:  dir, Env: pgtest.Environ("NO_PROXY=*"),
	})
	return &gate.Gate{Process: service, Admin: address}, err
}

// counted fails until each trick is counted for what it is. The slow one takes 30 s, for which the
// quick form does not wait.
func (l *siegeLists) counted(fetch *gate.Gate) (string, error) {
	m, err := fetch.Metrics()
	if err != nil {
		return "", err
	}
	byReason := make(map[string]int)
	for _, t := range l.server.tricks {
		url := l.server.url(t)
		series := fmt.Sprintf("pgwicket_fetch_failures_total{reason=%q,url=%q}", t.reason, url)
		switch {
		case m[series] > 0:
			byReason[t.reason]++
		case t.name == slowTrick && l.quick:
		default:
			return "", fmt.Errorf("%s is not counted as %s", t.name, t.reason)
		}
		if m[fmt.Sprintf("pgwicket_fetch_lists_total{url=%q}", url)] > 0 {
			return "", gate.Never(fmt.Errorf("%s was taken for a list", t.name))
		}
	}
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		all = append(all, fmt.Sprintf("%d %s", byReason[reason], reason))
	}
	return strings.Join(all, ", "), nil
}

// goOn fails unless new clients and all sessions are served, that of the revoked certificate too.
func (l *siegeLists) goOn(ctx context.Context, victim *observers) error {
	if time.Until(l.ends) < time.Second {
		return fmt.Errorf("the lists end in %v, before the server was tried", time.Until(l.ends))
	}
	_, err := l.scene.answered(ctx)
	return errors.Join(err, victim.awaitAnswers(ctx, 2), l.scene.observers.awaitAnswers(ctx, 2*observerCount))
}

// stale waits until the lists have ended: new clients are refused from then on, sessions go on.
func (l *siegeLists) stale(ctx context.Context, victim *observers) error {
	const refused = `pgwicket_connections_refused_total{outcome="crl_stale"}`
	err := gate.Eventually(ctx, "new clients are refused", gate.Timeout, func() error {
		_, err := l.scene.answered(ctx)
		switch {
		case err == nil && time.Since(l.ends) > 5*time.Second:
			return gate.Never(errors.New("a client was admitted after the lists had ended"))
		case err == nil:
			return errors.New("they are served")
		case time.Until(l.ends) > 0:
			return gate.Never(fmt.Errorf("before the lists ended: %w", err))
		case state(err) != "28000":
			return gate.Never(err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	m, err := l.scene.Metrics()
	if err == nil && m[refused] == 0 {
		err = errors.New("no refusal was counted as crl_stale")
	}
	return errors.Join(err, victim.awaitAnswers(ctx, 10), l.scene.observers.awaitAnswers(ctx, 10*observerCount))
}

// recover has the list of the honest server fetched, and then the old one replayed. It returns
// how long the session of the revoked certificate took to end.
func (l *siegeLists) recover(ctx context.Context, who credentials, victim *observers) (took time.Duration, err error) {
	l.server.honest.Store(true)
	began := time.Now()
	if err := l.fetchOnce(ctx); err != nil {
		return 0, err
	}
	err = gate.Eventually(ctx, "the session of the revoked certificate has ended", 10*time.Second, func() error {
		if victim.noticed() == nil {
			return errors.New("not yet")
		}
		return nil
	})
	took = time.Since(began)
	if err != nil {
		return took, err
	}
	if err := victim.noticed(); !strings.Contains(err.Error(), "revoked") {
		return took, fmt.Errorf("the session of the revoked certificate was not told why: %w", err)
	}
	l.publish(replayedNumber, time.Now().Add(time.Hour))
	if err := l.fetchOnce(ctx); err == nil {
		return took, errors.New("pgwicket fetch took the replay of an old list for a list")
	}
	if c, err := l.scene.dialWith(ctx, who); err == nil {
		closeSession(c)
		return took, errors.New("the revoked certificate was admitted after a replay")
	}
	_, err = l.scene.answered(ctx)
	return took, errors.Join(err, l.scene.observers.awaitAnswers(ctx, 2*observerCount))
}
